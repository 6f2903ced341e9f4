"""Draws from a moving task distribution, mixed with some from the original one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from roml_jax.checks import as_vector, check_in, check_shape
from roml_jax.types import Draw, Family, PRNGKey


def importance_weights(
    family: Family, tasks: Float[Array, "n D"], phi: Float[Array, " P"]
) -> Float[Array, " n"]:
    """How much more likely tasks are in the original distribution than in ``D_phi``.

    Args:
      family: the task distribution.
      tasks: ``[n, D]``.
      phi: ``[P]``, the distribution they were drawn from.

    Returns:
      ``[n]``, ``D_phi0(z) / D_phi(z)``, positive.

    Reference:
      Greenberg et al. (2023), Alg. 2 line 11.
    """
    return jnp.exp(family.log_prob(tasks, family.phi0) - family.log_prob(tasks, phi))


def random_plan(key: PRNGKey, n: int, nu: float) -> Bool[Array, "{n}"]:
    """Marks ``floor(nu * n)`` of n positions, chosen at random, as reference draws."""
    return jax.random.permutation(key, n) < whole(nu * n)


def draw_mixture(
    key: PRNGKey, family: Family, phi: Float[Array, " P"], is_reference: Bool[Array, " n"]
) -> Draw:
    """Draws tasks from ``D_phi0`` where ``is_reference``, else from ``D_phi``.

    Args:
      key: for the draws.
      family: the task distribution.
      phi: ``[P]``, the sample distribution.
      is_reference: ``bool[n]``.

    Returns:
      A ``Draw`` of n tasks; the weights of reference draws are exactly 1.

    Reference:
      Greenberg et al. (2023), Alg. 2 lines 5-6 and 10-12.
    """
    keys = jax.random.split(key, is_reference.size)
    sources = jnp.where(is_reference[:, None], jnp.asarray(family.phi0)[None], phi[None])
    tasks = jax.vmap(lambda k, source: family.sample(k, source, 1)[0])(keys, sources)
    return Draw(tasks, mixture_weights(family, tasks, phi, is_reference), is_reference)


def mixture_weights(
    family: Family,
    tasks: Float[Array, "n D"],
    phi: Float[Array, " P"],
    reference: Bool[Array, " n"],
) -> Float[Array, " n"]:
    """``importance_weights``, and exactly 1 for ``reference`` draws."""
    return jnp.where(reference, 1.0, importance_weights(family, tasks, phi))


def whole(x: float) -> int:
    """``floor(x)``, with products such as ``0.29 * 100`` taken for the integers they mean."""
    return math.floor(round(x, 9))


def check_nu(nu: float) -> None:
    """Raises a ValueError unless ``nu`` is a fraction of reference draws, in [0, 1)."""
    check_in("nu", nu, "[0, 1)", "the fraction of reference draws")


def check_family(family: Family) -> None:
    """Raises a ValueError, without running anything, unless a family's functions fit together."""
    dim, size, n = len(family.names), len(family.phi_names), 3
    key, phi = jax.random.key(0), jax.ShapeDtypeStruct(np.shape(family.phi0), jnp.float32)
    check_shape("family.phi0", family.phi0, (size,), f"phi_names {family.phi_names}")

    def check(name: str, fn: Callable[..., Array], shape: tuple[int, ...], *args: Any) -> Any:
        out = jax.eval_shape(fn, *args)
        if out.shape != shape:
            raise ValueError(f"family.{name} must give the shape {shape}; got {out.shape}")
        return out

    tasks = check("sample", lambda key, phi: family.sample(key, phi, n), (n, dim), key, phi)
    weights = check("log_prob", family.log_prob, (n,), tasks, phi)
    check("fit", family.fit, (size,), tasks, weights)
    check("project", family.project, (size,), phi)


def check_returns(draw: Draw, returns: Real[Array, " n"]) -> Float[Array, " n"]:
    """The returns of a draw, promoted to floats.

    Raises:
      ValueError: while tracing, if they are not one for each task, or the draw's own parts are not.
    """
    returns = as_vector("returns", returns)
    n = jnp.shape(draw.tasks)[:1]
    check_shape("returns", returns, n, "the tasks")
    check_shape("weights", draw.weights, n, "the tasks")
    check_shape("is_reference", draw.is_reference, n, "the tasks")
    return returns
