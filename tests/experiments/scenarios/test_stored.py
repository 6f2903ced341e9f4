"""Runs that version 0.1 has left behind are read, tested and gone on with.

``tests/experiments/stored`` holds them, as its code wrote them, each with its last two
checkpoints: Khazad-Dum under RoML and CVaR-ML, and sine regression under RoML.
"""

from __future__ import annotations

import shlex
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import cli, evaluate, train
from experiments.study import results
from experiments.training import checkpoints, runs
from experiments.training.agents import task_columns

STORED = sorted((Path(__file__).parents[1] / "stored").glob("*.tar.gz"))


NAMES = [file.name.split(".")[0] for file in STORED]
SLOW = [pytest.param(f, marks=[pytest.mark.slow] * ("ppo" not in f.name)) for f in STORED]


def unpack(file: Path, folder: Path) -> Path:
    """The directory of a run."""
    with tarfile.open(file) as archive:
        archive.extractall(folder, filter="data")
    (config,) = folder.rglob(runs.CONFIG)
    return config.parent


def assert_same(table: pd.DataFrame, stored: pd.DataFrame) -> None:
    """Equal but for rounding, which may turn a choice or two of a whole test."""
    assert len(table) == len(stored) > 0
    # Older tests number the components of tasks.
    names = dict(zip(task_columns(stored), task_columns(table), strict=True))
    stored = stored.rename(columns=names)
    for name in stored:
        if stored[name].dtype.kind in "fi" and name != "seconds":
            same = np.isclose(table[name], stored[name], rtol=1e-3, atol=1e-4, equal_nan=True)
            assert same.mean() > 0.9, name


@pytest.mark.parametrize("file", STORED, ids=NAMES)
def test_it_is_read_and_tested(file, tmp_path):
    run = unpack(file, tmp_path)
    out = tmp_path / "again.csv"
    assert cli.run(evaluate.main, [str(run), "--csv", str(out)]) == 0
    assert_same(pd.read_csv(out), pd.read_csv(run / runs.TEST))


@pytest.mark.parametrize("file", SLOW, ids=NAMES)
def test_it_is_gone_on_with(file, tmp_path, capsys):
    run = unpack(file, tmp_path)
    root, before = (
        run.parents[2],
        {name: pd.read_csv(run / name) for name in ("metrics.csv", "test.csv")},
    )
    first, last = checkpoints.steps(run)
    shutil.rmtree(run / runs.CHECKPOINT / str(last))
    (run / runs.TEST).unlink()
    member = runs.read_config(run)
    words = shlex.split(results.command(member, [member.seed]))[3:]
    assert cli.run(train.main, [*words, "--out", str(root)]) == 0
    assert f"step {first:,}" in capsys.readouterr().out
    assert_same(pd.read_csv(run / runs.TEST), before["test.csv"])
    metrics, stored = pd.read_csv(run / runs.METRICS), before["metrics.csv"]
    assert list(metrics["step"]) == list(stored["step"])
    names = [
        "step",
        "frames",
        "return_mean",
        "reference_cvar",
        "validation_mean",
        "validation_cvar",
    ]
    assert_same(metrics[names], stored[names])
