"""Independent families side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from roml_jax.families._parts import Numeric, checked
from roml_jax.types import Family, PRNGKey

Density: TypeAlias = Callable[[Array, Numeric], Array]  # as Family.log_prob


def product(*families: Family) -> Family:
    """Independent families side by side: their tasks and their ``phi`` are concatenated.

    Args:
      *families: one or more, with different component names.

    Returns:
      A ``Family`` with the sums of D and of P.

    Raises:
      ValueError: there is no family, or a name occurs twice.
    """
    names = sum((f.names for f in families), ())
    phi_names = sum((f.phi_names for f in families), ())
    if not families:
        raise ValueError("product() needs at least one family.")
    if len({*names}) < len(names) or len({*phi_names}) < len(phi_names):
        raise ValueError(f"names {names} and {phi_names} must be unique: name the families.")
    split_tasks = partial(_split, sizes=[len(f.names) for f in families])
    split_phi = partial(_split, sizes=[len(f.phi_names) for f in families])

    def sample(key: PRNGKey, phi: Float[Numeric, " P"], n: int) -> Float[Array, "{n} D"]:
        keys = jax.random.split(key, len(families))
        parts = zip(families, keys, split_phi(phi), strict=True)
        return jnp.concatenate([f.sample(k, p, n) for f, k, p in parts], axis=-1)

    def density(of: Callable[[Family], Density]) -> Density:
        def total(tasks: Float[Array, "n D"], phi: Float[Numeric, " P"]) -> Float[Array, " n"]:
            parts = zip(families, split_tasks(tasks), split_phi(phi), strict=True)
            return jnp.stack([of(f)(z, p) for f, z, p in parts]).sum(axis=0)

        return total

    log_prob = density(lambda f: f.log_prob)
    clipped_log_prob = density(lambda f: f.clipped_log_prob or f.log_prob)

    def fit(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        parts = zip(families, split_tasks(tasks), strict=True)
        return jnp.concatenate([f.fit(z, weights) for f, z in parts])

    def project(phi: Float[Numeric, " P"]) -> Float[Array, " P"]:
        parts = zip(families, split_phi(phi), strict=True)
        return jnp.concatenate([f.project(p) for f, p in parts])

    def from_units(units: Float[Array, "n D"]) -> Float[Array, "n D"]:
        parts = zip(maps, split_tasks(units), strict=True)
        return jnp.concatenate([to_tasks(u) for to_tasks, u in parts], axis=-1)

    maps = [f.from_units for f in families if f.from_units]
    phi0 = np.concatenate([f.phi0 for f in families])
    biased = clipped_log_prob if any(f.clipped_log_prob for f in families) else None
    whole = from_units if len(maps) == len(families) else None
    return checked(Family(phi0, sample, log_prob, fit, project, names, phi_names, biased, whole))


def _split(x: Numeric, sizes: list[int]) -> list[Array]:
    """Cuts the last axis into pieces of the given sizes."""
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), axis=-1)
