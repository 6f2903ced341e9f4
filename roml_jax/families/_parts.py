"""What families share: types of arguments and their checks, and the weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from roml_jax.checks import as_real, as_vector, check_shape
from roml_jax.types import Family, PRNGKey

Fit: TypeAlias = Literal["moments", "ml"]
Number: TypeAlias = float | int
Numbers: TypeAlias = Number | Sequence[Number] | np.ndarray
Numeric: TypeAlias = Array | np.ndarray  # for phi, as phi0 is NumPy
Names: TypeAlias = str | Sequence[str] | None


def weighted_mean(x: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " D"]:
    """The weighted mean over n."""
    return (weights[:, None] * x).sum(axis=0) / weights.sum()


def pair(name_a: str, a: Numbers, name_b: str, b: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Two float32 vectors of the same length D, from numbers or sequences.

    They stay NumPy, as all constants that a family closes over: a factory may be called
    inside a traced function.
    """
    vectors = [np.atleast_1d(np.asarray(v, np.float32)) for v in (a, b)]
    sizes = {v.size for v in vectors} - {1}
    if any(v.ndim != 1 or not np.isfinite(v).all() for v in vectors) or len(sizes) > 1:
        raise ValueError(
            f"{name_a}={a} and {name_b}={b} must be finite numbers or sequences of one length."
        )
    dim = sizes.pop() if sizes else 1
    first, second = (np.broadcast_to(v, (dim,)) for v in vectors)
    return first, second


def component_names(names: Names, dim: int) -> tuple[str, ...]:
    """One name for each of ``dim`` components."""
    if names is None:
        names = "task"
    if isinstance(names, str):
        return (names,) if dim == 1 else tuple(f"{names}_{i}" for i in range(dim))
    if len(names) != dim:
        raise ValueError(f"{len(names)} names {tuple(names)} for {dim} task components.")
    return tuple(names)


def checked(family: Family) -> Family:
    """The same family, whose functions refuse arrays of wrong shapes in one line.

    Integers are promoted to float32.
    """
    size, dim = len(family.phi_names), len(family.names)

    def as_phi(phi: Numeric) -> Array:
        check_shape("phi", phi, (size,), f"({', '.join(family.phi_names)})")
        return as_real("phi", phi)

    def as_tasks(tasks: Numeric) -> Array:
        n = tasks.shape[0] if np.ndim(tasks) else 0
        check_shape("tasks", tasks, (n, dim), f"n tasks ({', '.join(family.names)})")
        return as_real("tasks", tasks)

    def sample(key: PRNGKey, phi: Float[Numeric, " P"], n: int) -> Float[Array, "n D"]:
        return family.sample(key, as_phi(phi), n)

    def log_prob(tasks: Float[Array, "n D"], phi: Float[Numeric, " P"]) -> Float[Array, " n"]:
        return family.log_prob(as_tasks(tasks), as_phi(phi))

    def clipped(tasks: Float[Array, "n D"], phi: Float[Numeric, " P"]) -> Float[Array, " n"]:
        assert family.clipped_log_prob is not None
        return family.clipped_log_prob(as_tasks(tasks), as_phi(phi))

    def fit(tasks: Float[Array, "n D"], weights: Float[Array, " n"]) -> Float[Array, " P"]:
        tasks, weights = as_tasks(tasks), as_vector("weights", weights)
        check_shape("weights", weights, tasks.shape[:1], "the tasks")
        return family.fit(tasks, weights)

    def from_units(units: Float[Array, "n D"]) -> Float[Array, "n D"]:
        assert family.from_units is not None
        n = jnp.shape(units)[0] if jnp.ndim(units) else 0
        check_shape("units", units, (n, dim), f"n tasks ({', '.join(family.names)})")
        return family.from_units(as_real("units", units))

    return family._replace(
        sample=sample,
        log_prob=log_prob,
        fit=fit,
        project=lambda phi: family.project(as_phi(phi)),
        clipped_log_prob=None if family.clipped_log_prob is None else clipped,
        from_units=None if family.from_units is None else from_units,
    )
