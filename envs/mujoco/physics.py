"""One seam between environments and physics engines.

An environment sees one world and pure functions on it; it never learns which engine runs
them. A world's physics may differ from world to world: the fields of the model that depend
on the task are an argument, so that ``vmap`` over tasks needs no new compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Model: TypeAlias = dict[str, Array]  # fields of an MjModel that differ from world to world


class PhysicsState(NamedTuple):
    """A world between two control steps: all that the next one depends on, and what is seen."""

    qpos: Float[Array, " nq"]  # m, rad, quaternions
    qvel: Float[Array, " nv"]  # m/s, rad/s
    warmstart: Float[Array, " nv"]  # accelerations that the constraint solver starts from
    seen: dict[str, Array]  # fields of MjData; after a step they lag as after ``mj_step``


class Physics(NamedTuple):
    """A body in an engine; both functions speak of one world, vmap them.

    Attributes:
      reset: ``(model, qpos, qvel) -> PhysicsState``, with ``seen`` of that very state.
      step: ``(model, state, ctrl[nu]) -> PhysicsState`` after ``frame_skip`` physics steps;
        the engine clamps forces to the range of the controls.
      engine: its name.
    """

    reset: Callable[[Model, Array, Array], PhysicsState]
    step: Callable[[Model, PhysicsState, Array], PhysicsState]
    engine: str


def is_sound(state: PhysicsState, limit: float = 1e4) -> Array:
    """Whether a simulation has not diverged: everything finite and below ``limit``.

    Args:
      state: of one world.
      limit: metres, radians and their rates that no body of this kind can reach.

    Returns:
      A boolean.
    """
    leaves = jax.tree.leaves(state.seen)
    sound = jnp.all(jnp.abs(jnp.concatenate([state.qpos, state.qvel])) < limit)
    finite = [jnp.isfinite(state.warmstart).all(), *(jnp.isfinite(x).all() for x in leaves)]
    return sound & jnp.stack(finite).all()
