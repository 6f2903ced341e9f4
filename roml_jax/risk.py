"""The tail of a batch of returns: its size, its mean, and the tasks in it.

``alpha`` may be traced everywhere, so that one compiled program can sweep it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from roml_jax.checks import check_in
from roml_jax.types import Alpha, Draw, Metrics, Weigh

_SLACK = 2e-7  # part of alpha * N that float32 may add by rounding, which makes no task


def check_alpha(alpha: Alpha) -> Alpha:
    """Returns ``alpha`` if it is a fraction of worst tasks, in (0, 1].

    A traced value cannot be looked at: it passes.

    Raises:
      ValueError: it is known, and out of range.
    """
    if not isinstance(alpha, jax.core.Tracer):
        check_in("alpha", alpha, "(0, 1]", "the fraction of worst tasks")
    return alpha


def tail_size(n: int, alpha: Alpha) -> int | Int[Array, ""]:
    """The number of tasks in the ``alpha``-tail of ``n`` tasks: ``ceil(alpha * n)``.

    Args:
      n: number of tasks, at least 1.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      An integer in ``1 … n``, an array if ``alpha`` is one. The product is rounded to nine
      decimals first (lowered by 2e-7 of it for an array), so that 7 % of 100 tasks are 7,
      although ``0.07 * 100 > 7`` in floating point.

    Raises:
      ValueError: ``n`` or ``alpha`` is out of range.
    """
    if n < 1:
        raise ValueError(f"n={n} is a number of tasks: it must be at least 1.")
    check_alpha(alpha)
    if isinstance(alpha, jax.Array):
        size = jnp.ceil(alpha * n * (1 - _SLACK))
        return jnp.clip(size, 1, n).astype(jnp.int32)
    return max(1, math.ceil(round(float(alpha) * n, 9)))


def _worst_first(returns: Float[Array, " N"]) -> Int[Array, " N"]:
    """Indices from the lowest return on: NaN below all numbers, ties in order of index."""
    return jnp.lexsort((returns, ~jnp.isnan(returns)))


def tail_mask(returns: Float[Array, " N"], alpha: Alpha) -> Bool[Array, " N"]:
    """Marks the ``ceil(alpha * N)`` tasks of lowest return.

    Args:
      returns: ``[N]``, higher is better. NaN ranks lowest: a task whose return is unknown
        is in the tail, and seen there.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      ``bool[N]`` with exactly ``tail_size(N, alpha)`` True; among equal returns the lower
      indices come first.

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 1 lines 7-8.

    Differs from the paper in ties: ``R_i <= q`` would take more than ``ceil(alpha * N)``
    tasks when several have the return ``q``.
    """
    inside = jnp.arange(returns.size) < tail_size(returns.size, alpha)
    return jnp.zeros(returns.shape, bool).at[_worst_first(returns)].set(inside)


def cvar(returns: Float[Array, " N"], alpha: Alpha) -> Float[Array, ""]:
    """The mean of the ``ceil(alpha * N)`` lowest returns.

    Args:
      returns: ``[N]``, higher is better. A NaN makes the result NaN, as for a mean.
      alpha: fraction of worst tasks, in (0, 1]; 1 gives the mean of all.

    Returns:
      A scalar: the mean over ``tail_mask(returns, alpha)``.

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Eq. (2), over a sample of tasks.
    """
    order, size = _worst_first(returns), tail_size(returns.size, alpha)
    if isinstance(size, int):
        return returns[order[:size]].mean()
    return jnp.where(jnp.arange(returns.size) < size, returns[order], 0).sum() / size


def weighted_cvar(
    returns: Float[Array, " N"], weights: Float[Array, " N"], alpha: Alpha
) -> Float[Array, ""]:
    """The mean return over the worst ``alpha`` of the total weight.

    Args:
      returns: ``[N]``, higher is better. A NaN of positive weight makes the result NaN.
      weights: ``[N]``, non-negative; the task at the edge of the tail counts with the part
        of its weight that lies inside.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      A scalar; NaN if no weight is positive. With equal weights and an integer
      ``alpha * N`` this is ``cvar(returns, alpha)``; otherwise ``cvar`` counts the task at
      the edge in full.

    Raises:
      ValueError: ``alpha`` is out of range.
    """
    check_alpha(alpha)
    order = _worst_first(returns)
    x, w = returns[order], jnp.maximum(weights[order], 0)
    above = jnp.cumsum(w) - w  # weight of the tasks that are worse
    inside = jnp.clip(alpha * w.sum() - above, 0, w)
    return jnp.where(inside > 0, inside * x, 0).sum() / inside.sum()


def summarize(draw: Draw, returns: Float[Array, " n"], alpha: Alpha) -> Metrics:
    """What the tasks of one step say about ``D_phi`` and about ``D_phi0``.

    Args:
      draw: tasks of the step; weights that are all zero, of draws that say nothing about
        ``D_phi0``, make the reference estimates NaN.
      returns: ``[n]``; a NaN makes the estimates NaN.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      "sample_mean", the mean return over the draws that are no reference draws (over all if
      there are none); "reference_mean" and "reference_cvar", the self-normalised
      importance-weighted estimates of mean and ``alpha``-CVaR under ``D_phi0``.
    """
    own, weights = ~draw.is_reference | draw.is_reference.all(), draw.weights
    return {
        "sample_mean": jnp.where(own, returns, 0).sum() / own.sum(),
        "reference_mean": jnp.where(weights > 0, weights * returns, 0).sum() / weights.sum(),
        "reference_cvar": weighted_cvar(returns, weights, alpha),
    }


# ------------------------------------------------------------------ weighings


def everything() -> Weigh:
    """A weighing that lets every task count in full.

    Returns:
      ``weigh(draw, returns[N]) -> float32[N]``, all 1.
    """

    def weigh(draw: Draw, returns: Float[Array, " N"]) -> Float[Array, " N"]:
        return jnp.ones(returns.shape, jnp.float32)

    return weigh


def tail(alpha: Alpha) -> Weigh:
    """A weighing that lets the worst ``alpha`` of the tasks count, and no other: CVaR-ML.

    Args:
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      ``weigh(draw, returns[N]) -> float32[N]``, ``tail_mask`` as 1 and 0.

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 1.
    """
    check_alpha(alpha)

    def weigh(draw: Draw, returns: Float[Array, " N"]) -> Float[Array, " N"]:
        return tail_mask(returns, alpha).astype(jnp.float32)

    return weigh
