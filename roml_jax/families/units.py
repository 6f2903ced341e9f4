"""Families over bounded ranges: fixed maps of independent Beta units."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from roml_jax import distributions
from roml_jax.checks import check_choice, check_in
from roml_jax.families._parts import (
    Fit,
    Names,
    Number,
    Numbers,
    Numeric,
    checked,
    component_names,
    pair,
    weighted_mean,
)
from roml_jax.families.circle import circle
from roml_jax.families.product import product
from roml_jax.types import Family, PRNGKey

_UNIT_GUARD = 1e-6  # keeps densities finite at samples that hit 0 or 1, even with eps=0
_BISECTIONS = 32  # halvings of (0, 1): below the resolution of float32


def beta(
    low: Numbers,
    high: Numbers,
    *,
    eps: float = 0.02,
    fit: Fit = "moments",
    name: Names = "task",
    clip_density: bool = False,
) -> Family:
    """Uniform tasks in the box ``[low, high]``, tilted by ``phi``: the mean of each unit.

    Component j is ``low_j + (high_j - low_j) * u_j`` with independent
    ``u_j ~ Beta(2 phi_j, 2 - 2 phi_j)``, so that ``E[u_j] = phi_j`` and ``phi = 0.5`` is
    uniform.

    Args:
      low: lower corner, a number or D numbers.
      high: upper corner, a number or D numbers, above ``low``.
      eps: in [0, 0.5); ``phi`` is clipped to ``[eps, 1 - eps]``. With 0, a numerical guard of
        1e-6 remains, which draws and densities always have.
      fit: "moments" (weighted mean, as in the original code) or "ml" (maximum
        likelihood, as in Alg. 2 line 16).
      name: the components' names, or one name for all, which is then numbered.
      clip_density: let the cross-entropy method weigh tasks by the densities at ``u`` clipped
        to ``[eps, 1 - eps]``, as the original code does. The clip bounds the weights, but
        biases them where ``phi`` is near an end: there, the tail that is aimed at is the
        hardest ``beta`` of the tasks, whatever ``alpha``. What is reported is not biased.

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

    names = component_names(name, span.size)
    return _unit_beta(to_unit, from_unit, names, eps, fit, clip_density)


def log2_beta(
    low: Number = -1.0,
    high: Number = 1.0,
    dim: int = 1,
    *,
    eps: float = 0.02,
    fit: Fit = "moments",
    names: Names = None,
    clip_density: bool = False,
) -> Family:
    """Factors ``2 ** x`` with ``x`` as in ``beta(low, high)``: log-uniform at ``phi0``.

    Args:
      low: lower bound of ``log2`` of every component.
      high: upper bound of ``log2`` of every component, above ``low``.
      dim: D, the number of components.
      eps: as in ``beta``.
      fit: as in ``beta``.
      names: as in ``beta``.
      clip_density: as in ``beta``.

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

    names = component_names(names, dim)
    return _unit_beta(to_unit, from_unit, names, eps, fit, clip_density)


def disk(
    radius: Number,
    *,
    eps: float = 0.0,
    fit: Fit = "moments",
    radial: Literal["area", "linear"] = "area",
    angle: Literal["circle", "unit"] = "circle",
    names: Names = ("x", "y"),
    clip_density: bool = False,
) -> Family:
    """Points ``(x, y)`` in a disk, tilted in radius and in angle.

    The radius comes from a unit ``rho`` as in ``beta``, and the angle, which is independent of
    it, from a family of its own.

    Args:
      radius: of the disk, positive.
      eps: as in ``beta``, and in ``circle``.
      fit: as in ``beta``.
      radial: "area" has ``r = radius * sqrt(rho)``, uniform over the area at ``phi0``;
        "linear" is the paper's ``r = radius * rho``.
      angle: "circle" has the angle of ``circle``, which can gather anywhere; "unit" is the
        paper's ``2 pi t`` with a unit ``t`` as in ``beta``, which has a seam on the positive
        x axis: angles around it are at both ends, and ``phi`` cannot move there.
      names: as in ``beta``.
      clip_density: as in ``beta``.

    Returns:
      A ``Family`` with D = 2. ``phi`` is ``(phi_radius, cos_angle, sin_angle)`` with ``phi0 =
      (0.5, 0, 0)``, or ``(phi_radius, phi_angle)`` with ``phi0 = (0.5, 0.5)`` for "unit".

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.2 (Ant-Goal), for "unit".

    Differs from the original code, whose inverse recovers ``t`` half a turn off, so that
    weights and fit see another angle than was sampled.
    """
    if not 0 < radius < np.inf:
        raise ValueError(f"radius={radius} of a disk must be positive and finite.")
    power = {"area": 2.0, "linear": 1.0}.get(radial)
    if power is None:
        raise ValueError(f"radial={radial!r} is unknown: choose 'area' or 'linear'.")
    check_choice("angle", angle, ("circle", "unit"))
    turn = 2 * math.pi if angle == "unit" else 1.0  # what the second coordinate counts in

    def to_polar(tasks: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        x, y = tasks[:, 0], tasks[:, 1]
        rho = (jnp.hypot(x, y) / radius) ** power
        theta = jnp.arctan2(y, x) / turn
        return jnp.stack([rho, jnp.mod(theta, 1.0) if angle == "unit" else theta], axis=-1)

    def from_polar(u: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        r, theta = radius * u[:, 0] ** (1 / power), turn * u[:, 1]
        return jnp.stack([r * jnp.cos(theta), r * jnp.sin(theta)], axis=-1)

    def units(*parts: str) -> Family:
        return _units(parts, tuple(f"phi_{part}" for part in parts), eps, fit, clip_density)

    if angle == "unit":
        polar = units("radius", "angle")
    else:
        polar = product(units("radius"), circle(eps=eps, fit=fit, name="angle"))
    return _mapped(polar, to_polar, from_polar, component_names(names, 2))


def _units(
    names: tuple[str, ...],
    phi_names: tuple[str, ...],
    eps: float,
    fit: str,
    clip_density: bool,
) -> Family:
    """Independent ``Beta(2 phi, 2 - 2 phi)`` units, one for each component."""
    check_in("eps", eps, "[0, 0.5)", "what phi is clipped by at both ends")
    fits = {"moments": weighted_mean, "ml": _beta_ml}
    if fit not in fits:
        raise ValueError(f"fit={fit!r} is unknown: choose 'moments' or 'ml'.")
    edge = max(eps, _UNIT_GUARD)

    def project(phi: Float[Numeric, " D"]) -> Float[Array, " D"]:
        return jnp.clip(phi, edge, 1 - edge)

    def sample(key: PRNGKey, phi: Float[Numeric, " D"], n: int) -> Float[Array, "{n} D"]:
        a = 2 * project(phi)
        # In float32, many draws of a steep density are 0 or 1: no place of a disk can be told
        # from those, and no density.
        return _guarded(distributions.beta(a, 2 - a).sample(seed=key, sample_shape=(n,)))

    def density(u: Float[Array, "n D"], phi: Float[Numeric, " D"]) -> Float[Array, " n"]:
        a = 2 * project(phi)[None]
        return distributions.beta(a, 2 - a).log_prob(u).sum(axis=-1)

    def log_prob(u: Float[Array, "n D"], phi: Float[Numeric, " D"]) -> Float[Array, " n"]:
        return density(_guarded(u), phi)

    def clipped_log_prob(u: Float[Array, "n D"], phi: Float[Numeric, " D"]) -> Float[Array, " n"]:
        return density(jnp.clip(u, edge, 1 - edge), phi)

    def fit_phi(u: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
        return project(fits[fit](u, weights))

    phi0 = np.full((len(names),), 0.5, np.float32)
    biased = clipped_log_prob if clip_density else None
    return Family(phi0, sample, log_prob, fit_phi, project, names, phi_names, biased, _guarded)


def _mapped(
    units: Family,
    to_unit: Callable[[Array], Array],
    from_unit: Callable[[Array], Array],
    names: tuple[str, ...],
) -> Family:
    """Tasks that are a fixed map of those of another family.

    The Jacobian of the map does not depend on ``phi`` and is left out of ``log_prob``.
    """
    clipped, uniform = units.clipped_log_prob, units.from_units
    return checked(
        units._replace(
            sample=lambda key, phi, n: from_unit(units.sample(key, phi, n)),
            log_prob=lambda tasks, phi: units.log_prob(to_unit(tasks), phi),
            fit=lambda tasks, weights: units.fit(to_unit(tasks), weights),
            names=names,
            clipped_log_prob=clipped and (lambda tasks, phi: clipped(to_unit(tasks), phi)),
            from_units=uniform and (lambda units: from_unit(uniform(units))),
        )
    )


def _unit_beta(
    to_unit: Callable[[Array], Array],
    from_unit: Callable[[Array], Array],
    names: tuple[str, ...],
    *how: Any,
) -> Family:
    """Tasks that are a fixed map of as many units as they have components."""
    phi_names = tuple(f"phi_{name}" for name in names)
    return _mapped(_units(names, phi_names, *how), to_unit, from_unit, names)


def _guarded(u: Float[Array, "n D"]) -> Float[Array, "n D"]:
    """Units where densities are finite."""
    return jnp.clip(u, _UNIT_GUARD, 1 - _UNIT_GUARD)


def _beta_ml(u: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
    """Maximum likelihood of ``Beta(2 phi, 2 - 2 phi)``, per component.

    The likelihood is highest where ``digamma(2 phi) - digamma(2 - 2 phi)``, which grows
    with ``phi`` over the whole real line, equals the mean of ``log(u) - log(1 - u)``.
    """
    u = _guarded(u)
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
