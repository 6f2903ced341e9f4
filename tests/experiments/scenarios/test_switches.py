"""Whole trainings under JAX's own switches, as users set them by the environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_WORDS = """
  sine --frames 60 --num-tasks 2 --batch 4 --support 2 --query 3 --validation-tasks 2
  --test-tasks 2 --validation-every 10 --out runs
"""
WORDS = _WORDS.split()
SWITCHES = [
    "JAX_DISABLE_JIT=1",
    *(
        pytest.param(words, marks=pytest.mark.slow)
        for words in (
            "JAX_DEBUG_NANS=1",
            "JAX_ENABLE_X64=1",
            "JAX_NUMPY_DTYPE_PROMOTION=strict",
            "JAX_NUMPY_RANK_PROMOTION=raise",
            "JAX_DEFAULT_PRNG_IMPL=rbg",
            "JAX_THREEFRY_PARTITIONABLE=0",
            "JAX_CHECK_TRACER_LEAKS=1",
            "JAX_LOG_COMPILES=1",
        )
    ),
]


@pytest.mark.parametrize("switch", SWITCHES)
def test_training_and_test_run(switch, tmp_path):
    name, _, value = switch.partition("=")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.train", *WORDS],
        env=os.environ | {name: value, "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (test,) = tmp_path.rglob("test.csv")
    assert len(test.read_text().splitlines()) == 3
