"""Tasks in groups: what is dealt, stored and drawn within a group never leaves its device.

A training step of B tasks has G groups of B / G neighbours. Each group deals its own minibatches,
keeps its own part of a buffer and draws from it, and every minibatch takes as much of each group.
Tasks of one group lie on one device, so that a step over many devices exchanges sums and
gradients, and no rollouts. Results depend on the number of groups, a setting, and not on that of
devices. One group has no axis of its own: what is written here for groups is then what it would
be without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, PyTree

from roml_jax.types import PRNGKey


def check_groups(groups: int, **sizes: int) -> None:
    """Refuses groups that would not have equal parts of everything.

    Args:
      groups: G, at least 1.
      **sizes: what is dealt to them, by name.

    Raises:
      ValueError: the number of groups does not divide one of them.
    """
    if groups < 1:
        raise ValueError(f"groups must be at least 1; got {groups}")
    for name, size in sizes.items():
        if size % groups:
            raise ValueError(f"groups={groups} must divide {name}={size}")


def apart(tree: PyTree, groups: int, axis: int = 0) -> PyTree:
    """Leaves ``[…, B, …]`` as ``[G, …, B / G, …]``; as they are for one group.

    Args:
      tree: arrays that have the tasks, or what is dealt to groups, along ``axis``.
      groups: G, which divides B.
      axis: of the tasks; the groups come first.
    """
    if groups == 1:
        return tree

    def split(x: Array) -> Array:
        shape = (*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    return jax.tree.map(split, tree)


def together(tree: PyTree, groups: int) -> PyTree:
    """Leaves ``[G, n, …]`` as ``[G n, …]``, group by group; as they are for one group."""
    if groups == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), tree)


def each(fn: Callable[..., Any], groups: int) -> Callable[..., Any]:
    """A function of one group as one of all of them, whose arguments are ``[G, …]``."""
    return fn if groups == 1 else jax.vmap(fn)


def keys_of(key: PRNGKey, groups: int) -> Key[Array, "*G"]:
    """A key for each group, ``[G]``; the key itself for one."""
    return key if groups == 1 else jax.random.split(key, groups)


def in_each(tree: PyTree, groups: int) -> PyTree:
    """Leaves ``[…]`` of one group as ``[G, …]``, the same in all; as they are for one group."""
    if groups == 1:
        return tree
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (groups, *x.shape)), tree)


def axes_of(tree: PyTree, groups: int) -> PyTree:
    """As ``Learner.task_axes``, of what each group has a part of: the groups come first."""
    return jax.tree.map(lambda _: 0 if groups > 1 else -1, tree)
