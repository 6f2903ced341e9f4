"""Running moments, and the normalisation of inputs and rewards, as pure functions."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

INITIAL_WEIGHT = 1e-4
EPSILON = 1e-8


class Moments(NamedTuple):
    """Mean and variance of everything seen so far, by feature."""

    mean: Float[Array, "..."]
    var: Float[Array, "..."]
    weight: Float[Array, "..."]  # number of samples; starts below one


def init_moments(shape: tuple[int, ...] = ()) -> Moments:
    """Mean 0 and variance 1 with a weight that any data outweighs."""
    return Moments(jnp.zeros(shape), jnp.ones(shape), jnp.asarray(INITIAL_WEIGHT, jnp.float32))


def batch_moments(x: Float[Array, "N ..."], *, unbiased: bool) -> Moments:
    """Moments of a batch over its leading axis.

    Args:
      x: ``[N, …]``; the variance is ``nan`` for ``unbiased`` and N = 1.
      unbiased: divide the squared deviations by N - 1 instead of N.
    """
    n = x.shape[0]
    var = jnp.var(x, axis=0, ddof=1 if unbiased else 0)
    return Moments(jnp.mean(x, axis=0), var, jnp.asarray(float(n), x.dtype))


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Moments of two data sets together; associative, so it serves in a parallel scan.

    Reference: Chan, Golub and LeVeque (1979). As in the original code the variance
    that enters is the one that ``batch_moments`` gave, biased or not.
    """
    weight = a.weight + b.weight
    delta = b.mean - a.mean
    mean = a.mean + delta * (b.weight / weight)
    m2 = a.var * a.weight + b.var * b.weight + jnp.square(delta) * (a.weight * b.weight / weight)
    return Moments(mean, m2 / weight, weight)


def normalize(x: Float[Array, "..."], moments: Moments) -> Float[Array, "..."]:
    """``(x - mean) / sqrt(var + 1e-8)``, without clipping.

    Args:
      x: ``[…, F]`` for moments of shape ``[F]``.
      moments: of the features; broadcast over the leading axes of ``x``.
    """
    scale = jax.lax.rsqrt(moments.var + EPSILON)
    lead = (1,) * (x.ndim - scale.ndim)
    return (x - moments.mean.reshape(lead + scale.shape)) * scale.reshape(lead + scale.shape)


def normalize_rewards(
    moments: Moments,
    rewards: Float[Array, "T B"],
    meta_end: Bool[Array, " T"],
    *,
    discount: float,
    clip: float = 10.0,
) -> tuple[Moments, Float[Array, "T B"]]:
    """Divides rewards by the running deviation of their discounted sum so far.

    ``g_t = discount * g_{t-1} + r_t`` runs within a meta-episode and is zero at its
    last step. The scalar moments take in the B values of ``g_t`` step by step, with
    the population variance over tasks; ``r_t`` is divided by the deviation that
    includes step t, not centred, and clipped.

    Args:
      moments: scalar moments of ``g``.
      rewards: ``[T, B]`` raw rewards of whole meta-episodes.
      meta_end: ``[T]``, True at the last step of a meta-episode.
      discount: in [0, 1].
      clip: bound on the magnitude of the result.

    Returns:
      The moments after step T, and ``[T, B]`` normalised rewards.

    Reference: the original code, reference settings "normalise rewards for policy".
    """
    keep = jnp.where(meta_end, 0.0, 1.0)[:, None]

    def compose(early: tuple[Array, Array], late: tuple[Array, Array]) -> tuple[Array, Array]:
        # A pair (decay, sum) is the affine map g -> decay * g + sum.
        return early[0] * late[0], late[1] + late[0] * early[1]

    decay = jnp.broadcast_to(discount * keep, rewards.shape)
    _, discounted = jax.lax.associative_scan(compose, (decay, rewards * keep))

    per_step = Moments(
        jnp.mean(discounted, axis=1),
        jnp.var(discounted, axis=1),
        jnp.full(rewards.shape[:1], float(rewards.shape[1]), rewards.dtype),
    )
    stacked = jax.tree.map(lambda m, x: jnp.concatenate([m[None], x]), moments, per_step)
    running = jax.lax.associative_scan(merge_moments, stacked)
    scale = jax.lax.rsqrt(running.var[1:] + EPSILON)[:, None]
    last = jax.tree.map(lambda x: x[-1], running)
    return last, jnp.clip(rewards * scale, -clip, clip)
