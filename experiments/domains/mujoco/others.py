"""Settings of the published rows that are not VariBAD's: PEARL, CeSoR and PAIRED on HalfCheetah.

They differ from VariBAD's in more than learner and method; sources as in ``presets.py``.
"""

from __future__ import annotations

import dataclasses

from experiments.domains.preset import ORIGINAL_POLICY, Refine
from experiments.spec.experiment import Experiment
from roml_jax.learners import PEARLConfig, PPOConfig, SACConfig

# The original keeps all transitions of some 25 tasks in each of 100 slots; here each of all 2,600
# tasks has a slot for its 1,000. Four tasks at once for its five, so that a CEM batch of 128 comes
# out even: 1,600 gradient steps for 2,000, a million in all.
PEARL = PEARLConfig(
    num_tasks=4,
    collect_episodes=5,
    prior_episodes=2,
    slots=2600,
    warmup_frames=200_000,
    gradient_steps=1600,
    meta_batch=16,
    batch_size=256,
    context_batch=100,
    latent_size=5,
    encoder_layers=(200, 200, 200),
    encoder_learning_rate=3e-4,
    kl_weight=0.1,
    sac=SACConfig(
        layers=(300, 300, 300),
        discount=0.99,
        target_rate=0.005,
        learning_rate=3e-4,
        reward_scale=5.0,
        temperature=1.0,
        critic="value",
        mean_penalty=1e-3,
        std_penalty=1e-3,
    ),
)
_PEARL_FRAMES = 2_700_000

_MEMORYLESS = dataclasses.replace(
    ORIGINAL_POLICY,
    layers=(64, 64),
    initialization="orthogonal",
    obs_embedding=None,
    learning_rate=3e-4,
    adam_eps=1e-5,
    clip=0.2,
    clip_value=False,
    huber_value=False,
)
# 64 tasks of 400 steps, 25,600 frames a step for 32,768, so that they divide a CEM batch.
_CESOR = PPOConfig(
    num_tasks=64,
    policy=dataclasses.replace(
        _MEMORYLESS,
        discount=0.99,
        gae_lambda=0.95,
        epochs=10,
        minibatches=400,
        entropy_coef=0.0,
    ),
)
# 160 tasks of 200 steps, 32,000 frames a step for 32,768.
_PAIRED = PPOConfig(
    num_tasks=160,
    policy=dataclasses.replace(
        _MEMORYLESS,
        normalize_obs=False,
        discount=0.99,
        gae_lambda=0.9,
        time_limit="bootstrap",
        epochs=5,
        minibatches=32,
        entropy_coef=0.001,
    ),
)


def _pearl(experiment: Experiment) -> Experiment:
    """Three episodes of a test: two from the prior, the last from what they have told."""
    env = dataclasses.replace(experiment.env, episodes=3)
    return dataclasses.replace(experiment, env=env, frames=_PEARL_FRAMES)


def _cesor(experiment: Experiment) -> Experiment:
    """As it was run for the paper: neither a soft risk nor a selected tail."""
    method = dataclasses.replace(experiment.method, soft_risk=0.0, select=False)
    return dataclasses.replace(experiment, learner=_CESOR, method=method)


def _paired(experiment: Experiment) -> Experiment:
    """As it was run for the paper: single episodes, and an adversary over single tasks."""
    env = dataclasses.replace(experiment.env, episodes=1)
    method = dataclasses.replace(experiment.method, adversary="network")
    return dataclasses.replace(experiment, env=env, learner=_PAIRED, method=method)


REFINE: dict[str, Refine] = {"pearl": _pearl, "ppo/cesor": _cesor, "ppo/paired": _paired}
