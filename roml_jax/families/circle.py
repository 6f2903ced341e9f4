"""A family on the circle, without a seam: the wrapped Cauchy distribution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from roml_jax.checks import check_choice, check_in
from roml_jax.families._parts import Fit, Numeric, checked, weighted_mean
from roml_jax.types import Family, PRNGKey

_GUARD = 1e-4  # keeps the density of float32 exact to some parts in ten thousand
_ITERATIONS = 50  # of the maximum likelihood


def circle(*, eps: float = 0.02, fit: Fit = "moments", name: str = "angle") -> Family:
    """Angles in ``[-pi, pi]``, uniform at ``phi0``; ``phi`` is the mean of ``(cos, sin)``.

    The length of ``phi``, in [0, 1), says how closely the angles gather, and its direction
    where. Weights towards ``phi0`` are at most ``(1 + |phi|) / (1 - |phi|)``.

    Args:
      eps: in [0, 0.5); the length of ``phi`` is at most ``1 - 2 eps``, as that of a unit's mean
        around the middle in ``beta``. With 0, a numerical guard of 1e-4 remains.
      fit: "moments" (weighted mean of cosine and sine) or "ml" (maximum likelihood).
      name: the task component.

    Returns:
      A ``Family`` with D = 1, P = 2 and ``phi0 = (0, 0)``. Tasks outside ``[-pi, pi]`` count as
      the same angles inside.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      McCullagh (1996), "Moebius transformation and Cauchy parameter estimation", for the draws;
      Kent and Tyler (1988), "Maximum likelihood estimation for the wrapped Cauchy distribution".
    """
    check_in("eps", eps, "[0, 0.5)", "what keeps phi off the unit circle")
    check_choice("fit", fit, ("moments", "ml"))
    longest = 1 - 2 * max(eps, _GUARD)

    def project(phi: Float[Numeric, "2"]) -> Float[Array, "2"]:
        # The direction of the zero vector is of no consequence, but its gradient must exist.
        square = jnp.sum(jnp.square(phi))
        outside = square > longest**2
        return jnp.where(outside, phi * longest * jax.lax.rsqrt(jnp.where(outside, square, 1)), phi)

    def sample(key: PRNGKey, phi: Float[Numeric, "2"], n: int) -> Float[Array, "{n} 1"]:
        c, s = project(phi)
        angle = jax.random.uniform(key, (n, 1), phi.dtype, -np.pi, np.pi)
        x, y = jnp.cos(angle), jnp.sin(angle)
        # (z + m) / (1 + conj(m) z) maps the uniform distribution to the one with mean m.
        real, imaginary = 1 + c * x + s * y, c * y - s * x
        x, y = x + c, y + s
        return jnp.arctan2(y * real - x * imaginary, x * real + y * imaginary)

    def log_prob(tasks: Float[Array, "n 1"], phi: Float[Numeric, "2"]) -> Float[Array, " n"]:
        c, s = project(phi)
        x, y = jnp.cos(tasks[:, 0]), jnp.sin(tasks[:, 0])
        return jnp.log1p(-(c * c + s * s)) - jnp.log(jnp.square(x - c) + jnp.square(y - s))

    def fit_phi(tasks: Float[Array, "n 1"], weights: Float[Array, " n"]) -> Float[Array, "2"]:
        points = jnp.concatenate([jnp.cos(tasks), jnp.sin(tasks)], axis=-1)
        if fit == "moments":
            return project(weighted_mean(points, weights))
        return project(_most_likely(points, weights))

    def from_units(units: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
        return np.pi * (2 * units - 1)

    phi0 = np.zeros(2, np.float32)
    phi_names = (f"cos_{name}", f"sin_{name}")
    return checked(
        Family(phi0, sample, log_prob, fit_phi, project, (name,), phi_names, from_units=from_units)
    )


def _most_likely(points: Float[Array, "n 2"], weights: Float[Array, " n"]) -> Float[Array, "2"]:
    """Maximum likelihood of the mean of a wrapped Cauchy, for points on the unit circle.

    The likelihood is that of ``v = 2 m / (1 + |m|^2)``, with terms ``sqrt(1 - |v|^2) / (1 - v z)``
    for points z; its maximum is the weighted mean of the points with more weight where ``1 - v z``
    is small.
    """

    def step(_: int | Array, v: Float[Array, "2"]) -> Float[Array, "2"]:
        return weighted_mean(points, weights / jnp.maximum(1 - points @ v, 1e-6))

    v = jax.lax.fori_loop(0, _ITERATIONS, step, jnp.zeros(2, points.dtype))
    return v / (1 + jnp.sqrt(jnp.maximum(1 - jnp.sum(jnp.square(v)), 0)))
