"""A tiny run from end to end, and its repetitions: alone, side by side, stopped, resumed."""

from __future__ import annotations

import os
import shutil
import signal

import jax
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from envs.khazad_dum import PATH_NAMES
from experiments import cli, evaluate
from experiments.spec.build import build
from experiments.training import checkpoints, runs, trainer
from experiments.training.device import saved_shape
from experiments.training.loop import Loop

STEPS, FRAMES, TASKS, EPISODES = 17, 40, 12, 2  # of the tiny run; frames of one step
TABLES, FIGURES = (
    ("config.json", "metrics.csv", "test.csv"),
    ("curve.png", "episodes.png", "cem.png"),
)
FILES = {*TABLES, *FIGURES, "checkpoint"}


def metrics(path):
    return pd.read_csv(path / "metrics.csv").drop(columns="seconds")


def final_state(path):
    shape = saved_shape(build(runs.read_config(path).experiment))
    return checkpoints.restore(path, shape)


def test_the_files_of_a_run(single):
    assert {entry.name for entry in single.iterdir()} == FILES
    assert [entry.name for entry in (single / "checkpoint").iterdir()] == [str(STEPS)]
    for name in FIGURES:
        image = imread(single / name)
        assert image.shape[0] > 300 and image[..., :3].std() > 0.02


def test_metrics_have_a_row_for_every_step(single):
    table = metrics(single)
    assert list(table["step"]) == list(range(STEPS + 1))
    assert list(table["frames"]) == [FRAMES * step for step in range(STEPS + 1)]
    validated = table[table["validation_mean"].notna()]
    assert list(validated["step"]) == [0, 6, 12, STEPS]
    assert (validated["validation_cvar"] <= validated["validation_mean"]).all()
    for name in ("phi_mean_rain", "return_mean", "elbo_loss", "entropy"):
        assert table.loc[1:, name].notna().all()
    updated = table.loc[1:, "updated"].to_numpy(bool)
    assert updated[1::2].any() and not updated[::2].any()  # a CEM batch is two steps


def test_test_table_has_a_row_for_every_task_and_episode(single):
    table = pd.read_csv(single / "test.csv")
    assert list(table) == ["seed", "task_index", "task_rain", "episode", "return", "path"]
    assert len(table) == TASKS * EPISODES and set(table["seed"]) == {1}
    assert list(table["task_index"]) == sorted(list(range(TASKS)) * EPISODES)
    assert list(table["episode"]) == list(range(EPISODES)) * TASKS
    assert table.groupby("task_index")["task_rain"].nunique().eq(1).all()
    assert table["task_rain"].nunique() == TASKS
    assert set(table["path"].str.split("_").str[0]) <= set(PATH_NAMES)


def test_seeds_side_by_side_are_the_seeds_alone(single, several):
    assert {entry.name for entry in several.iterdir()} == {"seed-1", "seed-5"}
    for path in several.iterdir():
        names = {entry.name.split(".")[0] for entry in path.iterdir()}
        assert names == {name.split(".")[0] for name in FILES} | {"events"}
    assert runs.read_config(several / "seed-1") == runs.read_config(single)
    pd.testing.assert_frame_equal(
        metrics(several / "seed-1"), metrics(single), rtol=1e-3, atol=1e-4
    )
    for x, y in zip(
        jax.tree.leaves(final_state(several / "seed-1")),
        jax.tree.leaves(final_state(single)),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4)
    one, five = (metrics(several / name)["return_mean"].iloc[1:] for name in ("seed-1", "seed-5"))
    assert not np.allclose(one, five)


def test_seeds_have_test_tasks_of_their_own(single, several):
    tables = {name: pd.read_csv(several / name / "test.csv") for name in ("seed-1", "seed-5")}
    alone = pd.read_csv(single / "test.csv")
    np.testing.assert_array_equal(tables["seed-1"]["task_rain"], alone["task_rain"])
    assert not np.isclose(tables["seed-5"]["task_rain"], alone["task_rain"]).any()


def test_the_table_at_the_end(run_tiny, several, capsys):
    assert cli.run(evaluate.main, [str(several)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["seed", "mean", "CVaR", "0.01"]
    assert [line.split()[0] for line in lines[2:5]] == ["1", "5", "all"]
    means = [float(line.split()[1]) for line in lines[2:5]]
    assert abs(np.mean(means[:2]) - means[2]) < 1e-3
    assert lines[6:8] == [f"seed {seed}: as in {several}/seed-{seed}/test.csv" for seed in (1, 5)]


def test_evaluate_repeats_the_test(single, tmp_path, capsys):
    shutil.copytree(single, tmp_path / "run")
    for name in ("test.csv", "metrics.csv", *FIGURES):
        (tmp_path / "run" / name).unlink()
    file = tmp_path / "again.csv"
    assert cli.run(evaluate.main, [str(tmp_path / "run"), "--csv", str(file)]) == 0
    again, first = pd.read_csv(file), pd.read_csv(single / "test.csv")
    pd.testing.assert_frame_equal(again.drop(columns="run"), first, check_exact=True)

    summary = tmp_path / "summary.csv"
    other = ["--tasks", "5", "--seed", "9", "--csv", str(file), "--summary", str(summary)]
    assert cli.run(evaluate.main, [str(tmp_path / "run"), *other]) == 0
    assert len(pd.read_csv(file)) == 5 * EPISODES
    assert "5 tasks" in capsys.readouterr().out
    (row,) = pd.read_csv(summary).to_dict("records")
    returns = pd.read_csv(file).groupby("task_index")["return"].mean()
    assert row["mean"] == pytest.approx(returns.mean(), rel=1e-5)
    assert row["cvar"] == pytest.approx(returns.min(), rel=1e-5)  # alpha of 5 tasks: the worst
    assert row["phi_mean_rain"] > 0


def test_tasks_played_several_times(single, tmp_path, capsys):
    file, summary = tmp_path / "plays.csv", tmp_path / "summary.csv"
    words = ["--repeats", "3", "--csv", str(file), "--summary", str(summary)]
    assert cli.run(evaluate.main, [str(single), *words]) == 0
    assert "12 tasks, 3 plays of each" in capsys.readouterr().out
    table, first = pd.read_csv(file), pd.read_csv(single / "test.csv")
    one = table[table["play"] == 0].drop(columns=["run", "play"])
    pd.testing.assert_frame_equal(one, first, check_exact=True)
    plays = np.stack([part["return"] for _, part in table.groupby("play")])
    assert len(plays) == 3 and len(np.unique(plays, axis=0)) == 3  # each with its own noise
    assert table.groupby("task_index")["task_rain"].nunique().eq(1).all()
    plays = plays.reshape(3, -1, EPISODES).mean(axis=2)
    halves, (row,) = (plays[0], plays[1:].mean(axis=0)), pd.read_csv(summary).to_dict("records")
    worst = [one[other.argmin()] for one, other in (halves, halves[::-1])]  # alpha: one of twelve
    assert row["cvar_by_halves"] == pytest.approx(np.mean(worst), rel=1e-5)
    assert row["cvar"] == pytest.approx(plays.mean(axis=0).min(), rel=1e-5)


def test_one_task_and_tasks_of_another_phi(single, tmp_path, capsys):
    file, picture = tmp_path / "tasks.csv", tmp_path / "tasks.png"
    words = [str(single), "--tasks", "40", "--csv", str(file), "--picture", str(picture)]
    assert cli.run(evaluate.main, [*words, "--task", "0.75"]) == 0
    assert "test on 40 tasks of one kind, rain 0.75" in capsys.readouterr().out
    table = pd.read_csv(file)
    assert (table["task_rain"] == 0.75).all() and len(table) == 40 * EPISODES
    assert table.groupby("task_index")["return"].mean().nunique() > 1  # the noise of each play
    assert cli.run(evaluate.main, [*words, "--phi", "2"]) == 0
    assert "test on 40 tasks of phi_mean_rain 2" in capsys.readouterr().out
    rain = pd.read_csv(file).groupby("task_index")["task_rain"].first()
    np.testing.assert_allclose(rain.mean(), 2, rtol=0.5)  # an exponential: deviation 2 / sqrt(40)
    assert picture.stat().st_size > 5000


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--task 1 2", "--task takes 1 numbers, for rain; got 2"),
        ("--task 1 --phi 1", "choose one of them"),
        ("--phi -1", "outside of the family"),
        ("--phi 1 2", "give 1 numbers, for mean_rain"),
    ],
)
def test_tasks_that_cannot_be(single, words, told, capsys):
    assert cli.run(evaluate.main, [str(single), *words.split()]) == 2
    assert told in capsys.readouterr().err


def stop_at(step, number, patch):
    """Lets the loop receive a signal in the chunk that reaches a step."""
    advance = Loop._advance

    def advance_and_stop(self, n, bar):
        advance(self, min(n, 2), bar)
        if self.step >= step:
            os.kill(os.getpid(), number)

    patch.setattr(Loop, "_advance", advance_and_stop)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    single, run_tiny, tmp_path, capsys, monkeypatch
):
    path = tmp_path / "khazad-dum" / "roml-varibad" / "seed-1"
    for step, number, code in [(3, signal.SIGTERM, 143), (8, signal.SIGINT, 130)]:
        with monkeypatch.context() as patch:
            stop_at(step, number, patch)
            assert run_tiny(tmp_path, "--seeds", "1") == code
        told = capsys.readouterr().out.splitlines()[-1]
        assert told.startswith(
            f"stopped at step {step}; go on with: python -m experiments.train khazad-dum"
        )
        assert runs.status(path) == "unfinished" and checkpoints.newest_step(path) == step
        with (path / "metrics.csv").open("a") as file:  # a step that no checkpoint knows
            file.write(f"{step + 1},{FRAMES * (step + 1)},99.0\n")

    assert run_tiny(tmp_path, "--seeds", "1") == 0
    assert "resume  from step 8 of 17" in capsys.readouterr().out
    pd.testing.assert_frame_equal(metrics(path), metrics(single), check_exact=True)
    assert (path / "test.csv").read_bytes() == (single / "test.csv").read_bytes()
    for x, y in zip(
        jax.tree.leaves(final_state(path)), jax.tree.leaves(final_state(single)), strict=True
    ):
        np.testing.assert_array_equal(x, y)
    assert pd.read_csv(path / "metrics.csv")["seconds"].is_monotonic_increasing


def test_a_finished_run_is_not_touched(single, run_tiny, tmp_path, capsys, monkeypatch):
    own = tmp_path / "khazad-dum" / "roml-varibad" / "seed-1"
    shutil.copytree(single, own)  # others may be looking at it, which takes its lock
    before = {file: file.stat().st_mtime_ns for file in own.rglob("*")}
    assert run_tiny(tmp_path, "--seeds", "1") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_tiny(tmp_path, "--seeds", "1", "--policy.clip", "0.3") == 2
    assert "policy.clip 0.1 there, 0.3 here" in capsys.readouterr().err

    begun = []  # the others of the same command are not held up by it
    monkeypatch.setattr(trainer, "_train", lambda session, *_: (15, begun.append(session.seeds)))
    assert run_tiny(tmp_path, "--seeds", "0..2") == 143
    assert begun == [[0, 2]] and f"skip    {own}: finished" in capsys.readouterr().out
    for seed in (0, 2):
        shutil.rmtree(own.with_name(f"seed-{seed}"))
    assert {file: file.stat().st_mtime_ns for file in own.rglob("*")} == before


def test_other_settings_and_foreign_files_are_refused(single, run_tiny, tmp_path, capsys):
    path = tmp_path / "khazad-dum" / "roml-varibad" / "seed-1"
    shutil.copytree(single, path)
    (path / "test.csv").unlink()
    assert run_tiny(tmp_path, "--seeds", "1", "--policy.clip", "0.3") == 2
    assert "policy.clip 0.1 there, 0.3 here" in capsys.readouterr().err
    assert run_tiny(tmp_path, "--seeds", "1", "2") == 2
    assert "seed-1 at 17, seed-2 at 0" in capsys.readouterr().err

    foreign = tmp_path / "foreign" / "khazad-dum" / "roml-varibad" / "seed-1"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").write_text("")
    for extra in ([], ["--overwrite"]):
        assert run_tiny(tmp_path / "foreign", "--seeds", "1", *extra) == 2
        assert "no run" in capsys.readouterr().err
    assert (foreign / "thesis.tex").exists()


def test_overwrite_starts_anew(single, run_tiny, tmp_path, monkeypatch):
    path = tmp_path / "khazad-dum" / "roml-varibad" / "seed-1"
    shutil.copytree(single, path)
    (path / "notes.txt").write_text("mine")
    monkeypatch.setattr(trainer, "_finish", lambda session, state: None)
    assert run_tiny(tmp_path, "--seeds", "1", "--overwrite", "--frames", "240") == 0
    assert list(metrics(path)["step"]) == list(range(7))
    assert [entry.name for entry in (path / "checkpoint").iterdir()] == ["6"]
    assert runs.status(path) == "unfinished" and not (path / "curve.png").exists()
    assert (path / "notes.txt").read_text() == "mine"
