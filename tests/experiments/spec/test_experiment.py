"""Experiments as JSON, presets against the published settings, and what build finds."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from experiments.presets import PRESETS
from experiments.spec.build import build
from experiments.spec.errors import UserError
from experiments.spec.experiment import settings
from experiments.spec.learners import LEARNERS
from experiments.training import runs
from experiments.training.runs import Run

PAIRS = [(env, learner) for env, preset in PRESETS.items() for learner in preset.learner_names()]


@pytest.mark.parametrize(("env", "learner"), PAIRS)
def test_config_round_trip(env, learner, tmp_path):
    usual = PRESETS[env].choose(learner, "oracle")
    method = dataclasses.replace(usual.method, alpha=0.1 + 0.2, phi=(0.7, 1.5))
    experiment = dataclasses.replace(usual, frames=12_345, method=method)
    run = Run(env, experiment, 7)
    runs.write_config(tmp_path, run, [run.seed, 9])
    again = runs.read_config(tmp_path)
    assert again == run
    assert hash(again.experiment) == hash(run.experiment)
    written = json.loads((tmp_path / "config.json").read_text())
    assert set(written["versions"]) >= {"jax", "flax"}
    assert written["device"] and written["side_by_side"] == [run.seed, 9]
    assert runs.side_by_side(tmp_path) == [run.seed, 9]


def test_a_config_of_another_version(tmp_path):
    run = Run("khazad-dum", PRESETS["khazad-dum"].experiment, 0)
    data = run.describe([run.seed])
    del data["experiment"]["learner"]["policy"]["clip"]  # younger than the run
    (tmp_path / "config.json").write_text(json.dumps(data))
    assert runs.read_config(tmp_path).experiment == run.experiment
    data["experiment"]["learner"]["policy"]["clap"] = 0.1
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match="clap"):
        runs.read_config(tmp_path)


def test_khazad_dum_has_the_published_settings():
    published = {
        "frames": 8_000_000, "num_tasks": 32, "warmup_frames": 5000,
        "horizon": 32, "episodes": 4, "rain_mean": 0.1,
        "method": "roml", "alpha": 0.01, "beta": 0.05, "nu": 0.2, "batch": 128,
        "soft_update": 0.5, "strict": True, "quantile": "population",
        "policy.discount": 0.999, "policy.gae_lambda": 0.9, "policy.epochs": 2,
        "policy.minibatches": 8, "policy.clip": 0.1, "policy.learning_rate": 7e-4,
        "policy.anneal_updates": None, "policy.adam_eps": 1e-8, "policy.entropy_coef": 0.05,
        "policy.value_coef": 0.5, "policy.max_grad_norm": 0.5, "policy.layers": (64, 64),
        "policy.activation": "tanh", "policy.initialization": "normc",
        "policy.obs_embedding": 64, "policy.latent_embedding": 64, "policy.normalize_obs": True,
        "policy.normalize_latent": True, "policy.normalize_reward": True,
        "policy.huber_value": True, "policy.clip_value": True, "policy.time_limit": "ignore",
        "belief.learning_rate": 1e-3, "belief.buffer_size": 10_000, "belief.batch_size": 10,
        "belief.updates": 1, "belief.truncation": 50, "belief.elbo_terms": 50,
        "belief.decode_terms": 50, "belief.kl_weight": 0.1, "belief.latent_size": 5,
        "belief.action_embedding": 16, "belief.obs_embedding": 32,
        "belief.reward_embedding": 16, "belief.hidden_size": 128,
        "belief.decoder_layers": (64, 32), "belief.encoder_max_grad_norm": 1.0,
        "belief.decoder_max_grad_norm": 1.0, "validation_tasks": 256, "validation_every": 50,
        "test_tasks": 3008,
    }  # fmt: skip
    now = settings(PRESETS["khazad-dum"].experiment)
    assert {name: now[name] for name in published} == published
    built = build(PRESETS["khazad-dum"].experiment)
    assert (built.total_steps, built.learner.frames_per_step) == (1953, 4096)


def test_the_paper_differs_where_the_paper_does():
    code, paper = (
        settings(PRESETS[name].experiment) for name in ("khazad-dum", "khazad-dum-paper")
    )
    assert {name: paper[name] for name in paper if paper[name] != code[name]} == {
        "frames": 5_000_000, "num_tasks": 16, "nu": 0.0, "batch": None, "soft_update": 0.0,
        "strict": False, "quantile": "plain",
    }  # fmt: skip


def test_the_wide_preset_anneals_over_the_whole_training():
    experiment = PRESETS["khazad-dum-wide"].experiment
    built = build(experiment)
    assert built.learner.num_tasks == 1024 and experiment.method.batch is None
    assert built.total_steps == experiment.learner.policy.anneal_updates == 122


MANY = ("half-cheetah-", "ant-", "humanoid-")  # families of presets with equal programs
QUICK = ("half-cheetah-mass", "ant-goal", "humanoid-vel")  # one of each


@pytest.mark.parametrize(
    ("env", "learner"),
    [
        pytest.param(
            env,
            learner,
            marks=[pytest.mark.slow] * (env.startswith(MANY) and env not in QUICK),
        )
        for env, learner in PAIRS
    ],
)
def test_every_preset_builds(env, learner):
    assert build(PRESETS[env].choose(learner)).total_steps > 100


@pytest.mark.parametrize("name", ["baseline", "cvar-ml", "roml", "naive", "oracle"])
def test_every_method_builds(name, tiny_experiment):
    chosen = PRESETS["khazad-dum"].choose(method=name)
    built = build(dataclasses.replace(chosen, learner=tiny_experiment.learner))
    assert built.metric_names()["phi"] == ("phi_mean_rain",)
    assert built.metric_names()["return_mean"] == ("return_mean",)


def test_a_swept_alpha_reaches_what_a_method_makes_of_the_learner(tiny_experiment):
    """The cap is a quantile of the returns: at alpha 1 the best, and at a small one the worst."""
    chosen = PRESETS["khazad-dum"].choose(method="capped")
    built = build(dataclasses.replace(chosen, learner=tiny_experiment.learner))
    first = jax.jit(lambda alpha, key: built.step_at(alpha, built.init(key))[1]["cap"])
    caps = [float(first(jnp.float32(alpha), jax.random.key(0))) for alpha in (0.01, 1.0)]
    assert caps[0] < caps[1]


# ------------------------------------------------------------------ names


def test_two_settings_of_one_name_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Greedy:
        num_tasks: int = 4
        batch: int = 3  # as RoML's

    experiment = dataclasses.replace(PRESETS["khazad-dum"].experiment, learner=Greedy())
    with pytest.raises(ValueError, match="batch"):
        settings(experiment)


def test_learners_are_told_apart_by_name(monkeypatch, tmp_path):
    """Two may share a settings class."""
    kind = LEARNERS["ppo"]._replace(label="Another PPO")
    monkeypatch.setitem(LEARNERS, "another", kind)
    first, second = (PRESETS["khazad-dum"].choose(name) for name in ("ppo", "another"))
    assert type(first.learner) is type(second.learner)
    run = Run("khazad-dum", second, 0)
    runs.write_config(tmp_path, run, [0])
    assert runs.read_config(tmp_path) == run and run.folder == "roml-another"
