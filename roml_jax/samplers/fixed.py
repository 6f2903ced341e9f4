"""Tasks from the original distribution, always."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Real

from roml_jax.samplers._mixture import check_family, check_returns
from roml_jax.types import Draw, Family, Metrics, PRNGKey, TaskSampler


def fixed(family: Family) -> TaskSampler:
    """A sampler that draws from ``D_phi0`` and never changes.

    Args:
      family: the task distribution; only ``phi0`` and ``sample`` are used.

    Returns:
      A ``TaskSampler`` with an empty state and no info. All its draws are reference draws of
      weight 1.

    Reference:
      Greenberg et al. (2023), Def. 2 and Alg. 1 line 3.
    """

    def init(key: PRNGKey) -> tuple[()]:
        check_family(family)
        return ()

    def sample(key: PRNGKey, state: Any, n: int) -> Draw:
        tasks = family.sample(key, jnp.asarray(family.phi0), n)
        return Draw(tasks, jnp.ones(n, jnp.float32), jnp.ones(n, bool))

    def update(
        key: PRNGKey, state: Any, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[Any, Metrics]:
        check_returns(draw, returns)
        return state, {}

    return TaskSampler(init, sample, update, lambda state: jnp.asarray(family.phi0))
