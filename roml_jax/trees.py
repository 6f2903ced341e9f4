"""Choices between pytrees of one structure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


def keep_unless(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the condition holds, else ``old``, leaf by leaf."""
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(condition, a, b), new, old)


def where_rows(chosen: Bool[Array, " B"], new: PyTree, old: PyTree) -> PyTree:
    """Chooses by row, over all leaves ``[B, …]``."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(chosen.reshape(chosen.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, new, old)
