"""The rules of the original environments, restated in NumPy around ``mujoco.mj_step``.

Everything here is written from the description of the original code: what its classes write
into a model when they get a task, and what they return from ``reset`` and ``step``.
"""

from __future__ import annotations

import copy

import mujoco
import numpy as np

from envs import Ant, HalfCheetah, Humanoid
from envs.mujoco.models import model_path

VARIATIONS = [
    *((HalfCheetah, name) for name in ("vel", "mass", "body", "10d-a", "10d-b", "10d-c")),
    *((Ant, name) for name in ("goal", "mass", "body")),
    *((Humanoid, name) for name in ("vel", "mass", "body")),
]
IDS = [f"{cls.body}-{variation}" for cls, variation in VARIATIONS]
SIZES = {"half_cheetah": (20, 6), "ant": (27, 8), "humanoid": (376, 17)}  # observation, action
TIMES = {"half_cheetah": 0.05, "ant": 0.05, "humanoid": 0.015}  # s of a control step

TEN = {
    "10d-a": "actuator_gear actuator_lengthrange body_inertia cam_ipd geom_solmix geom_solref "
    "jnt_margin jnt_stiffness light_pos mat_rgba",
    "10d-b": "cam_ipd cam_mat0 dof_frictionloss dof_solref geom_friction geom_gap geom_rbound "
    "geom_solimp light_specular mat_shininess",
    "10d-c": "body_ipos body_mass body_pos geom_gap geom_margin jnt_range jnt_solref "
    "jnt_stiffness light_specular mat_emission",
}


def compiled(body):
    """The body as anyone would load it from gymnasium's file; its masses must add up here."""
    spec = mujoco.MjSpec.from_file(str(model_path(body)))
    spec.compiler.settotalmass = -1  # or MuJoCo warns, and writes the warning to a file
    model = spec.compile()
    if body == "half_cheetah":
        mujoco.mj_setTotalmass(model, 14.0)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def write_task(model, body, variation, task):
    """A copy of a model with the fields that the original code writes for a task."""
    task = [float(x) for x in task]
    new = copy.copy(model)
    if variation in TEN:
        for factor, field in zip(task, TEN[variation].split(), strict=True):
            getattr(new, field)[:] = getattr(model, field) * factor
    elif variation in ("mass", "body"):
        for i in range(model.nbody):
            new.body_mass[i] = model.body_mass[i] * task[0]
        if body == "half_cheetah":
            for i in range(1, 9):
                new.geom_size[i, 0] = 0.046 * task[0]
        if body == "humanoid":
            for i in range(1, 18):
                if variation == "mass" or i != 2:
                    new.geom_size[i, 0] = model.geom_size[i, 0] * task[0]
        if variation == "body":
            for i in range(model.nv):
                new.dof_damping[i] = model.dof_damping[i] * task[1]
            if body == "half_cheetah":
                new.geom_size[2, 1] = 0.15 * task[2]
            elif body == "ant":
                new.geom_size[2, 1] = 0.1 * np.sqrt(2) * task[2]
            else:
                for i in range(3):
                    new.geom_size[2, i] = model.geom_size[2, i] * task[2]
    return new


def follow_bounds(model):
    """A copy of a model that has the bounds and subtree masses of its geoms and bodies.

    With the tree of bounding boxes, which is searched here and not in our model.
    """
    derived, new = copy.copy(model), copy.copy(model)
    mujoco.mj_setConst(derived, mujoco.MjData(derived))
    for name in ("body_subtreemass", "geom_rbound", "geom_aabb", "bvh_aabb"):
        getattr(new, name)[:] = getattr(derived, name)
    return new


class Game:
    """An original environment: a simulation that remembers its state, one task, float64."""

    def __init__(self, body, variation, task, model, contact_forces=False):
        self.body, self.variation, self.task = body, variation, [float(x) for x in task]
        self.model, self.data, self.contact_forces = model, mujoco.MjData(model), contact_forces

    def reset(self, qpos, qvel):
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        mujoco.mj_forward(self.model, self.data)
        self._forces()
        return self.observe()

    def resume(self, qpos, qvel, warmstart):
        """Goes on from a state; what lags behind it stays as the last step left it."""
        self.data.qpos[:], self.data.qvel[:] = qpos, qvel
        self.data.qacc_warmstart[:] = warmstart

    def step(self, action):
        """``(observation, reward)`` of five physics steps; nothing ever ends an episode."""
        root, torso, centre = self.data.qpos[0], self.data.xpos[1, 0], self.centre()
        self.data.ctrl[:] = action  # MuJoCo clamps the force and leaves this as it is
        for _ in range(5):
            mujoco.mj_step(self.model, self.data)
        self._forces()
        dt = TIMES[self.body]
        progress = {
            "half_cheetah": (self.data.qpos[0] - root) / dt,
            "ant": (self.data.xpos[1, 0] - torso) / dt,
            "humanoid": (self.centre() - centre) / dt,
        }[self.body]
        return self.observe(), getattr(self, self.body)(progress, np.sum(np.square(action)))

    def half_cheetah(self, speed, squares):
        if self.variation == "vel":
            return -abs(speed - self.task[0]) - 0.05 * squares
        return speed - 0.05 * squares + self.observe()[0]

    def ant(self, speed, squares):
        contact = 0.5e-3 * np.sum(np.clip(self.data.cfrc_ext, -1, 1) ** 2)
        if self.variation == "goal":
            x, y, _ = self.data.xpos[1]
            away = abs(x - self.task[0]) + abs(y - self.task[1])
            return -away - 0.1 * squares - contact
        survives = 0.2 <= self.data.qpos[2] <= 1.0
        return speed - 0.5 * squares - contact + (1.0 if survives else 0.0)

    def humanoid(self, speed, squares):
        impact = min(0.5e-6 * np.sum(self.data.cfrc_ext**2), 10)
        alive = 5.0 if 1.0 <= self.data.qpos[2] <= 2.0 else 0.0
        if self.variation == "vel":
            return -1.25 * abs(speed - self.task[0]) - 0.1 * squares - impact + alive
        return 1.25 * speed - 0.1 * squares - impact + alive

    def observe(self):
        d = self.data
        if self.body == "half_cheetah":
            return np.concatenate([d.qpos[1:], d.qvel, d.xpos[1]])
        if self.body == "ant" and self.variation == "goal":
            return np.concatenate([d.qpos, d.qvel, np.clip(d.cfrc_ext, -1, 1).flat])
        if self.body == "ant":
            return np.concatenate([d.qpos[2:], d.qvel])
        parts = [d.cinert, d.cvel, d.qfrc_actuator, d.cfrc_ext]
        return np.concatenate([d.qpos[2:], d.qvel, *(x.ravel() for x in parts)])

    def centre(self):
        mass = self.model.body_mass
        return sum(mass * self.data.xipos[:, 0]) / sum(mass)

    def _forces(self):
        if self.contact_forces:  # of the state that was reached
            mujoco.mj_forward(self.model, self.data)
            mujoco.mj_rnePostConstraint(self.model, self.data)
