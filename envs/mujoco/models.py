"""The bodies: MuJoCo models of HalfCheetah, Ant and Humanoid, as gymnasium ships them.

The files are read from the installed gymnasium package, so that masses, limits, gears and
solver options are those of the published experiments. (Brax's bodies of the same names have
other solvers, integrators and contacts.)
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

Body = Literal["half_cheetah", "ant", "humanoid"]


def model_path(body: Body) -> Path:
    """The XML file of a body.

    Raises:
      ImportError: gymnasium is not installed.
    """
    found = find_spec("gymnasium")
    if found is None or found.origin is None:
        raise ImportError("the bodies come with gymnasium: pip install 'roml-jax[mujoco]'")
    return Path(found.origin).parent / "envs" / "mujoco" / "assets" / f"{body}.xml"


@functools.cache
def load_model(
    body: Body,
    *,
    file: str | None = None,
    legacy_inertia: bool = False,
    contact_forces: bool = False,
) -> Any:
    """Compiles a body.

    Args:
      body: its name.
      file: an MJCF file in the place of gymnasium's.
      legacy_inertia: the masses and inertias that MuJoCo 2.0 gave to capsules: those of a
        cylinder that is half a radius longer at each end. The Ant then weighs 0.879 instead
        of 0.911, the Humanoid 39.65 instead of 42.12; the HalfCheetah's 14 are shared out
        differently.
      contact_forces: also compute ``cfrc_ext``, which MuJoCo leaves at zero unless a sensor
        asks for it.

    Returns:
      An ``MjModel``, shared: treat it as read-only. A diverged simulation keeps its NaN
      instead of starting anew behind our back, and bodies are not filtered by the stored
      tree of bounding boxes, which would have to follow every change of a geom's size.

    Raises:
      ImportError: MuJoCo or gymnasium is not installed.
    """
    import mujoco

    spec = mujoco.MjSpec.from_file(file or str(model_path(body)))
    total = spec.compiler.settotalmass
    spec.compiler.settotalmass = -1  # its compiler attribute is deprecated and warns
    if contact_forces:
        _ask_for_contact_forces(spec)
    model = spec.compile()
    if legacy_inertia:
        _copy_inertia(_as_cylinders(spec).compile(), model)
    if total > 0:
        mujoco.mj_setTotalmass(model, total)
    mujoco.mj_setConst(model, mujoco.MjData(model))
    model.stat.meaninertia = model.dof_M0.mean()  # scales MJX's tolerance; not in mj_setConst
    disable = mujoco.mjtDisableBit
    model.opt.disableflags |= disable.mjDSBL_AUTORESET | disable.mjDSBL_MIDPHASE
    return model


def _ask_for_contact_forces(spec: Any) -> None:
    """Adds a sensor that makes the engine compute ``cfrc_ext``."""
    import mujoco

    spec.body("torso").add_site(name="contact_forces")
    spec.add_sensor(
        name="contact_forces",
        type=mujoco.mjtSensor.mjSENS_ACCELEROMETER,
        objtype=mujoco.mjtObj.mjOBJ_SITE,
        objname="contact_forces",
    )


def _as_cylinders(spec: Any) -> Any:
    """The same body with every capsule as a cylinder, half a radius longer at each end."""
    import mujoco

    spec = spec.copy()
    for geom in spec.geoms:
        if geom.type != mujoco.mjtGeom.mjGEOM_CAPSULE:
            continue
        geom.type = mujoco.mjtGeom.mjGEOM_CYLINDER
        radius, ends = geom.size[0], geom.fromto
        if np.isnan(ends).any():
            geom.size[1] += radius / 2
        else:
            first, last = ends[:3], ends[3:]
            along = (last - first) / np.linalg.norm(last - first) * radius / 2
            geom.fromto = np.concatenate([first - along, last + along])
    return spec


def _copy_inertia(source: Any, target: Any) -> None:
    """Copies what says how mass is shared out, the frames of the inertias included."""
    for name in ("body_mass", "body_inertia", "body_ipos", "body_iquat"):
        getattr(target, name)[:] = getattr(source, name)


def check_skeleton(body: Body, file: str, rows: dict[str, tuple[int, ...]]) -> None:
    """Checks that a file holds a body that can stand in the place of another.

    Args:
      body: the name of the other.
      file: MJCF.
      rows: which rows of which fields of the model tasks change, ``geom_size`` for instance.

    Raises:
      ValueError: it cannot be read, or its bodies, joints and motors, or the geoms that tasks
        change, are not those of the other, by name and in order.
    """
    if not Path(file).is_file():
        raise ValueError(f"model {file} is no file")
    try:
        ours = load_model(body, file=file)
    except ValueError as error:  # MuJoCo's parser and compiler
        raise ValueError(f"model {file} cannot be read: {' '.join(str(error).split())}") from error
    usual = load_model(body)
    for kind, count in {"body": "nbody", "joint": "njnt", "actuator": "nu"}.items():
        own, wanted = (_names(one, kind, range(getattr(one, count))) for one in (ours, usual))
        _check_names(file, body, kind, own, wanted)
    if (ours.nq, ours.nv) != (usual.nq, usual.nv):
        raise ValueError(f"model {file} has joints of other kinds than the {body}")
    for field, chosen in rows.items():
        kind = field.partition("_")[0]
        if kind == "geom":
            there = _names(ours, kind, (row for row in chosen if row < ours.ngeom))
            _check_names(file, body, kind, there, _names(usual, kind, chosen))


def _names(model: Any, kind: str, rows: Iterable[int]) -> list[str]:
    return [getattr(model, kind)(i).name for i in rows]


def _check_names(file: str, body: str, kind: str, own: list[str], wanted: list[str]) -> None:
    if own != wanted:
        raise ValueError(
            f"model {file} needs each {kind} of the {body}, in order: {', '.join(wanted)}; "
            f"got {', '.join(own) or 'none'}"
        )
