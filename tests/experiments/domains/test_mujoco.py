"""The twelve presets of continuous control: settings, a run from end to end, and pictures."""

from __future__ import annotations

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from envs.mujoco import engines
from experiments import cli, evaluate, train
from experiments.domains.mujoco import view
from experiments.presets import PRESETS
from experiments.spec.build import build
from experiments.spec.experiment import settings
from tests.experiments.conftest import TINY

# Iterations, frames of each, iterations per update of phi, the first learning of the belief.
FACTS = {
    "half-cheetah-vel": (4687, 6400, 8), "half-cheetah-mass": (4687, 6400, 8),
    "half-cheetah-body": (9375, 6400, 8), "half-cheetah-10d-a": (12500, 6400, 32),
    "half-cheetah-10d-b": (12500, 6400, 32), "half-cheetah-10d-c": (12500, 6400, 32),
    "ant-goal": (31250, 3200, 16), "ant-mass": (31250, 3200, 16), "ant-body": (21875, 3200, 16),
    "humanoid-vel": (2343, 12800, 4), "humanoid-mass": (2343, 12800, 4),
    "humanoid-body": (4687, 12800, 4),
}  # fmt: skip
SHARED = {
    "horizon": 200, "episodes": 2, "physics": "auto", "derived": "raw", "warmup_frames": 5000,
    "method": "roml", "alpha": 0.05, "beta": 0.2, "nu": 0.2, "soft_update": 0.5,
    "policy.gae_lambda": 0.9, "policy.adam_eps": 1e-8, "policy.value_coef": 0.5,
    "policy.max_grad_norm": 0.5, "policy.activation": "tanh", "policy.init_std": 1.0,
    "policy.normalize_obs": True, "policy.normalize_reward": True, "policy.huber_value": True,
    "policy.clip_value": True, "policy.time_limit": "ignore", "policy.unselected": "drop",
    "belief.learning_rate": 1e-3, "belief.buffer_size": 10_000, "belief.batch_size": 10,
    "belief.kl_weight": 0.1, "belief.action_embedding": 16, "belief.obs_embedding": 32,
    "belief.reward_embedding": 16, "belief.hidden_size": 128, "belief.decoder_layers": (64, 32),
    "belief.encoder_max_grad_norm": 1.0, "belief.decoder_max_grad_norm": 1.0,
    "validation_tasks": 32, "validation_every": 25, "test_tasks": 1008, "tested": "final",
}  # fmt: skip
BY_BODY = {
    "half-cheetah": {
        "policy.discount": 0.97, "policy.epochs": 2, "policy.minibatches": 8, "policy.clip": 0.1,
        "policy.learning_rate": 7e-4, "policy.anneal_updates": None, "policy.entropy_coef": 0.01,
        "policy.layers": (128, 128), "policy.initialization": "normc", "policy.squash": False,
        "policy.obs_embedding": 64, "policy.latent_embedding": 64,
        "policy.normalize_latent": True, "belief.updates": 1, "belief.truncation": 50,
        "belief.elbo_terms": 50, "belief.decode_terms": 50, "belief.latent_size": 5,
    },
    "ant": {
        "policy.discount": 0.97, "policy.epochs": 2, "policy.minibatches": 1, "policy.clip": 0.05,
        "policy.learning_rate": 1e-3, "policy.entropy_coef": 0.01, "policy.layers": (128, 128),
        "policy.initialization": "orthogonal", "policy.squash": False,
        "policy.obs_embedding": 64, "policy.latent_embedding": 64,
        "policy.normalize_latent": False, "belief.updates": 5, "belief.truncation": None,
        "belief.latent_size": 10,
    },
    "humanoid": {
        "policy.discount": 0.99, "policy.epochs": 4, "policy.minibatches": 2, "policy.clip": 0.1,
        "policy.learning_rate": 7e-4, "policy.entropy_coef": 0.001, "policy.layers": (512, 256),
        "policy.initialization": "orthogonal", "policy.squash": True,
        "policy.obs_embedding": None, "policy.latent_embedding": None,
        "policy.normalize_latent": False, "belief.updates": 10, "belief.truncation": None,
        "belief.elbo_terms": 100, "belief.decode_terms": 100, "belief.latent_size": 10,
    },
}  # fmt: skip
BATCH = {"half-cheetah-10d-a": 512, "half-cheetah-10d-b": 512, "half-cheetah-10d-c": 512}
TERMS = {"ant-goal": None, "ant-mass": 100, "ant-body": None}
OBSERVATION = {"half-cheetah": 21, "ant": 28, "ant-goal": 114, "humanoid": 377}  # with the flag


@pytest.mark.parametrize("name", FACTS)
def test_presets_have_the_published_settings(name):
    body = next(body for body in BY_BODY if name.startswith(body))
    experiment, (steps, frames, per_phi) = PRESETS[name].experiment, FACTS[name]
    now, want = settings(experiment), SHARED | BY_BODY[body] | {"batch": BATCH.get(name, 128)}
    if name in TERMS:
        want |= {"belief.elbo_terms": TERMS[name], "belief.decode_terms": TERMS[name]}
    if body != "half-cheetah":
        want |= {"policy.anneal_updates": steps}
    assert {key: now[key] for key in want} == want
    assert experiment.learner.num_tasks * 2 * 200 == frames
    assert experiment.frames // frames == steps
    assert experiment.method.batch == per_phi * experiment.learner.num_tasks
    size = OBSERVATION.get(name, OBSERVATION[body])
    assert experiment.learner.boundary.observation_size(experiment.env) == size


@pytest.mark.parametrize("name", FACTS)
def test_wide_presets_anneal_over_the_whole_training(name):
    experiment = PRESETS[f"{name}-wide"].experiment
    steps = experiment.frames // (experiment.learner.num_tasks * 400)
    assert experiment.learner.num_tasks == 1024 and experiment.method.batch is None
    assert steps == experiment.learner.policy.anneal_updates
    assert experiment.env == PRESETS[name].experiment.env


@pytest.fixture(scope="module")
def finished(compilation, tmp_path_factory):
    """The directory of a tiny run of half-cheetah-mass, and what the terminal said."""
    out = tmp_path_factory.mktemp("mujoco")
    with compilation():
        assert cli.run(train.main, ["half-cheetah-mass", *TINY, "--out", str(out)]) == 0
    return out / "half-cheetah-mass" / "roml-varibad" / "seed-0"


def test_a_run_from_end_to_end(finished, capsys):
    test = pd.read_csv(finished / "test.csv")
    assert len(test) == 12 * 2 and np.isfinite(test["return"]).all()
    assert test["task_mass"].between(0.5, 2.0).all() and (test["diverged"] == 0).all()
    assert (test["height"].between(-0.5, 2.0)).all() and test["x"].nunique() > 12
    metrics = pd.read_csv(finished / "metrics.csv")
    assert (metrics["terminated"].dropna() == 0).all() and metrics["terminated"].count() == 17
    assert (finished / "episodes.png").is_file()
    config = json.loads((finished / "config.json").read_text())
    assert config["engine"] == "mujoco" and "mujoco" in config["versions"]


def test_evaluation_from_the_checkpoint_alone(finished, capsys):
    before = pd.read_csv(finished / "test.csv")
    (finished / "test.csv").rename(finished / "test-before.csv")
    assert cli.run(evaluate.main, [str(finished)]) == 0
    after = pd.read_csv(finished / "test.csv") if (finished / "test.csv").is_file() else before
    (finished / "test-before.csv").replace(finished / "test.csv")
    pd.testing.assert_frame_equal(before, after)
    mean = before.groupby("task_index")["return"].mean().mean()
    assert f"{mean:.4f}" in capsys.readouterr().out


def test_the_engine_in_words():
    env = PRESETS["half-cheetah-vel"].experiment.env
    words = view.physics_words(env)
    assert words == "MuJoCo in C (mujoco, chosen for this CPU), derived raw"
    env = dataclasses.replace(env, physics="mujoco", derived="original")
    assert view.physics_words(env) == "MuJoCo in C (mujoco), derived original"


def test_what_to_know_of_an_engine_on_a_gpu(monkeypatch):
    env = dataclasses.replace(PRESETS["ant-goal"].experiment.env, physics="mjx")
    assert "warp" not in view.physics_words(env)
    monkeypatch.setattr(view, "is_nvidia", lambda: True)
    assert "pip install 'roml-jax[warp]'" in view.physics_words(env)
    monkeypatch.setattr(type(env), "engine", "warp")
    assert "a minute or two" in view.physics_words(env)


def test_errors_are_one_line(tmp_path, capsys, monkeypatch):
    out = ["--out", str(tmp_path)]
    for arguments, words in {
        ("--physics", "bullet"): ["physics", "bullet", "mjx", "warp", "mujoco", "auto"],
        ("--derived", "none"): ["derived", "raw", "consistent", "original"],
        ("--physics", "mjx", "--derived", "original"): ["original", "mujoco", "mjx"],
        ("--max-velocity", "0"): ["max_velocity", "positive"],
    }.items():
        assert cli.run(train.main, ["half-cheetah-vel", *arguments, *out]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and all(word in line for word in words), line
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert cli.run(train.main, ["half-cheetah-vel", *TINY, *out]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "roml-jax[mujoco]" in line
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["half-cheetah-vel", "ant-goal", "ant-body", "humanoid-mass"])
def test_pictures_of_episodes(name, tmp_path):
    from experiments import style

    preset = PRESETS[name]
    env = preset.experiment.env
    seen = preset.view_of(env)
    shape = (2, 31, len(seen.tasks), env.observation_size + 1)
    obs = np.random.default_rng(0).normal(size=shape).cumsum(axis=1)
    figure = seen.draw(seen.tasks, obs, {})
    assert len(figure.axes) == 2 and len(figure.axes[0].lines) >= len(seen.tasks)
    style.save(figure, tmp_path / "episodes.png")
    assert np.isfinite(env.family.log_prob(jnp.asarray(seen.tasks), env.family.phi0)).all()
    assert len(seen.ranges) > 4 and list(seen.ranges) == sorted(seen.ranges)


@pytest.mark.slow
@pytest.mark.parametrize("name", FACTS)
def test_every_family_trains(name, compilation, tmp_path, capsys):
    with compilation():
        arguments = [name, *TINY, "--out", str(tmp_path), "--frames", "200"]
        assert cli.run(train.main, arguments) == 0
    metrics = pd.read_csv(next(tmp_path.rglob("metrics.csv")))
    assert np.isfinite(metrics["return_mean"]).all()
    assert build(PRESETS[name].experiment).env.engine == "mujoco"
