"""Running moments, and the normalisation of inputs and rewards, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from roml_jax.checks import as_real, check_shape

INITIAL_WEIGHT = 1e-4
EPSILON = 1e-8


class Rest(NamedTuple):
    """What is to be added to the moments, each less than a rounding step of its own."""

    mean: Float[Array, "..."]
    var: Float[Array, "..."]
    weight: Float[Array, ""]


class Moments(NamedTuple):
    """Mean and variance of everything seen so far, by feature.

    ``rest`` holds what the sums lose to rounding, so that the ten-billionth sample still counts.
    """

    mean: Float[Array, "..."]
    var: Float[Array, "..."]  # the population's: divided by the number of samples
    weight: Float[Array, ""]  # number of samples; starts below one
    rest: Rest | None = None  # None stands for zeros


def init_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Mean 0 and variance 1 with a weight that any data outweighs, in float32."""
    mean, var = jnp.zeros(shape, jnp.float32), jnp.ones(shape, jnp.float32)
    weight = jnp.asarray(INITIAL_WEIGHT, jnp.float32)
    return Moments(mean, var, weight, Rest(*map(jnp.zeros_like, (mean, var, weight))))


def batch_moments(
    x: Real[Array, "N ..."],
    counted: Bool[Array, " N"] | None = None,
    *,
    unbiased: bool = False,
) -> Moments:
    """Moments of a batch over its leading axis.

    Args:
      x: ``[N, …]``, at least one sample; integers are promoted.
      counted: ``[N]``, False where a sample is left out, whatever it holds; None for all. If
        none counts, the weight is 0 and nothing changes by a merge.
      unbiased: divide the squared deviations of two or more samples by N - 1, as the original
        code does. Merged batches of N then give a variance that is ``1 + 1 / N`` times too large.

    Returns:
      ``Moments`` in float32 at least; the variance divides by N.

    Raises:
      ValueError: while tracing, if ``x`` has no sample, or ``counted`` is no ``[N]``.
    """
    x = as_real("x", x)
    if not x.ndim or not x.shape[0]:
        raise ValueError(f"x must hold samples along its first axis; got the shape {x.shape}")
    if counted is None:
        n, live = jnp.asarray(x.shape[0], x.dtype), None
    else:
        check_shape("counted", counted, x.shape[:1], "the first axis of x")
        n, live = (
            jnp.sum(counted, dtype=jnp.int32).astype(x.dtype),
            counted.reshape(-1, *(1,) * (x.ndim - 1)),
        )
        x = jnp.where(live, x, 0)
    total = jnp.maximum(n, 1)

    def mean(values: Array) -> Array:
        return jnp.sum(values if live is None else jnp.where(live, values, 0), axis=0) / total

    first = mean(x)
    deviation = x - first[None]
    shift = mean(deviation)  # what the first sum has lost to rounding
    var = mean(jnp.square(deviation - shift[None]))
    if unbiased:
        var *= total / jnp.maximum(total - 1, 1)
    return Moments(first + shift, var, n)


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of two data sets together; associative, so it serves in a parallel scan.

    Args:
      a: of the first; the result is of its dtype.
      b: of the second, with features of the same shape.

    Returns:
      Those of all samples. In float32 the mean stays within a thousandth of the deviation
      after 1e10 samples, if it is less than some thousand deviations from zero.

    Raises:
      ValueError: while tracing, if shapes differ.

    Reference: Chan, Golub and LeVeque (1979), with the compensated sums of Neumaier (1974).
    """
    check_shape("the mean of b", b.mean, a.mean.shape, "that of a")
    b = jax.tree.map(lambda x: x.astype(a.mean.dtype), b)
    pair = (a._replace(rest=None), _rest(a)), (b._replace(rest=None), _rest(b))
    lighter = a.weight < b.weight  # small changes are made to what is larger
    (a, rest_a), (b, rest_b) = (
        jax.tree.map(lambda x, y: jnp.where(lighter, x, y), *two) for two in (pair[::-1], pair)
    )
    weight, rest_weight = _add(a.weight, b.weight, rest_a.weight + rest_b.weight)
    part = b.weight / jnp.where(weight > 0, weight, 1)
    delta = (b.mean - a.mean) + (rest_b.mean - rest_a.mean)
    spread = (b.var - a.var) + (rest_b.var - rest_a.var) + jnp.square(delta) * (1 - part)
    mean, rest_mean = _add(a.mean, delta * part, rest_a.mean)
    var, rest_var = _add(a.var, spread * part, rest_a.var)
    return Moments(mean, var, weight, Rest(rest_mean, rest_var, rest_weight))


def _rest(moments: Moments) -> Rest:
    """The rest, or zeros if there is none."""
    mean, var, weight, rest = moments
    return Rest(*map(jnp.zeros_like, (mean, var, weight))) if rest is None else rest


def _add(a: Array, b: Array, rest: Array) -> tuple[Array, Array]:
    """``a + b + rest`` as a sum and what it loses to rounding."""
    b = b + rest
    total = a + b
    back = total - b
    return total, (a - back) + (b - (total - back))


def normalize(x: Real[Array, "..."], moments: Moments) -> Float[Array, "..."]:
    """``(x - mean) / sqrt(var + 1e-8)``, without clipping.

    Args:
      x: ``[…, *shape]`` for moments of that shape; integers are promoted.
      moments: of the features; broadcast over the leading axes of ``x``.

    Raises:
      ValueError: while tracing, if ``x`` does not end in the shape of the moments.
    """
    x, shape = as_real("x", x), moments.mean.shape
    if x.shape[x.ndim - len(shape) :] != shape or x.ndim < len(shape):
        raise ValueError(f"x must end in the axes {shape} of the moments; got the shape {x.shape}")
    lead = (1,) * (x.ndim - len(shape)) + shape
    scale = jax.lax.rsqrt(moments.var + EPSILON)
    return (x - moments.mean.reshape(lead)) * scale.reshape(lead)


def normalize_rewards(
    moments: Moments,
    rewards: Real[Array, "T B"],
    meta_end: Bool[Array, " T"],
    *,
    discount: float,
    clip: float = 10.0,
    counted: Bool[Array, " B"] | None = None,
) -> tuple[Moments, Float[Array, "T B"]]:
    """Divides rewards by the running deviation of their discounted sum so far.

    ``g_t = discount * g_{t-1} + r_t`` runs within a meta-episode and is zero at its
    last step, unless that is its only one. The scalar moments take in the B values of
    ``g_t`` step by step, with the population variance over tasks; ``r_t`` is divided by the
    deviation that includes step t, not centred, and clipped.

    Args:
      moments: scalar moments of ``g``.
      rewards: ``[T, B]`` raw rewards of whole meta-episodes; integers are promoted.
      meta_end: ``[T]``, True at the last step of a meta-episode.
      discount: in [0, 1].
      clip: bound on the magnitude of the result.
      counted: ``[B]``, False for tasks that the moments leave out; None for all.

    Returns:
      The moments after step T, and ``[T, B]`` normalised rewards.

    Raises:
      ValueError: while tracing, if an argument has another rank, or a flag another length.

    Reference: the original code, reference settings "normalise rewards for policy"; there, a
      meta-episode of one step has no deviation.
    """
    rewards = as_real("rewards", rewards)
    if rewards.ndim != 2 or moments.mean.shape:
        raise ValueError(
            f"rewards must be [T, B] under scalar moments; got the shapes {rewards.shape} and "
            f"{moments.mean.shape}"
        )
    check_shape("meta_end", meta_end, rewards.shape[:1], "the steps of rewards")
    first = jnp.pad(meta_end[:-1], (1, 0), constant_values=True)
    one = jnp.ones((), rewards.dtype)
    keep = jnp.where(meta_end & ~first, 0, one)[:, None]
    goes_on = jnp.where(meta_end | first, 0, one)[:, None]

    def compose(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        # A pair (decay, sum) is the affine map g -> decay * g + sum.
        return early[0] * late[0], late[1] + late[0] * early[1]

    decay = jnp.broadcast_to(discount * goes_on, rewards.shape)
    _, discounted = jax.lax.associative_scan(compose, (decay, rewards * keep))

    per_step = jax.vmap(lambda g: batch_moments(g, counted))(discounted)
    per_step = jax.tree.map(lambda x: x.astype(moments.mean.dtype), per_step)
    start, per_step = (m._replace(rest=_rest(m)) for m in (moments, per_step))
    stacked = jax.tree.map(lambda m, x: jnp.concatenate([m[None], x]), start, per_step)
    running = jax.lax.associative_scan(merge_moments, stacked)
    scale = jax.lax.rsqrt(running.var[1:] + EPSILON)[:, None]
    last = jax.tree.map(lambda x: x[-1], running)
    return last, jnp.clip(rewards * scale, -clip, clip)
