"""Which physics engine runs a body: names, what ``auto`` stands for, and the making."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Literal, TypeAlias

import jax

from roml_jax.checks import check_choice

from .engine_c import make_c
from .engine_mjx import make_mjx
from .models import Body, load_model
from .physics import Physics

ENGINES = ("auto", "mjx", "warp", "mujoco")
EngineName: TypeAlias = Literal["auto", "mjx", "warp", "mujoco"]


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
    file: str | None = None,
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
      file: see ``load_model``.
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
    model = load_model(
        body, file=file, legacy_inertia=legacy_inertia, contact_forces=contact_forces
    )
    if name == "mujoco":
        return make_c(model, frame_skip, seen, contact_forces)
    return make_mjx(model, frame_skip, seen, contact_forces, name)
