"""Two processes of four devices each that train as one; and one of them dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments import cli, train
from experiments.spec.errors import UserError
from experiments.training import checkpoints, hosts
from tests.experiments.scenarios.test_devices import FOLDER, PPO, SEEDS

SIZES = ("--num-tasks", "8", "--batch", "16", "--validation-every", "1000", "--test-tasks", "16")
FRAMES = 80  # of a training step


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(out, cache, *words, processes=2):
    """Processes of a training, that of four devices each."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "4" if processes > 1 else "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "experiments.train", *PPO, *SIZES, *SEEDS, *words]
    command += ["--out", str(out)]
    port, started = free_port(), []
    for i in range(processes):
        where = ["--devices", "all", "--coordinator", f"127.0.0.1:{port}"]
        where += ["--num-processes", str(processes), "--process-id", str(i)]
        started.append(
            subprocess.Popen(
                command + where * (processes > 1),
                env=environment,
                cwd=Path(__file__).parents[3],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    return started


def wait_for(condition, started, seconds):
    end = time.monotonic() + seconds
    while not condition():
        for process in started:
            assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.2)


def test_the_others_end_when_one_dies_and_the_run_goes_on(tmp_path, compilation_cache_dir):
    """On one device then: its numbers do not depend on processes or devices."""
    seeds = [tmp_path / FOLDER / f"seed-{seed}" for seed in (1, 2)]
    long = ("--frames", str(10**6), "--checkpoint-minutes", "0.01")
    first, second = start(tmp_path, compilation_cache_dir, *long)
    try:
        wait_for(lambda: all(map(checkpoints.steps, seeds)), (first, second), 400)
        second.send_signal(signal.SIGKILL)
        begun = time.monotonic()
        told = first.communicate(timeout=60)[0]
        assert time.monotonic() - begun < 60 and first.returncode != 0
        assert "seeds over 2, tasks over 4" in told
        assert "a process of this training is gone" in told and "go on from the last" in told
    finally:
        for process in (first, second):
            process.kill()
    step = max(set.intersection(*(set(checkpoints.good_steps(seed)) for seed in seeds)))
    words = ("--frames", str((step + 3) * FRAMES))
    (alone,) = start(tmp_path, compilation_cache_dir, *words, processes=1)
    told = alone.communicate(timeout=400)[0]
    assert alone.returncode == 0 and f"resume  from step {step:,}" in told, told
    for seed in seeds:
        rows = pd.read_csv(seed / "metrics.csv")
        assert list(rows["step"]) == list(range(step + 4))


@pytest.mark.slow
def test_processes_do_not_change_the_numbers(tmp_path, compilation_cache_dir):
    words = ("--frames", str(20 * FRAMES))
    for process in start(tmp_path / "two", compilation_cache_dir, *words):
        told = process.communicate(timeout=400)[0]
        assert process.returncode == 0, told
    (one,) = start(tmp_path / "one", compilation_cache_dir, *words, "--groups", "4", processes=1)
    assert one.wait(400) == 0
    for file in ("metrics.csv", "test.csv"):
        tables = [pd.read_csv(tmp_path / out / FOLDER / "seed-2" / file) for out in ("two", "one")]
        got, want = (table.drop(columns="seconds", errors="ignore") for table in tables)
        pd.testing.assert_frame_equal(got, want, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ what is asked for


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((None, 1, None), "--process-id and --num-processes go with --coordinator"),
        (("here:1", None, 2), "goes with --process-id and --num-processes"),
        (("here:1", 2, 2), "a number from 0 to --num-processes - 1; got 2 of 2"),
        (("auto", None, None), "--coordinator auto: "),
    ],
)
def test_where_and_which_go_together(asked, told):
    with pytest.raises(UserError, match=told):
        hosts.join(*asked)


def test_a_process_alone_decides_for_itself(tmp_path):
    assert hosts.is_first() and not hosts.are_several()
    assert hosts.place(str(tmp_path)) == str(tmp_path)
    assert hosts.first(lambda: 3) == 3
    assert hosts.gather(1, True, 0).tolist() == [[1, 1, 0]]


def test_a_wrong_number_is_one_line(capsys, tmp_path):
    words = [*PPO, "--process-id", "0", "--out", str(tmp_path)]
    assert cli.run(train.main, words) == 2
    assert capsys.readouterr().err.startswith("error: --process-id and --num-processes go with")
