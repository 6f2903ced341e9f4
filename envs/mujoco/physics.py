"""One seam between environments and physics engines.

An environment sees one world and pure functions on it; it never learns which engine runs
them. A world's physics may differ from world to world: the fields of the model that depend
on the task are an argument, so that ``vmap`` over tasks needs no new compilation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.checks import check_choice

from .models import Body, load_model

ENGINES = ("auto", "mjx", "warp", "mujoco")
EngineName: TypeAlias = Literal["auto", "mjx", "warp", "mujoco"]

Model: TypeAlias = dict[str, Array]  # fields of an MjModel that differ from world to world


class PhysicsState(NamedTuple):
    """A world between two control steps: all that the next one depends on, and what is seen."""

    qpos: Float[Array, " nq"]  # m, rad, quaternions
    qvel: Float[Array, " nv"]  # m/s, rad/s
    warmstart: Float[Array, " nv"]  # accelerations that the constraint solver starts from
    seen: dict[str, Array]  # fields of MjData; after a step they lag as after ``mj_step``


class Physics(NamedTuple):
    """A body in an engine; both functions speak of one world, vmap them.

    Attributes:
      reset: ``(model, qpos, qvel) -> PhysicsState``, with ``seen`` of that very state.
      step: ``(model, state, ctrl[nu]) -> PhysicsState`` after ``frame_skip`` physics steps;
        the engine clamps forces to the range of the controls.
      engine: its name.
    """

    reset: Callable[[Model, Array, Array], PhysicsState]
    step: Callable[[Model, PhysicsState, Array], PhysicsState]
    engine: str


def resolve_engine(name: EngineName) -> str:
    """The engine that ``auto`` stands for here, or the name itself.

    On an NVIDIA GPU that is ``warp`` if Warp is installed, on other accelerators ``mjx``. Else
    it is ``mujoco``: on a CPU MuJoCo in C is ten to twenty times faster than MJX, and two cores
    step a thousand worlds faster than MJX does on an H100.

    Raises:
      ValueError: the name is unknown.
      ImportError: the engine is not installed.
    """
    check_choice("physics", name, ENGINES)
    if name == "auto":
        if jax.default_backend() == "cpu" or (is_nvidia() and find_spec("warp") is None):
            name = "mujoco"
        else:
            name = "warp" if is_nvidia() else "mjx"
    packages = {"mjx": ("mujoco.mjx",), "warp": ("mujoco.mjx", "warp"), "mujoco": ("mujoco",)}
    extra = "warp" if name == "warp" else "mujoco"
    for package in packages[name]:
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
            raise ImportError(f"physics {name} needs {package}: pip install 'roml-jax[{extra}]'")
    return name


def is_nvidia() -> bool:
    """Whether JAX's device is an NVIDIA GPU, the only one that Warp runs on."""
    device = jax.devices()[0]
    words = f"{device.device_kind} {device.client.platform_version}".lower()
    return "nvidia" in words or "cuda" in words


@functools.cache
def make_physics(
    body: Body,
    engine: EngineName = "auto",
    *,
    frame_skip: int = 5,
    seen: tuple[str, ...] = (),
    legacy_inertia: bool = False,
    contact_forces: bool = False,
) -> Physics:
    """Loads a body into an engine.

    Args:
      body: which.
      engine: ``mjx`` (JAX: GPU, TPU and CPU), ``warp`` (NVIDIA GPUs), ``mujoco`` (C, on the
        CPU's cores) or ``auto``, see ``resolve_engine``.
      frame_skip: physics steps per control step.
      seen: the fields of MjData that the environment looks at.
      legacy_inertia: see ``load_model``.
      contact_forces: see ``load_model``. The fields of ``seen`` are then those of the state
        after a step and do not lag, at the price of one more evaluation of the dynamics.

    Returns:
      A ``Physics``.

    Raises:
      ValueError: the engine is unknown.
      ImportError: the engine is not installed.
    """
    name = resolve_engine(engine)
    model = load_model(body, legacy_inertia=legacy_inertia, contact_forces=contact_forces)
    if name == "mujoco":
        from .engine_c import make_c

        return make_c(model, frame_skip, seen, contact_forces)
    from .engine_mjx import make_mjx

    return make_mjx(model, frame_skip, seen, contact_forces, name)


def is_sound(state: PhysicsState, limit: float = 1e4) -> Array:
    """Whether a simulation has not diverged: everything finite and below ``limit``.

    Args:
      state: of one world.
      limit: metres, radians and their rates that no body of this kind can reach.

    Returns:
      A boolean.
    """
    leaves = jax.tree.leaves(state.seen)
    sound = jnp.all(jnp.abs(jnp.concatenate([state.qpos, state.qvel])) < limit)
    finite = [jnp.isfinite(state.warmstart).all(), *(jnp.isfinite(x).all() for x in leaves)]
    return sound & jnp.stack(finite).all()
