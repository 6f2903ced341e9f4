"""Humanoid: run, with a body or at a speed that one does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from envs import families
from roml_jax.checks import check_positive
from roml_jax.types import Family, PRNGKey

from .body_env import BodyEnv, BodyState
from .models import Body
from .physics import PhysicsState
from .tasks import Scale

_GEOMS, _HEAD = tuple(range(1, 18)), (2,)  # all but the floor
_HEADLESS = tuple(geom for geom in _GEOMS if geom not in _HEAD)
_RADIUS = 0  # column of geom_size
_SPEED_SCALE, _CONTROL_COST, _ALIVE = 1.25, 0.1, 5.0
_IMPACT_COST, _MAX_IMPACT_COST = 0.5e-6, 10.0
_UPRIGHT = (1.0, 2.0)  # m, heights of the torso that earn the bonus

_MASS = Scale("body_mass", 0)
_CHANGES: dict[str, tuple[Scale, ...]] = {
    "vel": (),
    "mass": (_MASS, Scale("geom_size", 0, _GEOMS, _RADIUS)),
    "body": (
        _MASS,
        Scale("geom_size", 0, _HEADLESS, _RADIUS),
        Scale("dof_damping", 1),
        Scale("geom_size", 2, _HEAD),
    ),
}


@dataclass(frozen=True)
class Humanoid(BodyEnv):
    """The Humanoid task environments.

    Tasks, by ``variation``:

    * vel: ``float32[1]``, the speed to run at, uniform in ``[0, max_velocity]`` m/s.
    * mass: ``float32[1]``, a factor ``2**U[-1, 1]`` on all masses and on the geoms' radii.
    * body: ``float32[3]``, factors ``2**U[-1, 1]`` on masses and radii, on the joints'
      damping, and on the radius of the head.

    Reward: ``-1.25 |v - v*|`` (vel) or ``1.25 v`` (mass, body), minus ``0.1 |a|²``, plus 5
    while the torso is between 1 m and 2 m high; ``v`` is the speed of the centre of mass
    along x over the step, in m/s, and the action is not clamped in its cost. With
    ``contact_forces``, ``0.5e-6 |f|²`` is subtracted, at most 10, ``f`` being the forces on
    all bodies.

    Observation: ``float32[376]``: positions without the root's x and y (22), velocities (23),
    inertia (14 x 10) and velocity (14 x 6) of every body about the centre of mass, forces of
    the motors on the joints (23), and contact forces (14 x 6), which are 0 without
    ``contact_forces``. What is neither position nor velocity lags, as after ``mj_step``.

    Actions: ``float32[17]``, torques, clamped to ±0.4. A policy squashed to ±1 is not scaled
    to that, as in the original code, and saturates.

    Attributes:
      variation: what differs between tasks.
      max_velocity: the highest speed of ``vel``, in m/s.

    Reference: Greenberg et al. (2023), Section 6.2 and Appendix D.2; the rules are those of
      the original code.
    """

    variation: Literal["vel", "mass", "body"] = "mass"
    max_velocity: float = 2.5

    body: ClassVar[Body] = "humanoid"
    variations: ClassVar[dict[str, tuple[Scale, ...]]] = _CHANGES
    seen: ClassVar[tuple[str, ...]] = ("xipos", "cinert", "cvel", "qfrc_actuator")

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        check_positive(self, "max_velocity")

    @property
    def family(self) -> Family:
        """Uniform speeds, or log-uniform factors."""
        if self.variation == "vel":
            return families.beta(
                0.0, self.max_velocity, name="velocity", clip_density=self.clip_density
            )
        return self._factors("head_size")

    @property
    def bounds(self) -> tuple[float, float]:
        """Of a speed, or of factors."""
        return (0.0, self.max_velocity) if self.variation == "vel" else super().bounds

    @property
    def observation_size(self) -> int:
        """O = 376."""
        return 376

    def start(self, key: PRNGKey) -> tuple[Float[Array, "24"], Float[Array, "23"]]:
        """Upright, 1.4 m high: positions and speeds within 0.01 of that, uniform."""
        qpos_key, qvel_key = jax.random.split(key)
        noise = jax.random.uniform(qpos_key, (24,), minval=-0.01, maxval=0.01)
        qvel = jax.random.uniform(qvel_key, (23,), minval=-0.01, maxval=0.01)
        return self.mj_model.qpos0 + noise, qvel

    def observe(self, physics: PhysicsState) -> Float[Array, "376"]:
        """Positions, velocities, and what the engine knows of bodies and forces."""
        seen = (physics.seen[name].ravel() for name in ("cinert", "cvel", "qfrc_actuator"))
        forces = self._contact_forces(physics).ravel()
        return jnp.concatenate([physics.qpos[self.unseen :], physics.qvel, *seen, forces])

    def reward(
        self, before: BodyState, after: BodyState, action: Float[Array, "17"], task: Array
    ) -> Float[Array, ""]:
        """Speed, or nearness to the speed of the task, and uprightness, less the costs."""
        velocity = (self._centre_x(after) - self._centre_x(before)) / self.dt
        low, high = _UPRIGHT
        upright = (after.physics.qpos[2] >= low) & (after.physics.qpos[2] <= high)
        impact = _IMPACT_COST * jnp.sum(self._contact_forces(after.physics) ** 2)
        cost = _CONTROL_COST * jnp.sum(action**2) + jnp.minimum(impact, _MAX_IMPACT_COST)
        return self._progress(velocity, task) + _ALIVE * upright - cost

    def reward_down(self, state: BodyState, task: Array) -> Float[Array, ""]:
        """That of lying still."""
        del state
        return self._progress(jnp.zeros(()), task)

    def _progress(self, velocity: Array, task: Array) -> Float[Array, ""]:
        if self.variation == "vel":
            velocity = -jnp.abs(velocity - task[0])
        return _SPEED_SCALE * velocity

    def _centre_x(self, state: BodyState) -> Float[Array, ""]:
        """The x coordinate of the centre of mass of the body that the task makes."""
        mass = state.model.get("body_mass", jnp.asarray(self.mj_model.body_mass))
        return mass @ state.physics.seen["xipos"][:, 0] / mass.sum()
