"""MJX as an engine: MuJoCo's dynamics in JAX, or in NVIDIA Warp's kernels called from JAX.

The worlds of any nesting of ``vmap`` reach the engine as one flat batch: Warp must know how
many there are, and a CPU takes them one after another. That is three to five times faster
there than all at once (intermediate results stay in the cache, and no world waits for the
one whose constraints take most iterations), and it cannot hang, see ``_Engine.worlds``.
"""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .physics import Model, Physics, PhysicsState

_Inputs: TypeAlias = tuple[Array, Array, Array, Array]  # qpos, qvel, warm start, control
_Worlds: TypeAlias = Callable[[Model, _Inputs], PhysicsState]

_INERTIA = 2  # mjtSameFrame
_ROOM = 0b1111  # Warp's OverflowType: warn of lack of room, not of a solver that stops early

# Fields that follow from a task and that these engines do not read: the tree of bounding
# boxes, which models switch off, and what only muscles and other integrators look at.
_UNUSED = ("bvh_aabb", "dof_M0", "actuator_acc0")


def make_mjx(
    model: Any, frame_skip: int, seen: tuple[str, ...], contact_forces: bool, name: str
) -> Physics:
    """A ``Physics`` on MJX; see ``make_physics`` for the arguments.

    Works under jit, scan and vmap; there is no derivative. Compiling takes 15 to 60 seconds,
    depending on the body; no value recompiles. ``warp`` computes in float32 whatever its
    inputs are, and its last bits depend, on a GPU, on the order in which threads finish.

    Raises:
      ValueError: when traced, if a task changes a field that MJX reads once for all worlds.

    Differs from MuJoCo in C: both engines lay the friction pyramid of a capsule that stands
    steeply on the floor along the world's axes, C along the capsule's, which changes a step
    with such a contact by some percent (the Ant's legs, at times the Humanoid's). Both solve
    constraints by Newton's method; the Humanoid asks for projected Gauss-Seidel, which they
    lack, and moves differently by about 1e-6 of its speeds.
    """
    engine = _Engine(model, seen, contact_forces, name == "warp")
    step_worlds = _as_one_batch(partial(engine.worlds, frame_skip))
    look_at_worlds = _as_one_batch(partial(engine.worlds, 0))

    def step(fields: Model, state: PhysicsState, ctrl: Array) -> PhysicsState:
        return step_worlds(fields, (state.qpos, state.qvel, state.warmstart, ctrl))

    def reset(fields: Model, qpos: Array, qvel: Array) -> PhysicsState:
        rest = (jnp.zeros_like(qvel), jnp.zeros(model.nu, qvel.dtype))
        return look_at_worlds(fields, (qpos, qvel, *rest))._replace(qpos=qpos, qvel=qvel)

    return Physics(reset, step, name)


def _as_one_batch(worlds: _Worlds) -> _Worlds:
    """From a function of ``[N, …]`` one of a single world that any nesting of vmap calls once.

    Fields that all worlds have in common reach ``worlds`` as ``[1, …]``.
    """
    call = jax.custom_batching.custom_vmap(worlds)

    def flat(x: Array, batched: bool, size: int, n: int) -> Array:
        x = x if batched else x[None]
        return jnp.broadcast_to(x, (size, n, *x.shape[2:])).reshape(size * n, *x.shape[2:])

    @call.def_vmap
    def call_batched(size: int, batched: Any, fields: Model, inputs: _Inputs) -> Any:
        by_field, by_input = batched
        n = inputs[0].shape[1] if by_input[0] else inputs[0].shape[0]
        shared = {name for name, x in fields.items() if not by_field[name] and len(x) == 1}
        fields = {
            name: x if name in shared else flat(x, by_field[name], size, n)
            for name, x in fields.items()
        }
        inputs = jax.tree.map(lambda x, b: flat(x, b, size, n), inputs, tuple(by_input))
        result = jax.tree.map(lambda x: x.reshape(size, n, *x.shape[1:]), call(fields, inputs))
        return result, jax.tree.map(lambda _: True, result)

    def one_world(fields: Model, inputs: _Inputs) -> PhysicsState:
        fields, inputs = jax.tree.map(lambda x: jnp.asarray(x)[None], (fields, inputs))
        return jax.tree.map(lambda x: x[0], call(fields, inputs))

    return one_world


class _Engine:
    """Steps N worlds. All that it keeps are constants and traced programs."""

    def __init__(self, model: Any, seen: tuple[str, ...], contact_forces: bool, warp: bool) -> None:
        """Remembers what to simulate; nothing is sent to a device before it is needed."""
        import mujoco

        self._model, self._warp, self._current = copy.copy(model), warp, contact_forces
        options, flag = self._model.opt, mujoco.mjtDisableBit
        options.disableflags &= ~(flag.mjDSBL_AUTORESET | flag.mjDSBL_MIDPHASE)  # C alone has them
        if options.solver == mujoco.mjtSolver.mjSOL_PGS:
            options.solver = mujoco.mjtSolver.mjSOL_NEWTON
        data = mujoco.MjData(model)
        self._seen = {name: getattr(data, name).shape for name in seen}
        self._templates: dict[Any, Any] = {}
        self._traced = jax.jit(self._world, static_argnums=(0, 1))  # Python's part is slow

    def worlds(self, nstep: int, fields: Model, inputs: _Inputs) -> PhysicsState:
        """Steps worlds, or only looks at them, if there is no step to make.

        Args:
          nstep: physics steps.
          fields: of the model, ``[N, …]``, or ``[1, …]`` where all worlds have the same.
          inputs: qpos, qvel, warm start and control, ``[N, …]``.

        Returns:
          The states after the steps, ``[N, …]``.
        """
        n = len(inputs[0])
        shared = {name: x[0] for name, x in fields.items() if len(x) != n}
        varied = {name: x for name, x in fields.items() if len(x) == n}

        def one(world: tuple[Model, _Inputs]) -> PhysicsState:
            return self._traced(nstep, n if self._warp else 1, shared | world[0], world[1])

        if self._warp:
            return jax.vmap(one)((varied, inputs))
        # Speed aside: with some releases of JAX a CPU hangs for ever when it factorises two
        # batches of matrices at once, each waiting for a thread that the other one holds. A
        # matrix that comes alone is factorised where it is, and waits for nobody.
        return jax.lax.platform_dependent(
            (varied, inputs), cpu=partial(jax.lax.map, one), default=jax.vmap(one)
        )

    def _world(self, nstep: int, n: int, fields: Model, inputs: _Inputs) -> PhysicsState:
        """``worlds`` for one of n."""
        # MJX relies on rank promotion, and dynamics on more digits than TF32 has.
        with (
            jax.numpy_rank_promotion("allow"),
            jax.default_matmul_precision("highest"),
            _line_searches_end(),
        ):
            state = self._step(nstep, *self._template(n), fields, inputs)
        return jax.tree.map(lambda x: x.astype(inputs[0].dtype), state)

    def _step(
        self, nstep: int, model: Any, template: Any, fields: Model, inputs: _Inputs
    ) -> PhysicsState:
        from mujoco import mjx

        model = _with_fields(model, fields)
        blind = _without_sensors(model)
        qpos, qvel, warm, ctrl = (x.astype(template.qpos.dtype) for x in inputs)

        def data(state: PhysicsState) -> Any:
            qpos, qvel, warm, _ = state
            return template.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warm, ctrl=ctrl)

        def substep(state: PhysicsState, _: None) -> tuple[PhysicsState, None]:
            d = mjx.step(blind, data(state))
            return PhysicsState(d.qpos, d.qvel, d.qacc_warmstart, self._look(d)), None

        state = PhysicsState(qpos, qvel, warm, self._look(template))
        if nstep:
            state, _ = jax.lax.scan(substep, state, None, nstep)
        if self._current or not nstep:
            state = state._replace(seen=self._look(mjx.forward(model, data(state))))
        return state

    def _look(self, data: Any) -> dict[str, Array]:
        """What is seen, in the shapes of MjData."""
        public = vars(data)
        values = {n: public[n] if n in public else getattr(data._impl, n) for n in self._seen}
        return {name: values[name].reshape(shape) for name, shape in self._seen.items()}

    def _template(self, n: int) -> tuple[Any, Any]:
        """The unchanged model, and data at rest with room for n worlds, as constants."""
        key = (n, jnp.result_type(float))
        if key not in self._templates:
            with jax.ensure_compile_time_eval():  # also when the first caller is being traced
                self._templates[key] = jax.device_get(_load(self._model, n, self._warp))
        return jax.tree.map(_constant, self._templates[key])


_tracing = threading.RLock()


@contextlib.contextmanager
def _line_searches_end() -> Iterator[None]:
    """While MJX is traced, its line searches end when they have found what they look for.

    MJX makes them differentiable: every step of its solver runs all 50 iterations, and most of
    them change nothing. A loop that ends computes the same numbers, twice as fast on a GPU.
    """
    from mujoco.mjx._src import solver

    def loop(condition: Any, body: Any, start: Any, most: int) -> Any:
        def more(carry: tuple[Any, Any]) -> Any:
            i, value = carry
            return (i < most) & condition(value)

        return jax.lax.while_loop(more, lambda c: (c[0] + 1, body(c[1])), (0, start))[1]

    with _tracing:
        usual = solver._while_loop_scan
        solver._while_loop_scan = loop
        try:
            yield
        finally:
            solver._while_loop_scan = usual


def _load(model: Any, n: int, warp: bool) -> tuple[Any, Any]:
    """An ``mjx.Model`` and an ``mjx.Data``."""
    from mujoco import mjx

    data = mjx.make_data(model, impl="jax")
    if not warp:
        return mjx.put_model(model, impl="jax"), data
    # Room for contacts between all pairs that can touch, and for all limits, so that nothing
    # can overflow. Contacts of all worlds share their room, rows of constraints do not.
    room = {"naconmax": n * data._impl.ncon, "njmax": data._impl.nefc}
    # The default way of capturing CUDA graphs suits a scan, whose buffers stay where they are.
    loaded = mjx.put_model(model, impl="warp").tree_replace({"opt._impl.warn_overflow": _ROOM})
    return loaded, mjx.make_data(model, impl="warp", **room)


def _constant(x: Any) -> Any:
    """An array for use in a program; zeros are made there rather than stored with it."""
    if not isinstance(x, np.ndarray):
        return x
    return jnp.asarray(x) if x.any() else jnp.zeros(x.shape, x.dtype)


def _with_fields(model: Any, fields: Model) -> Any:
    """The model of a world."""
    new = {}
    for name, value in fields.items():
        if name in _UNUSED:
            continue
        was = getattr(model, name, None)
        if not isinstance(was, jax.Array):
            raise ValueError(f"MJX reads {name} once for all worlds: a task cannot change it")
        new[name] = value.astype(was.dtype).reshape(was.shape)
    model = model.replace(**new)
    if "body_ipos" not in fields:
        return model
    # In C a geom whose frame is its body's inertial one follows that; here both are apart.
    follows = (model.geom_sameframe == _INERTIA)[:, None]
    at = jnp.where(follows, model.body_ipos[model.geom_bodyid], model.geom_pos)
    return model.replace(geom_pos=at)


def _without_sensors(model: Any) -> Any:
    """The same model, whose sensors are not evaluated."""
    import mujoco

    off = model.opt.disableflags | mujoco.mjtDisableBit.mjDSBL_SENSOR
    return model.replace(opt=model.opt.replace(disableflags=off))
