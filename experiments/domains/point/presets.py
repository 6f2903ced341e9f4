"""Settings of ours for the point: small enough to learn in minutes on one core."""

from __future__ import annotations

import dataclasses
from typing import Any

from envs.point import Point
from experiments.domains.point.view import point_view
from experiments.domains.preset import ORIGINAL_BELIEF, ORIGINAL_POLICY, Preset
from experiments.spec.experiment import Experiment
from roml_jax.learners import (
    PEARLConfig,
    PolicyConfig,
    PPOConfig,
    RL2Config,
    SACConfig,
    VariBADConfig,
)
from roml_jax.learners.memory import RecurrentConfig
from roml_jax.methods import (
    BaselineConfig,
    CeSoRConfig,
    CVaRMLConfig,
    MixtureCEMConfig,
    NaiveConfig,
    OracleConfig,
    PAIREDConfig,
    RoMLConfig,
)

_TASKS = 32  # of a training step
_POLICY = dataclasses.replace(
    ORIGINAL_POLICY,
    layers=(64, 64),
    obs_embedding=None,
    latent_embedding=None,
    init_std=0.5,
    discount=0.97,
    entropy_coef=0.0,
    epochs=4,
    minibatches=8,
    clip=0.2,
    learning_rate=1e-3,
)
_BELIEF = dataclasses.replace(
    ORIGINAL_BELIEF,
    hidden_size=64,
    kl_weight=0.05,
    kl_over_batch="mean",
    elbo_terms=20,
    decode_terms=20,
    truncation=None,
    learning_rate=3e-3,
    batch_size=16,
    updates=4,
)
# The published weight of the divergence outweighs what critics of such small returns have to gain
# from the goal: the latent then holds its distance, and not where it is. And an agent that is sure
# of itself before it knows the goal walks straight on, from where it cannot tell two goals apart.
_PEARL = PEARLConfig(
    num_tasks=_TASKS,
    slots=1024,
    warmup_frames=40_000,
    gradient_steps=64,
    kl_weight=0.0001,
    meta_batch=64,
    batch_size=8,
    context_batch=20,
    encoder_layers=(64, 64),
    encoder_learning_rate=1e-3,
    next_obs_in_context=True,
    sac=SACConfig(
        layers=(64, 64),
        discount=0.9,
        target_rate=0.01,
        learning_rate=1e-3,
        temperature=0.3,
        critic="targets",
    ),
)


def presets() -> dict[str, Preset]:
    """All of them, by name."""
    return {"point": point(), "point-sparse": point_sparse()}


def point() -> Preset:
    """A dense reward, so that every step tells something of the goal."""
    env = Point(goals="disk", episodes=2)
    return _preset("goals in a disk, dense reward", env, 1_500_000, _POLICY, (0.8, 0.0, 0.0))


def point_sparse() -> Preset:
    """A sparse reward: a goal has to be come upon before it can be gone to.

    The learner is RL²: VariBAD did not learn to search in so few frames.
    """
    env = Point(goals="half-circle", episodes=4)
    # What an episode finds out pays in those after it; and the first goals are met by chance.
    policy = dataclasses.replace(
        _POLICY, discount=0.99, gae_lambda=0.95, init_std=1.0, entropy_coef=0.01
    )
    preset = _preset("goals on a half circle, sparse reward", env, 2_000_000, policy, None)
    return preset._replace(experiment=preset.choose(learner="rl2"))


def _preset(
    summary: str, env: Point, frames: int, policy: PolicyConfig, hard: tuple[float, ...] | None
) -> Preset:
    """What both have in common.

    Args:
      summary: one line for people.
      env: the environment.
      frames: of training.
      policy: of all learners.
      hard: phi of the oracle; None where it depends on the learner which goals are hard.
    """
    alpha = 0.05
    cem: dict[str, Any] = {"beta": 0.2, "nu": 0.2, "batch": 128, "soft_update": 0.5}
    methods: dict[str, Any] = {
        "baseline": BaselineConfig(alpha),
        "cvar-ml": CVaRMLConfig(alpha),
        "roml": RoMLConfig(alpha, **cem),
        "naive": NaiveConfig(alpha, pool=100),
        "oracle": OracleConfig(alpha, phi=hard, nu=0.2),
        "cesor": CeSoRConfig(alpha, **cem),
        "paired": PAIREDConfig(alpha),
        # the second unit of a goal in a disk is its angle
        "mixture-cem": MixtureCEMConfig(alpha, circular=(1,) if env.goals == "disk" else ()),
    }
    steps = frames // (_TASKS * env.episodes * env.horizon)
    policy = dataclasses.replace(policy, anneal_updates=steps)
    learners = {
        "varibad": VariBADConfig(_TASKS, policy=policy, belief=_BELIEF),
        "ppo": PPOConfig(_TASKS, policy=policy),
        "rl2": RL2Config(
            _TASKS,
            policy=dataclasses.replace(policy, normalize_latent=False),
            memory=RecurrentConfig(hidden_size=64, latent_size=32),
        ),
        "pearl": _PEARL,
    }
    experiment = Experiment(
        env=env,
        learner=learners["varibad"],
        method=methods["roml"],
        learner_name="varibad",
        method_name="roml",
        frames=frames,
        validation_tasks=256,
        validation_every=50,
        test_tasks=3008,
    )
    return Preset(summary, experiment, learners, methods, point_view)
