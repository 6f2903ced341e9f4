"""A ring buffer of whole trajectories as a pytree."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from roml_jax.types import PRNGKey


class TrajectoryBuffer(NamedTuple):
    """Trajectories stored once, the trajectory axis first."""

    data: PyTree  # leaves [capacity, …]
    next: Int[Array, ""]  # slot that the next block is written to
    size: Int[Array, ""]  # number of filled slots, which are the first ones


def init_buffer(example: PyTree, capacity: int, block: int) -> TrajectoryBuffer:
    """An empty buffer for blocks of trajectories.

    Args:
      example: a pytree of arrays or shapes of one trajectory, without a batch axis.
      capacity: most trajectories to keep; rounded down to a multiple of ``block``.
      block: trajectories per insertion.

    Raises:
      ValueError: if not even one block fits.
    """
    if capacity < block:
        raise ValueError(
            f"buffer capacity must be at least the {block} trajectories of a step; got {capacity}"
        )
    slots = capacity // block * block
    data = jax.tree.map(lambda x: jnp.zeros((slots, *x.shape), x.dtype), example)
    return TrajectoryBuffer(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add_block(buffer: TrajectoryBuffer, block: PyTree) -> TrajectoryBuffer:
    """Writes ``[block, …]`` trajectories over the oldest ones.

    The block size must be the one that the buffer was made for, so that a block never
    straddles the end.

    Raises:
      ValueError: while tracing, if it cannot be.
    """
    slots = jax.tree.leaves(buffer.data)[0].shape[0]
    size = jax.tree.leaves(block)[0].shape[0]
    if slots % size:
        raise ValueError(
            f"blocks must be of the size that the buffer was made for, which divides its {slots} "
            f"slots; got {size} trajectories"
        )

    def write(store: Array, new: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(store, new.astype(store.dtype), buffer.next, 0)

    data = jax.tree.map(write, buffer.data, block)
    return TrajectoryBuffer(
        data, (buffer.next + size) % slots, jnp.minimum(buffer.size + size, slots)
    )


def sample_trajectories(key: PRNGKey, buffer: TrajectoryBuffer, n: int) -> Any:
    """n distinct trajectories, uniformly.

    Args:
      key: typed key.
      buffer: holding at least n trajectories; with fewer, some of the result are
        empty slots.
      n: static.

    Returns:
      The pytree with leaves ``[n, …]``.
    """
    index = distinct_indices(key, buffer.size, n)
    return jax.tree.map(lambda x: x[index], buffer.data)


def distinct_indices(key: PRNGKey, size: Int[Array, ""], n: int) -> Int[Array, " n"]:
    """n distinct indices below a traced ``size``, in O(n^2) instead of a full shuffle.

    Reference: Floyd's algorithm (Bentley and Floyd, 1987).
    """
    first = jnp.maximum(size, n) - n
    uppers = first + jnp.arange(n, dtype=jnp.int32)
    picks = jax.random.randint(key, (n,), 0, uppers + 1, dtype=jnp.int32)

    def choose(i: Array, chosen: Array) -> Array:
        seen = jnp.any((chosen == picks[i]) & (jnp.arange(n) < i))
        return chosen.at[i].set(jnp.where(seen, uppers[i], picks[i]))

    return jax.lax.fori_loop(0, n, choose, jnp.zeros(n, jnp.int32))
