"""The numbers that every sampler reports."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.risk import Alpha, weighted_cvar
from roml_jax.types import Draw, Metrics


def summarize(
    phi: Float[Array, " P"],
    draw: Draw,
    returns: Float[Array, " n"],
    weights: Float[Array, " n"],
    alpha: Alpha,
) -> Metrics:
    """What the tasks of one step say about ``D_phi`` and about ``D_phi0``.

    Args:
      phi: ``[P]``, reported as it is.
      draw: tasks of the step.
      returns: ``[n]``; a NaN makes the estimates NaN.
      weights: ``[n]``, importance weights towards ``D_phi0``; all zero if the draws say
        nothing about it, which makes the reference estimates NaN.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      "phi"; "sample_mean", the mean return over the draws that are no reference draws (over
      all if there are none); "reference_mean" and "reference_cvar", the self-normalised
      importance-weighted estimates of mean and ``alpha``-CVaR under ``D_phi0``.
    """
    own = ~draw.is_reference | draw.is_reference.all()
    return {
        "phi": phi,
        "sample_mean": jnp.where(own, returns, 0).sum() / own.sum(),
        "reference_mean": jnp.where(weights > 0, weights * returns, 0).sum() / weights.sum(),
        "reference_cvar": weighted_cvar(returns, weights, alpha),
    }
