"""Families that are a textbook distribution: exponential, normal, categorical."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from roml_jax import distributions
from roml_jax.checks import check_in
from roml_jax.families._parts import (
    Names,
    Number,
    Numbers,
    Numeric,
    checked,
    component_names,
    pair,
    weighted_mean,
)
from roml_jax.types import Family, PRNGKey

_BELOW_ONE = 1 - 2.0**-20  # of a unit, where a task would be infinite


def exponential(mean: Number = 0.1, name: str = "task") -> Family:
    """Exponential tasks on ``[0, ∞)``; ``phi`` is their mean.

    Args:
      mean: mean of the original distribution, positive.
      name: the task component.

    Returns:
      A ``Family`` with D = P = 1. The fitted mean (moments and maximum likelihood agree)
      is at least ``1e-6 * mean``, so that a tail of zeros leaves a distribution.

    Raises:
      ValueError: ``mean`` is not positive.

    Reference:
      Greenberg et al. (2023), App. D.1 (Khazad-Dum).
    """
    if not 0 < mean < np.inf:
        raise ValueError(f"mean={mean} of an exponential must be positive and finite.")

    def sample(key: PRNGKey, phi: Float[Numeric, "1"], n: int) -> Float[Array, "{n} 1"]:
        return phi[0] * jax.random.exponential(key, (n, 1), jnp.float32)

    def log_prob(tasks: Float[Array, "n 1"], phi: Float[Numeric, "1"]) -> Float[Array, " n"]:
        return -tasks[:, 0] / phi[0] - jnp.log(phi[0])

    def fit(tasks: Float[Array, "n 1"], weights: Float[Array, " n"]) -> Float[Array, "1"]:
        return project(weighted_mean(tasks, weights))

    def project(phi: Float[Numeric, "1"]) -> Float[Array, "1"]:
        return jnp.maximum(phi, 1e-6 * mean)

    def from_units(units: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
        return -mean * jnp.log1p(-jnp.clip(units, 0, _BELOW_ONE))

    phi0, phi_names = np.asarray([mean], np.float32), (f"mean_{name}",)
    return checked(
        Family(phi0, sample, log_prob, fit, project, (name,), phi_names, from_units=from_units)
    )


def normal(mean: Numbers, std: Numbers, *, min_std: float = 0.01, name: Names = "task") -> Family:
    """Independent normal components; ``phi`` is their D means, then their D standard deviations.

    Args:
      mean: original means, a number or D numbers.
      std: original standard deviations, positive, a number or D numbers.
      min_std: in (0, 1]; a fitted standard deviation is at least this part of the original
        one, so that a tail of one task leaves a distribution.
      name: as in ``beta``.

    Returns:
      A ``Family`` with P = 2D. The fit is the weighted mean and the weighted (biased)
      standard deviation, where moments and maximum likelihood agree.

    Raises:
      ValueError: an argument is out of range, or lengths differ.
    """
    mean_d, std_d = pair("mean", mean, "std", std)
    if not (std_d > 0).all():
        raise ValueError(f"std={std} of a normal must be positive in every component.")
    check_in("min_std", min_std, "(0, 1]", "a part of std")
    names = component_names(name, mean_d.size)
    lowest = np.float32(min_std) * std_d

    def split(phi: Float[Numeric, " P"]) -> Any:
        mean_phi, std_phi = jnp.split(phi, 2)
        return distributions.normal(mean_phi[None], std_phi[None])

    def sample(key: PRNGKey, phi: Float[Numeric, " P"], n: int) -> Float[Array, "{n} D"]:
        return split(phi).sample(seed=key, sample_shape=(n,))[:, 0]

    def log_prob(tasks: Float[Array, "n D"], phi: Float[Numeric, " P"]) -> Float[Array, " n"]:
        return split(phi).log_prob(tasks).sum(axis=-1)

    def fit(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        m = weighted_mean(tasks, weights)
        s = jnp.sqrt(weighted_mean((tasks - m[None]) ** 2, weights))
        return project(jnp.concatenate([m, s]))

    def project(phi: Float[Numeric, " P"]) -> Float[Array, " P"]:
        m, s = jnp.split(phi, 2)
        return jnp.concatenate([m, jnp.maximum(s, lowest)])

    def from_units(units: Float[Array, "n D"]) -> Float[Array, "n D"]:
        inside = jnp.clip(units, 1 - _BELOW_ONE, _BELOW_ONE)
        return mean_d[None] + std_d[None] * jax.scipy.special.ndtri(inside)

    phi0 = np.concatenate([mean_d, std_d])
    phi_names = tuple(f"{kind}_{n}" for kind in ("mean", "std") for n in names)
    return checked(
        Family(phi0, sample, log_prob, fit, project, names, phi_names, from_units=from_units)
    )


def categorical(
    probs: Sequence[Number] | np.ndarray, *, eps: float = 0.01, name: str = "class"
) -> Family:
    """One of C classes; the task is the class index as a float, ``phi`` the probabilities.

    Args:
      probs: C original probabilities, positive, of any scale.
      eps: in [0, 1 / C); a fitted probability is clipped to at least ``eps`` before all
        are scaled to sum to 1, so that no class dies out. With 0, the fit is the maximum
        of the likelihood.
      name: the task component.

    Returns:
      A ``Family`` with D = 1 and P = C. A projection moves what is left of ``phi``, scaled
      to sum to 1, towards equal probabilities until the least is ``eps / (1 + C * eps)``,
      which no fit falls short of.

    Raises:
      ValueError: ``probs`` or ``eps`` is out of range.
    """
    p = np.asarray(probs, np.float64)
    if p.ndim != 1 or p.size < 2 or not (np.isfinite(p) & (p > 0)).all():
        raise ValueError(f"probs={probs} must be two or more positive numbers.")
    check_in("eps", eps, f"[0, {1 / p.size:.3g})", "a probability floor")

    def sample(key: PRNGKey, phi: Float[Numeric, " P"], n: int) -> Float[Array, "{n} 1"]:
        index = distributions.categorical(probs=phi).sample(seed=key, sample_shape=(n,))
        return index.astype(jnp.float32)[:, None]

    def log_prob(tasks: Float[Array, "n 1"], phi: Float[Numeric, " P"]) -> Float[Array, " n"]:
        return jnp.log(phi)[tasks[:, 0].astype(jnp.int32)]

    def fit(tasks: Float[Array, "n 1"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        one_hot = jax.nn.one_hot(tasks[:, 0].astype(jnp.int32), p.size, dtype=tasks.dtype)
        return project(jnp.maximum(weighted_mean(one_hot, weights), eps))

    def project(phi: Float[Numeric, " P"]) -> Float[Array, " P"]:
        positive = jnp.maximum(phi, 0)
        total = positive.sum()
        share = jnp.where(total <= 0, uniform, positive / total)
        least = jnp.minimum(share.min(), lowest)
        return share + (lowest - least) / (uniform - least) * (uniform - share)

    def from_units(units: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
        index = jnp.searchsorted(edges, units, side="right")
        return index.astype(jnp.float32)

    edges = np.cumsum(p / p.sum())[:-1].astype(np.float32)  # between the classes
    uniform, lowest = 1 / p.size, eps / (1 + p.size * eps)
    phi0, phi_names = (p / p.sum()).astype(np.float32), tuple(f"p_{i}" for i in range(p.size))
    return checked(
        Family(phi0, sample, log_prob, fit, project, (name,), phi_names, from_units=from_units)
    )
