"""Tiny runs, made once for all tests of the command lines."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from experiments import cli, train
from experiments.training import trainer
from experiments.training.device import Session, compile_functions

_TINY = """
  --frames 700 --num-tasks 4 --horizon 5 --episodes 2 --batch 8 --warmup-frames 80
  --policy.layers 4 --policy.obs-embedding 4 --policy.latent-embedding 4
  --policy.minibatches 2 --policy.epochs 1 --belief.buffer-size 16 --belief.batch-size 3
  --belief.hidden-size 4 --belief.latent-size 2 --belief.decoder-layers 4
  --belief.elbo-terms 4 --belief.decode-terms 4 --belief.truncation None
  --validation-tasks 8 --validation-every 6 --test-tasks 12 --checkpoint-minutes 1000
"""
TINY = _TINY.split()


@pytest.fixture(scope="session", autouse=True)
def no_programs_of_the_user(tmp_path_factory):
    """Neither tests nor processes that they start touch the user's cache of programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compile_cache", SimpleNamespace(keep_programs=lambda where: None))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder of this test run, the same for all its processes."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def made_once(shared_folder):
    """``(name, make) -> folder``, which the first process that asks makes for all of them."""

    def get(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared_folder / name, shared_folder / f"{name}.done"
        with (shared_folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return get


@pytest.fixture(scope="session")
def compilation_cache_dir(shared_folder) -> Path:
    """A folder for compiled programs, the same for all processes of a test run."""
    folder = shared_folder / "xla"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def compilation(compilation_cache_dir):
    """A context in which equal programs compile once, and without costly optimisation."""
    settings = {
        "jax_compilation_cache_dir": str(compilation_cache_dir),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
    }

    @contextlib.contextmanager
    def context():
        old = {name: jax.config.values[name] for name in settings}
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it may have settled that there is none
        yield
        for name, value in old.items():
            jax.config.update(name, value)

    return context


@pytest.fixture(autouse=True)
def quick_compilation(compilation):
    with compilation():
        yield


@pytest.fixture(scope="session", autouse=True)
def compile_once():
    """A training of the same functions as one before is not compiled again."""
    known: dict[tuple, tuple] = {}

    def compiled(session: Session, keep: bool = False) -> tuple:
        built = session.built
        parts = (built.init, built.step, built.step_at, tuple(session.alphas))
        sizes = (len(session.runs), keep, built.experiment.validation_tasks)
        key = (
            *map(id, parts[:3]),
            parts[3:],
            sizes,
            built.watched,
            jax.config.values["jax_debug_nans"],
        )
        if key not in known:
            while len(known) > 3:
                known.pop(next(iter(known)))
            known[key] = built, compile_functions(session, keep)  # keeps the ids alive
        return known[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "compile_functions", compiled)
        yield


@pytest.fixture(scope="session")
def run_tiny(compilation):
    """``(out, *more arguments) -> exit code`` of a run of 17 steps."""

    def run(out: Path, *extra: str) -> int:
        with compilation():
            return cli.run(train.main, ["khazad-dum", *TINY, "--out", str(out), *extra])

    return run


@pytest.fixture(scope="session")
def single(run_tiny, made_once) -> Path:
    """The directory of a finished run of seed 1."""

    def make(out: Path) -> None:
        assert run_tiny(out, "--seeds", "1") == 0

    return made_once("single", make) / "khazad-dum" / "roml-varibad" / "seed-1"


@pytest.fixture(scope="session")
def several(run_tiny, made_once) -> Path:
    """The directory above two finished runs, seeds 1 and 5, that trained side by side."""

    def make(out: Path) -> None:
        with jax.debug_key_reuse(False):  # wrongly finds a reuse in scans over keys under vmap
            assert run_tiny(out, "--seeds", "1", "5", "--tensorboard") == 0

    return made_once("several", make) / "khazad-dum" / "roml-varibad"


@pytest.fixture
def tiny_experiment():
    _, command = cli.parse_train(["khazad-dum", *TINY])
    return command.experiment
