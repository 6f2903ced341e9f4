"""Choices between pytrees of one structure, and a gradient step of one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, PyTree


def keep_unless(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the condition holds, else ``old``, leaf by leaf."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)


def where_rows(chosen: Bool[Array, " B"], new: PyTree, old: PyTree) -> PyTree:
    """Chooses by row, over all leaves ``[B, …]``."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)


def finite_rows(tree: PyTree) -> Bool[Array, " B"]:
    """Which rows of all leaves ``[B, …]`` hold neither infinity nor NaN."""
    finite = [jnp.isfinite(x).reshape(x.shape[0], -1).all(axis=1) for x in jax.tree.leaves(tree)]
    return jnp.stack(finite).all(axis=0)


def descend(
    optimizer: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
    """One step of an optimiser: ``(params, opt_state)`` afterwards."""
    # Adam raises a float to an integer, which users of strict promotion could not do.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state


def size_in_bytes(tree: PyTree) -> int:
    """Memory of all leaves, which may be shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
