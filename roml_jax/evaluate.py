"""How an agent does on given tasks."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.rollout import Boundary, rollout, rollout_episode_returns
from roml_jax.types import Agent, PRNGKey, TaskEnv


class Evaluation(NamedTuple):
    """Returns of n tasks."""

    tasks: Float[Array, "n D"]
    episode_returns: Float[Array, "K n"]  # raw and undiscounted
    info: dict[str, Array]  # [K, n], the environment's info at the end of each episode

    @property
    def returns(self) -> Float[Array, " n"]:
        """Return of each task, the mean over its K episodes."""
        return jnp.mean(self.episode_returns, axis=0)


def evaluate(
    key: PRNGKey,
    env: TaskEnv,
    agent: Agent,
    params: Any,
    tasks: Float[Array, "n D"],
    *,
    boundary: Boundary = Boundary(),
    deterministic: bool = True,
) -> Evaluation:
    """Runs one meta-episode on every task with fixed parameters.

    Args:
      key: of resets, steps and, if not deterministic, actions.
      env: the environment.
      agent: the behaviour; nothing of the parameters changes.
      params: ``learner.params(state)``.
      tasks: ``[n, D]``.
      boundary: as in training.
      deterministic: act without sampling, as in the original experiments.
    """
    data = rollout(key, env, agent, params, tasks, deterministic=deterministic, boundary=boundary)
    return Evaluation(tasks, rollout_episode_returns(data), data.info)


def sample_tasks(key: PRNGKey, env: TaskEnv, n: int) -> Float[Array, "n D"]:
    """n tasks from the original distribution ``D = D_phi0``."""
    return env.family.sample(key, env.family.phi0, n)


def evaluation_key(seed: int, purpose: str) -> PRNGKey:
    """A key for validation or test that no training key is derived from.

    Args:
      seed: of the run.
      purpose: ``"validation"`` or ``"test"``.
    """
    salt = {"validation": 1, "test": 2}[purpose]
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0x524F4D4C), salt), seed)
