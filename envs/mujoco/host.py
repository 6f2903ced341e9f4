"""Plain NumPy around MuJoCo's batches: rows of many arrays, and the cores to step them on."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def scatter(rows: Float[np.ndarray, "n m"], arrays: Sequence[np.ndarray]) -> None:
    """Writes consecutive columns to arrays ``[n, …]``, as many as each of them holds."""
    at = 0
    for array in arrays:
        size = math.prod(array.shape[1:])
        array[...] = rows[:, at : at + size].reshape(array.shape)
        at += size


def gather(arrays: Sequence[np.ndarray], dtype: Any) -> Float[np.ndarray, "n m"]:
    """The inverse of ``scatter``."""
    with np.errstate(over="ignore"):  # a simulation that diverges may leave float32 behind
        return np.concatenate([x.reshape(len(x), -1) for x in arrays], axis=1, dtype=dtype)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
