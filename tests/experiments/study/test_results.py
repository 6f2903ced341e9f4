"""Compact results, intervals and tables, on made-up numbers and on a tiny run."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shlex
import shutil
import warnings

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from envs.khazad_dum import KhazadDum
from experiments import cli
from experiments import references as reference_command
from experiments.domains.khazad_dum.view import khazad_dum_view
from experiments.presets import PRESETS, Published
from experiments.spec.build import build
from experiments.spec.errors import UserError
from experiments.spec.words import split_row
from experiments.study import references, sheets, tables
from experiments.study import results as compact
from experiments.study.intervals import over_seeds, paired, signed_rank
from experiments.training import checkpoints, runs
from experiments.training.device import saved_shape
from roml_jax.evaluate import evaluation_key
from roml_jax.references import random_agent
from roml_jax.rollout import rollout
from roml_jax.supervised import draw_examples

SKEWED = np.array([0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.6, 4.0])
MINUS = chr(0x2212)
EDGES = [(0, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.46), (0.46, np.inf)]

# ------------------------------------------------------------------ intervals


def test_an_interval_is_students():
    found = over_seeds(SKEWED, level=0.9)
    want = stats.ttest_1samp(SKEWED, 0.0).confidence_interval(0.9)
    np.testing.assert_allclose(found[1:3], [want.low, want.high])
    assert found.mean == SKEWED.mean() and found.error == pytest.approx(stats.sem(SKEWED))


@pytest.mark.parametrize("seeds", [5, 10, 30])
def test_intervals_cover_the_true_mean(seeds):
    rng = np.random.default_rng(0)
    intervals = np.array([over_seeds(rng.normal(3, 2, seeds))[1:3] for _ in range(4000)])
    covered = np.mean((intervals[:, 0] <= 3) & (intervals[:, 1] >= 3))
    assert 0.93 < covered < 0.97


def test_few_seeds_are_their_values():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, none = over_seeds(np.array([2.5])), over_seeds(np.array([]))
        few, equal = over_seeds(np.array([1.0, -0.5, 1e-7])), over_seeds(np.full(4, 0.1))
    assert one.mean == 2.5 and np.isnan(one[1:4]).all() and one.values == "2.5"
    assert np.isnan(none[:4]).all() and none.values == ""
    assert np.isnan(few[1:3]).all() and few.values == "1 -0.5 1e-07" and few.error > 0
    assert equal == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 0.0, "")


def test_paired_differences_by_hand():
    found = paired(np.array([1.0, 5.0, 9.0]), np.array([0.0, 3.0, 6.0]))  # 1, 2, 3
    assert found.mean == 2.0 and found.error == pytest.approx(1 / np.sqrt(3))
    assert found.values == "1 2 3"
    constant = paired(np.array([1.0, 5.0, 9.0, 4.0]), np.array([0.5, 4.5, 8.5, 3.5]))
    assert constant == (0.5, 0.5, 0.5, 0.0, "")
    with pytest.raises(ValueError, match="3 values cannot be paired with 1"):
        paired(np.zeros(3), np.zeros(1))


def test_differences_of_rounding_are_none():
    values = np.array([0.1, 0.2, 0.3, 1e3, -5.0, 7.0, 0.0])
    other = np.nextafter(values, 9)
    other[-1] = 0.0
    assert paired(values, other)[:4] == (0, 0, 0, 0) and signed_rank(values, other) == 1
    other[0] = 0.2
    assert paired(values, other).mean == pytest.approx(-0.1 / 7) and signed_rank(values, other) == 1
    with pytest.raises(ValueError, match="7 values cannot be paired with 1"):
        signed_rank(values, np.zeros(1))


# ------------------------------------------------------------------ collecting


def made_up(single, folder):
    """A copy of a run with made-up tables: windows of two steps, and a few test tasks."""
    path = folder / "seed-1"
    shutil.copytree(single, path, ignore=shutil.ignore_patterns("checkpoint"))
    config = json.loads((path / "config.json").read_text())
    config["experiment"]["validation_every"] = 10
    (path / "config.json").write_text(json.dumps(config | {"commit": "1e10", "device": "abacus"}))
    tasks = [0.01, 0.049, 0.05, 0.3, 0.7]  # none from 0.1 to 0.3
    returns = [[0, -2], [1, 1], [-4, -4], [2, 0], [-8, -10]]  # means -1, 1, -4, 1, -9
    outcomes = ["stay", "long"] + ["long_done"] * 6 + ["short_fall", "long_done"]
    columns = {"seed": 1, "task_index": np.repeat(range(5), 2), "task_0": np.repeat(tasks, 2)}
    columns |= {"episode": [0, 1] * 5, "return": np.ravel(returns), "path": outcomes}
    pd.DataFrame(columns).to_csv(path / "test.csv", index=False)
    metrics = pd.read_csv(path / "metrics.csv")
    metrics["sample_mean"] = metrics["step"] ** 2
    metrics["phi_mean_rain"] = metrics["step"] / 100
    metrics.to_csv(path / "metrics.csv", index=False)
    return path


@pytest.fixture(scope="module")
def told():
    return io.StringIO()


@pytest.fixture(scope="module")
def collected(single, told, tmp_path_factory):
    path = made_up(single, tmp_path_factory.mktemp("made-up"))
    with contextlib.redirect_stderr(told):
        return compact.collect([("roml", path)])


def test_the_test_by_ranges_of_tasks(collected):
    rows = collected.tests
    assert list(rows)[:7] == ["method", "seed", "low", "high", "tasks", "mean", "cvar"]
    assert {"long", "long_done", "short_fall", "stay"} <= set(rows) and list(rows) == [
        *rows.columns[:7],
        *sorted(rows.columns[7:]),
    ]
    assert list(rows["method"].unique()) == ["roml", "still", "random"]
    assert set(rows["seed"]) == {1}
    rows = rows[rows["method"] == "roml"]
    assert np.isnan(rows[["low", "high"]].iloc[0]).all()
    assert list(map(tuple, rows[["low", "high"]].to_numpy()[1:])) == EDGES
    assert list(rows["tasks"]) == [5, 2, 1, 0, 0, 1, 1]
    nan = np.nan
    np.testing.assert_allclose(rows["mean"], [-2.4, 0, -4, nan, nan, 1, -9], rtol=1e-6)
    np.testing.assert_array_equal(rows["cvar"], [-9, *[nan] * 6])  # 1 % of 5: the worst one
    np.testing.assert_allclose(rows["long_done"], [0.7, 0.5, 1, nan, nan, 1, 0.5])
    np.testing.assert_allclose(rows["stay"], [0.1, 0.25, 0, nan, nan, 0, 0])


def test_what_is_reached_without_learning(collected, single):
    whole = collected.tests[collected.tests["low"].isna()].set_index("method")
    still, random = whole.loc["still"], whole.loc["random"]
    assert still["tasks"] == random["tasks"] == 12 and still["mean"] == still["cvar"] == -0.5 * 2
    built = build(runs.read_config(single).experiment)
    task_key, key = jax.random.split(evaluation_key(1, "test"))
    tasks = built.env.family.sample(task_key, built.env.family.phi0, 12)
    data = rollout(key, built.env, random_agent(built.env.action_space), (), tasks)
    returns = np.asarray(data.reward).sum(axis=0) / built.env.episodes
    assert random["mean"] == pytest.approx(returns.mean(), rel=1e-5)
    assert random["cvar"] == pytest.approx(returns.min(), rel=1e-5)
    levels = collected.risk[collected.risk["method"] == "random"].set_index("alpha")["cvar"]
    assert levels[1.0] == pytest.approx(returns.mean(), rel=1e-5)
    table = tables.summarize(collected).set_index("method")
    assert list(table["label"]) == ["RoML", "no action", "random actions"]
    assert table.loc["random", "mean"] == random["mean"] and table.loc["still", "cvar"] == -1
    text = sheets.markdown(sheets.word(tables.summarize(collected), collected, {})[0])
    assert "| no action " in text and "Without learning: no action, random actions." in text


def test_tasks_played_several_times(run_tiny, tmp_path, capsys):
    assert run_tiny(tmp_path, "--test-repeats", "2") == 0
    assert "on 12 tasks, 2 plays of each" in (told := capsys.readouterr().out)
    assert "by halves: the worst tasks by one half" in told
    path = tmp_path / "khazad-dum" / "roml-varibad" / "seed-0"
    results = compact.collect([("roml", path)])
    plays = pd.read_csv(path / "test.csv").groupby(["play", "task_index"])["return"].mean()
    one, other = plays.unstack().to_numpy()
    order = one.argsort(), other.argsort()
    known = results.risk[results.risk["method"] == "roml"]
    for level, worst in ((0.05, 1), (0.5, 6), (1.0, 12)):
        (row,) = known[known["alpha"] == level].to_dict("records")
        halves = [other[order[0][:worst]].mean(), one[order[1][:worst]].mean()]
        assert row["cvar_by_halves"] == pytest.approx(np.mean(halves), rel=1e-5)
    summary = tables.summarize(results)
    (sheet, *_) = sheets.word(summary, results, {})
    assert "CVaR 0.01 by halves" in sheet.head
    assert any("by one half of their plays" in note for note in sheet.notes)


def test_references_are_played_once(single, tmp_path, monkeypatch):
    run = runs.read_config(single)
    ask = run.env, run.experiment, [1, 1, 2], tmp_path
    first = references.play(*ask)
    assert [(name, seed) for name, seed, _ in first] == [
        *(("still", 1), ("still", 2), ("random", 1), ("random", 2))
    ]
    monkeypatch.setattr(references.agents, "make_test", None)
    for (*_, old), (*_, new) in zip(first, references.play(*ask), strict=True):
        pd.testing.assert_frame_equal(old, new, check_dtype=False)
    other = dataclasses.replace(
        run.experiment, env=dataclasses.replace(run.experiment.env, rain_mean=0.2)
    )
    with pytest.raises(TypeError):  # another environment
        references.play(run.env, other, [1], tmp_path)


def test_predictors_without_learning():
    experiment = dataclasses.replace(PRESETS["sine"].experiment, test_tasks=5)
    built = build(experiment)
    (_, _, still), (_, _, random) = references.play("sine", experiment, [3])
    task_key, key = jax.random.split(evaluation_key(3, "test"))
    tasks = built.env.family.sample(task_key, built.env.family.phi0, 5)
    support, (x, y) = draw_examples(
        key, built.env, tasks, built.agent.support, built.agent.test_query
    )
    np.testing.assert_allclose(still["return"], -np.mean(np.asarray(y) ** 2, axis=1), 1e-5)
    params = built.learner.params(built.init(jax.random.key(3)).learner)
    adapted = [
        built.agent.adapt(params, (a, b), built.agent.steps) for a, b in zip(*support, strict=True)
    ]
    losses = [built.agent.loss(p, (x[i], y[i])) for i, p in enumerate(adapted)]
    np.testing.assert_allclose(random["return"], np.negative(losses), rtol=1e-4)
    assert references.label("still", "sine") == "predicts 0"


def test_stored_results_get_their_rows(collected, tmp_path, capsys):
    old = compact.Results(*(t[~t["method"].isin(references.REFERENCES)] for t in collected))
    compact.write(tmp_path / "khazad-dum", old)
    assert cli.run(reference_command.main, ["khazad-dum", "--results", str(tmp_path)]) == 0
    assert "random actions" in capsys.readouterr().out
    found = compact.read(tmp_path / "khazad-dum")
    whole = found.tests[found.tests["low"].isna()]
    assert list(whole["method"]) == ["roml", "still", "random"] and set(whole["tasks"]) == {5}
    assert cli.run(reference_command.main, ["khazad-dum", "--results", str(tmp_path)]) == 0
    pd.testing.assert_frame_equal(compact.read(tmp_path / "khazad-dum").tests, found.tests)


def test_the_sampler_by_windows(collected):
    rows = collected.sampler  # 17 steps in windows of 10 // 5 = 2
    assert list(rows)[:5] == ["method", "seed", "step", "frames", "phi_mean_rain"]
    assert list(rows)[5:] == ["sample_mean", "reference_mean", "reference_cvar"]
    assert list(rows["step"]) == [2, 4, 6, 8, 10, 12, 14, 16, 17]
    assert list(rows["frames"]) == [40 * step for step in rows["step"]]
    np.testing.assert_allclose(rows["phi_mean_rain"], rows["step"] / 100)
    np.testing.assert_allclose(rows["sample_mean"][:2], [2.5, 12.5])  # of 1, 4 and of 9, 16
    assert rows["sample_mean"].iloc[-1] == 17**2


def test_a_row_for_every_run(collected):
    (row,) = collected.runs.to_dict("records")
    assert (row["env"], row["method"], row["learner"], row["seed"]) == (
        *("khazad-dum", "roml", "varibad"),
        1,
    )
    assert (row["alpha"], row["frames"], row["steps"], row["tasks_per_step"]) == (0.01, 680, 17, 4)
    assert row["commit"] == "1e10" and row["device"] == "abacus" and row["jax"] == jax.__version__
    assert "validation_every 50 → 10" in row["changed"] and "num_tasks 32 → 4" in row["changed"]


def test_the_command_of_a_run_repeats_its_settings(collected, single, tmp_path):
    words = shlex.split(collected.runs["command"].iloc[0])
    assert words[:4] == ["python", "-m", "experiments.train", "khazad-dum"]
    _, command = cli.parse_train(words[3:])
    experiment = runs.read_config(made_up(single, tmp_path)).experiment
    assert command.experiment == experiment and command.options.seeds == (1,)


@pytest.mark.parametrize("arguments", ["--no-strict --policy.no-normalize-obs --nu 0"])
def test_the_command_of_a_variant(arguments):
    env, command = cli.parse_train(["khazad-dum", "--learner", "ppo", *arguments.split()])
    run = runs.Run(env, command.experiment, 7, "mine")
    words = shlex.split(compact.command(run, [run.seed]))[3:]
    again = cli.parse_train(words)[1]
    assert again.experiment == command.experiment
    assert (again.options.seeds, again.options.name) == ((7,), "mine")


def test_results_are_read_as_they_were_written(collected, tmp_path):
    compact.write(tmp_path / "results", collected)
    again = compact.read(tmp_path / "results")
    for name, table, expected in zip(again._fields, again, collected, strict=True):
        expected = expected.reset_index(drop=True)
        pd.testing.assert_frame_equal(table, expected, rtol=1e-5, check_dtype=False, obj=name)
    assert again.runs["commit"].tolist() == ["1e10"]  # no number
    text = (tmp_path / "results" / "tests.csv").read_text().splitlines()
    assert text[1].startswith("roml,1,,,5,-2.4,-9,") and text[7].startswith("roml,1,0.46,inf")
    compact.write(tmp_path / "again", again)
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (tmp_path / "results" / file.name).read_bytes()


def test_a_missing_file_says_how_it_is_made(collected, tmp_path):
    compact.write(tmp_path / "khazad-dum", collected)
    (tmp_path / "khazad-dum" / "sampler.csv").unlink()
    assert compact.read(tmp_path / "khazad-dum").sampler.empty  # some results leave it out
    (tmp_path / "khazad-dum" / "validation.csv").unlink()
    with pytest.raises(
        UserError, match=r"validation\.csv is missing.*experiments\.compare khazad-dum"
    ):
        compact.read(tmp_path / "khazad-dum")


def test_nothing_to_collect():
    with pytest.raises(UserError, match="no run is finished"):
        compact.collect([])


def test_methods_whose_phi_stays_are_not_in_the_samplers_course(single, tmp_path):
    path = made_up(single, tmp_path)
    metrics = pd.read_csv(path / "metrics.csv").assign(phi_mean_rain=0.1)
    metrics.to_csv(path / "metrics.csv", index=False)
    moving = tmp_path / "moving"
    moving.mkdir()
    both = compact.collect([("baseline", path), ("roml", made_up(single, moving))])
    assert set(both.sampler["method"]) == {"roml"} and len(both.runs) == 2
    alone = compact.collect([("baseline", path)])
    assert alone.sampler.empty and "phi_mean_rain" in alone.sampler


def test_a_run_without_its_checkpoint_has_no_sample_episodes(collected, told):
    assert collected.episodes.empty and list(collected.episodes)[-1] == "outcome"
    assert "no checkpoint of its last step" in told.getvalue()


def test_sample_episodes_are_those_of_the_final_agent(single, monkeypatch):
    few = np.repeat(np.float32([0.1, 0.5]), 14)[:, None]
    view = khazad_dum_view(KhazadDum())._replace(tasks=few)
    seen = PRESETS["khazad-dum"]._replace(view=lambda env: view)
    monkeypatch.setitem(PRESETS, "khazad-dum", seen)
    rows = compact.collect([("roml", single)]).episodes
    assert sorted(set(rows["episode"])) == [0, 1] and list(rows["step"].unique()) == [*range(6)]
    assert list(rows["task_index"].unique()) == [*range(12), *range(14, 26)]
    assert len(rows) == 24 * 2 * 6

    built = build(runs.read_config(single).experiment)
    params = built.learner.params(checkpoints.restore(single, saved_shape(built)).state.learner)
    key = jax.random.fold_in(evaluation_key(1, "test"), 1)
    options = {"deterministic": True}
    data = jax.jit(
        lambda p: rollout(key, built.env, built.learner.agent, p, jax.numpy.array(few), **options)
    )(params)
    places = khazad_dum_view(KhazadDum()).trace(np.asarray(data.obs))  # [2, 6, 28, 2]
    ends = khazad_dum_view(KhazadDum()).columns(jax.tree.map(np.asarray, data.info))["path"]
    for row in rows.to_dict("records"):
        k, i, step = row["episode"], row["task_index"], row["step"]
        seen = max(step, 1) if k else step  # nobody has seen the start of the second episode
        np.testing.assert_allclose([row["x"], row["y"]], places[k, seen, i], atol=0.0051)
        assert row["outcome"] == ends[k, i] and row["task_0"] == few[i, 0]


@pytest.mark.parametrize(
    ("spec", "learner", "name"),
    [
        ("baseline", "varibad", "VariBAD"),
        ("baseline", "ppo", "PPO"),
        ("cvar-ml", "varibad", "CVaR-ML"),
        ("roml", "varibad", "RoML"),
        ("roml", "ppo", "RoML on PPO"),
        ("ppo/roml", "ppo", "RoML on PPO"),
        ("ppo/baseline", None, "PPO"),
        ("rl2/roml:nu=0", None, "RoML on RL², nu=0"),
        ("rl2/roml@khazad-dum-wide", None, "RoML on RL², khazad-dum-wide"),
        ("roml", None, "RoML"),
        ("dreamer/baseline", None, "dreamer"),
        ("dreamer/dream", None, "dream on dreamer"),
        ("roml:nu=0,soft_update=0", "varibad", "RoML, nu=0, soft_update=0"),
        (
            "cvar-ml:policy.unselected=constant_advantage",
            "varibad",
            "CVaR-ML, policy.unselected=constant_advantage",
        ),
    ],
)
def test_names_for_people(spec, learner, name):
    assert compact.label(spec, learner) == name


# ------------------------------------------------------------------ tables

MEANS = {  # by method and seed; roml and the baseline share seeds 1 and 2
    "baseline": {0: -0.5, 1: -0.25, 2: -0.125},
    "roml": {1: -0.125, 2: -0.25, 3: -0.75},
    "roml:alpha=0.05": {1: -0.25},
}


def results(means=MEANS, learner="varibad"):
    """Results with a CVaR of twice the mean, and two ranges, one empty for seed 1."""
    whole, parts, heads = [], [], []
    for method, values in means.items():
        alpha = 0.05 if "alpha" in method else 0.01
        for seed, mean in values.items():
            own = {"method": method, "seed": seed}
            head = {"env": "khazad-dum", "learner": split_row(method)[0] or learner}
            heads.append({**head, "alpha": alpha, **own})
            whole.append({**own, "low": np.nan, "high": np.nan, "mean": mean, "cvar": 2 * mean})
            parts.append({**own, "low": 0.0, "high": 0.3, "mean": 0.5})
            tail = np.nan if seed == 1 else float(seed)
            parts.append({**own, "low": 0.3, "high": np.inf, "mean": tail})
    empty = pd.DataFrame()
    levels = pd.DataFrame(columns=["method", "seed", "steps", "alpha", "cvar"])
    return compact.Results(pd.DataFrame(heads), pd.DataFrame(whole + parts), *[empty] * 3, levels)


def test_summary_by_hand():
    table = tables.summarize(results()).set_index("method")
    assert list(table["label"]) == ["VariBAD", "RoML", "RoML, alpha=0.05"]
    assert list(table["seeds"]) == [3, 3, 1]
    np.testing.assert_allclose(table["mean"], [-0.875 / 3, -1.125 / 3, -0.25])
    np.testing.assert_allclose(table["cvar"], 2 * table["mean"])
    assert np.isnan(table.loc["roml", ["mean_low", "mean_high"]].astype(float)).all()  # of three
    assert table.loc["roml", "mean_values"] == "-0.125 -0.25 -0.75"
    assert table.loc["roml:alpha=0.05", "mean_values"] == "-0.25"  # of one seed

    gains = table[["mean_gain", "cvar_gain"]]
    assert gains.loc["baseline"].isna().all()
    assert list(gains.loc["roml"]) == [0.0, 0.0]  # 0.125 and -0.125, on seeds 1 and 2
    assert gains.loc["roml:alpha=0.05", "mean_gain"] == 0.0
    assert np.isnan(gains.loc["roml:alpha=0.05", "cvar_gain"])  # of another tail
    assert table.loc["roml", "mean_gain_error"] == pytest.approx(0.125)

    np.testing.assert_allclose(table["mean_0_0.3"], 0.5)
    np.testing.assert_allclose(table["mean_0.3_inf"], [1.0, 2.5, np.nan])  # 0, 2 and 2, 3
    published = PRESETS["khazad-dum"].published["roml"]
    names = ["published_cvar", "published_cvar_low", "published_cvar_high"]
    assert tuple(table.loc["roml", names]) == published.cvar
    assert np.isnan(table.loc["roml:alpha=0.05", "published_mean"])


LEARNERS = {  # two methods below each of two learners, and one below a third
    "baseline": {0: -0.5, 1: -0.25},
    "roml": {0: -0.25, 1: -0.25},
    "ppo/baseline": {0: -1.0, 1: -0.75},
    "ppo/roml": {0: -0.5, 1: -0.75},
    "rl2/roml:nu=0": {0: -0.125},
}


def test_gains_are_to_the_baseline_of_the_same_learner():
    found = results(LEARNERS)
    still = {"method": "still", "seed": 0, "low": np.nan, "high": np.nan, "mean": -1.0, "cvar": -1}
    found = found._replace(tests=pd.concat([found.tests, pd.DataFrame([still])]))
    table = tables.summarize(found).set_index("method")
    gains = [np.nan, 0.125, np.nan, 0.25, np.nan, np.nan]  # by hand; RL² has no baseline
    np.testing.assert_allclose(table["mean_gain"], gains)
    np.testing.assert_allclose(table["cvar_gain"], 2 * np.array(gains))
    assert table.loc["ppo/roml", "mean_gain_values"] == "0.5 0"
    assert table["published_mean"].notna().tolist() == [True, True, *[False] * 4]
    old = compact.Results(*(t.replace({"method": {"ppo/baseline": "baseline"}}) for t in found))
    alone = old._replace(runs=old.runs[old.runs["learner"] == "ppo"].replace("ppo/roml", "roml"))
    assert tables.baselines(alone) == {"ppo": "baseline"}  # of before there were several learners


def test_pairs_are_within_a_learner_or_of_one_method():
    pairs = tables.compare_pairs(results(LEARNERS)).set_index(["reference", "method"])
    assert list(pairs.index) == [
        ("baseline", "roml"), ("baseline", "ppo/baseline"), ("roml", "ppo/roml"),
        ("ppo/baseline", "ppo/roml"),
    ]  # fmt: skip
    np.testing.assert_allclose(pairs["mean_gain"], [0.125, -0.5, -0.375, 0.25])


def test_learners_by_methods(tmp_path):
    text = sheets.write(tmp_path, results(LEARNERS), {"rl2/baseline": [0, 1], "roml": [2]})
    parts = {part.splitlines()[0].strip("# "): part for part in text.split("\n\n## ")}
    assert list(parts)[1:6] == [
        "khazad-dum: mean return, learners by methods",
        "khazad-dum: CVaR 0.01, learners by methods",
        "khazad-dum: differences of VariBAD, seed by seed",
        "khazad-dum: differences between learners, seed by seed",
        "khazad-dum: differences of PPO, seed by seed",
    ]  # fmt: skip
    head, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in parts["khazad-dum: CVaR 0.01, learners by methods"].splitlines()
        if line.startswith("|")
    )
    assert head == ["learner", "baseline", "RoML", "RoML, nu=0"]
    assert [[cell.replace(MINUS, "-") for cell in row] for row in rows] == [
        ["VariBAD", "-1.000, -0.500", "-0.500, -0.500", ""],
        ["PPO", "-2.000, -1.500", "-1.000, -1.500", ""],
        ["RL²", "", "", "-0.250"],
    ]
    first = parts["khazad-dum: test returns"]
    assert f"mean {MINUS} baseline" in first and "to the baseline of the same learner" in first
    assert "not in these tables: RL², seeds 0 1." in text and "tables: RoML, seed 2." in text
    assert f"RoML on PPO {MINUS} PPO" in text and f"RoML on PPO {MINUS} RoML" in text
    assert "learners by methods" not in sheets.write(tmp_path, results(), {})


def test_unknown_words_have_tables_too(tmp_path):
    means = {"dreamer/baseline": {0: -1.0}, "dreamer/dream": {0: -0.5}, "ppo/dream": {0: -0.5}}
    text = sheets.write(tmp_path, results(means), {"dreamer/dream:x=1": [3]})
    assert "dream on dreamer, x=1, seed 3" in text and "dream on PPO" in text


def test_published_values_are_of_a_row(monkeypatch, tmp_path):
    value = Published((-0.5, -0.75, -0.25), (-1.0, -1.5, -0.5), note="read off a plot twice")
    tail = Published((np.nan,) * 3, (-2.0, -2.5, -1.5))
    known = {"ppo/roml": value, "dreamer/dream:x=1": tail, "rl2/roml": value}
    preset = PRESETS["khazad-dum"]._replace(published=known)
    monkeypatch.setitem(PRESETS, "khazad-dum", preset)
    means = {"roml": {0: -1.0}, "ppo/roml": {0: -1.0}, "dreamer/dream:x=1": {0: -1.0}}
    table = tables.summarize(results(means)).set_index("method")
    np.testing.assert_array_equal(table["published_mean"], [np.nan, -0.5, np.nan])
    np.testing.assert_array_equal(table["published_cvar"], [np.nan, -1.0, -2.0])
    text = sheets.write(tmp_path, results(means), {})
    assert text.count("Published RoML on PPO: read off a plot twice.") == 1
    assert "Published: mean over seeds (95 % interval)." in text
    alone = {"roml": {0: -1.0}}  # as results had it before there were several learners
    assert tables.summarize(results(alone, "ppo"))["published_cvar"].tolist() == [-1.0]


def test_what_cannot_be_compared_stays_empty():
    table = tables.summarize(results({"roml": MEANS["roml"]}))
    assert table["mean_gain"].isna().all() and table["published_mean"].notna().all()
    assert tables.summarize(results(learner="ppo"))["published_mean"].isna().all()


def test_tables_for_people(tmp_path):
    missing = {"baseline": [], "roml": [0, 4], "roml:alpha=0.05": [2]}
    text = sheets.write(tmp_path, results(), missing)
    assert text == (tmp_path / "table.md").read_text()
    first, pairs, second = text.split("\n\n## ")
    assert pairs.startswith("khazad-dum: differences, seed by seed")
    assert "khazad-dum: test returns" in first and second.startswith(
        "khazad-dum: mean return by rain"
    )
    for part, methods in ((first, 3), (pairs, 1), (second, 3)):
        lines = [line for line in part.splitlines() if line.startswith("|")]
        assert len(lines) == methods + 2 and len(set(map(len, lines))) == 1
        assert len({line.count("|") for line in lines}) == 1
    head, _, base, roml, other = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in first.splitlines()
        if line.startswith("|")
    )
    assert head[:3] == ["method", "seeds", "mean return"] and head[3] == "CVaR"  # two alphas
    assert (base[0], roml[1], other[1]) == ("VariBAD", "3", "1")
    assert roml[2] == f"{MINUS}0.125, {MINUS}0.250, {MINUS}0.750"
    assert base[4] == "" and roml[4] == f"0.125, {MINUS}0.125"
    assert base[6] == f"{MINUS}0.245 ({MINUS}0.300, {MINUS}0.210)" and other[2] == f"{MINUS}0.250"
    assert "not in these tables: RoML, seeds 0 4." in text and "alpha=0.05, seed 2." in text
    assert "| 0 to 0.3 " in second and "| 0.3 and more " in second


def test_csv_holds_the_raw_numbers(tmp_path):
    sheets.write(tmp_path, results(), {})
    table = pd.read_csv(tmp_path / "table.csv")
    expected = tables.summarize(results()).replace("", np.nan)
    pd.testing.assert_frame_equal(table, expected, rtol=1e-5, check_dtype=False)


def test_large_numbers_have_few_digits():
    found = results({"roml": {0: 1234.5}})
    told = sheets.word(tables.summarize(found), found, {}, tables.compare_pairs(found))
    assert told[0].rows[0][2] == "1234" and told[0].rows[0][1] == "1"


def test_latex_is_escaped(tmp_path):
    hard = {"roml:policy.unselected=50%_{a}&#$~^\\<": {0: -0.5, 1: -0.5}, **MEANS}
    sheets.write(tmp_path, results(hard), {"roml": [5]})
    text = (tmp_path / "table.tex").read_text()
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 5 + (1 + 3) + 5  # four methods, three pairs of the same alpha
    counts = [row.replace(r"\&", "").count("&") for row in rows]
    specs = [line.split("{")[2].strip("}") for line in text.splitlines() if "begin{tab" in line]
    lengths = [len(spec) - 1 for spec in specs]
    assert [lengths[0]] * 5 + [lengths[1]] * 4 + [lengths[2]] * 5 == counts
    assert (
        r"policy.unselected=50\%\_\{a\}\&\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}$<$"
    ) in text
    assert "(95 \\% interval by Student's t) $\\pm$ standard" in text and "$-$0.500" in text
    body = text.split("\n", 1)[1]
    assert body.isascii() and "%" not in body.replace(r"\%", "")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3


# ------------------------------------------------------------------ pairs and levels


def test_pairs_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    means = {"baseline": dict(enumerate(rng.normal(size=9)))}
    means["roml"] = {seed: value + 0.1 * (seed + 1) for seed, value in means["baseline"].items()}
    means["cvar-ml"] = {seed: rng.normal() for seed in range(4, 12)}
    means["roml:alpha=0.05"] = {seed: 0.0 for seed in range(9)}
    sheets.write(tmp_path, results(means), {})
    pairs = pd.read_csv(tmp_path / "pairs.csv").set_index(["method", "reference"])
    assert list(pairs.index) == [
        ("roml", "baseline"), ("cvar-ml", "baseline"), ("cvar-ml", "roml"),
    ]  # fmt: skip
    first = pairs.loc[("roml", "baseline")]
    assert first["seeds"] == 9 and first["mean_gain"] == pytest.approx(0.5)
    assert first["cvar_gain"] == pytest.approx(1.0)
    assert first["mean_p"] == pytest.approx(2 / 2**9)  # all nine ranks are positive
    both = [5, 6, 7, 8, 4]
    second = pairs.loc[("cvar-ml", "baseline")]
    gain = np.mean([means["cvar-ml"][s] - means["baseline"][s] for s in both])
    assert second["seeds"] == 5 and second["mean_gain"] == pytest.approx(gain, rel=1e-5)
    assert np.isnan(second["mean_p"])  # five seeds can never tell
    text = (tmp_path / "table.md").read_text()
    assert f"| RoML {MINUS} VariBAD    | 9 " in text and "| 0.0039 |" in text


def test_p_values_in_words():
    words = [sheets._p_value(p) for p in (float("nan"), 0.5, 0.0123, 1e-5)]
    assert words == ["", "0.5", "0.012", "< 0.0001"]


def test_levels_are_compared_where_alpha_differs(tmp_path):
    risk = [
        {"method": method, "seed": seed, "steps": steps, "alpha": level, "cvar": seed - 1 / level}
        for method, seed in (("roml", 0), ("roml", 1), ("roml:alpha=0.05", 0))
        for level in (0.1, 1.0)
        for steps in (np.nan, 3.0)
    ]
    means = {"roml": {0: -1.0, 1: -2.0}, "roml:alpha=0.05": {0: -3.0}}
    found = results(means)._replace(risk=pd.DataFrame(risk))
    table = tables.summarize(found).set_index("method")
    assert list(table["cvar_at_0.1"]) == [-9.5, -10.0] and list(table["cvar_at_1"]) == [-0.5, -1.0]
    assert "CVaR of the test returns by level" in sheets.write(tmp_path, found, {})
    alone = found._replace(runs=found.runs[found.runs["method"] == "roml"])
    assert "by level" not in sheets.write(tmp_path, alone, {})


def test_which_agents_were_tested():
    runs = results().runs
    assert compact.tested_words(runs) == "final agents"
    best = runs.assign(tested="best-cvar")
    assert compact.tested_words(best) == "agents of the best validation CVaR"
    mixed = best.assign(tested=best["tested"].where(best["method"] != "baseline", "best-mean"))
    told = "agents of the best validation (VariBAD: mean; RoML, RoML, alpha=0.05: CVaR)"
    assert compact.tested_words(mixed) == told
