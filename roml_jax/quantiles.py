"""Weighted quantiles, as the cross-entropy method needs them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from roml_jax.checks import as_vector, check_shape


def weighted_quantile(
    x: Real[Array, " N"],
    q: float | int | np.floating | Real[Array, ""],
    weights: Real[Array, " N"] | None = None,
    *,
    population: bool = False,
) -> Float[Array, ""]:
    """The ``q``-quantile of samples that count with unequal weights.

    With the samples in ascending order and ``c_i = w_1 + … + w_i - w_i / 2``, sample i
    sits at level ``p_i = (c_i - c_1) / (c_N - c_1)``, and levels in between are
    interpolated linearly. Equal weights give the usual linear-interpolation quantile.
    Samples of weight zero (or below) do not influence the result. A level that falls on
    a sample, or between equal samples, gives that sample up to rounding.

    Args:
      x: ``[N]``, at least one sample, in any order. A NaN of positive weight gives NaN, and so
        does a level between the two infinities.
      q: level in [0, 1], may be traced; 0 and 1 give exactly the lowest and the highest
        sample of positive weight. Levels outside are clipped; NaN gives NaN.
      weights: ``[N]``, finite and non-negative, of any scale; None means equal weights. Infinity or
        NaN gives NaN.
      population: take the samples for a draw from a wider population and correct the
        level for the tails they miss: ``q' = clip(q (n+1)/(n-1) - 1/(n-1), 0, 1)``, with
        n the number of samples of positive weight.

    Returns:
      A scalar of the dtype of ``x``, float32 at least; NaN if no weight is positive.

    Raises:
      ValueError: while tracing, if ``x`` is empty or no vector, or ``weights`` has another shape.

    Reference:
      Greenberg et al. (2023), Alg. 2 line 13, which leaves the estimator open; mid-point
      weights and the correction are those of the authors' cross-entropy package.
    """
    x = as_vector("x", x, some=True)
    weights = jnp.ones_like(x) if weights is None else as_vector("weights", weights)
    check_shape("weights", weights, x.shape, "x")
    return quantile_in_order(x, jnp.argsort(x), q, weights, population=population)


def quantile_in_order(
    x: Float[Array, " N"],
    order: Int[Array, " N"],
    q: float | int | np.floating | Real[Array, ""],
    weights: Real[Array, " N"],
    *,
    population: bool,
) -> Float[Array, ""]:
    """``weighted_quantile`` of samples that have been sorted, which is what takes its time.

    Args:
      x: ``[N]``, at least one sample, in any order.
      order: ``[N]``, ``jnp.argsort(x)``.
      q: as in ``weighted_quantile``.
      weights: likewise.
      population: likewise.
    """
    weights = weights.astype(x.dtype)
    counted = weights > 0
    w = jnp.where(counted, weights, 0) / jnp.where(counted.any(), weights.max(), 1)

    order = _first(counted[order], order)  # counted samples first, each part ascending
    x, w = x[order], w[order]
    n = counted.sum(dtype=jnp.int32)
    last = jnp.maximum(n - 1, 0)

    c = jnp.cumsum(w) - w / 2 - w[0] / 2  # c_i - c_1

    level = jnp.asarray(q).astype(x.dtype)
    if population:
        level = (level * (n + 1).astype(x.dtype) - 1) / jnp.maximum(n - 1, 1).astype(x.dtype)
    level = jnp.clip(level, 0, 1).astype(x.dtype)

    goal = level * c[last]
    reached = (c <= goal) & (jnp.arange(x.size, dtype=jnp.int32) < n)
    i = jnp.clip(reached.sum(dtype=jnp.int32) - 1, 0, jnp.maximum(last - 1, 0))
    j = jnp.minimum(i + 1, last)
    gap = c[j] - c[i]
    t = jnp.clip((goal - c[i]) / jnp.where(gap > 0, gap, 1), 0, 1)
    step = x[j] - x[i]
    beyond = jnp.where(t <= 0, x[i], jnp.where(t >= 1, x[j], (1 - t) * x[i] + t * x[j]))
    beyond = jnp.where(x[i] == x[j], x[i], beyond)  # infinite, or too far apart
    value = jnp.where(jnp.isfinite(step), x[i] + t * step, beyond)
    # The float sum may miss the ends.
    value = jnp.where(level <= 0, x[0], jnp.where(level >= 1, x[last], value))

    unknown = (
        (n == 0)
        | jnp.isnan(level)
        | (jnp.isnan(weights) | jnp.isposinf(weights)).any()
        | jnp.isnan(x[last])
    )
    return jnp.where(unknown, jnp.nan, value)


def _first(chosen: Bool[Array, " N"], x: Int[Array, " N"]) -> Int[Array, " N"]:
    """The chosen entries, then all others, each in the order that they had."""
    place = jnp.cumsum(chosen, dtype=jnp.int32) - 1
    rest = jnp.cumsum(~chosen, dtype=jnp.int32) + place[-1]
    return jnp.zeros_like(x).at[jnp.where(chosen, place, rest)].set(x, unique_indices=True)
