"""A training over several devices: that of one, gone on with on others, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest

from experiments import cli, train
from experiments.spec.errors import UserError
from experiments.training import placement, runs
from tests.experiments.conftest import TINY

SEEDS = ("--seeds", "1", "2")
FOLDER = Path("khazad-dum/roml-ppo")
_OTHERS = ("--warmup-frames", "--policy.latent-embedding", "--belief.")  # settings of VariBAD
_PAIRS = zip(TINY[::2], TINY[1::2], strict=True)
PPO = ["khazad-dum", "--learner", "ppo"]
PPO += [word for pair in _PAIRS if not pair[0].startswith(_OTHERS) for word in pair]


def on_devices(n, out, compilation_cache, *words):
    """A tiny training in a process that has n devices; returns what it says."""
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(n),
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    words = [*PPO, *SEEDS, *words, "--out", str(out)]
    told = subprocess.run(
        [sys.executable, "-m", "experiments.train", *words],
        env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def numbers(out, seed, file="metrics.csv"):
    table = pd.read_csv(out / FOLDER / f"seed-{seed}" / file)
    return table.drop(columns="seconds", errors="ignore")


@pytest.fixture(scope="module")
def spread(tmp_path_factory, compilation_cache_dir):
    """Two seeds of four tasks on four devices: half of the way, on one device to the end."""
    out = tmp_path_factory.mktemp("spread")
    told = on_devices(4, out, compilation_cache_dir, "--devices", "all", "--frames", "400")
    return out, told, on_devices(1, out, compilation_cache_dir)


@pytest.mark.slow
def test_the_plan_says_what_lies_where(spread):
    out, told, _ = spread
    assert "4 x " in told and "seeds over 2, tasks over 2" in told and "MiB of training" in told
    assert "groups 1 → 2" in told
    config = json.loads((out / FOLDER / "seed-1" / "config.json").read_text())
    assert config["experiment"]["learner"]["groups"] == 2


@pytest.mark.slow
def test_devices_do_not_change_the_numbers(spread, compilation_cache_dir, tmp_path):
    """Nor does going on with fewer of them."""
    out, _, resumed = spread
    assert "resume  from step 10" in resumed
    on_devices(1, tmp_path, compilation_cache_dir, "--groups", "2")
    for seed in (1, 2):
        for file in ("metrics.csv", "test.csv"):
            want, got = numbers(tmp_path, seed, file), numbers(out, seed, file)
            if file == "metrics.csv":  # a validation more, where the first half ended
                checks = [name for name in want if name.startswith("validation")]
                want, got = want.drop(columns=checks), got.drop(columns=checks)
            pd.testing.assert_frame_equal(got, want, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------ meshes


class Devices:
    """A machine with eight."""

    def __init__(self, n=8):
        self.devices = [type("Device", (), {"platform": "cpu", "id": i})() for i in range(n)]

    def __call__(self):
        return self.devices


@pytest.mark.parametrize(
    ("devices", "words", "runs", "tasks", "shape"),
    [
        (1, None, 3, 5, None),
        (4, None, 4, 5, (4, 1)),
        (8, None, 2, 32, (2, 4)),
        ("all", None, 1, 32, (1, 8)),
        (8, None, 6, 32, (2, 4)),
        (1, "tasks=4", 1, 32, (1, 4)),
        (1, "seeds=2", 2, 5, (2, 1)),
        (8, "tasks=4,seeds=2", 2, 4, (2, 4)),
        ("all", "tasks=2", 1, 4, (1, 2)),
        (1, "tasks=1", 1, 5, None),
    ],
)
def test_seeds_come_first(monkeypatch, devices, words, runs, tasks, shape):
    monkeypatch.setattr(jax, "devices", Devices())
    monkeypatch.setattr(placement, "Mesh", lambda devices, *_, **__: devices)
    mesh = placement.make_mesh(devices, words, runs, tasks)
    assert mesh is None if shape is None else mesh.shape == shape


@pytest.mark.parametrize(
    ("devices", "words", "runs", "tasks", "told"),
    [
        (16, None, 1, 32, "16 devices are asked for, and JAX finds 8.*JAX_NUM_CPU_DEVICES=16"),
        (0, None, 1, 32, "--devices is a number from 1 on, or all; got 0"),
        (8, None, 1, 12, "12 tasks cannot lie over 8 devices .* a multiple of 8 for --num-tasks"),
        (1, "seeds=2", 3, 4, "3 seeds cannot lie over 2 devices .* a multiple of 2 --seeds"),
        (1, "rows=2", 3, 4, "--mesh is seeds=2,tasks=4 for instance, or one of them; got rows=2"),
        (4, "seeds=2,tasks=4", 2, 4, "--mesh seeds=2,tasks=4 is of 8 devices, and --devices 4"),
    ],
)
def test_what_cannot_lie_is_refused(monkeypatch, devices, words, runs, tasks, told):
    monkeypatch.setattr(jax, "devices", Devices())
    monkeypatch.setattr(placement, "device_name", lambda: "a CPU")
    with pytest.raises(UserError, match=told):
        placement.make_mesh(devices, words, runs, tasks)


def test_more_devices_than_there_are_is_one_line(capsys, tmp_path):
    words = ["khazad-dum", *TINY, "--devices", "64", "--out", str(tmp_path)]
    assert cli.run(train.main, words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "64 devices are asked for" in told
    assert not list(tmp_path.iterdir())


def test_groups_of_a_run_are_gone_on_with(tmp_path):
    """And refused where they do not fit the devices that are asked for."""
    env, command = cli.parse_train(["khazad-dum", *TINY])
    mesh = type("Mesh", (), {"shape": {"seeds": 1, "tasks": 2}})()
    grouped = placement.in_groups(command.experiment, mesh, None)
    assert grouped.learner.groups == 2
    assert placement.in_groups(command.experiment, None, 4).learner.groups == 4
    assert placement.in_groups(command.experiment, mesh, 4).learner.groups == 4
    assert placement.in_groups(command.experiment, mesh, 3).learner.groups == 2
    folder = tmp_path / "seed-0"
    folder.mkdir()
    runs.write_config(folder, runs.Run(env, grouped, 0), [0])
    assert runs.groups_of(folder) == 2 and runs.groups_of(tmp_path / "seed-1") is None
    assert runs.check_same(folder, runs.Run(env, command.experiment, 0))
    other = placement.in_groups(command.experiment, None, 4)
    with pytest.raises(UserError, match="groups 2 there, 4 here"):
        runs.check_same(folder, runs.Run(env, other, 0))
