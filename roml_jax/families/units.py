"""Families over bounded ranges: fixed maps of independent Beta units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

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
    component_names,
    pair,
    weighted_mean,
)
from roml_jax.types import Family, PRNGKey

Fit: TypeAlias = Literal["moments", "ml"]

_UNIT_GUARD = 1e-6  # keeps densities finite at samples that hit 0 or 1, even with eps=0
_BISECTIONS = 32  # halvings of (0, 1): below the resolution of float32


def beta(
    low: Numbers, high: Numbers, *, eps: float = 0.02, fit: Fit = "moments", name: Names = "task"
) -> Family:
    """Uniform tasks in the box ``[low, high]``, tilted by ``phi``: the mean of each unit.

    Component j is ``low_j + (high_j - low_j) * u_j`` with independent
    ``u_j ~ Beta(2 phi_j, 2 - 2 phi_j)``, so that ``E[u_j] = phi_j`` and ``phi = 0.5`` is
    uniform.

    Args:
      low: lower corner, a number or D numbers.
      high: upper corner, a number or D numbers, above ``low``.
      eps: in [0, 0.5); densities are those at ``u`` clipped to ``[eps, 1 - eps]``, and
        fitted ``phi`` are clipped to that range too. The clip bounds the weights but
        biases them: with ``phi0 = 0.5`` the mean weight exceeds 1 by about
        ``eps * (1 / (2 phi) + 1 / (2 - 2 phi) - 2)`` per component (2 % at eps 0.02 and
        ``phi = 0.8``). With 0, a numerical guard of 1e-6 remains.
      fit: "moments" (weighted mean, as in the original code) or "ml" (maximum
        likelihood, as in Alg. 2 line 16).
      name: the components' names, or one name for all, which is then numbered.

    Returns:
      A ``Family`` with P = D, and ``phi0 = 0.5`` everywhere.

    Raises:
      ValueError: an argument is out of range, or lengths differ.

    Reference:
      Greenberg et al. (2023), App. D.2 and E (reparameterised uniform tasks).
    """
    low_d, span = _box(low, high)

    def to_unit(tasks: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return (tasks - low_d) / span

    def from_unit(u: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return low_d + span * u

    return _unit_beta(to_unit, from_unit, eps, fit, component_names(name, span.size))


def log2_beta(
    low: Number = -1.0,
    high: Number = 1.0,
    dim: int = 1,
    *,
    eps: float = 0.02,
    fit: Fit = "moments",
    names: Names = None,
) -> Family:
    """Factors ``2 ** x`` with ``x`` as in ``beta(low, high)``: log-uniform at ``phi0``.

    Args:
      low: lower bound of ``log2`` of every component.
      high: upper bound of ``log2`` of every component, above ``low``.
      dim: D, the number of components.
      eps: as in ``beta``.
      fit: as in ``beta``.
      names: as in ``beta``.

    Returns:
      A ``Family`` with P = D = ``dim``, and ``phi0 = 0.5`` everywhere.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.2 (mass, body and ten-dimensional tasks).
    """
    if dim < 1:
        raise ValueError(f"dim={dim} is a number of task components: it must be at least 1.")
    low_d, span = _box((low,) * dim, (high,) * dim)

    def to_unit(tasks: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return (jnp.log2(tasks) - low_d) / span

    def from_unit(u: Float[Array, "n D"]) -> Float[Array, "n D"]:
        return jnp.exp2(low_d + span * u)

    return _unit_beta(to_unit, from_unit, eps, fit, component_names(names, dim))


def disk(
    radius: Number,
    *,
    eps: float = 0.0,
    fit: Fit = "moments",
    radial: Literal["area", "linear"] = "area",
    names: Names = ("x", "y"),
) -> Family:
    """Points ``(x, y)`` in a disk, tilted in radius and in angle.

    Two independent units as in ``beta``: ``rho`` for the radius and ``t`` for the angle
    ``2 pi t``.

    Args:
      radius: of the disk, positive.
      eps: as in ``beta``.
      fit: as in ``beta``.
      radial: "area" has ``r = radius * sqrt(rho)``, uniform over the area at ``phi0``;
        "linear" is the paper's ``r = radius * rho``.
      names: as in ``beta``.

    Returns:
      A ``Family`` with D = P = 2 and ``phi0 = (0.5, 0.5)``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.2 (Ant-Goal).

    Differs from the original code, whose inverse recovers ``t`` half a turn off, so that
    weights and fit see another angle than was sampled.
    """
    if not 0 < radius < np.inf:
        raise ValueError(f"radius={radius} of a disk must be positive and finite.")
    power = {"area": 2.0, "linear": 1.0}.get(radial)
    if power is None:
        raise ValueError(f"radial={radial!r} is unknown: choose 'area' or 'linear'.")

    def to_unit(tasks: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        x, y = tasks[:, 0], tasks[:, 1]
        rho = (jnp.hypot(x, y) / radius) ** power
        t = jnp.mod(jnp.arctan2(y, x) / (2 * jnp.pi), 1.0)
        return jnp.stack([rho, t], axis=-1)

    def from_unit(u: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        r, angle = radius * u[:, 0] ** (1 / power), 2 * jnp.pi * u[:, 1]
        return jnp.stack([r * jnp.cos(angle), r * jnp.sin(angle)], axis=-1)

    phi_names = ("phi_radius", "phi_angle")
    return _unit_beta(to_unit, from_unit, eps, fit, component_names(names, 2), phi_names)


def _unit_beta(
    to_unit: Callable[[Array], Array],
    from_unit: Callable[[Array], Array],
    eps: float,
    fit: str,
    names: tuple[str, ...],
    phi_names: tuple[str, ...] | None = None,
) -> Family:
    """Tasks that are a fixed map of independent ``Beta(2 phi, 2 - 2 phi)`` units.

    The Jacobian of the map does not depend on ``phi`` and is left out of ``log_prob``.
    """
    check_in("eps", eps, "[0, 0.5)", "what units are clipped by at both ends")
    fits = {"moments": lambda u, w: weighted_mean(u, w), "ml": _beta_ml}
    if fit not in fits:
        raise ValueError(f"fit={fit!r} is unknown: choose 'moments' or 'ml'.")
    edge = max(eps, _UNIT_GUARD)

    def clip(u: Numeric) -> Array:
        return jnp.clip(u, edge, 1 - edge)

    def sample(key: PRNGKey, phi: Float[Numeric, " D"], n: int) -> Float[Array, "{n} D"]:
        a = 2 * clip(phi)
        return from_unit(distributions.beta(a, 2 - a).sample(seed=key, sample_shape=(n,)))

    def log_prob(tasks: Float[Array, "n D"], phi: Float[Numeric, " D"]) -> Float[Array, " n"]:
        a = 2 * clip(phi)[None]
        return distributions.beta(a, 2 - a).log_prob(clip(to_unit(tasks))).sum(axis=-1)

    def fit_phi(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
        u = to_unit(tasks)
        return clip(fits[fit](clip(u) if fit == "ml" else u, weights))

    phi0 = np.full((len(names),), 0.5, np.float32)
    phi_names = phi_names or tuple(f"phi_{n}" for n in names)
    return Family(phi0, sample, log_prob, fit_phi, clip, names, phi_names)


def _beta_ml(u: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
    """Maximum likelihood of ``Beta(2 phi, 2 - 2 phi)``, per component.

    The likelihood is highest where ``digamma(2 phi) - digamma(2 - 2 phi)``, which grows
    with ``phi`` over the whole real line, equals the mean of ``log(u) - log(1 - u)``.
    """
    target = weighted_mean(jnp.log(u) - jnp.log1p(-u), weights)

    def halve(_: int | Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        mid = (low + high) / 2
        slope = jax.scipy.special.digamma(2 * mid) - jax.scipy.special.digamma(2 - 2 * mid)
        return jnp.where(slope < target, mid, low), jnp.where(slope < target, high, mid)

    bounds = (jnp.zeros_like(target), jnp.ones_like(target))
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, bounds)
    return jnp.where(jnp.isfinite(target), (low + high) / 2, jnp.nan)


def _box(low: Numbers, high: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """The lower corner ``[1, D]`` and the size ``[1, D]`` of a box."""
    low_d, high_d = pair("low", low, "high", high)
    if not (low_d < high_d).all():
        raise ValueError(f"low={low} must be below high={high} in every component.")
    return low_d[None], (high_d - low_d)[None]
