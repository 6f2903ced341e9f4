"""The policy half of every on-policy learner: an actor-critic as functions.

A policy sees what an agent remembers as a vector beside the observation; it does not know
where that comes from. An agent without a memory has one of size zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.learners.policy_parts import (
    PolicyConfig,
    PolicyParams,
    PolicyState,
    action_distribution,
    make_network,
    make_optimizer,
    policy_inputs,
)
from roml_jax.learners.policy_update import make_improve
from roml_jax.normalize import init_moments
from roml_jax.types import PRNGKey, TaskEnv


class Policy(NamedTuple):
    """An actor-critic as functions.

    Attributes:
      init: ``(key, memory) -> PolicyState``; ``memory`` are parameters that learn with the
        network, () if there are none.
      act: ``(params, obs[n, O], memory[n, M], key, deterministic) -> action``: a sample, or the
        most likely one.
      env_action: ``action -> action`` as the environment receives it.
      improve: one training step, see ``policy_update.make_improve``.
    """

    init: Callable[..., PolicyState]
    act: Callable[..., Array]
    env_action: Callable[[Array], Array]
    improve: Callable[..., Any]


def policy(
    env: TaskEnv,
    config: PolicyConfig,
    obs_size: int,
    memory_size: int,
    groups: int = 1,
    told: int = 0,
) -> Policy:
    """An actor-critic and its PPO update.

    Args:
      env: gives the actions.
      config: the settings.
      obs_size: O, with the done flag if there is one.
      memory_size: M, what the agent remembers.
      groups: G, of the tasks, see ``roml_jax.groups``.
      told: numbers that the critic is told beside each observation, see ``Rollout.told``.

    Returns:
      A ``Policy``.

    Raises:
      ValueError: a squashed policy of discrete actions.
    """
    done_flag = obs_size > env.observation_size
    network, optimizer = make_network(env, config), make_optimizer(config)

    def init(key: PRNGKey, memory: Any = ()) -> PolicyState:
        seen, remembered = (jnp.zeros((1, size), jnp.float32) for size in (obs_size, memory_size))
        hints = jnp.zeros((1, told), jnp.float32) if told else None
        weights = network.init(key, seen, remembered, hints)
        moments = init_moments((obs_size,)), init_moments((memory_size,))
        opt_state = optimizer.init((weights, memory))
        return PolicyState(PolicyParams(weights, *moments), opt_state, init_moments())

    def act(
        params: PolicyParams,
        obs: Float[Array, "n O"],
        memory: Float[Array, "n M"],
        key: PRNGKey,
        deterministic: bool,
    ) -> Array:
        inputs = policy_inputs(params, config, obs, memory)
        distribution = action_distribution(network.apply(params.network, *inputs, method="policy"))
        return distribution.mode() if deterministic else distribution.sample(seed=key)

    def env_action(action: Array) -> Array:
        return jnp.tanh(action) if config.squash else action

    improve = make_improve(network, config, optimizer, done_flag, groups)
    return Policy(init, act, env_action, improve)
