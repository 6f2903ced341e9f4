"""HalfCheetah: run, in a plane, with a body or towards a speed that one does not know."""

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

_GEOMS, _HEAD = tuple(range(1, 9)), (2,)  # all but the floor
_RADIUS, _HALF_LENGTH = 0, 1  # columns of geom_size
_CONTROL_COST = 0.05
_DOWN = -0.6  # m, height of the root above its nominal one when the cheetah lies on its back

# The ten factors of each variation, in order. Those that change nothing that moves have no
# field: visual ones, fields of zeros, and mixing weights that are equal for both partners.
TEN_FACTORS: dict[str, dict[str, bool]] = {
    "10d-a": {
        "actuator_gear": True,
        "actuator_lengthrange": False,
        "body_inertia": True,
        "cam_ipd": False,
        "geom_solmix": False,
        "geom_solref": True,
        "jnt_margin": False,
        "jnt_stiffness": True,
        "light_pos": False,
        "mat_rgba": False,
    },
    "10d-b": {
        "cam_ipd": False,
        "cam_mat0": False,
        "dof_frictionloss": False,
        "dof_solref": False,
        "geom_friction": True,
        "geom_gap": False,
        "geom_rbound": True,
        "geom_solimp": True,
        "light_specular": False,
        "mat_shininess": False,
    },
    "10d-c": {
        "body_ipos": True,
        "body_mass": True,
        "body_pos": True,
        "geom_gap": False,
        "geom_margin": False,
        "jnt_range": True,
        "jnt_solref": True,
        "jnt_stiffness": True,
        "light_specular": False,
        "mat_emission": False,
    },
}

_MASS = (Scale("body_mass", 0), Scale("geom_size", 0, _GEOMS, _RADIUS))
_CHANGES: dict[str, tuple[Scale, ...]] = {
    "vel": (),
    "mass": _MASS,
    "body": (*_MASS, Scale("dof_damping", 1), Scale("geom_size", 2, _HEAD, _HALF_LENGTH)),
} | {
    name: tuple(Scale(field, i) for i, (field, moves) in enumerate(factors.items()) if moves)
    for name, factors in TEN_FACTORS.items()
}


@dataclass(frozen=True)
class HalfCheetah(BodyEnv):
    """The HalfCheetah task environments.

    Tasks, by ``variation``:

    * vel: ``float32[1]``, the speed to run at, uniform in ``[0, max_velocity]`` m/s.
    * mass: ``float32[1]``, a factor ``2**U[-1, 1]`` on all masses and on the geoms' radii.
    * body: ``float32[3]``, factors ``2**U[-1, 1]`` on masses and radii, on the joints'
      damping, and on the length of the head.
    * 10d-a, 10d-b, 10d-c: ``float32[10]``, factors ``2**U[-0.5, 0.5]`` on ten fields of the
      model, see ``TEN_FACTORS``; four, three and six of them change the motion, the bounds
      of 10d-b only with ``derived="original"``.

    Reward: ``-|v - v*|`` (vel), or ``v`` plus the height of the root over its nominal one (all
    others), minus ``0.05 |a|²``; ``v`` is the speed of the root over the step, in m/s, and
    the action is not clamped in its cost.

    Observation: ``float32[20]``: positions without the root's x (8), velocities (9), and the
    torso's position (3), which lags by one physics step, as after ``mj_step``.

    Actions: ``float32[6]``, torques of back and front thigh, shin and foot, clamped to ±1.

    Attributes:
      variation: what differs between tasks.
      max_velocity: the highest speed of ``vel``, in m/s.

    Reference: Greenberg et al. (2023), Section 6.2 and Appendix D.2; the rules are those of
      the original code.
    """

    variation: Literal["vel", "mass", "body", "10d-a", "10d-b", "10d-c"] = "mass"
    max_velocity: float = 7.0

    body: ClassVar[Body] = "half_cheetah"
    variations: ClassVar[dict[str, tuple[Scale, ...]]] = _CHANGES
    seen: ClassVar[tuple[str, ...]] = ("xpos",)

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
        if self.variation in TEN_FACTORS:
            names = tuple(TEN_FACTORS[self.variation])
            return families.log2_beta(
                -0.5, 0.5, len(names), names=names, clip_density=self.clip_density
            )
        return self._factors("head_size")

    @property
    def bounds(self) -> tuple[float, float]:
        """Of a speed, or of factors."""
        if self.variation == "vel":
            return 0.0, self.max_velocity
        return (2**-0.5, 2**0.5) if self.variation in TEN_FACTORS else super().bounds

    @property
    def unseen(self) -> int:
        """The place x: the body lives in a plane."""
        return 1

    @property
    def observation_size(self) -> int:
        """O = 20."""
        return 20

    def start(self, key: PRNGKey) -> tuple[Float[Array, "9"], Float[Array, "9"]]:
        """All joints near zero: uniform within 0.1, speeds of standard deviation 0.1."""
        qpos_key, qvel_key = jax.random.split(key)
        qpos = jax.random.uniform(qpos_key, (9,), minval=-0.1, maxval=0.1)
        return qpos, 0.1 * jax.random.normal(qvel_key, (9,))

    def observe(self, physics: PhysicsState) -> Float[Array, "20"]:
        """Positions, velocities and the torso's frame."""
        return jnp.concatenate([physics.qpos[self.unseen :], physics.qvel, physics.seen["xpos"][1]])

    def reward(
        self, before: BodyState, after: BodyState, action: Float[Array, "6"], task: Array
    ) -> Float[Array, ""]:
        """Speed, or nearness to the speed of the task, less the control cost."""
        velocity = (after.physics.qpos[0] - before.physics.qpos[0]) / self.dt
        cost = _CONTROL_COST * jnp.sum(action**2)
        return self._progress(velocity, after.physics.qpos[1], task) - cost

    def reward_down(self, state: BodyState, task: Array) -> Float[Array, ""]:
        """That of lying on the back."""
        del state
        return self._progress(jnp.zeros(()), jnp.asarray(_DOWN), task)

    def _progress(self, velocity: Array, height: Array, task: Array) -> Float[Array, ""]:
        if self.variation == "vel":
            return -jnp.abs(velocity - task[0])
        return velocity + height

    def _info(self, physics: PhysicsState) -> dict[str, Array]:
        x, height = physics.qpos[:2]
        return {"x": x, "y": jnp.zeros_like(x), "height": height + 0.7}
