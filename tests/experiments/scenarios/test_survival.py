"""What must not spoil a run: another process, kill -9, a full disk, numbers that are not finite."""

from __future__ import annotations

import errno
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from experiments import cli, evaluate, style
from experiments.spec import paradigms
from experiments.spec.build import build
from experiments.training import checkpoints, loop, pictures, runs, trainer
from experiments.training.device import skip
from experiments.training.runs import MetricsLog
from roml_jax.train import TrainState
from tests.experiments.conftest import TINY
from tests.experiments.scenarios.test_run import STEPS, final_state, metrics, stop_at

WHERE = Path("khazad-dum", "roml-varibad", "seed-1")


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Runs here do without their figures, to which nothing of this can happen."""
    for name in ("curve", "sampler"):
        monkeypatch.setattr(pictures, name, lambda *args: None)
    without = paradigms.REINFORCEMENT._replace(make_picture=lambda *args: lambda *args: None)
    monkeypatch.setattr(paradigms, "REINFORCEMENT", without)
    monkeypatch.setattr(style, "save", lambda figure, path: None)


# ------------------------------------------------------------------ other processes

_SLOWLY = """
import os, signal, sys, threading, time
from experiments import cli, train
from experiments.training import loop
advance, delay, calls = loop.Loop._advance, float(sys.argv.pop(1)), []
def advance_one(self, n, bar):
    calls.append(n)
    if delay >= 0 and len(calls) == 3:  # two checkpoints have been written
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    time.sleep(0.05)
    advance(self, 1, bar)
loop.Loop._advance = advance_one
sys.exit(cli.run(train.main))
"""


@pytest.fixture(scope="module")
def in_a_process(compilation_cache_dir):
    """``(out, *arguments, kill_after) -> exit code``: the tiny run in a process of its own."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }

    def run(out: Path, *extra: str, kill_after: float = -1.0) -> int:
        words = [str(kill_after), "khazad-dum", *TINY, "--out", str(out), "--seeds", "1", *extra]
        command = [sys.executable, "-c", _SLOWLY, *words]
        folder = Path(__file__).parents[3]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True)
        if done.returncode not in (0, 137, -9, 143):
            raise AssertionError(done.stderr.decode())
        return done.returncode

    return run


def assert_same_run(path: Path, other: Path):
    pd.testing.assert_frame_equal(metrics(path), metrics(other), check_exact=True)
    assert (path / "test.csv").read_bytes() == (other / "test.csv").read_bytes()
    for x, y in zip(
        jax.tree.leaves(final_state(path)), jax.tree.leaves(final_state(other)), strict=True
    ):
        np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_a_new_process_goes_on_to_the_bit(single, in_a_process, tmp_path):
    assert in_a_process(tmp_path, "--checkpoint-minutes", "1e-9", kill_after=0.1) == -9
    assert 0 < checkpoints.newest_step(tmp_path / WHERE) < STEPS
    assert in_a_process(tmp_path) == 0
    assert_same_run(tmp_path / WHERE, single)


@pytest.mark.slow
def test_kill_at_20_random_moments_costs_nothing(single, in_a_process, tmp_path):
    dice, kills = random.Random(1), 0
    while kills < 20:
        # From two steps further on to the end; a run that comes through is begun again.
        moment = dice.uniform(0.0, 1.0)
        if in_a_process(tmp_path, "--checkpoint-minutes", "1e-9", kill_after=moment) == 0:
            assert_same_run(tmp_path / WHERE, single)
            shutil.rmtree(tmp_path / "khazad-dum")
        else:
            kills += 1
    assert in_a_process(tmp_path) == 0
    assert_same_run(tmp_path / WHERE, single)


# ------------------------------------------------------------------ resuming


def stop_after_saving(monkeypatch, number):
    """Kills a run of several seeds when some of them have written a checkpoint."""
    save, count = checkpoints.save, iter(range(number))

    def save_or_die(*args):
        if next(count, None) is None:
            raise KeyboardInterrupt
        save(*args)

    monkeypatch.setattr(checkpoints, "save", save_or_die)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 3])
def test_seeds_that_were_not_all_saved_go_on_together(
    number, several, run_tiny, tmp_path, monkeypatch, capsys
):
    often = ["--seeds", "1", "5", "--checkpoint-minutes", "1e-9"]
    with monkeypatch.context() as patch, jax.debug_key_reuse(False):
        stop_after_saving(patch, number)
        assert run_tiny(tmp_path, *often) == 130
    paths = [tmp_path / WHERE.with_name(f"seed-{seed}") for seed in (1, 5)]
    first, second = (checkpoints.newest_step(path) for path in paths)
    assert first != second
    with jax.debug_key_reuse(False):
        assert run_tiny(tmp_path, "--seeds", "1", "5") == 0
    assert ("resume" in capsys.readouterr().out) == (number == 3)
    for path in paths:
        assert_same_run(path, several / path.name)


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_only_the_way_from_the_one_before(
    single, run_tiny, tmp_path, capsys, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_after_saving(patch, 3)
        assert run_tiny(tmp_path, "--seeds", "1", "--checkpoint-minutes", "1e-9") == 130
    one, two = checkpoints.steps(tmp_path / WHERE)
    file = next((tmp_path / WHERE / "checkpoint" / str(two) / "state").rglob("*"))
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    capsys.readouterr()
    assert run_tiny(tmp_path, "--seeds", "1") == 0
    told = capsys.readouterr()
    assert f"checkpoint/{two} is damaged" in told.err
    assert f"resume  from step {one} of {STEPS}" in told.out
    assert_same_run(tmp_path / WHERE, single)


def test_when_all_checkpoints_are_damaged(single, run_tiny, tmp_path, capsys):
    path = tmp_path / WHERE
    shutil.copytree(single, path)
    (path / "test.csv").unlink()
    for manifest in path.rglob(checkpoints.MANIFEST):
        manifest.unlink()
    assert run_tiny(tmp_path, "--seeds", "1") == 2
    assert "damaged: --overwrite starts anew" in capsys.readouterr().err.splitlines()[-1]


# ------------------------------------------------------------------ the best agents


def test_the_best_agents_are_kept(single, tmp_path, capsys):
    table = metrics(single).dropna(subset=["validation_mean"])
    saved = final_state(single)
    for name, best in saved.best.items():
        values = table[f"validation_{name}"]
        row = table.loc[values.index[values == values.max()][-1]]  # of equals, the latest
        assert best.step == row["step"] and best.value == np.float32(row[f"validation_{name}"])
        file = tmp_path / f"{name}.csv"
        words = [str(single), "--checkpoint", f"best-{name}", "--csv", str(file)]
        assert cli.run(evaluate.main, words) == 0
        assert f"step {int(best.step)} of {STEPS}" in capsys.readouterr().out
        same = np.allclose(pd.read_csv(file)["return"], pd.read_csv(single / "test.csv")["return"])
        assert same == (best.step == STEPS)


# ------------------------------------------------------------------ disks


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    single, run_tiny, tmp_path, monkeypatch, capsys
):
    save, attempts = checkpoints.save, []

    def full(*args):
        attempts.append(args[1])
        if len(attempts) <= 5 or attempts.count(STEPS) in (1, 2):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*args)

    monkeypatch.setattr(checkpoints, "save", full)
    monkeypatch.setattr(loop, "_RETRY", 0.01)
    assert run_tiny(tmp_path, "--seeds", "1", "--checkpoint-minutes", "1e-9") == 0
    told = capsys.readouterr().err
    assert f"the checkpoint of step {attempts[0]} could not be written" in told
    assert attempts.count(STEPS) >= 3 and "trying again" in told and "No space left" in told
    assert_same_run(tmp_path / WHERE, single)


def test_other_errors_end_with_a_line_and_all_that_can_be_kept(
    several, run_tiny, tmp_path, monkeypatch, capsys
):
    """A folder that may not be written to, for one of two seeds: nobody is asked to make room."""
    save = checkpoints.save

    def refused(path, step, *rest):
        if path.name == "seed-5":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        save(path, step, *rest)

    monkeypatch.setattr(checkpoints, "save", refused)
    monkeypatch.setattr(loop, "_RETRY", 1e9)
    with jax.debug_key_reuse(False):  # see the fixture ``several``
        assert run_tiny(tmp_path, "--seeds", "1", "5") == 1
    told = capsys.readouterr().err
    assert "trying again" not in told and "Permission denied" in told.splitlines()[-1]
    assert f"error: the checkpoint of step {STEPS} could not be written" in told.splitlines()[-1]
    where = tmp_path / "khazad-dum" / "roml-varibad"
    assert checkpoints.good_steps(where / "seed-1") == [STEPS]
    for seed in ("seed-1", "seed-5"):
        assert (where / seed / "test.csv").read_bytes() == (
            several / seed / "test.csv"
        ).read_bytes()


def test_a_stop_whose_checkpoint_cannot_be_written_says_where_it_is(
    run_tiny, tmp_path, monkeypatch, capsys
):
    save = checkpoints.save

    def refused(path, step, *rest):
        if step > 8:
            raise OSError(errno.EROFS, "Read-only file system")
        save(path, step, *rest)

    monkeypatch.setattr(checkpoints, "save", refused)
    with monkeypatch.context() as patch:
        stop_at(7, signal.SIGTERM, patch)
        assert run_tiny(tmp_path, "--seeds", "1") == 143
    at = checkpoints.newest_step(tmp_path / WHERE)
    with monkeypatch.context() as patch:
        stop_at(10, signal.SIGTERM, patch)
        assert run_tiny(tmp_path, "--seeds", "1") == 143
    told = capsys.readouterr()
    assert "Read-only file system" in told.err and f"stopped at step {at}; go on" in told.out


def test_rows_wait_for_room(tmp_path, capsys):
    log = MetricsLog(tmp_path, ["step", "frames", "seconds", "x"], None)
    file, broken = log._file, [True]

    class Full(io.RawIOBase):
        name = "metrics.csv"

        def truncate(self, size=None):
            return file.truncate(size)

        def write(self, data):
            if broken[0]:
                file.write(bytes(data[:3]))  # what fitted
                raise OSError(errno.ENOSPC, "No space left on device")
            return file.write(data)

        def close(self):
            file.close()

    log._file = Full()
    for step in range(3):
        log.write({"step": step, "frames": 10 * step, "seconds": 0.5, "x": step / 3})
    assert capsys.readouterr().err == "warning: metrics.csv has to wait: No space left on device\n"
    broken[0] = False
    log.write({"step": 3, "frames": 30, "seconds": 0.6})
    log.close()
    table = pd.read_csv(tmp_path / runs.METRICS)
    assert list(table["step"]) == [0, 1, 2, 3] and table["x"].isna().tolist() == [False] * 3 + [
        True
    ]


def test_a_row_that_was_cut_off_is_dropped(tmp_path):
    columns = ["step", "frames", "seconds", "x"]
    (tmp_path / runs.METRICS).write_text("step,frames,seconds\n1,10,0.5\n2,20,0.75\n1,1")
    log = MetricsLog(tmp_path, columns, 5)
    log.write({"step": 3, "x": 1.5})
    log.close()
    assert log.seconds == 0.75
    text = (tmp_path / runs.METRICS).read_text()
    assert text == "step,frames,seconds,x\n1,10,0.5,\n2,20,0.75,\n3,,,1.5\n"


def test_a_small_disk_and_one_that_cannot_be_written_are_said_at_start(
    run_tiny, tmp_path, monkeypatch, capsys
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trainer, "compile_functions", lambda *args: pytest.fail("compiled"))
    assert run_tiny(tmp_path / "file", "--seeds", "1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot use") and "Not a directory" in line
    monkeypatch.setattr(trainer.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=999))
    trainer.check_room(tmp_path, 2**30)
    assert "GiB are free under" in capsys.readouterr().err
    trainer.check_room(tmp_path, 1)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------ not finite


BAD = 7  # the step that goes wrong


def spoil(built, what):
    """The experiment with a loss, or the parameters, not finite after one of its steps."""

    def step(state):
        new, numbers = built.step(state)
        bad = jnp.where(new.step == BAD, jnp.nan, 0.0)
        if what == "loss":
            numbers["value_loss"] = numbers["value_loss"] + bad
            rain = jnp.full_like(numbers["broken_task"], 0.25)
            numbers["broken_task"] = jnp.where(jnp.isnan(bad), rain, numbers["broken_task"])
        learner = jax.tree.map(
            lambda x: x + bad.astype(x.dtype) if x.dtype == jnp.float32 else x, new.learner
        )
        return new._replace(learner=learner), numbers

    return built._replace(step=step)


@pytest.mark.parametrize("what", ["loss", pytest.param("parameters", marks=pytest.mark.slow)])
def test_numbers_that_are_not_finite_stop_a_run(what, run_tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "build", lambda *asked: spoil(build(*asked), what))
    assert run_tiny(tmp_path, "--seeds", "1", "--checkpoint-minutes", "1e-9") == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert f"seed 1, step {BAD}" in line and "--on-nan continue" in line
    told = "value_loss is nan (a task of this kind: rain 0.25)"
    assert told in line if what == "loss" else "parameter" in line
    path = tmp_path / WHERE
    assert f"last good checkpoint is of step {checkpoints.newest_step(path)}" in line
    assert checkpoints.newest_step(path) < BAD and metrics(path)["step"].iloc[-1] == BAD
    assert np.isfinite(np.concatenate([np.ravel(x) for x in floats(final_state(path).state)])).all()


def test_a_validation_that_is_not_finite_stops_a_run(run_tiny, tmp_path, monkeypatch, capsys):
    validate, count = loop.Loop._validate, iter(range(2))

    def spoilt(self, bar):
        checks = validate(self, bar)
        return checks if next(count, None) is not None else [{"validation_mean": np.nan}]

    monkeypatch.setattr(loop.Loop, "_validate", spoilt)
    assert run_tiny(tmp_path, "--seeds", "1") == 1
    assert "seed 1, step 12: validation_mean is nan" in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_that_is_not_finite_can_be_left_out(run_tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(trainer, "build", lambda *asked: spoil(build(*asked), "loss"))
    assert run_tiny(tmp_path, "--seeds", "1", "--on-nan", "continue") == 0
    assert "1 updates were skipped" in capsys.readouterr().out
    path = tmp_path / WHERE
    assert list(np.flatnonzero(metrics(path)["skipped"] == 1)) == [BAD]

    built = build(runs.read_config(path).experiment)
    state, step = built.init(jax.random.key(1)), jax.jit(built.step)
    for i in range(STEPS):
        new, _ = step(state)
        state = new if i + 1 != BAD else state._replace(key=new.key, step=new.step)
    final = checkpoints.to_device([final_state(path).state], built.state_shape)
    for x, y in zip(floats(final), floats(state), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)


def test_only_the_bad_seeds_are_skipped():
    first, second = (jax.random.split(jax.random.key(seed)) for seed in (0, 1))
    old = TrainState(jnp.zeros((2, 3)), jnp.zeros(2), first, jnp.zeros(2))
    new = TrainState(jnp.ones((2, 3)), jnp.ones(2), second, jnp.ones(2))
    state = jax.vmap(skip)(old, new, jnp.array([True, False]))
    np.testing.assert_array_equal(state.learner, [[0] * 3, [1] * 3])
    np.testing.assert_array_equal(state.sampler, [0, 1])
    np.testing.assert_array_equal(state.step, [1, 1])
    assert (state.key == new.key).all()


def floats(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree) if x.dtype == np.float32]


def test_what_is_watched(tiny_experiment):
    watched = build(tiny_experiment).watched
    assert {"return_mean", "policy_loss", "value_loss", "elbo_loss"} <= set(watched)
    assert not {"q_alpha", "reference_cvar", "phi"} & set(watched)  # NaN while unknown
