"""The tail of a batch of returns: its size, its mean, and the tasks in it.

``alpha`` may be traced everywhere, so that one compiled program can sweep it.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from roml_jax.checks import as_real, as_vector, check_in, check_shape
from roml_jax.types import UNTOLD, Alpha, Draw, Metrics, Weigh

_EPS32 = 2.0**-23  # of float32
_SLACK64 = 2.0**-50  # of a product in float64: 1 - 0.95 is 0.050000000000000044
_PLACES = 9  # most decimals that are looked for
_EDGE = 1e-6  # of a sum of weights, within rounding


def check_alpha(alpha: Alpha) -> Alpha:
    """Returns ``alpha`` if it is a fraction of worst tasks, in (0, 1].

    A traced value cannot be looked at: it passes.

    Raises:
      ValueError: it is known, and out of range.
    """
    if not isinstance(alpha, jax.core.Tracer):
        with jax.ensure_compile_time_eval():  # a known array can be looked at while tracing
            check_in("alpha", alpha, "(0, 1]", "the fraction of worst tasks")
    return alpha


def tail_size(n: int, alpha: Alpha) -> int | Int[Array, ""]:
    """The number of tasks in the ``alpha``-tail of ``n`` tasks: ``ceil(alpha * n)``.

    Args:
      n: number of tasks, 1 … 2³¹ - 1.
      alpha: fraction of worst tasks, in (0, 1], of any floating dtype. A traced one outside
        is clipped: at least one task, at most all.

    Returns:
      An integer in ``1 … n``, an array if ``alpha`` is one. What counts is the decimal that
      ``alpha`` stands for: 5 % of 20 tasks are 1, although 0.05 is 0.0500000007 in float32, and
      7 % of 100 are 7, although ``0.07 * 100 > 7`` in floating point. A number that is no short
      decimal, such as 1/3, is lowered by half a rounding step of its dtype.

    Raises:
      ValueError: ``n`` or ``alpha`` is out of range.
    """
    if not 1 <= n < 2**31:
        raise ValueError(f"n={n} is a number of tasks: it must be at least 1, and less than 2^31.")
    check_alpha(alpha)
    if isinstance(alpha, jax.core.Tracer):
        return _tail_size_of_array(n, alpha)
    if isinstance(alpha, float | int):  # as NumPy's float64 is
        return max(1, math.ceil(alpha * n * (1 - _SLACK64)))
    with jax.ensure_compile_time_eval():
        size = _known_tail_size(n, jnp.asarray(alpha))
    return size if isinstance(alpha, jax.Array) else int(size)


def _tail_size_of_array(n: int, alpha: Float[Array, ""]) -> Int[Array, ""]:
    """``tail_size`` of a number of any dtype, known or not yet, in whole numbers.

    Both forms of ``alpha``, ``digits / 10^places`` and ``bits / 2^25 / 2^shift``, are multiplied
    by ``n`` digit by digit from the last one on, rounded up each time, which ends in the product
    rounded up: ``ceil(ceil(x) / b) = ceil(x / b)``.
    """
    if not jnp.issubdtype(alpha.dtype, jnp.floating):
        return jnp.clip(alpha.astype(jnp.int32) * n, 1, n)
    if alpha.dtype == jnp.float64:
        return jnp.clip(jnp.ceil(alpha * n * (1 - _SLACK64)), 1, n).astype(jnp.int32)
    eps = float(jnp.finfo(alpha.dtype).eps)
    alpha = jnp.clip(alpha.astype(jnp.float32), 0, 1)
    powers = jnp.asarray(10.0 ** np.arange(_PLACES + 1), jnp.float32)  # exact
    scaled = alpha * powers
    digits = jnp.round(scaled)
    known = (digits * eps < 0.5) & (jnp.abs(scaled - digits) <= eps * scaled)
    places = jnp.argmax(known)
    decimal = _product(digits[places].astype(jnp.uint32), n, 10, _PLACES, places)

    mantissa, exponent = jnp.frexp(alpha)  # mantissa in [0.5, 1)
    half = round(eps / _EPS32)  # a half rounding step, in units of 2^-25
    bits = 2 * (mantissa * 2**24).astype(jnp.uint32) - half
    binary = _product(bits, n, 2, 25, 25)
    shift = jnp.clip(-exponent, 0, 31).astype(jnp.uint32)
    rest = binary & ((jnp.uint32(1) << shift) - 1)
    binary = (binary >> shift) + (rest > 0).astype(jnp.uint32)
    size = jnp.where(known.any(), decimal, binary)
    return jnp.clip(size, 1, n).astype(jnp.int32)


_known_tail_size = jax.jit(_tail_size_of_array, static_argnums=0)  # eager loops compile anew


def _product(digits: Array, n: int, base: int, most: int, places: Array | int) -> Array:
    """``ceil(digits / base^places * n)`` for a fraction in [0, 1], in uint32."""
    whole, rest = divmod(n, base)

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        digits, total = carry
        digit = digits % base
        more = digit * whole + (total + digit * rest + base - 1) // base
        live = i < places
        return jnp.where(live, digits // base, digits), jnp.where(live, more, total)

    left, total = jax.lax.fori_loop(0, most, step, (digits, jnp.zeros((), jnp.uint32)))
    return left * n + total  # left is 0, or the 1 of a whole


def _worst_first(returns: Real[Array, " N"]) -> Int[Array, " N"]:
    """Indices from the lowest return on: NaN below all numbers, ties in order of index."""
    return jnp.lexsort((returns, ~jnp.isnan(returns)))


def tail_mask(returns: Real[Array, " N"], alpha: Alpha) -> Bool[Array, " N"]:
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
    as_vector("returns", returns)
    inside = jnp.arange(returns.size) < tail_size(returns.size, alpha)
    return jnp.zeros(returns.shape, bool).at[_worst_first(returns)].set(inside)


def cvar(returns: Real[Array, " N"], alpha: Alpha) -> Float[Array, ""]:
    """The mean of the ``ceil(alpha * N)`` lowest returns.

    Args:
      returns: ``[N]``, higher is better. A NaN makes the result NaN, as for a mean.
      alpha: fraction of worst tasks, in (0, 1]; 1 gives the mean of all.

    Returns:
      A scalar, float32 at least: the mean over ``tail_mask(returns, alpha)``.

    Raises:
      ValueError: ``alpha`` is out of range, or ``returns`` no vector.

    Reference:
      Greenberg et al. (2023), Eq. (2), over a sample of tasks.
    """
    values = as_vector("returns", returns)
    order, size = _worst_first(returns), tail_size(returns.size, alpha)
    if isinstance(size, int):
        return values[order[:size]].mean()
    return jnp.where(jnp.arange(returns.size) < size, values[order], 0).sum() / size.astype(
        values.dtype
    )


def cvar_two_sample(returns: Real[Array, "R N"], alpha: Alpha) -> Float[Array, ""]:
    """The mean return of the tasks that did worst in other plays than those that are averaged.

    Noisy returns make ``cvar`` too low: the worst tasks *by their own noise* are taken. Here
    tasks are ranked by one half of their plays and averaged over the other, and the other way
    round. Noise no longer counts for itself, but it hides which tasks are the worst, so that the
    result is too high instead: in expectation the CVaR of the expected returns of these tasks
    lies between ``cvar(returns.mean(axis=0), alpha)`` and this, and both tend to it as R grows.

    Args:
      returns: ``[R, N]``, R plays of each of N tasks, higher is better; R at least 2. The first
        ``R // 2`` plays are one half. Plays of a task must be independent.
      alpha: fraction of worst tasks, in (0, 1]; 1 gives the mean of all, each half counting once.

    Returns:
      A scalar, float32 at least. A NaN among the returns makes it NaN, as for a mean.

    Raises:
      ValueError: ``alpha`` is out of range, or ``returns`` no two plays of at least one task.

    Reference:
      Rutherford et al. (2024), "No Regrets: Investigating and Improving Regret Approximations for
      Curriculum Discovery": levels ranked by one rollout and reported by another.
    """
    if jnp.ndim(returns) != 2 or jnp.shape(returns)[0] < 2 or not jnp.shape(returns)[1]:
        raise ValueError(
            "returns must be [R, N], at least two plays of at least one task; "
            f"got {list(jnp.shape(returns))}"
        )
    values = as_real("returns", returns)
    half = values.shape[0] // 2
    one, other = values[:half].mean(axis=0), values[half:].mean(axis=0)

    def ranked(by: Float[Array, " N"], of: Float[Array, " N"]) -> Float[Array, ""]:
        inside = tail_mask(by, alpha)
        return jnp.where(inside, of, 0).sum() / inside.sum(dtype=of.dtype)

    value = (ranked(one, other) + ranked(other, one)) / 2
    unknown = jnp.isnan(one).any() | jnp.isnan(other).any()
    return jnp.where(unknown, jnp.nan, value)


def weighted_cvar(
    returns: Real[Array, " N"], weights: Real[Array, " N"], alpha: Alpha
) -> Float[Array, ""]:
    """The mean return over the worst ``alpha`` of the total weight.

    Args:
      returns: ``[N]``, higher is better. A NaN of positive weight makes the result NaN.
      weights: ``[N]``, non-negative; the task at the edge of the tail counts with the part
        of its weight that lies inside.
      alpha: fraction of worst tasks, in (0, 1]. A traced one outside is clipped: at least the
        worst task of positive weight, at most all.

    Returns:
      A scalar, float32 at least; NaN if no weight is positive. With equal weights and an integer
      ``alpha * N`` this is ``cvar(returns, alpha)``; otherwise ``cvar`` counts the task at
      the edge in full.

    Raises:
      ValueError: ``alpha`` is out of range, or an argument no vector of the same length.
    """
    check_alpha(alpha)
    x, w = as_vector("returns", returns, some=True), as_vector("weights", weights)
    check_shape("weights", w, x.shape, "returns")
    w = w.astype(x.dtype)
    order = _worst_first(returns)
    x, w = x[order], jnp.maximum(w[order], 0)
    w = w / jnp.where(w.max() > 0, w.max(), 1)  # sums neither overflow nor vanish
    above = jnp.cumsum(w) - w  # weight of the tasks that are worse
    part = jnp.clip(jnp.asarray(alpha, w.dtype), 0, 1) * w.sum()
    inside = jnp.clip(part - above, 0, w)
    worst = (w > 0) & (jnp.cumsum(w > 0) == 1)  # all of the tail, if that is less than any weight
    inside = jnp.where(inside.any(), inside, worst.astype(w.dtype))
    value = jnp.where(inside > 0, inside * x, 0).sum() / jnp.where(w.any(), inside.sum(), 1)
    return jnp.where(w.any(), value, jnp.nan)


def weighted_tail_mask(
    returns: Real[Array, " N"], weights: Real[Array, " N"], alpha: Alpha
) -> Bool[Array, " N"]:
    """Marks the tasks of lowest return that hold the worst ``alpha`` of the total weight.

    Args:
      returns: ``[N]``, higher is better. NaN ranks lowest, as in ``tail_mask``.
      weights: ``[N]``, non-negative.
      alpha: fraction of worst tasks, in (0, 1]. A traced one outside is clipped: at least the
        worst task of positive weight, at most all.

    Returns:
      ``bool[N]``: tasks of positive weight with less than ``alpha`` of the total weight on tasks
      that are worse. The one at the edge is inside, as in ``tail_mask``, which this is for equal
      weights; up to a millionth of the total, which is left to rounding.

    Raises:
      ValueError: ``alpha`` is out of range, or an argument no vector of the same length.

    Reference:
      Greenberg et al. (2022), "Efficient Risk-Averse Reinforcement Learning", Alg. 1: the returns
      up to the quantile of the importance-weighted sample.
    """
    check_alpha(alpha)
    x, w = as_vector("returns", returns, some=True), as_vector("weights", weights)
    check_shape("weights", w, x.shape, "returns")
    order = _worst_first(x)
    w = jnp.maximum(w[order], 0)
    w = w / jnp.where(w.max() > 0, w.max(), 1)  # sums neither overflow nor vanish
    above = jnp.cumsum(w) - w  # weight of the tasks that are worse
    alpha = jnp.asarray(alpha, w.dtype)
    edge = jnp.maximum(alpha, 0) * w.sum() * (1 - _EDGE)
    first = jnp.cumsum(w > 0) == 1
    inside = (w > 0) & ((above < edge) | (alpha >= 1) | first)
    return jnp.zeros(x.shape, bool).at[order].set(inside)


def summarize(draw: Draw, returns: Real[Array, " n"], alpha: Alpha) -> Metrics:
    """What the tasks of one step say about ``D_phi`` and about ``D_phi0``.

    Args:
      draw: tasks of the step; weights that are all zero are of draws that say nothing about
        ``D_phi0``.
      returns: ``[n]``; a NaN makes the estimates NaN.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      "sample_mean", the mean return over the draws that are no reference draws (over all if
      there are none); "reference_mean" and "reference_cvar", the self-normalised
      importance-weighted estimates of mean and ``alpha``-CVaR under ``D_phi0``, ``UNTOLD`` if
      all weights are zero.

    Raises:
      ValueError: while tracing, if the parts are not of one length.
    """
    returns = as_vector("returns", returns, some=True)
    check_shape("draw.weights", draw.weights, returns.shape, "returns")
    check_shape("draw.is_reference", draw.is_reference, returns.shape, "returns")
    own = ~draw.is_reference | draw.is_reference.all()
    known = (draw.weights > 0).any()
    weights = jnp.where(known, draw.weights, 1)
    mean = jnp.where(weights > 0, weights * returns, 0).sum() / weights.sum()
    return {
        "sample_mean": jnp.where(own, returns, 0).sum() / own.sum(dtype=returns.dtype),
        "reference_mean": jnp.where(known, mean, UNTOLD),
        "reference_cvar": jnp.where(known, weighted_cvar(returns, weights, alpha), UNTOLD),
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


def chosen() -> Weigh:
    """A weighing that lets only tasks count that the sampler chose, and no reference draw.

    Returns:
      ``weigh(draw, returns[N]) -> float32[N]``, 0 for reference draws, else 1.

    Reference:
      Jiang et al. (2021), "Replay-Guided Adversarial Environment Design": robust PLR learns from
      replayed levels alone, so that new ones are no more than looked at.
    """

    def weigh(draw: Draw, returns: Float[Array, " N"]) -> Float[Array, " N"]:
        return (~draw.is_reference).astype(jnp.float32)

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


def weighted_tail(alpha: Alpha, *, max_weight: float | None = None) -> Weigh:
    """A weighing that lets the worst ``alpha`` of ``D_phi0`` count, by their weights: CeSoR.

    Args:
      alpha: fraction of worst tasks, in (0, 1]; 1 selects none, so that all tasks count by
        their importance weights, and ``E[w x]`` under ``D_phi`` is ``E[x]`` under ``D_phi0``.
      max_weight: at least 1; weights are clipped to ``[1 / max_weight, max_weight]``. Those of
        draws that say nothing about ``D_phi0`` stay 0. None for no clip.

    Returns:
      ``weigh(draw, returns[N]) -> float32[N]``, the weights of the draw, and 0 outside of
      ``weighted_tail_mask``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2022), "Efficient Risk-Averse Reinforcement Learning", Alg. 1.
    """
    check_alpha(alpha)
    if max_weight is not None and not max_weight >= 1:
        raise ValueError(f"max_weight={max_weight} bounds weights around 1: choose at least 1.")

    def weigh(draw: Draw, returns: Float[Array, " N"]) -> Float[Array, " N"]:
        weights = draw.weights
        if max_weight is not None:
            clipped = jnp.clip(weights, 1 / max_weight, max_weight)
            weights = jnp.where(weights > 0, clipped, 0)
        inside = weighted_tail_mask(returns, weights, alpha)
        return jnp.where(inside, weights, 0).astype(jnp.float32)

    return weigh
