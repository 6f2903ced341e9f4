"""Tasks from a distribution that the user knows to be hard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Real

from roml_jax.samplers._mixture import (
    check_family,
    check_nu,
    check_returns,
    draw_mixture,
    random_plan,
)
from roml_jax.types import Draw, Family, Metrics, PRNGKey, TaskSampler


def oracle(
    family: Family,
    phi: Sequence[float] | np.ndarray | Float[Array, " P"],
    *,
    nu: float = 0.0,
) -> TaskSampler:
    """A sampler that draws from ``D_phi`` with a ``phi`` given once and for all.

    Args:
      family: the task distribution.
      phi: ``[P]``, where the hard tail is known to be.
      nu: in [0, 1); ``floor(nu * n)`` of n tasks, at random positions, come from
        ``D_phi0``.

    Returns:
      A ``TaskSampler`` with an empty state, no info, and exact importance weights.

    Raises:
      ValueError: an argument is out of range, or ``phi`` has the wrong length or lies outside of
        the family, by its ``project``.

    Differs from the original code's oracle for Beta tasks, which draws uniformly from the
    top ``2 * (1 - phi)`` of every component.
    """
    check_nu(nu)
    target = np.asarray(phi, np.float32)
    if target.shape != family.phi0.shape:
        raise ValueError(
            f"phi has shape {target.shape}: give {len(family.phi_names)} numbers, for "
            f"{', '.join(family.phi_names)}."
        )

    with jax.ensure_compile_time_eval():
        near = np.asarray(family.project(target))
    if not np.allclose(near, target, rtol=1e-4, atol=1e-6):
        raise ValueError(
            f"phi={_words(target)} lies outside of the family; the nearest inside is {_words(near)}"
        )

    def init(key: PRNGKey) -> tuple[()]:
        check_family(family)
        return ()

    def sample(key: PRNGKey, state: Any, n: int) -> Draw:
        key_plan, key_draw = jax.random.split(key)
        return draw_mixture(key_draw, family, jnp.asarray(target), random_plan(key_plan, n, nu))

    def update(
        key: PRNGKey, state: Any, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[Any, Metrics]:
        check_returns(draw, returns)
        return state, {}

    return TaskSampler(init, sample, update, lambda state: jnp.asarray(target))


def _words(phi: np.ndarray) -> str:
    return " ".join(f"{value:.4g}" for value in phi)
