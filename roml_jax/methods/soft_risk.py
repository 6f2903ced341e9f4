"""Soft risk: a tail that is all tasks at first, and falls to the one that is aimed at."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from roml_jax.checks import check_in
from roml_jax.types import Alpha


def falling_level(
    alpha: Alpha, soft_risk: float, steps: int
) -> Callable[[Int[Array, ""]], Float[Array, ""]]:
    """The level of the selected tail as a function of the training step.

    What the best agents do well is learned before it is left out: a tail of ``alpha`` alone does
    not show what success is.

    Args:
      alpha: where the level ends, in (0, 1].
      soft_risk: share of the training, in [0, 1], over which it falls from 1; 0 starts at
        ``alpha``.
      steps: training steps of the whole training, at least 0.

    Returns:
      ``step -> level``, float32 in [alpha, 1].

    Raises:
      ValueError: ``soft_risk`` or ``steps`` is out of range.

    Reference:
      Greenberg et al. (2022), "Efficient Risk-Averse Reinforcement Learning", Sec. 3.
    """
    check_in("soft_risk", soft_risk, "[0, 1]", "a share of the training")
    if steps < 0:
        raise ValueError(f"steps={steps} is the length of a training: choose at least 0.")
    falling = soft_risk * steps

    def level(step: Int[Array, ""]) -> Float[Array, ""]:
        end = jnp.asarray(alpha, jnp.float32)
        if not falling:
            return end
        share = step.astype(jnp.float32) / falling
        return jnp.where(share < 1, 1 - share * (1 - end), end)  # at last alpha to the last bit

    return level
