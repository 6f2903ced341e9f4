"""Ant: run, or reach a place, with a body or towards a goal that one does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from envs import families
from roml_jax.checks import check_choice, check_positive
from roml_jax.types import Family, PRNGKey

from .body_env import BodyEnv, BodyState
from .models import Body
from .physics import PhysicsState
from .tasks import Scale

_FIRST_LEG = (2,)  # the capsule between the torso and the first leg's hip
_HALF_LENGTH = 1  # column of geom_size
_CONTROL_COST = {"goal": 0.1, "mass": 0.5, "body": 0.5}
_CONTACT_COST = 0.5e-3
_UPRIGHT = (0.2, 1.0)  # m, heights of the torso that earn the bonus

_MASS = (Scale("body_mass", 0),)
_CHANGES: dict[str, tuple[Scale, ...]] = {
    "goal": (),
    "mass": _MASS,
    "body": (*_MASS, Scale("dof_damping", 1), Scale("geom_size", 2, _FIRST_LEG, _HALF_LENGTH)),
}


@dataclass(frozen=True)
class Ant(BodyEnv):
    """The Ant task environments.

    Tasks, by ``variation``:

    * goal: ``float32[2]``, the place to go to, uniform in the disk of ``radius`` metres.
    * mass: ``float32[1]``, a factor ``2**U[-1, 1]`` on all masses.
    * body: ``float32[3]``, factors ``2**U[-1, 1]`` on masses, on the joints' damping, and on
      the length of the first leg's inner segment.

    Reward: the distance ``-(|x - x*| + |y - y*|)`` minus ``0.1 |a|²`` (goal), or the speed of
    the torso along x over the step, in m/s, minus ``0.5 |a|²``, plus 1 while the torso is
    between 0.2 m and 1.0 m high (mass, body). The action is not clamped in its cost. With
    ``contact_forces``, ``0.0005 |f|²`` is subtracted, ``f`` being the forces on all bodies,
    each component clipped to ±1.

    Observation: positions and velocities. ``float32[113]``, with the absolute x and y and the
    84 clipped contact forces, which are 0 without ``contact_forces`` (goal), or
    ``float32[27]``, without either (mass, body).

    Actions: ``float32[8]``, torques of hip and ankle of the fourth, first, second and third
    leg, clamped to ±1.

    Attributes:
      variation: what differs between tasks.
      radius: of the disk of goals, in m.
      angle: how goals gather in one direction, circle or unit, see ``families.disk``; unit is
        the original's, whose seam hides hard goals straight ahead.

    Reference: Greenberg et al. (2023), Section 6.2 and Appendix D.2; the rules are those of
      the original code.
    Differs from the paper: the third factor of body is called the size of the head there; the
      Ant's torso is a sphere, and what the original code scales is a segment of a leg.
    """

    variation: Literal["goal", "mass", "body"] = "goal"
    radius: float = 5.0
    angle: Literal["circle", "unit"] = "unit"

    body: ClassVar[Body] = "ant"
    variations: ClassVar[dict[str, tuple[Scale, ...]]] = _CHANGES
    seen: ClassVar[tuple[str, ...]] = ("xpos",)

    def __post_init__(self) -> None:
        """Checks the settings."""
        super().__post_init__()
        check_positive(self, "radius")
        check_choice("angle", self.angle, ("circle", "unit"))

    @property
    def family(self) -> Family:
        """Goals in a disk, or log-uniform factors."""
        if self.variation == "goal":
            return families.disk(self.radius, angle=self.angle)
        return self._factors("leg_length")

    @property
    def bounds(self) -> tuple[float, float]:
        """Of a coordinate of the goal, or of factors."""
        return (-self.radius, self.radius) if self.variation == "goal" else super().bounds

    @property
    def unseen(self) -> int:
        """The place, but for who has to go to one."""
        return 0 if self.variation == "goal" else 2

    @property
    def observation_size(self) -> int:
        """O = 113 (goal) or 27."""
        return 113 if self.variation == "goal" else 27

    def start(self, key: PRNGKey) -> tuple[Float[Array, "15"], Float[Array, "14"]]:
        """Upright, 0.75 m high and legs straight, each coordinate within 0.1 of that.

        The quaternion is not scaled back to unit length. Speeds have a standard deviation
        of 0.1.
        """
        qpos_key, qvel_key = jax.random.split(key)
        noise = jax.random.uniform(qpos_key, (15,), minval=-0.1, maxval=0.1)
        return self.mj_model.qpos0 + noise, 0.1 * jax.random.normal(qvel_key, (14,))

    def observe(self, physics: PhysicsState) -> Float[Array, " O"]:
        """Positions and velocities, and the contact forces if there is a goal."""
        joints = jnp.concatenate([physics.qpos[self.unseen :], physics.qvel])
        if self.variation != "goal":
            return joints
        forces = self._contact_forces(physics)
        return jnp.concatenate([joints, jnp.clip(forces, -1, 1).ravel()])

    def reward(
        self, before: BodyState, after: BodyState, action: Float[Array, "8"], task: Array
    ) -> Float[Array, ""]:
        """Nearness to the goal or speed along x, less the costs of control and contact."""
        forces = jnp.clip(self._contact_forces(after.physics), -1, 1)
        cost = _CONTROL_COST[self.variation] * jnp.sum(action**2)
        cost += _CONTACT_COST * jnp.sum(forces**2)
        if self.variation == "goal":
            return self._nearness(after, task) - cost
        velocity = (_place(after)[0] - _place(before)[0]) / self.dt
        low, high = _UPRIGHT
        upright = (after.physics.qpos[2] >= low) & (after.physics.qpos[2] <= high)
        return velocity - cost + upright

    def reward_down(self, state: BodyState, task: Array) -> Float[Array, ""]:
        """That of staying where it is, without the bonus for a sound body."""
        return self._nearness(state, task) if self.variation == "goal" else jnp.zeros(())

    def _nearness(self, state: BodyState, task: Array) -> Float[Array, ""]:
        return -jnp.abs(_place(state) - task).sum()


def _place(state: BodyState) -> Float[Array, "2"]:
    """Where the torso's frame is, which lags behind the joints as after ``mj_step``."""
    return state.physics.seen["xpos"][1, :2]
