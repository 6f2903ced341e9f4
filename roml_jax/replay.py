"""A replay memory on the device: slots of whole collections, each of one task.

A collection is what one training step has seen of one task: T transitions. A slot keeps the
newest ``depth`` collections. With a depth of 1 it is emptied with its task, and holds transitions
of that task alone. Everything is a pytree of fixed shapes, so that it is jitted, vmapped over
seeds, sharded, and restored from a checkpoint to the bit.

Reference: Rakelly et al. (2019), Algorithm 1, with buffers for each task.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from roml_jax.checks import check_shape
from roml_jax.types import PRNGKey


class Replay(NamedTuple):
    """Collections by slot; in each, the transitions that count come first."""

    data: PyTree  # leaves [slots, depth, T, …]
    counts: Int[Array, "slots depth"]  # int32, transitions that count
    contexts: Int[Array, "slots depth"]  # int32, the first of them, which tell the task
    weights: Float[Array, "slots depth"]  # float32, how much each task counts
    written: Int[Array, " slots"]  # int32, collections that a slot has ever had
    next: Int[Array, ""]  # int32, the slot that is written next


def make_replay(example: PyTree, slots: int, depth: int = 1) -> Replay:
    """An empty memory.

    Args:
      example: one collection, leaves ``[T, …]``, or their ``ShapeDtypeStruct``.
      slots: number of tasks that are kept, at least 1.
      depth: collections of a slot, at least 1.

    Raises:
      ValueError: a number is less than 1.
    """
    if slots < 1 or depth < 1:
        raise ValueError(f"slots={slots} and depth={depth} must be at least 1.")

    def zeros(kind: type) -> Array:
        return jnp.zeros((slots, depth), kind)

    data = jax.tree.map(lambda x: jnp.zeros((slots, depth, *x.shape), x.dtype), example)
    written = jnp.zeros(slots, jnp.int32)
    return Replay(
        data,
        zeros(jnp.int32),
        zeros(jnp.int32),
        zeros(jnp.float32),
        written,
        jnp.zeros((), jnp.int32),
    )


def write(
    replay: Replay,
    collections: PyTree,
    counted: Bool[Array, "n T"],
    is_context: Bool[Array, "n T"],
    weights: Float[Array, " n"],
) -> Replay:
    """Takes in a collection for each of the n slots that have waited longest.

    Args:
      replay: the memory.
      collections: leaves ``[n, T, …]``.
      counted: ``[n, T]``, False in padding.
      is_context: ``[n, T]``, which transitions tell the task; they come before all others.
      weights: ``[n]``, how much each task counts.

    Raises:
      ValueError: while tracing, if there are more collections than slots, or shapes differ.
    """
    slots, depth = replay.counts.shape
    n = counted.shape[0]
    if n > slots:
        raise ValueError(f"{n} tasks of a training step need as many slots; there are {slots}")
    check_shape("is_context", is_context, counted.shape, "counted")
    check_shape("weights", weights, (n,), "the tasks")
    order = jnp.argsort(~counted, axis=1, stable=True)  # those that count first, in their order
    slot = (replay.next + jnp.arange(n, dtype=jnp.int32)) % slots
    row = replay.written[slot] % depth

    def put(kept: Array, new: Array) -> Array:
        index = order.reshape(*order.shape, *(1,) * (new.ndim - 2))
        return kept.at[slot, row].set(jnp.take_along_axis(new, index, axis=1))

    def total(mask: Array) -> Array:
        return jnp.sum(mask, axis=1, dtype=jnp.int32)

    return Replay(
        jax.tree.map(put, replay.data, collections),
        replay.counts.at[slot, row].set(total(counted)),
        replay.contexts.at[slot, row].set(total(counted & is_context)),
        replay.weights.at[slot, row].set(weights.astype(jnp.float32)),
        replay.written.at[slot].add(1),
        (replay.next + n) % slots,
    )


def newest(replay: Replay) -> Int[Array, " slots"]:
    """The row of each slot's newest collection; of an empty slot, the last."""
    return (replay.written - 1) % replay.counts.shape[1]


def sample_slots(key: PRNGKey, replay: Replay, n: int) -> Int[Array, "{n}"]:
    """Draws slots, with replacement, whose newest task counts; any if there is none."""
    row = newest(replay)[:, None]
    counts, weights = (
        jnp.take_along_axis(x, row, 1)[:, 0] for x in (replay.counts, replay.weights)
    )
    usable = (counts > 0) & (weights > 0)
    logits = jnp.where(usable, 0.0, jnp.where(usable.any(), -jnp.inf, 0.0))
    return jax.random.categorical(key, logits, shape=(n,)).astype(jnp.int32)


def sample_context(
    key: PRNGKey, replay: Replay, slots: Int[Array, " m"], n: int
) -> tuple[PyTree, Bool[Array, "m {n}"]]:
    """Draws transitions of the newest tasks of slots, with replacement, from those that tell them.

    Returns:
      Leaves ``[m, n, …]``, and which of them are there: none of a slot without context.
    """
    row = newest(replay)[slots]
    count = replay.contexts[slots, row]
    index = _draw(key, count, n)
    data = jax.tree.map(lambda x: x[slots[:, None], row[:, None], index], replay.data)
    return data, jnp.broadcast_to(count[:, None] > 0, index.shape)


def sample_transitions(
    key: PRNGKey, replay: Replay, slots: Int[Array, " m"], n: int
) -> tuple[PyTree, Float[Array, "m {n}"]]:
    """Draws transitions of all collections of slots, with replacement.

    Returns:
      Leaves ``[m, n, …]``, and how much their tasks count: nothing in an empty slot.
    """
    ends = jnp.cumsum(replay.counts[slots], axis=1)
    index = _draw(key, ends[:, -1], n)
    row = jnp.sum(index[:, :, None] >= ends[:, None, :], axis=2, dtype=jnp.int32)
    row = jnp.minimum(row, ends.shape[1] - 1)
    before = jnp.take_along_axis(ends - replay.counts[slots], row, axis=1)
    where = slots[:, None], row, index - before
    some = ends[:, -1:] > 0
    data = jax.tree.map(lambda x: x[where], replay.data)
    return data, jnp.where(some, replay.weights[slots[:, None], row], 0)


def _draw(key: PRNGKey, counts: Int[Array, " m"], n: int) -> Int[Array, "m {n}"]:
    """Uniform draws from ``0 … count - 1``, 0 where there is nothing to draw from."""
    shape = (counts.size, n)
    return jax.random.randint(key, shape, 0, jnp.maximum(counts, 1)[:, None], jnp.int32)
