"""Supervised tasks on the command line: tiny runs, a sweep of alpha, results and figures."""

from __future__ import annotations

import shutil

import jax
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from envs.sine import Sine
from experiments import cli, compare, evaluate, train
from experiments.presets import PRESETS
from experiments.spec.build import build
from experiments.study import adaptation, drawing
from experiments.study import results as compact
from experiments.study.figure_parts import NotConcernedError, NothingToDrawError
from experiments.study.options import FigureOptions
from experiments.training import checkpoints, runs, trainer
from experiments.training.device import saved_shape
from roml_jax.evaluate import evaluate_adaptation, evaluation_key, sample_tasks
from tests.experiments.scenarios.test_run import stop_at
from tests.experiments.study.test_figures import line, make_results

_TINY = """
  --frames 900 --num-tasks 4 --support 3 --query 2 --test-query 4 --test-steps 2 --layers 4
  --batch 8 --alpha 0.25 --validation-tasks 8 --validation-every 15 --test-tasks 12
  --checkpoint-minutes 1000
"""
TINY = _TINY.split()
STEPS, FRAMES, TASKS = 45, 20, 12
COURSE = ["return_after_0", "return_after_1", "return_after_2"]


@pytest.fixture(scope="module")
def run_sine(compilation):
    """``(out, *more arguments) -> exit code`` of a run of 45 steps."""

    def run(out, *extra):
        with compilation(), jax.debug_key_reuse(False):  # see the fixture ``several``
            return cli.run(train.main, ["sine", *TINY, "--out", str(out), *extra])

    return run


@pytest.fixture(scope="module")
def two(run_sine, tmp_path_factory):
    """The directory above two finished runs, seeds 1 and 5."""
    out = tmp_path_factory.mktemp("sine")
    assert run_sine(out, "--seeds", "1", "5") == 0
    return out / "sine" / "roml-maml"


@pytest.fixture(scope="module")
def swept(run_sine, tmp_path_factory):
    """The directory above a sweep of two levels by two seeds."""
    out = tmp_path_factory.mktemp("swept")
    assert run_sine(out, "--seeds", "1", "5", "--alphas", "0.25", "1") == 0
    return out / "sine"


def metrics(path):
    return pd.read_csv(path / "metrics.csv").drop(columns="seconds")


def saved(path):
    return checkpoints.restore(path, saved_shape(build(runs.read_config(path).experiment)))


# ------------------------------------------------------------------ a run


def test_the_files_of_a_run(two):
    names = {"config.json", "metrics.csv", "test.csv", "curve.png", "cem.png", "fits.png"}
    for path in two.iterdir():
        assert {entry.name for entry in path.iterdir()} == {*names, "checkpoint"}
        for name in ("curve.png", "cem.png", "fits.png"):
            image = imread(path / name)
            assert image.shape[0] > 300 and image[..., :3].std() > 0.02


def test_metrics_of_a_run(two):
    table = metrics(two / "seed-1")
    assert list(table["step"]) == list(range(STEPS + 1))
    assert list(table["frames"]) == [FRAMES * step for step in range(STEPS + 1)]
    assert list(table.loc[table["validation_cvar"].notna(), "step"]) == [0, 15, 30, 45]
    assert table.loc[1:, ["outer_loss", "grad_norm", "phi_amplitude"]].notna().all(axis=None)
    # All tasks are used, so that the outer loss is the mean over them.
    np.testing.assert_allclose(
        table.loc[1:, "outer_loss"], -table.loc[1:, "return_mean"], rtol=1e-5
    )


def test_test_table(two):
    tables = {seed: pd.read_csv(two / f"seed-{seed}" / "test.csv") for seed in (1, 5)}
    for seed, table in tables.items():
        tasks = [f"task_{name}" for name in Sine().family.names]
        assert list(table) == ["seed", "task_index", *tasks, "episode", "return", *COURSE]
        assert len(table) == TASKS and set(table["seed"]) == {seed} and set(table["episode"]) == {0}
        np.testing.assert_array_equal(table["return"], table["return_after_1"])
        assert (table[COURSE] < 0).all(axis=None)
    # The tasks are fixed, and the same for all seeds.
    np.testing.assert_array_equal(tables[1]["task_frequency"], tables[5]["task_frequency"])
    assert not np.isclose(tables[1]["return"], tables[5]["return"]).any()


def test_the_agent_of_the_best_validation_is_tested(two):
    path = two / "seed-1"
    built = build(runs.read_config(path).experiment)
    best = saved(path).best["cvar"]
    values = metrics(path)["validation_cvar"].dropna()
    assert best.value == np.float32(values.max())
    assert best.step == values.index[values == values.max()][-1]
    table = pd.read_csv(path / "test.csv")
    result = restated(built, best.agent[0], "test", TASKS, query=4)
    np.testing.assert_allclose(result.returns, table["return"], rtol=1e-4)
    np.testing.assert_allclose(result.tasks[:, 0], table["task_amplitude"], rtol=1e-5)
    for name in COURSE:
        np.testing.assert_allclose(result.info[name][0], table[name], rtol=1e-4)


def test_validation_is_on_as_many_examples_as_training(two):
    path = two / "seed-1"
    built = build(runs.read_config(path).experiment)
    params = built.learner.params(saved(path).state.learner)
    returns = restated(built, params, "validation", 8, query=2).returns
    row = metrics(path).iloc[-1]
    np.testing.assert_allclose(returns.mean(), row["validation_mean"], rtol=1e-4)
    np.testing.assert_allclose(np.sort(returns)[:2].mean(), row["validation_cvar"], rtol=1e-4)


def restated(built, params, purpose, n, query):
    """The evaluation of an agent, with the sizes of the tiny run."""
    seed = PRESETS["sine"].experiment.evaluation_seed
    task_key, key = jax.random.split(evaluation_key(seed, purpose))
    sizes = {"support": 3, "query": query, "inner_steps": 1, "most_steps": 2}
    return jax.jit(
        lambda params: evaluate_adaptation(
            key,
            built.env,
            built.learner.agent,
            params,
            sample_tasks(task_key, built.env, n),
            **sizes,
        )
    )(params)


def test_baseline_aims_at_the_mean():
    for method, agent in {"baseline": "best-mean", "cvar-ml": "best-cvar"}.items():
        _, command = cli.parse_train(["sine", "--method", method])
        assert command.experiment.tested_agent() == agent
    _, command = cli.parse_train(["sine", "--tested", "final"])
    assert command.experiment.tested_agent() == "final"
    assert PRESETS["khazad-dum"].experiment.tested_agent() == "final"


def test_evaluate_repeats_the_test(two, tmp_path, capsys):
    file = tmp_path / "again.csv"
    assert cli.run(evaluate.main, [str(two), "--csv", str(file)]) == 0
    told = capsys.readouterr().out
    assert all(f"seed {seed}: as in {two}/seed-{seed}/test.csv" in told for seed in (1, 5))
    again = pd.read_csv(file).drop(columns="run")
    first = pd.concat([pd.read_csv(two / f"seed-{seed}" / "test.csv") for seed in (1, 5)])
    pd.testing.assert_frame_equal(again, first.reset_index(drop=True), check_exact=True)
    assert cli.run(evaluate.main, [str(two), "--checkpoint", "newest", "--csv", str(file)]) == 0
    final = [int(saved(two / f"seed-{seed}").best["cvar"].step) == STEPS for seed in (1, 5)]
    same = np.isclose(pd.read_csv(file)["return"], first["return"]).reshape(2, TASKS).all(axis=1)
    assert list(same) == final
    assert (
        cli.run(evaluate.main, [str(two), "--seed", "3", "--tasks", "5", "--csv", str(file)]) == 0
    )
    other = pd.read_csv(file)
    assert len(other) == 10 and not np.isin(other["task_amplitude"], first["task_amplitude"]).any()


@pytest.mark.slow
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(run_sine, two, tmp_path, monkeypatch):
    path = tmp_path / "sine" / "roml-maml"
    with monkeypatch.context() as patch:
        stop_at(20, 15, patch)
        assert run_sine(tmp_path, "--seeds", "1", "5") == 143
    assert run_sine(tmp_path, "--seeds", "1", "5") == 0
    for seed in ("seed-1", "seed-5"):
        pd.testing.assert_frame_equal(metrics(path / seed), metrics(two / seed), check_exact=True)
        assert (path / seed / "test.csv").read_bytes() == (two / seed / "test.csv").read_bytes()


def test_the_plan_speaks_of_examples(two, capsys, run_sine, monkeypatch):
    monkeypatch.setattr(trainer, "_train", lambda *_: (15, None))
    assert run_sine(two.parents[1] / "new", "--seeds", "1") == 143
    told = capsys.readouterr().out
    assert "900 = 45 steps x 4 tasks x (3 + 2) examples" in told
    assert "test of the agent of the best validation CVaR on 12 tasks" in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learner", "varibad"], "unknown learner 'varibad'; valid: maml"),
        (["--support", "0"], "support must be at least 1"),
        (["--inner-steps", "9"], "test_steps must be at least 9"),
        (["--average", "all"], "valid: batch, selected"),
        (["--tested", "last"], "valid: final, best, best-mean, best-cvar"),
        (["--frames", "100"], "choose at least 400 (20 tasks x (10 + 10) examples)"),
        (["--evaluation-seed", "-1"], "--evaluation-seed is a number from 0 to 4294967295; got -1"),
        (["--alphas", "0.1", "2"], "in (0, 1]; got 0.1 2"),
        (["--alphas", "0.1", "0.1"], "different fractions"),
    ],
)
def test_wrong_words(words, message, capsys, tmp_path):
    assert cli.run(train.main, ["sine", *words, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------ a sweep


def test_a_sweep_is_its_runs_side_by_side(swept, two):
    assert {path.name for path in swept.iterdir()} == {"roml-maml,alpha=0.25", "roml-maml,alpha=1"}
    for seed in ("seed-1", "seed-5"):
        quarter, whole = (swept / f"roml-maml,alpha={level}" / seed for level in ("0.25", "1"))
        assert runs.read_config(quarter).experiment == runs.read_config(two / seed).experiment
        assert runs.read_config(whole).experiment.method.alpha == 1
        ours, alone = metrics(quarter), metrics(two / seed)
        pd.testing.assert_frame_equal(ours, alone, rtol=1e-3, atol=1e-4)
        phi = [table["phi_amplitude"].iloc[-1] for table in (ours, metrics(whole))]
        assert phi[0] > phi[1] + 0.1  # fitted to the worst quarter, and to all tasks
        assert not np.allclose(metrics(whole)["validation_cvar"].dropna(),
                               ours["validation_cvar"].dropna())  # fmt: skip
        mean, tail = (metrics(whole)[f"validation_{name}"].dropna() for name in ("mean", "cvar"))
        np.testing.assert_allclose(mean, tail, rtol=1e-5)  # of all tasks


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(run_sine, swept, tmp_path, monkeypatch, capsys):
    words = ["--seeds", "1", "5", "--alphas", "0.25", "1"]
    with monkeypatch.context() as patch:
        stop_at(20, 15, patch)
        assert run_sine(tmp_path, *words) == 143
    told = capsys.readouterr().out.splitlines()
    assert "--alphas 0.25 1" in told[-1]
    assert any("4 runs side by side (alpha 0.25, 1; seeds 1, 5)" in row for row in told)
    assert any(row.endswith("sine/roml-maml,alpha=*/seed-*") for row in told)
    assert run_sine(tmp_path, *words) == 0
    for path in (tmp_path / "sine").glob("*/seed-*"):
        other = swept / path.parent.name / path.name
        pd.testing.assert_frame_equal(metrics(path), metrics(other), check_exact=True)
        assert (path / "test.csv").read_bytes() == (other / "test.csv").read_bytes()


def test_compare_collects_a_sweep(swept, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(swept, out / "sine")
    words = ["sine", "--methods", "roml", "--alphas", "0.25", "1", "--seeds", "1", "5"]
    rest = [word for word in TINY if word not in ("--checkpoint-minutes", "1000")]
    assert cli.run(compare.main, [*words, *rest, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "roml    1 5    finished" in told and "RoML, alpha=0.25" in told
    found = compact.read(out / "results" / "sine")
    assert list(found.runs["method"].unique()) == ["roml:alpha=0.25", "roml:alpha=1"]
    assert set(found.runs["tested"]) == {"best-cvar"} and list(found.runs["seed"]) == [1, 5] * 2
    (command,) = found.runs["command"].unique()
    again, parsed = cli.parse_train(command.split()[3:])
    assert parsed.options.alphas == (0.25, 1.0) and parsed.options.seeds == (1, 5)
    usual = runs.read_config(swept / "roml-maml,alpha=1" / "seed-1").experiment
    assert again == "sine" and parsed.options.name is None
    assert {**vars(parsed.experiment), "method": None} == {**vars(usual), "method": None}

    table = pd.read_csv(swept / "roml-maml,alpha=0.25" / "seed-5" / "test.csv")
    own = found.risk[(found.risk["method"] == "roml:alpha=0.25") & (found.risk["seed"] == 5)]
    levels = own[own["steps"].isna()].set_index("alpha")["cvar"]
    assert list(levels.index) == [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 1.0]
    for level, value in levels.items():
        worst = np.sort(table["return"])[: int(np.ceil(round(level * TASKS, 9)))]
        assert value == pytest.approx(worst.mean(), rel=1e-5)
    course = own[own["steps"].notna()].set_index(["steps", "alpha"])["cvar"]
    assert len(course) == 6
    worst = np.sort(table["return_after_2"])[:3]
    assert course[2.0, 0.25] == pytest.approx(worst.mean(), rel=1e-5)
    assert course[0.0, 1.0] == pytest.approx(table["return_after_0"].mean(), rel=1e-5)


def test_the_plan_of_a_sweep(swept, tmp_path, capsys):
    out = tmp_path / "runs"
    shutil.copytree(swept, out / "sine")
    (out / "sine" / "roml-maml,alpha=1" / "seed-5" / "test.csv").unlink()
    words = ["sine", "--alphas", "0.25", "1", "--seeds", "1", "5", "7", "--plan"]
    rest = [word for word in TINY if word not in ("--checkpoint-minutes", "1000")]
    assert cli.run(compare.main, [*words, "--methods", "roml", *rest, "--out", str(out)]) == 0
    told = capsys.readouterr().out.splitlines()
    rows = [" ".join(row.split()) for row in told if row.startswith("roml")]
    assert rows == ["roml 1 finished 0", "roml 5 step 45 0", f"roml 7 new {2 * 45 * 20}"
                    .replace("1800", "1,800")]  # fmt: skip
    assert all("--alphas 0.25 1" in row for row in told if row.startswith("python"))


# ------------------------------------------------------------------ figures

LEVELS = {"roml:alpha=0.05": 0.05, "roml:alpha=1": 1.0, "baseline": 0.05}


def loss_of(method, seed, steps):
    return 3.0 + list(LEVELS).index(method) + 0.1 * seed - 0.5 * steps


def sine_results(methods=("baseline", "roml:alpha=0.05"), seeds=4):
    """Results of which only ``runs`` and ``risk`` are of sine."""
    risk, rows = [], []
    for method in methods:
        for seed in range(seeds):
            own = {"method": method, "seed": seed}
            rows.append({"env": "sine", "learner": "maml", "alpha": LEVELS[method], **own})
            for steps in (np.nan, 0.0, 1.0, 2.0):
                for level in (0.05, 1.0):
                    loss = loss_of(method, seed, 1 if np.isnan(steps) else steps) / level**0.5
                    risk.append({**own, "steps": steps, "alpha": level, "cvar": -loss})
    base = make_results()
    return base._replace(runs=pd.DataFrame(rows), risk=pd.DataFrame(risk))


def drawn(name, results):
    comparison = drawing.compare(FigureOptions("sine"), results)
    return adaptation.FIGURES[name](results, comparison)


def test_adaptation_shows_losses():
    results = sine_results()
    figure, caption = drawn("adaptation", results)
    tail, mean = figure.axes
    for ax, level in ((tail, 0.05), (mean, 1.0)):
        found = line(ax, "MAML")
        want = [np.mean([loss_of("baseline", s, k) for s in range(4)]) for k in range(3)]
        np.testing.assert_allclose(found.get_ydata(), np.array(want) / level**0.5)
        np.testing.assert_allclose(found.get_xdata(), np.arange(3), atol=0.1)
    assert "CVaR 0.05" in tail.get_ylabel() and "mean" in mean.get_ylabel()
    published = [part for part in tail.lines if part.get_marker() == "D"]
    (diamonds,) = [part.get_ydata() for part in published if len(part.get_ydata()) == 5]
    assert list(diamonds) == [13.0, 11.1, 11.45, 12.4, 13.1] and "published" in caption


def test_frontier_has_a_point_for_each_level():
    methods = ("roml:alpha=0.05", "roml:alpha=1")
    results = sine_results(methods)
    ax = drawn("frontier", results).figure.axes[0]
    found = line(ax, "RoML")
    want = [
        np.mean([loss_of(m, s, 1) for s in range(4)]) for m in ("roml:alpha=0.05", "roml:alpha=1")
    ]
    np.testing.assert_allclose(found.get_ydata(), -np.array(want))
    np.testing.assert_allclose(found.get_xdata(), -np.array(want) / 0.05**0.5)
    assert [text.get_text() for text in ax.texts] == ["0.05", "1"]


def test_what_does_not_concern_a_comparison():
    with pytest.raises(NotConcernedError):
        drawn("frontier", sine_results())
    with pytest.raises(NotConcernedError):
        drawn("adaptation", make_results())
    with pytest.raises(NothingToDrawError, match="different levels"):
        drawn("adaptation", sine_results(("roml:alpha=0.05", "roml:alpha=1")))
