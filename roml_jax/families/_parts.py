"""What families share: types of arguments and their checks, and the weighted mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, Float

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
