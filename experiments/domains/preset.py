"""What the command line offers under one name, and the settings that presets share."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from experiments.spec.experiment import Experiment, learner_name
from experiments.spec.view import View
from roml_jax.learners.belief import BeliefConfig
from roml_jax.learners.policy import PolicyConfig


class Published(NamedTuple):
    """Published results of a method: means over seeds with their 95 % intervals, or NaN."""

    mean: tuple[float, float, float]  # mean return, low, high
    cvar: tuple[float, float, float]  # CVaR return, low, high
    course: tuple[tuple[float, float], ...] = ()  # mean, CVaR after 0, 1, … inner steps


class Preset(NamedTuple):
    """What the command line offers under one name.

    Attributes:
      summary: one line for people.
      experiment: the settings, with the default learner's.
      learners: settings of the learners, by name.
      view: how what a learner does in this environment is named and drawn.
      published: results of the default learner to compare with, by method.
    """

    summary: str
    experiment: Experiment
    learners: dict[str, Any]
    view: View | None = None
    published: dict[str, Published] | None = None

    @property
    def default_learner(self) -> str:
        """The name of the learner of ``experiment``."""
        return learner_name(self.experiment.learner)

    def with_learner(self, name: str) -> Experiment:
        """The experiment with one of ``learners``."""
        return dataclasses.replace(self.experiment, learner=self.learners[name])

    def env_class(self) -> type:
        """Class of the environment's settings."""
        return type(self.experiment.env)


# Settings of the original code that its environments have in common, or depart from.
ORIGINAL_BELIEF = BeliefConfig(
    latent_size=5,
    hidden_size=128,
    action_embedding=16,
    obs_embedding=32,
    reward_embedding=16,
    decoder_layers=(64, 32),
    kl_weight=0.1,
    elbo_terms=50,
    decode_terms=50,
    truncation=50,
    learning_rate=1e-3,
    encoder_max_grad_norm=1.0,
    decoder_max_grad_norm=1.0,
    buffer_size=10_000,
    batch_size=10,
    updates=1,
)

# Sizes of layers, discount and entropy bonus differ between environments.
ORIGINAL_POLICY = PolicyConfig(
    activation="tanh",
    initialization="normc",
    obs_embedding=64,
    latent_embedding=64,
    init_std=1.0,
    normalize_obs=True,
    normalize_latent=True,
    normalize_reward=True,
    gae_lambda=0.9,
    time_limit="ignore",
    learning_rate=7e-4,
    adam_eps=1e-8,
    anneal_updates=None,
    epochs=2,
    minibatches=8,
    clip=0.1,
    value_coef=0.5,
    max_grad_norm=0.5,
)
