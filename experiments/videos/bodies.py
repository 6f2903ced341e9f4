"""Pictures of MuJoCo bodies from their saved positions, on machines without a screen.

Nothing here is jitted: a task's body becomes a model of its own, and a camera that follows
the body keeps the whole of it in the picture.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import ctypes.util
import importlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from envs.mujoco.body_env import BodyEnv
from envs.mujoco.models import Body, model_path
from experiments.spec.errors import UserError

_LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}  # in order of preference
_NEEDS = (
    "drawing without a screen needs the Debian packages libegl1 libegl-mesa0 libgl1-mesa-dri "
    "libgl1, or libosmesa6"
)
_AZIMUTH = 90.0  # degrees: x to the right
_ELEVATION: dict[Body, float] = {"half_cheetah": -6.0, "ant": -22.0, "humanoid": -8.0}  # degrees
_GOAL_ELEVATION = -40.0  # degrees, where there is a place on the floor to be seen
_MARGIN = 1.08
_FARTHEST = 40.0  # m, of the camera: a body that a diverged simulation has thrown may be lost
_LIGHT = np.array([-0.6, -2.0, 5.0])  # m, from below the body: from the camera's side
_SHADOW_CLIP = 1.0
_SHADOW_SIZE = 2048  # pixels
_FLOOR, _SKY, _GOAL = ((198, 206, 214), (226, 231, 236)), (244, 247, 250), (0.1, 0.62, 0.35, 0.8)
_FLOOR_SIZE = 60.0  # m, half of it; the floor follows the body by pairs of checks
_CHECKS = 2.0  # m, a pair of checks
_GOAL_SIZE = (0.3, 0.01, 0.0)  # m, radius and half the height of a disk
_PLANE, _SPHERE, _CAPSULE = 0, 2, 3  # mjtGeom


class Camera(NamedTuple):
    """Where the camera is, seen from the point of the floor below the body's root."""

    offset: Float[np.ndarray, "3"]  # m, to the point that it looks at
    distance: float  # m, from that point
    elevation: float  # degrees


# ------------------------------------------------------------------ OpenGL


def choose_backend() -> None:
    """Sets ``MUJOCO_GL`` to what this machine has, unless it is set already.

    On Linux that is EGL or else OSMesa; elsewhere MuJoCo's own choice stays.

    Raises:
      UserError: there is neither.
    """
    if os.environ.get("MUJOCO_GL") or not sys.platform.startswith("linux"):
        return
    found = [name for name, library in _LIBRARIES.items() if _loads(library)]
    if not found:
        raise UserError(f"neither EGL nor OSMesa is here: {_NEEDS}")
    os.environ["MUJOCO_GL"] = found[0]
    for name, module in list(sys.modules.items()):
        if name.startswith("mujoco.") and name.endswith("gl_context"):
            importlib.reload(module)  # it has been imported before, and has chosen for a screen


def _loads(library: str) -> bool:
    """Whether a shared library is there and can be loaded."""
    path = ctypes.util.find_library(library)
    try:
        return path is not None and ctypes.CDLL(path) is not None
    except OSError:
        return False


# ------------------------------------------------------------------ bodies


def task_model(env: BodyEnv, task: Float[np.ndarray, " D"]) -> Any:
    """The body of a task, to be drawn: an ``MjModel`` of its own.

    Args:
      env: the environment.
      task: D components.

    Returns:
      The model, with the fields that the environment steps this task with; floor and sky are
      bright, and the floor goes on for ever.
    """
    model = copy.copy(env.mj_model)
    state, _ = jax.jit(env.reset)(jax.random.key(0), jnp.asarray(task, jnp.float32))
    for name, value in state.model.items():
        getattr(model, name)[:] = np.asarray(value)
    _brighten(model)
    return model


def goal_of(env: BodyEnv, task: Float[np.ndarray, " D"]) -> Float[np.ndarray, "2"] | None:
    """The place to go to, x and y in metres; None where the task is none."""
    return np.asarray(task) if env.family.names == ("x", "y") else None


def _brighten(model: Any) -> None:
    """Floor and sky in pale colours, whatever the body's file says."""
    import mujoco

    floors = np.flatnonzero(model.geom_type == _PLANE)
    model.geom_size[floors, :2] = _FLOOR_SIZE
    model.geom_rgba[floors] = 1
    materials = model.geom_matid[floors]
    model.mat_rgba[materials], model.mat_texuniform[materials] = 1, True
    model.mat_texrepeat[materials] = 1
    for field in ("mat_reflectance", "mat_specular", "mat_shininess", "mat_emission"):
        getattr(model, field)[materials] = 0
    channels = model.tex_nchannel
    for i, kind in enumerate(model.tex_type):
        start, size = model.tex_adr[i], model.tex_height[i] * model.tex_width[i] * channels[i]
        texels = model.tex_data[start : start + size].reshape(-1, channels[i])
        if kind == mujoco.mjtTexture.mjTEXTURE_SKYBOX:
            texels[:, :3] = _SKY
        elif kind == mujoco.mjtTexture.mjTEXTURE_2D:
            dark = texels[:, :1].astype(int) <= (int(texels.min()) + int(texels.max())) / 2
            texels[:, :3] = np.where(dark, *_FLOOR)
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.5, 0.2
    model.vis.headlight.specular[:] = 0.1
    model.light_diffuse[:], model.light_specular[:] = 0.4, 0.1
    model.light_dir[:] = -_LIGHT / np.linalg.norm(_LIGHT)
    model.vis.quality.shadowsize = _SHADOW_SIZE


# ------------------------------------------------------------------ the camera


def frame(
    env: BodyEnv,
    models: Sequence[Any],
    paths: Sequence[Float[np.ndarray, "m nq"]],
    goals: Sequence[Float[np.ndarray, "2"] | None],
    aspect: float,
) -> Camera:
    """The nearest camera that has all of each body in its picture at every step.

    Args:
      env: the environment.
      models: of the bodies, see ``task_model``.
      paths: the positions of each of them.
      goals: of each of them, also to be seen; or None.
      aspect: width over height of the picture.

    Returns:
      One camera for all, so that sizes can be compared.
    """
    on_floor = any(goal is not None for goal in goals)
    elevation = _GOAL_ELEVATION if on_floor else _ELEVATION[env.body]
    right, up, ahead = _axes(elevation)
    parts = [_spheres(*one) for one in zip(models, paths, goals, strict=True)]
    spheres = np.concatenate([part.reshape(-1, 4) for part in parts])
    across, above, depth = (spheres[:, :3] @ axis for axis in (right, up, ahead))
    radius, slope = spheres[:, 3], float(np.tan(np.deg2rad(models[0].vis.global_.fovy) / 2))
    offset, distance = np.zeros(3), 0.0
    for axis, x, tan in ((right, across, slope * aspect), (up, above, slope)):
        centre = (np.max(x + radius) + np.min(x - radius)) / 2
        need = (np.abs(x - centre) + radius * np.hypot(1, tan)) / tan - depth  # to be tangent
        offset, distance = offset + centre * axis, max(distance, float(np.max(need)))
    return Camera(offset, min(_MARGIN * distance, _FARTHEST), elevation)


def _axes(elevation: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors of the picture: to the right, up, and away from the camera."""
    turn, tilt = np.deg2rad(_AZIMUTH), np.deg2rad(elevation)
    ahead = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
    right = np.array([np.sin(turn), -np.cos(turn), 0.0])
    return right, np.cross(right, ahead), ahead


def _spheres(
    model: Any, path: Float[np.ndarray, "m nq"], goal: np.ndarray | None
) -> Float[np.ndarray, "m s 4"]:
    """Spheres that hold the body: their centres, seen from below its root, and their radii."""
    import mujoco

    data, found = mujoco.MjData(model), []
    capsule, solid = model.geom_type == _CAPSULE, model.geom_type != _PLANE
    rounded = capsule | (model.geom_type == _SPHERE)
    radius = np.where(rounded, model.geom_size[:, 0], model.geom_rbound)
    half = np.where(capsule, model.geom_size[:, 1], 0.0)
    for qpos in path:
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        along = half[:, None] * data.geom_xmat[:, 2::3]
        ends = np.concatenate([data.geom_xpos - along, data.geom_xpos + along])
        spheres = np.column_stack([ends, np.tile(radius, 2)])[np.tile(solid, 2)]
        if goal is not None:
            spheres = np.vstack([spheres, [*goal, 0.0, _GOAL_SIZE[0]]])
        spheres[:, :2] -= data.xpos[1, :2]
        found.append(spheres)
    return np.stack(found)


# ------------------------------------------------------------------ drawing


class Painter:
    """Draws one body; to be used as a context, which frees what OpenGL holds.

    Args:
      model: see ``task_model``.
      camera: see ``frame``.
      width: of a picture, pixels.
      height: of a picture, pixels.
      goal: a place to mark; None for none.

    Raises:
      UserError: OpenGL does not work here.
    """

    def __init__(
        self,
        model: Any,
        camera: Camera,
        width: int,
        height: int,
        goal: Float[np.ndarray, "2"] | None = None,
    ) -> None:
        import mujoco

        self._floors = np.flatnonzero(model.geom_type == _PLANE)
        room = model.vis.global_
        room.offwidth, room.offheight = max(room.offwidth, width), max(room.offheight, height)
        self._model, self._data, self._goal = model, mujoco.MjData(model), goal
        self._offset, self._view = camera.offset, mujoco.MjvCamera()
        self._view.distance, self._view.elevation = camera.distance, camera.elevation
        self._view.azimuth = _AZIMUTH
        with _gl_errors():
            self._renderer = mujoco.Renderer(model, height, width)

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *error: object) -> None:
        self._renderer.close()

    def draw(self, qpos: Float[np.ndarray, " nq"]) -> np.ndarray:
        """The picture of one moment.

        Args:
          qpos: positions.

        Returns:
          ``uint8[height, width, 3]``.
        """
        import mujoco

        model, data = self._model, self._data
        data.qpos[:] = qpos
        for part in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight):
            part(model, data)
        below = np.array([*data.xpos[1, :2], 0.0])
        data.light_xpos[:] = below + _LIGHT
        data.geom_xpos[self._floors] = np.round(below / _CHECKS) * _CHECKS
        self._view.lookat[:] = below + self._offset
        self._renderer.update_scene(data, self._view)
        if self._goal is not None:
            _mark(self._renderer.scene, self._goal)
        return self._renderer.render()


def _mark(scene: Any, goal: Float[np.ndarray, "2"]) -> None:
    """Puts a disk on the floor."""
    import mujoco

    place, kind = np.array([*goal, _GOAL_SIZE[1]]), mujoco.mjtGeom.mjGEOM_CYLINDER
    mark = (_GOAL_SIZE, place, np.eye(3).ravel(), np.array(_GOAL, np.float32))
    mujoco.mjv_initGeom(scene.geoms[scene.ngeom], kind, *mark)
    scene.ngeom += 1


def check_drawing(env: BodyEnv) -> None:
    """Raises a UserError where this machine cannot draw."""
    try:
        _ = env.model or model_path(env.body)
    except ImportError as error:
        raise UserError(str(error)) from error
    with _gl_errors():  # some come as early as MuJoCo is imported
        model = copy.copy(env.mj_model)
    with Painter(model, Camera(np.zeros(3), 1.0, 0.0), 64, 64) as painter:
        painter.draw(model.qpos0)


@contextlib.contextmanager
def _gl_errors() -> Iterator[None]:
    """What OpenGL has to complain about, as one line; each of its kinds has its own errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        told = f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')} does not work here"
        raise UserError(f"{told} ({str(error).splitlines()[0]}): {_NEEDS}") from error
