"""What the command line offers under one name, and the settings that presets share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from experiments.spec.experiment import Experiment
from experiments.spec.learners import LEARNERS, learners_for
from experiments.spec.view import View
from roml_jax.learners import PolicyConfig
from roml_jax.learners.memory import BeliefConfig
from roml_jax.methods import METHODS

Refine: TypeAlias = Callable[[Experiment], Experiment]


class Published(NamedTuple):
    """Published results of a row: means over seeds with their 95 % intervals, or NaN."""

    mean: tuple[float, float, float]  # mean return, low, high
    cvar: tuple[float, float, float]  # CVaR return, low, high
    course: tuple[tuple[float, float], ...] = ()  # mean, CVaR after 0, 1, … inner steps
    note: str = ""  # what the values are of, where that does not go without saying


def _nothing(env: Any) -> dict[str, str]:
    return {}


class Preset(NamedTuple):
    """What the command line offers under one name.

    Attributes:
      summary: one line for people.
      experiment: the settings, with the default learner's and the default method's.
      learners: settings of the learners, by name; others that can learn here have their own
        defaults.
      methods: settings of the methods, by name, likewise; ``alpha`` is that of the experiment.
      view: ``env -> View``, how what a learner does in this environment is named and drawn.
      published: results to compare with, by row of a comparison, ``[LEARNER/]METHOD[:…]``; the
        default learner goes without saying.
      about: ``env -> {name: words}``, what ``config.json`` says of the environment beside its
        settings.
      plan: ``env -> {name: words}``, rows of its own in the plan that the terminal shows.
      packages: those that the environment's numbers depend on, whose versions are noted.
      refine: what else goes with a learner, or with a method on it, by ``LEARNER`` or
        ``LEARNER/METHOD``: functions of the whole experiment, where published rows of one
        environment differ in more than the two.
    """

    summary: str
    experiment: Experiment
    learners: dict[str, Any]
    methods: dict[str, Any]
    view: Callable[[Any], View] | None = None
    published: Mapping[str, Published] = MappingProxyType({})
    about: Callable[[Any], dict[str, str]] = _nothing
    plan: Callable[[Any], dict[str, str]] = _nothing
    packages: tuple[str, ...] = ()
    refine: Mapping[str, Refine] = MappingProxyType({})

    @property
    def default_learner(self) -> str:
        """The name of the learner of ``experiment``."""
        return self.experiment.learner_name

    @property
    def default_method(self) -> str:
        """The name of the method of ``experiment``."""
        return self.experiment.method_name

    def learner_names(self) -> list[str]:
        """The learners that can learn here, those with settings of their own first."""
        return list(dict.fromkeys([*self.learners, *learners_for(self.experiment.env)]))

    def choose(self, learner: str | None = None, method: str | None = None) -> Experiment:
        """The experiment with a learner and a method by their names; None for the usual one."""
        learner, method = learner or self.default_learner, method or self.default_method
        settings = self.methods.get(method) or METHODS[method].config(alpha=self.experiment.alpha)
        experiment = dataclasses.replace(
            self.experiment,
            learner=self.learners.get(learner) or LEARNERS[learner].config(),
            learner_name=learner,
            method=settings,
            method_name=method,
        )
        for key in (learner, f"{learner}/{method}"):
            experiment = self.refine[key](experiment) if key in self.refine else experiment
        return experiment

    def view_of(self, env: Any) -> View | None:
        """The view of an environment with this preset's kind of settings."""
        return self.view(env) if self.view else None

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
