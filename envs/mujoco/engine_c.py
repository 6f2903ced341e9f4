"""MuJoCo in C as an engine inside jitted JAX: one host call steps all worlds at once.

The worlds of any nesting of ``vmap`` reach the host as one array and leave it as one array:
a call with a dozen arrays costs about a millisecond, with one a quarter of it. The host
side keeps no state between calls, so that results depend on the arguments alone.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from .host import gather, make_batch, on_host, scatter, without_warnings
from .physics import Model, Physics, PhysicsState

_KEPT = 8  # sizes of batches whose memory is kept


def make_c(model: Any, frame_skip: int, seen: tuple[str, ...], contact_forces: bool) -> Physics:
    """A ``Physics`` on MuJoCo C; see ``make_physics`` for the arguments.

    Works under jit, scan and vmap; there is no derivative.
    """
    import mujoco

    data, state = mujoco.MjData(model), ("qpos", "qvel", "qacc_warmstart")
    out_sizes = [getattr(data, name).size for name in (*state, *seen)]
    seen_shapes = {name: getattr(data, name).shape for name in seen}

    @functools.cache
    def worlds(fields: tuple[str, ...]) -> _Worlds:
        return _Worlds(model, fields, seen, contact_forces)

    def call(fields: Model, inputs: list[Array], nstep: int) -> PhysicsState:
        names = tuple(sorted(fields))
        packed, _ = ravel_pytree([inputs, [fields[name] for name in names]])
        result = on_host(partial(worlds(names).run, nstep), packed, sum(out_sizes))
        qpos, qvel, warm, *rest = jnp.split(result, np.cumsum(out_sizes)[:-1])
        pairs = zip(seen_shapes.items(), rest, strict=True)
        return PhysicsState(qpos, qvel, warm, {n: x.reshape(shape) for (n, shape), x in pairs})

    def reset(fields: Model, qpos: Array, qvel: Array) -> PhysicsState:
        rest = [jnp.zeros_like(qvel), jnp.zeros(model.nu, qvel.dtype)]
        return call(fields, [qpos, qvel, *rest], 0)._replace(qpos=qpos, qvel=qvel)

    def step(fields: Model, state: PhysicsState, ctrl: Array) -> PhysicsState:
        return call(fields, [state.qpos, state.qvel, state.warmstart, ctrl], frame_skip)

    return Physics(reset, step, "mujoco")


class _Views(NamedTuple):
    """A batch, and its arrays to write to and to read from."""

    batch: Any
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


class _Worlds:
    """The host side: for every number of worlds some ``Batch``, and views of its arrays.

    Calls that come at the same time, of several devices, each have a batch of their own.
    """

    def __init__(
        self, model: Any, fields: tuple[str, ...], seen: tuple[str, ...], current: bool
    ) -> None:
        """Remembers what to make batches of; ``current`` also computes what is seen anew."""
        import mujoco

        self._model, self._fields, self._seen = model, fields, seen
        stage = mujoco.mjtStage
        self._stage = int(stage.mjSTAGE_ACC if current else stage.mjSTAGE_NONE)
        self._idle: dict[int, list[_Views]] = {}
        self._lock = threading.Lock()

    def run(self, nstep: int, rows: np.ndarray) -> np.ndarray:
        """Steps worlds; forward dynamics only, if there is no step to make.

        Args:
          nstep: physics steps.
          rows: qpos, qvel, warm start, control and fields of each world.

        Returns:
          Rows of qpos, qvel, warm start and what is seen.
        """
        with self._batch(len(rows)) as (batch, inputs, outputs):
            scatter(rows, inputs)
            with without_warnings():
                if nstep:
                    batch.step(nstep=nstep, stage=self._stage)
                else:
                    batch.forward()
            return gather(outputs, rows.dtype)

    @contextlib.contextmanager
    def _batch(self, n: int) -> Iterator[_Views]:
        """A batch of n worlds that nobody else uses in the meantime."""
        with self._lock:
            idle = self._idle.setdefault(n, [])
            while len(self._idle) > _KEPT:
                self._idle.pop(next(iter(self._idle)))
            views = idle.pop() if idle else None
        if views is None:
            views = self._make(n)
        try:
            yield views
        finally:
            with self._lock:
                idle.append(views)

    def _make(self, n: int) -> _Views:
        batch = make_batch(self._model, n)
        state = [batch.bind(name) for name in ("qpos", "qvel", "qacc_warmstart")]
        fields = [batch.expand(name) for name in self._fields]
        seen = [batch.bind(name) for name in self._seen]
        return _Views(batch, [*state, batch.bind("ctrl"), *fields], [*state, *seen])
