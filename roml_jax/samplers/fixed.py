"""Tasks from the original distribution, always."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.risk import Alpha, check_alpha
from roml_jax.samplers._info import summarize
from roml_jax.types import Draw, Family, Metrics, PRNGKey, TaskSampler


def fixed(family: Family, *, alpha: Alpha = 1.0) -> TaskSampler:
    """A sampler that draws from ``D_phi0`` and never changes.

    Args:
      family: the task distribution; only ``phi0`` and ``sample`` are used.
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1]; tasks do not depend
        on it.

    Returns:
      A ``TaskSampler`` with an empty state. All its draws are reference draws of weight 1.

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Def. 2 and Alg. 1 line 3.
    """
    check_alpha(alpha)

    def init() -> tuple[()]:
        return ()

    def sample(key: PRNGKey, state: Any, n: int) -> Draw:
        tasks = family.sample(key, family.phi0, n)
        return Draw(tasks, jnp.ones(n, jnp.float32), jnp.ones(n, bool))

    def update(
        key: PRNGKey, state: Any, draw: Draw, returns: Float[Array, " n"]
    ) -> tuple[Any, Metrics]:
        return state, summarize(family.phi0, draw, returns, draw.weights, alpha)

    return TaskSampler(init, sample, update)
