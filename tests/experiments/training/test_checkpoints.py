"""Checkpoints: all of the state, whole or not at all, known when damaged, and no pickle."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import time
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spec.errors import UserError
from experiments.training import checkpoints
from experiments.training.checkpoints import CHECKPOINT, Best, Saved


def state(seed):
    key = jax.random.key(seed)
    return {
        "key": key,
        "empty": jnp.zeros((0,)),
        "table": seed + jnp.arange(6.0).reshape(3, 2),
        "count": jnp.asarray(seed, jnp.int32),
        "flags": jnp.array([True, False]),
    }


def saved(seed):
    agent = {"weights": np.full((2,), seed, np.float32)}
    return Saved(state(seed), {"mean": Best(agent, np.int32(seed), np.float32(-seed / 3))})


SHAPE = jax.eval_shape(lambda: saved(0))


def assert_equal(restored, expected):
    assert jax.tree.structure(restored) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(y.dtype, jax.dtypes.prng_key):
            y = jax.random.key_data(y)
            x = jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        assert x.shape == y.shape and x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("seeds", [[3], [3, 8]])
def test_checkpoints_keep_everything(seeds, tmp_path):
    for seed in seeds:
        checkpoints.save(tmp_path / str(seed), 5, saved(seed), {"seed": seed})
    read = [checkpoints.restore(tmp_path / str(seed), SHAPE) for seed in seeds]
    for seed, one in zip(seeds, read, strict=True):
        assert_equal(one, saved(seed))
    together = checkpoints.to_device([one.state for one in read], SHAPE.state)
    states = [state(seed) for seed in seeds]
    expected = states[0] if len(seeds) == 1 else jax.tree.map(lambda *x: jnp.stack(x), *states)
    assert_equal(together, expected)


class Pair(NamedTuple):
    x: Any
    y: Any


def test_states_of_ones_own_learner_come_back_as_they_were(tmp_path):
    """Whatever containers, keys and types it is made of; integer keys stay integers."""
    leaves = iter(jnp.arange(20.0))
    odd = {
        "integers": {2: next(leaves), 10: next(leaves), 0: next(leaves)},
        "nested": (next(leaves), Pair({"a": next(leaves)}, [next(leaves), (next(leaves),)])),
        "nothing": (None, {}, (), []),
        "a/b": next(leaves), "a": {"b": next(leaves), "c.d": next(leaves)},
        "a.b": next(leaves), "a%2Fb": next(leaves), "..": next(leaves), "ü [1]": next(leaves),
        "many": [next(leaves) for _ in range(6)],
        "types": [jnp.ones(2, t) for t in ("bfloat16", "float16", "uint8", "int4", "complex64")],
    }  # fmt: skip
    checkpoints.save(tmp_path, 5, saved(3)._replace(state=odd), {})
    shape = jax.eval_shape(lambda: odd)
    read = checkpoints.restore(tmp_path, Saved(shape, {})).state
    assert_equal(read, odd)
    assert_equal(checkpoints.to_device([read], shape), odd)


@pytest.mark.parametrize(
    "name", ["exp[1]", "a*b?", "a\\b", "ü 猫", "%41", "-n", "x:y", "new\nline"]
)
def test_any_legal_name_of_a_folder(name, tmp_path):
    checkpoints.save(tmp_path / name, 5, saved(3), {})
    assert checkpoints.good_steps(tmp_path / name) == [5]
    assert_equal(checkpoints.restore(tmp_path / name, SHAPE), saved(3))


def test_what_is_not_ours_stays(tmp_path):
    folder = tmp_path / CHECKPOINT
    for name in ("9 copy", "best", "007", "1.bak", ".trash"):
        (folder / name).mkdir(parents=True)
    for name in (".DS_Store", "notes.txt", "8", ".3"):
        (folder / name).write_text("mine")
    theirs = {entry.name for entry in folder.iterdir()}
    (folder / ".4").mkdir()  # left of a save that was killed
    (folder / ".2.removed").mkdir()
    for step in (1, 2, 5):
        checkpoints.save(tmp_path, step, saved(step), {})
    assert checkpoints.steps(tmp_path) == [2, 5]
    assert {entry.name for entry in folder.iterdir()} == theirs | {"2", "5"}


def test_a_checkpoint_counts_once_it_has_been_read_back(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, saved(step), {})
    write = checkpoints._write

    def write_less(folder, data, description):
        write(folder, data | {"best": jax.tree.map(np.zeros_like, data["best"])}, description)

    monkeypatch.setattr(checkpoints, "_write", write_less)
    with pytest.raises(OSError, match="not read back as it was written"):
        checkpoints.save(tmp_path, 3, saved(3), {})
    monkeypatch.setattr(checkpoints, "_write", lambda folder, *_: folder.mkdir())
    with pytest.raises(OSError, match="cannot be read back"):
        checkpoints.save(tmp_path, 3, saved(3), {})
    assert checkpoints.good_steps(tmp_path) == [1, 2]  # none has gone for it


def test_nan_is_read_back(tmp_path):
    state = {"x": jnp.array([jnp.nan, -0.0, jnp.inf])}
    checkpoints.save(tmp_path, 1, saved(1)._replace(state=state), {})
    assert checkpoints.good_steps(tmp_path) == [1]


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (ValueError("RESOURCE_EXHAUSTED: writing /x: No space left on device"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (ValueError("Found empty item."), False),
    ],
    ids=str,
)
def test_only_a_full_disk_lacks_room(error, lacks):
    assert checkpoints.lacks_room(error) == lacks
    wrapped = RuntimeError("orbax says so")
    wrapped.__cause__ = error
    assert checkpoints.lacks_room(wrapped) == lacks


def test_parts_are_read_alone(tmp_path):
    checkpoints.save(tmp_path, 5, saved(3), {})
    assert_equal(checkpoints.restore(tmp_path, SHAPE._replace(best={})).state, saved(3).state)
    assert_equal(checkpoints.restore(tmp_path, SHAPE._replace(state=None)).best, saved(3).best)


def test_the_newest_two_stay(tmp_path):
    for step in (2, 9, 10):
        checkpoints.save(tmp_path, step, saved(step), {})
    assert checkpoints.steps(tmp_path) == [9, 10] and checkpoints.newest_step(tmp_path) == 10
    assert {entry.name for entry in (tmp_path / "checkpoint").iterdir()} == {"9", "10"}
    assert_equal(checkpoints.restore(tmp_path, SHAPE, 9), saved(9))


def test_a_run_that_went_on_from_the_one_before_forgets_the_other_future(tmp_path):
    for step in (5, 10):
        checkpoints.save(tmp_path, step, saved(step), {})
    checkpoints.save(tmp_path, 7, saved(7), {})
    assert checkpoints.steps(tmp_path) == [5, 7]


def truncate(folder):
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    os.truncate(file, file.stat().st_size - 1)


def flip(folder):
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def lose(folder):
    shutil.rmtree(folder / "state")


def garble(folder):
    (folder / checkpoints.MANIFEST).write_text("{")


@pytest.mark.parametrize("spoil", [truncate, flip, lose, garble])
def test_a_damaged_checkpoint_is_known_and_the_one_before_it_used(spoil, tmp_path, capsys):
    for step in (1, 2):
        checkpoints.save(tmp_path, step, saved(step), {})
    spoil(tmp_path / "checkpoint" / "2")
    assert checkpoints.good_steps(tmp_path) == [1]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning:") and f"{tmp_path}/checkpoint/2 is damaged" in line
    assert_equal(checkpoints.restore(tmp_path, SHAPE), saved(1))
    checkpoints.save(tmp_path, 2, saved(2), {})  # training comes by again
    assert checkpoints.good_steps(tmp_path) == [1, 2]
    assert_equal(checkpoints.restore(tmp_path, SHAPE), saved(2))


@pytest.mark.parametrize("where", ["_orbax", "seal", "rename"])
def test_a_write_that_fails_costs_nothing(where, tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, saved(1), {})
    checkpoints.save(tmp_path, 2, saved(2), {})

    def fail(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        target = (checkpoints.Path, "rename") if where == "rename" else (checkpoints, where)
        patch.setattr(*target, fail)
        with pytest.raises(OSError, match="No space"):
            checkpoints.save(tmp_path, 3, saved(3), {})
    assert checkpoints.good_steps(tmp_path) == [1, 2]
    assert_equal(checkpoints.restore(tmp_path, SHAPE), saved(2))
    checkpoints.save(tmp_path, 3, saved(3), {})
    assert {entry.name for entry in (tmp_path / "checkpoint").iterdir()} == {"2", "3"}


def test_a_disk_that_is_nearly_full_is_not_filled(tmp_path, monkeypatch):
    checkpoints.save(tmp_path, 1, saved(1), {})
    files = [file for file in (tmp_path / "checkpoint" / "1").rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    for free, fits in [(size - 1, False), (size, True)]:
        usage = types.SimpleNamespace(free=free)
        monkeypatch.setattr(checkpoints.shutil, "disk_usage", lambda path, usage=usage: usage)
        if fits:
            checkpoints.save(tmp_path, 2, saved(2), {})
        else:
            with pytest.raises(OSError, match="No space left"):
                checkpoints.save(tmp_path, 2, saved(2), {})
        assert checkpoints.good_steps(tmp_path) == ([1, 2] if fits else [1])
        assert len(list((tmp_path / "checkpoint").iterdir())) == 1 + fits


def test_a_checkpoint_of_other_sizes(tmp_path):
    checkpoints.save(tmp_path, 1, saved(0), {})
    other = SHAPE._replace(state=SHAPE.state | {"table": jax.ShapeDtypeStruct((4, 2), jnp.float32)})
    with pytest.raises(UserError, match="other sizes"):
        checkpoints.restore(tmp_path, other)
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints.restore(tmp_path / "elsewhere", SHAPE)


def test_nothing_is_pickled(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("pickle was called")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    checkpoints.save(tmp_path, 1, saved(1), {"seed": 1})
    assert_equal(checkpoints.restore(tmp_path, SHAPE), saved(1))
    starts = [file.read_bytes()[:2] for file in tmp_path.rglob("*") if file.is_file()]
    assert starts and not any(start[:1] == b"\x80" and start[1:] <= b"\x05" for start in starts)


def write_for_ever(path, first):
    """Saves step after step until somebody kills the process."""
    step = first
    while True:
        step += 1
        checkpoints.save(path, step, saved(step), {"step": step})


@pytest.mark.slow
def test_kill_at_20_random_moments_always_leaves_a_good_checkpoint(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.experiments.test_checkpoints", "orbax.checkpoint"])
    dice, newest, inside = random.Random(0), 0, 0
    checkpoints.save(tmp_path, newest, saved(newest), {})
    for _ in range(20):
        writer = context.Process(target=write_for_ever, args=(tmp_path, newest))
        writer.start()
        deadline = time.monotonic() + 60
        while checkpoints.steps(tmp_path)[-1] == newest and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.15))
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        names = {entry.name for entry in (tmp_path / "checkpoint").iterdir()}
        inside += any(not name.isdigit() for name in names)
        good = checkpoints.good_steps(tmp_path)
        assert good == checkpoints.steps(tmp_path) and good[-1] > newest
        newest = good[-1]
        assert_equal(checkpoints.restore(tmp_path, SHAPE), saved(newest))
    assert inside >= 5  # or the moments were not those that matter
