"""Densities in the unit cube, made of normal kernels that stay inside of it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from roml_jax.types import PRNGKey

_UNIFORM_STD = 12**-0.5  # of a coordinate that is spread over all of [0, 1]
_WIDEST = 0.4  # a reflected kernel is then flat to a quarter, and five images are enough
_NARROWEST = 0.005
_CRITICAL = 2.0  # of Kuiper's statistic: one uniform sample in a hundred exceeds it
# A kernel and its images: of c, on a circle c plus the second number, and elsewhere the first one
# times c plus the third.
_IMAGES = ((1, 0, 0), (-1, -1, 0), (-1, 1, 2), (1, -2, -2), (1, 2, 2))
_SMALLEST = 1e-30  # of a kernel in one coordinate, for the logarithm


def draw_kernels(
    key: PRNGKey,
    centres: Float[Array, "M D"],
    width: Float[Array, " D"],
    circular: Bool[np.ndarray, " D"],
    n: int,
) -> Float[Array, "{n} D"]:
    """Draws n points of ``kernel_log_density``, from the same arguments."""
    choice_key, noise_key = jax.random.split(key)
    chosen = centres[jax.random.randint(choice_key, (n,), 0, centres.shape[0])]
    x = chosen + width[None] * jax.random.normal(noise_key, chosen.shape, jnp.float32)
    reflected = 1 - jnp.abs(jnp.mod(x, 2) - 1)
    return jnp.where(circular[None], jnp.mod(x, 1), reflected)


def kernel_log_density(
    units: Float[Array, "n D"],
    centres: Float[Array, "M D"],
    width: Float[Array, " D"],
    circular: Bool[np.ndarray, " D"],
) -> Float[Array, " n"]:
    """The logarithm of a density in the unit cube, the mean of M products of kernels.

    Args:
      units: ``[n, D]``, in [0, 1].
      centres: ``[M, D]``, in [0, 1].
      width: ``[D]``, standard deviations before the kernels are folded, in (0, 0.4].
      circular: ``bool[D]``; there a kernel goes on at the other end, elsewhere it is reflected.

    Returns:
      ``[n]``; the integral of the density over the cube is 1, to a millionth.
    """
    scaled, kernels = 1 / width, jnp.zeros((), units.dtype)
    for sign, around, back in _IMAGES:  # unrolled, they are one loop for the processor
        image = jnp.where(circular[None], centres + around, sign * centres + back)
        z = (units[:, None] - image[None]) * scaled[None, None]
        kernels = kernels + jnp.exp(-0.5 * jnp.square(z))  # [n, M, D]
    log = jnp.log(jnp.maximum(kernels, _SMALLEST) / (width * math.sqrt(2 * math.pi))[None, None])
    return jax.nn.logsumexp(log.sum(axis=-1), axis=-1) - math.log(centres.shape[0])


def kernel_width(
    units: Float[Array, "N D"], weights: Float[Array, " N"], circular: Bool[np.ndarray, " D"]
) -> Float[Array, " D"]:
    """The width that kernels on weighted points should have in each coordinate.

    In the d coordinates where the points are not spread uniformly, as far as m points can tell
    (Kuiper's test at 1 %), it is ``s m^(-1 / (d + 4))``, Scott's rule. The deviation s is that of
    a uniform distribution as dense as the densest quarter of the points is: two regions far from
    each other do not make kernels wide. Elsewhere it is ``m^(-1 / D)``, as m points fill no more
    than m cells of the cube: for many coordinates this is all of it, and they stay uniform.

    Args:
      units: ``[N, D]``, in [0, 1].
      weights: ``[N]``, not negative; m is their effective number, ``sum(w)^2 / sum(w^2)``.
      circular: ``bool[D]``, coordinates whose ends are one.

    Returns:
      ``[D]``, in [0.005, 0.4].

    Reference:
      Scott (1992), "Multivariate Density Estimation"; Stephens (1970), on Kuiper's statistic.
    """
    some = (weights > 0).any()
    w = weights / jnp.where(some, weights.max(), 1)
    m = jnp.maximum(jnp.square(w.sum()) / jnp.where(some, jnp.square(w).sum(), 1), 1)
    told = _kuiper(units, w / jnp.where(some, w.sum(), 1)) * _stephens(m) > _CRITICAL
    dim = units.shape[1]
    scott = m ** (-1 / (told.sum(dtype=jnp.int32).astype(m.dtype) + 4))
    gathered = _UNIFORM_STD * _extent(units, w > 0, circular) * scott
    spread = jnp.maximum(m ** (-1 / dim), _UNIFORM_STD * m ** (-1 / (dim + 4)))
    return jnp.clip(jnp.where(told, gathered, spread), _NARROWEST, _WIDEST)


def resample(key: PRNGKey, weights: Float[Array, " N"], n: int) -> Int[Array, "{n}"]:
    """n indices in proportion to the weights, as evenly as that can be; any if all are 0."""
    upto = jnp.cumsum(weights / jnp.maximum(weights.max(), jnp.finfo(weights.dtype).tiny))
    start = jax.random.uniform(key, (), jnp.float32)
    goals = (jnp.arange(n, dtype=jnp.float32) + start) / n * upto[-1]
    goals = jnp.minimum(goals, jnp.nextafter(upto[-1], jnp.zeros_like(upto[-1])))
    return jnp.minimum(jnp.searchsorted(upto, goals, side="right"), weights.size - 1)


def _kuiper(units: Float[Array, "N D"], shares: Float[Array, " N"]) -> Float[Array, " D"]:
    """How far weighted points are from uniform: the same wherever a circle begins."""
    order = jnp.argsort(units, axis=0)
    x = jnp.take_along_axis(units, order, axis=0)
    after = jnp.cumsum(shares[order], axis=0)
    before = after - shares[order]
    return (after - x).max(axis=0) + (x - before).max(axis=0)


def _stephens(m: Float[Array, ""]) -> Float[Array, ""]:
    """The factor that makes Kuiper's statistic of m points comparable to a constant."""
    root = jnp.sqrt(m)
    return root + 0.155 + 0.24 / root


def _extent(
    units: Float[Array, "N D"], counted: Bool[Array, " N"], circular: Bool[np.ndarray, " D"]
) -> Float[Array, " D"]:
    """The part of [0, 1] that the points would fill, were they all as dense as the densest."""
    m = counted.sum(dtype=jnp.int32)
    x = jnp.sort(jnp.where(counted[:, None], units, 2), axis=0)
    gaps = jnp.maximum((m + 3) // 4, 1)  # a quarter of the points
    first = jnp.arange(counted.size, dtype=jnp.int32)
    last = first + gaps
    over = (last >= m) & (first < m)  # goes on at the other end
    end = x[jnp.where(over, last - m, last) % counted.size] + over[:, None].astype(x.dtype)
    possible = (first < m)[:, None] & (~over[:, None] | circular[None])
    span = jnp.where(possible, end - x, 1).min(axis=0)
    return jnp.minimum(span * m.astype(x.dtype) / gaps.astype(x.dtype), 1)
