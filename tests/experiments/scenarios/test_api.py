"""Trainings, tests and comparisons from Python, against what the commands write."""

from __future__ import annotations

import dataclasses
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from tqdm import tqdm

from envs.khazad_dum import KhazadDum
from experiments import api, cli
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.learners import LEARNERS, LearnerKind
from experiments.study.compared import rows_of
from experiments.training import runs, trainer
from roml_jax.learners import PPOConfig, ppo
from roml_jax.methods import METHODS, BaselineConfig, MethodKind, baseline
from roml_jax.risk import cvar
from tests.probes import Probe

TINY = {
    "frames": 700,
    "num_tasks": 4,
    "horizon": 5,
    "episodes": 2,
    "batch": 8,
    "warmup_frames": 80,
    "policy": {
        "layers": 4,
        "obs_embedding": 4,
        "latent_embedding": 4,
        "minibatches": 2,
        "epochs": 1,
    },
    "belief": {
        "buffer_size": 16,
        "batch_size": 3,
        "hidden_size": 4,
        "latent_size": 2,
        "decoder_layers": [4],
        "elbo_terms": 4,
        "decode_terms": 4,
        "truncation": None,
    },
    "validation_tasks": 8,
    "validation_every": 6,
    "test_tasks": 12,
    "checkpoint_minutes": 1000,
}
PPO = {
    **{name: TINY[name] for name in ("frames", "num_tasks", "horizon", "episodes", "test_tasks")},
    **{name: TINY[name] for name in ("validation_tasks", "validation_every")},
    "policy": {**TINY["policy"], "latent_embedding": None},
}


@pytest.fixture(scope="module")
def trained(single):
    """The run that the command has made, by the same settings from here: nothing is left to do."""
    return api.train("khazad-dum", seeds=1, out=single.parents[2], **TINY)


@pytest.fixture(autouse=True)
def as_before():
    """What a test enters into the tables is taken out again."""
    tables = PRESETS, LEARNERS, METHODS
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


def test_what_a_command_has_trained_is_not_trained_again(trained, single, monkeypatch):
    assert trained.paths == (single,) and trained.finished and trained.seeds == [1]
    assert trained.runs[0] == runs.read_config(single)
    assert repr(trained).startswith("<khazad-dum, roml on varibad, seeds 1, finished, in ")
    monkeypatch.setattr(trainer, "train", lambda *_: pytest.fail("trained again"))
    again = api.train("khazad-dum", seeds=[1], out=str(single.parents[2]), **TINY)
    assert again == trained


def test_tables_are_those_of_the_files(trained, single):
    metrics, tests = trained.metrics, trained.tests
    pd.testing.assert_frame_equal(metrics.drop(columns="seed"), pd.read_csv(single / "metrics.csv"))
    pd.testing.assert_frame_equal(tests, pd.read_csv(single / "test.csv"))
    assert (metrics["seed"] == 1).all() and len(metrics) == 18


def test_the_test_at_any_alpha(trained):
    returns = trained.tests.groupby("task_index")["return"].mean().to_numpy(np.float32)
    for alpha in (None, 0.25, 1.0):
        row = trained.test(alpha).loc[1]
        level = 0.01 if alpha is None else alpha
        np.testing.assert_allclose(row["cvar"], cvar(jnp.asarray(returns), level), rtol=1e-6)
        np.testing.assert_allclose([row["mean"], row["alpha"]], [returns.mean(), level], rtol=1e-6)
    outcomes = trained.test().columns.difference(["alpha", "mean", "cvar"])
    np.testing.assert_allclose(trained.test().loc[1, outcomes].sum(), 1)


def test_another_test_is_played_from_the_checkpoints(trained):
    same = trained.test(tasks=12).loc[1]
    np.testing.assert_allclose(same["mean"], trained.test().loc[1, "mean"], rtol=1e-5)
    other = trained.test(tasks=6, repeats=2, seed=5, alpha=0.5).loc[1]
    assert "cvar_by_halves" in other and other["mean"] != same["mean"]
    newest = trained.test(checkpoint="newest").loc[1]
    np.testing.assert_allclose(newest["mean"], same["mean"], rtol=1e-5)


def test_an_agent_plays_tasks_of_ones_choice(trained):
    agent = trained.agent()
    assert agent.step == 17 and agent.phi.keys() == {"mean_rain"}
    got = agent.returns([0.0, 0.1, 3.0])
    assert got.shape == (3,) and np.isfinite(got).all()
    np.testing.assert_array_equal(got, agent.returns([[0.0], [0.1], [3.0]]))
    with pytest.raises(ValueError, match="with a column for rain"):
        agent.returns([[0.0, 1.0]])
    with pytest.raises(UserError, match="there is no run of seed 3; seeds are 1"):
        trained.agent(3)


def test_runs_are_copied_and_found_again(trained, tmp_path):
    copied = trained.save(tmp_path)
    assert copied.paths[0] == tmp_path / "khazad-dum" / "roml-varibad" / "seed-1"
    for place in (tmp_path, copied.paths[0]):
        found = api.load(place)
        assert found == copied
    np.testing.assert_allclose(found.test(tasks=12)["mean"], trained.test()["mean"], rtol=1e-5)
    with pytest.raises(UserError, match="holds a run already"):
        trained.save(tmp_path)
    (copied.paths[0] / "test.csv").unlink()
    assert not copied.finished
    with pytest.raises(UserError, match=r"test\.csv is not there yet: the run is unfinished"):
        copied.test()
    with pytest.raises(UserError, match=r"is not finished: train seed 1 to its end first"):
        api.compare([copied])


def test_folders_without_a_training(tmp_path, several, trained):
    with pytest.raises(UserError, match="holds no run"):
        api.load(tmp_path)
    with pytest.raises(UserError, match="no directory"):
        api.load(tmp_path / "nowhere")
    api.Trained(trained.paths, trained.runs).save(tmp_path)
    other = dataclasses.replace(trained.runs[0].experiment, frames=5)
    run = trained.runs[0]._replace(experiment=other, name="other")
    api.Trained(trained.paths, (run,)).save(tmp_path)
    runs.write_config(run.path(tmp_path), run, [1])
    with pytest.raises(UserError, match="several trainings: load one of khazad-dum/other, khazad"):
        api.load(tmp_path)
    assert api.load(several).seeds == [1, 5]


def test_a_plot_shows_every_seed_and_their_mean(several):
    found = api.load(several)
    axes = found.plot().axes[0]
    assert len(axes.lines) == 2 * (2 + 1)
    seen = found.metrics.dropna(subset=["validation_mean"])
    want = seen.groupby("frames")["validation_mean"].mean()
    np.testing.assert_allclose(axes.lines[2].get_ydata(), want)


def test_a_comparison_is_tables_and_figures(several, trained, tmp_path, capsys):
    del capsys
    whole = api.load(several)
    seeds = dataclasses.replace(
        whole, paths=(*trained.paths, *whole.paths[1:]), runs=(*trained.runs, *whole.runs[1:])
    )
    made = api.compare([seeds])
    assert made.table.index[0] == "RoML"
    np.testing.assert_allclose(made.table.loc["RoML", "mean"], seeds.test()["mean"].mean())
    assert {"learning", "test"} <= made.figures.keys()
    assert "| RoML " in str(made) and made._repr_markdown_() == str(made)
    made.save(tmp_path)
    assert {"runs.csv", "tests.csv", "table.md"} <= {file.name for file in tmp_path.iterdir()}


def test_rows_are_named_by_what_they_differ_in(trained):
    run = trained.runs[0]
    more = dataclasses.replace(run.experiment.method, nu=0.5)
    other = run._replace(experiment=dataclasses.replace(run.experiment, method=more))
    assert rows_of([run, other]) == ["roml", "roml:nu=0.5"]
    usual = run._replace(experiment=PRESETS["khazad-dum"].choose("ppo", "roml"))
    base = run._replace(experiment=PRESETS["khazad-dum"].choose("ppo", "baseline"))
    more = dataclasses.replace(usual.experiment, method=more)  # which the baseline has no nu for
    assert rows_of([run._replace(experiment=more), base]) == ["ppo/roml", "ppo/baseline"]
    assert rows_of([usual, base, run])[2].startswith("roml:horizon=5,")
    assert rows_of([run]) == ["roml"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "kazad-dum"}, "unknown environment 'kazad-dum', did you mean khazad-dum"),
        ({"method": "RoML"}, "did you mean roml"),
        ({"learner": "maml"}, "unknown learner 'maml'"),
        ({"lr": 3e-4}, r"unknown flag --lr, did you mean .*--policy\.learning-rate\?"),
        ({"policy": {"lr": 3e-4}}, r"did you mean --policy\.learning-rate"),
        ({"alpha": 2.0}, r"alpha=2\.0"),
        ({"frames": "many"}, "frames"),
        ({"seeds": []}, "--seeds are one or more"),
        ({"env": 3}, "env is the name of a preset, a TaskEnv or a TaskData; int has no family"),
        ({"method": 3}, "a learner is a name or a LearnerKind"),
    ],
)
def test_wrong_words_are_named_in_one_line(settings, message, tmp_path):
    with pytest.raises(UserError, match=message) as error:
        api.train(**{"out": tmp_path} | settings)
    assert "\n" not in str(error.value) and not any(tmp_path.iterdir())


def test_other_settings_than_those_of_the_folder_are_refused(single):
    with pytest.raises(UserError, match=r"nu 0\.2 there, 0\.5 here"):
        api.train("khazad-dum", seeds=1, out=single.parents[2], nu=0.5, **TINY)


def test_presets_are_listed():
    table = api.presets()
    assert list(table.index) == list(PRESETS)
    assert table.loc["sine", "learner"] == "maml" and table.loc["khazad-dum", "alpha"] == 0.01


# ------------------------------------------------------------------ of one's own


def test_an_environment_a_learner_and_a_method_of_ones_own(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class CalmConfig(BaselineConfig):
        """Settings of a method that does nothing."""

        calm: float = 1.0

    calm = MethodKind(CalmConfig, lambda family, config, steps: baseline(family), "Calm")
    plain = LearnerKind(PPOConfig, ppo, "Plain PPO")
    env = Probe("arms", length=3, horizon=3, episodes=2)
    settings = {name: PPO[name] for name in ("policy", "validation_tasks", "validation_every")}
    settings |= {"frames": 120, "num_tasks": 4, "test_tasks": 12, "out": tmp_path}
    own = api.train(env, learner=plain, method=calm, calm=0.5, **settings)
    assert own.paths[0] == tmp_path / "probe" / "calm-plain-ppo" / "seed-0" and own.finished
    assert own.runs[0].experiment.env == env and own.runs[0].experiment.method.calm == 0.5
    assert api.load(tmp_path).test().shape[0] == 1
    assert own.agent().returns([0.0, 1.0]).shape == (2,)
    # A cell that is run again makes the class anew.
    again = api.train(env, learner=plain, method=calm._replace(), calm=0.5, **settings)
    assert again == own
    with pytest.raises(UserError, match="there is a roml already"):
        api.train(env, method=calm._replace(label="RoML"), **settings)
    with pytest.raises(UserError, match="there is a preset sine already"):
        api.train(type("Sine", (Probe,), {})("arms"), **settings)


def test_one_of_our_environments_with_other_settings(tmp_path):
    env = KhazadDum(horizon=5, episodes=2, rain_mean=0.3)
    changed = {name: value for name, value in PPO.items() if name not in ("horizon", "episodes")}
    own = api.train(env, learner="ppo", method="baseline", out=tmp_path, **changed)
    assert own.paths[0].parents[1] == tmp_path / "khazad-dum"
    assert own.runs[0].experiment.env == env
    assert PRESETS["khazad-dum"].experiment.env != env  # only for that training


# ------------------------------------------------------------------ in a notebook


def test_a_notebook_shows_a_bar_and_one_picture(tmp_path, monkeypatch):
    shown = []

    class Handle:
        def update(self, figure):
            shown.append(figure)

    def display(figure, display_id):
        shown.append(figure)
        return Handle()

    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    monkeypatch.setattr("IPython.display.display", display)
    bars = []
    monkeypatch.setattr("tqdm.auto.tqdm", lambda **words: bars.append(words) or tqdm(**words))
    changed = {"learner": "ppo", "method": "baseline", "out": tmp_path} | PPO
    run = api.train("khazad-dum", **changed)
    assert len(bars) == 1 and "{bar}" in bars[0]["bar_format"]
    seen = run.metrics.dropna(subset=["validation_mean"])
    assert len(shown) == len(seen)  # the first is of the untrained agent
    line = shown[-1].axes[0].lines[-1]
    np.testing.assert_allclose(line.get_ydata(), seen["validation_cvar"])


# ------------------------------------------------------------------ ends


@pytest.mark.parametrize(
    ("code", "raised"),
    [(128 + signal.SIGINT, KeyboardInterrupt), (128 + signal.SIGTERM, SystemExit)],
)
def test_a_stop_ends_the_call(code, raised, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train", lambda *_: code)
    with pytest.raises(raised):
        api.train("khazad-dum", out=tmp_path, **TINY)


def test_a_training_that_stops_by_itself_raises(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train", lambda *_: 1)
    with pytest.raises(RuntimeError, match="training had to stop, for the reason above"):
        api.train("khazad-dum", out=tmp_path, **TINY)


def test_it_goes_on_where_it_was_stopped(tmp_path, single, monkeypatch):
    """Ctrl-C in the middle: what was trained is kept, and the same call comes to the same end."""
    words = {"seeds": 1, "out": tmp_path, **TINY}
    save = trainer.Loop.run

    def run(loop):
        loop._advance = interrupted(loop, loop._advance)
        return save(loop)

    def interrupted(loop, advance):
        def step(n, bar):
            advance(min(n, 4), bar)
            if loop.step >= 8:
                signal.raise_signal(signal.SIGINT)

        return step

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Loop, "run", run)
        with pytest.raises(KeyboardInterrupt):
            api.train("khazad-dum", **words)
    stopped = api.load(tmp_path)
    assert not stopped.finished and 8 <= stopped.agent(checkpoint="newest").step < 17
    whole = api.train("khazad-dum", **words)
    assert whole.finished
    want = pd.read_csv(single / "test.csv")
    np.testing.assert_array_equal(whole.tests["return"], want["return"])


def test_words_are_those_of_the_command_line():
    assert api._words({"policy": {"layers": (8, 4), "clip": 0.1}, "overwrite": True}) == [
        *("--policy.layers", "8", "4", "--policy.clip", "0.1", "--overwrite"),
    ]
    assert jax.tree.leaves(api._words({"alphas": [0.1, 1]})) == ["--alphas", "0.1", "1"]
    assert cli.parse_train(["khazad-dum", *api._words({"frames": 1e6})])[1].experiment.frames == 1e6
