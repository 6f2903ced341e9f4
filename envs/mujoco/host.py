"""The one way from JAX to MuJoCo's batches on the host, and plain NumPy around them."""

from __future__ import annotations

import contextlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

Rows = Float[np.ndarray, "n m"]


def on_host(function: Callable[[Rows], Rows], packed: Float[Array, " m"], size: int) -> Array:
    """Calls a function of rows on the host, once for any nesting of ``vmap``.

    Args:
      function: ``rows[n, m] -> rows[n, size]`` in NumPy, of the same type.
      packed: of one world.
      size: of its result.

    Returns:
      ``[size]``. There is no derivative.
    """

    def call(packed: Any) -> np.ndarray:
        packed = np.asarray(packed)
        rows = function(packed.reshape(-1, packed.shape[-1]))
        return rows.reshape(*packed.shape[:-1], size)

    out = jax.ShapeDtypeStruct((size,), packed.dtype)
    return jax.pure_callback(call, out, packed, vmap_method="broadcast_all")


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps MuJoCo from writing of worlds that diverge: to the terminal, and to MUJOCO_LOG.TXT.

    They are counted by ``info["diverged"]``. A handler that somebody has set is left alone.
    """
    import mujoco

    with _silent.lock:
        _silent.users += 1
        if _silent.users == 1 and mujoco.get_mju_user_warning() is None:
            mujoco.set_mju_user_warning(_silent.say_nothing)
    try:
        yield
    finally:
        with _silent.lock:
            _silent.users -= 1
            if not _silent.users and mujoco.get_mju_user_warning() is _silent.say_nothing:
                mujoco.set_mju_user_warning(None)


class _Silent:
    """MuJoCo has one handler of warnings for the whole process."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.say_nothing = lambda text: None


_silent = _Silent()


def make_batch(model: Any, n: int) -> Any:
    """A ``Batch`` of n simulations of an ``MjModel``, on the cores that this process may use."""
    from mujoco.batch import Batch

    return Batch(model, n, nthread=min(n, cores()))


def scatter(rows: Rows, arrays: Sequence[np.ndarray]) -> None:
    """Writes consecutive columns to arrays ``[n, …]``, as many as each of them holds."""
    at = 0
    for array in arrays:
        size = math.prod(array.shape[1:])
        array[...] = rows[:, at : at + size].reshape(array.shape)
        at += size


def gather(arrays: Sequence[np.ndarray], dtype: Any) -> Rows:
    """The inverse of ``scatter``."""
    with np.errstate(over="ignore"):  # a simulation that diverges may leave float32 behind
        return np.concatenate([x.reshape(len(x), -1) for x in arrays], axis=1, dtype=dtype)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
