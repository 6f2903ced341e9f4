"""What it takes to start: no JAX backend, and nothing that only a training needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
COMMANDS = ["train", "evaluate", "compare", "figures", "render"]
HEAVY = {"pandas", "scipy", "matplotlib", "orbax", "distrax", "mujoco", "tensorboardX"}
# Runs what comes on its standard input, and tells what has been loaded and started.
DRIVER = f"""
import contextlib, io, sys
source = sys.stdin.read()
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    exec(source, {{}})
from jax._src import xla_bridge
print(xla_bridge.backends_are_initialized(), *sorted({HEAVY!r} & sys.modules.keys()))
"""


def started(source: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=source, capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_driver_sees_what_is_started():
    assert started("import jax, pandas; jax.devices()") == ["True", "pandas"]


def test_imports_start_no_backend():
    assert started("import roml_jax, envs, experiments.presets, experiments.cli") == ["False"]


@pytest.mark.parametrize("module", ["roml_jax.learners", "roml_jax.methods", "roml_jax.samplers"])
def test_parts_of_the_library_start_no_backend(module):
    assert started(f"import {module}")[0] == "False"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_starts_no_backend(name):
    source = f"from experiments import cli, {name}\ncli.run({name}.main, ['--help'])"
    assert started(source) == ["False"]
