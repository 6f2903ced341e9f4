"""No memory at all: an agent that sees the current observation alone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.learners.memory.base import Memory, Trajectory
from roml_jax.types import Metrics, PRNGKey, Transition


def blank() -> Memory:
    """A memory of size 0, which needs no randomness and learns nothing."""

    def read(params: tuple[()], carry: Float[Array, " n"]) -> Float[Array, "n 0"]:
        return jnp.zeros((carry.shape[0], 0), jnp.float32)

    def observe(params: tuple[()], carry: Array, transition: Transition) -> Array:
        return carry

    def store(state: tuple[()], trajectories: Trajectory) -> tuple[()]:
        return state

    def improve(key: PRNGKey, state: tuple[()]) -> tuple[tuple[()], Metrics]:
        return state, {}

    def nothing(_: Any) -> tuple[()]:
        return ()

    # The carry only says how many agents there are.
    return Memory(0, nothing, nothing, jnp.zeros, read, observe, store, improve)
