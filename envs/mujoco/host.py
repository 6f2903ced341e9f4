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
from jax.custom_batching import custom_vmap
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, Float

Rows = Float[np.ndarray, "n m"]


def on_host(function: Callable[[Rows], Rows], packed: Float[Array, " m"], size: int) -> Array:
    """Calls a function of rows on the host, once for any nesting of ``vmap``.

    Where the tasks lie over the devices of a mesh (its axis "tasks"), each device calls for its
    own, at the same time as the others; so the function must bear to be called side by side.

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

    @custom_vmap
    def one(packed: Array) -> Array:
        out = jax.ShapeDtypeStruct((*packed.shape[:-1], size), packed.dtype)
        return jax.pure_callback(call, out, packed, vmap_method="broadcast_all")

    @one.def_vmap
    def many(n: int, batched: list[bool], packed: Array) -> tuple[Array, bool]:
        del batched  # there is but one argument
        return _on_each_device(one.fun, n)(packed), True

    return one(packed)


def _on_each_device(call: Callable[[Array], Array], n: int) -> Callable[[Array], Array]:
    """A call for n tasks that each device of JAX's mesh makes for its own, if there is a mesh.

    A callback that is not told so is made once, by one device, for all of them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(kind is not AxisType.Auto for kind in mesh.axis_types):
        return call
    apart = "tasks" in mesh.axis_names and n % mesh.shape["tasks"] == 0
    spec = PartitionSpec("tasks") if apart else PartitionSpec()
    return jax.shard_map(call, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)


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
    """A ``Batch`` of n simulations of an ``MjModel``, on the cores that this process may use.

    Devices that each have a batch share them: more threads than cores would wait for one another.
    """
    from mujoco.batch import Batch

    devices = jax.local_device_count() if jax.default_backend() == "cpu" else 1
    return Batch(model, n, nthread=max(1, min(n, cores() // devices)))


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
