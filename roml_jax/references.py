"""Agents that have learned nothing, to measure others by: who scores below them has not either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from roml_jax.types import ActionSpace, Agent, Discrete, PRNGKey, Transition


def still_agent(actions: ActionSpace) -> Agent:
    """An agent that never moves: it takes the middle of a box, or action 0, at every step.

    Args:
      actions: the environment's ``action_space``.

    Returns:
      An ``Agent`` whose parameters may be anything; it has no memory and stores nothing.
    """

    def choose(key: PRNGKey, n: int) -> Array:
        del key
        if isinstance(actions, Discrete):
            return jnp.zeros(n, jnp.int32)
        return jnp.full((n, actions.size), (actions.low + actions.high) / 2, jnp.float32)

    return _memoryless(choose)


def random_agent(actions: ActionSpace) -> Agent:
    """An agent that draws every action uniformly, also where it is asked not to sample.

    Args:
      actions: the environment's ``action_space``.

    Returns:
      An ``Agent`` whose parameters may be anything; it has no memory and stores nothing.
    """

    def choose(key: PRNGKey, n: int) -> Array:
        if isinstance(actions, Discrete):
            return jax.random.randint(key, (n,), 0, actions.n, jnp.int32)
        shape = (n, actions.size)
        return jax.random.uniform(key, shape, jnp.float32, actions.low, actions.high)

    return _memoryless(choose)


def _memoryless(choose: Callable[[PRNGKey, int], Array]) -> Agent:
    """An agent whose n actions depend on nothing but the key."""

    def act(
        params: Any, carry: PyTree, obs: Array, key: PRNGKey, deterministic: bool
    ) -> tuple[Array, PyTree]:
        del params, carry, deterministic
        return choose(key, obs.shape[0]), ()

    def observe(params: Any, carry: PyTree, transition: Transition) -> PyTree:
        del params, transition
        return carry

    return Agent(lambda n: (), act, observe, lambda action: action)
