"""Logs, scores and tables of a run, on their own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from envs.khazad_dum import KhazadDum
from experiments.domains.khazad_dum.view import khazad_dum_view
from experiments.training import agents, report, runs
from experiments.training.agents import Score
from experiments.training.loop import as_good
from experiments.training.runs import MetricsLog


def test_metrics_log_keeps_every_digit(tmp_path):
    columns = ["step", "frames", "seconds", "x", "y", "validation_mean"]
    log = MetricsLog(tmp_path, columns, None)
    third = np.float32(1 / 3)
    log.write({"step": 1, "frames": 2, "seconds": 0.5, "x": third, "y": np.bool_(True)})
    log.close()
    row = pd.read_csv(tmp_path / runs.METRICS).iloc[0]
    assert np.float32(row["x"]) == third and row["y"] == 1 and np.isnan(row["validation_mean"])


def test_score_is_over_tasks_and_the_mean_of_their_episodes():
    returns = [[-9.0, -1.0], [2.0, 4.0], [1.0, 1.0], [0.0, 4.0]]
    table = pd.DataFrame(
        {
            "seed": 4,
            "task_index": np.repeat(range(4), 2),
            "return": np.ravel(returns),
            "path": ["short_fall", "stay"] + ["short_done"] * 6,
        }
    )
    score = agents.score(table, 0.5, khazad_dum_view(KhazadDum()), {"mean_rain": 0.3})
    assert score.seed == 4 and score.mean == 0.25  # of -5, 3, 1, 2
    assert score.cvar == -2.0  # of -5 and 1
    assert score.shares == {"short_done": 0.75, "short_fall": 0.125, "stay": 0.125}


def test_confidence_interval_by_hand():
    mean, half = agents.mean_and_ci([1.0, 2.0, 3.0])
    assert mean == 2.0
    np.testing.assert_allclose(half, 4.30265273 / np.sqrt(3), rtol=1e-6)  # t(0.975; 2), s = 1


def test_report_table_lines_up():
    scores = [Score(0, -0.2, -0.5, {"long_done": 1.0}, {"mean_rain": 0.2})]
    scores.append(Score(11, -0.3, -0.7, {"short_done": 1.0}, {"mean_rain": 0.3}))
    lines = report.table(scores, 0.01).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[3].split()[:4] == ["all", "-0.2500", "±", "0.6353"]


def test_nan_is_never_best():
    nan = np.float32("nan")
    assert as_good(1.0, 0.5) and as_good(1.0, 1.0) and not as_good(0.5, 1.0)
    assert not as_good(nan, 1.0) and as_good(1.0, nan) and as_good(nan, nan)
