"""What the three bodies share: tasks, physics, and what happens when physics breaks down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from envs import families
from roml_jax.checks import check_at_least, check_choice
from roml_jax.types import Box, Family, PRNGKey, TimeStep

from .engines import ENGINES, EngineName, make_physics, resolve_engine
from .models import Body, check_skeleton, load_model
from .physics import Model, Physics, PhysicsState, is_sound
from .tasks import DERIVED, Derived, Scale, apply_task, nominal, refresh

FRAME_SKIP = 5  # physics steps per control step
_FACTORS = (0.5, 2.0)  # of masses and the like, unless a body says otherwise


class BodyState(NamedTuple):
    """What the next step needs to know."""

    physics: PhysicsState
    model: Model  # fields of the body that the task has changed
    steps: Int[Array, ""]  # made in this episode


@dataclass(frozen=True)
class BodyEnv:
    """A MuJoCo body whose task is hidden in its physics or in its reward.

    No episode ends before the horizon, also after a fall, with one exception: a simulation
    that diverges (infinite, NaN, or faster than anything real) ends at the last sound
    state, with the return that it would get for staying down until the horizon. ``info``
    then says ``diverged``; other worlds are not touched.

    Attributes:
      physics: the engine: auto, mjx, warp or mujoco, see ``envs.mujoco.engines``.
      derived: what follows from a changed body: raw, consistent or original, see
        ``envs.mujoco.tasks.refresh``.
      legacy_inertia: capsules weigh what they weighed in MuJoCo 2.0.
      contact_forces: compute the contact forces, which are zero in the original experiments.
      horizon: H, control steps of an episode.
      episodes: K, episodes of a meta-episode.
      clip_density: RoML weighs tasks by clipped densities, as the original code does; see
        ``families.beta``.
      model: MJCF file of a body of one's own in the place of gymnasium's: the same bodies, joints
        and motors, and the geoms that tasks change, by name and in order; all else may differ.
    """

    physics: EngineName = "auto"
    derived: Derived = "raw"
    legacy_inertia: bool = False
    contact_forces: bool = False
    horizon: int = 200
    episodes: int = 2
    clip_density: bool = True
    model: str | None = None

    body: ClassVar[Body]
    variations: ClassVar[dict[str, tuple[Scale, ...]]]  # what a task does to the model, by name
    seen: ClassVar[tuple[str, ...]] = ()  # fields of MjData that observations and rewards need

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_at_least(self, 1, "horizon", "episodes")
        check_choice("physics", self.physics, ENGINES)
        check_choice("derived", self.derived, DERIVED)
        check_choice("variation", self.variation, tuple(self.variations))
        if self.model is not None:
            file = str(Path(self.model).expanduser().resolve())
            object.__setattr__(self, "model", file)
            rows = {one.field: one.rows for one in self.changes if one.rows is not None}
            check_skeleton(self.body, file, rows)
        if self.derived == "original" and self.physics in ("mjx", "warp"):
            raise ValueError(
                "derived=original keeps contacts from being found, which only MuJoCo in C "
                f"does: choose physics mujoco; got {self.physics}"
            )

    # ---------------------------------------------------------------- what a body says

    @property
    def variation(self) -> str:
        """What differs between tasks, one of ``variations``."""
        raise NotImplementedError

    @property
    def family(self) -> Family:
        """The distribution of tasks."""
        raise NotImplementedError

    @property
    def observation_size(self) -> int:
        """O."""
        raise NotImplementedError

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest value of every component of a task."""
        return _FACTORS

    @property
    def unseen(self) -> int:
        """Number of leading positions, the place of the root, that observations leave out."""
        return 2

    def start(self, key: PRNGKey) -> tuple[Float[Array, " nq"], Float[Array, " nv"]]:
        """Random positions and velocities at the start of an episode."""
        raise NotImplementedError

    def observe(self, physics: PhysicsState) -> Float[Array, " O"]:
        """The observation."""
        raise NotImplementedError

    def reward(
        self, before: BodyState, after: BodyState, action: Float[Array, " A"], task: Array
    ) -> Float[Array, ""]:
        """The reward of a step."""
        raise NotImplementedError

    def reward_down(self, state: BodyState, task: Array) -> Float[Array, ""]:
        """The reward of a step of a body that lies still."""
        raise NotImplementedError

    # ---------------------------------------------------------------- what bodies share

    @property
    def changes(self) -> tuple[Scale, ...]:
        """What the task does to the model."""
        return self.variations[self.variation]

    @property
    def mj_model(self) -> Any:
        """The ``MjModel`` of the unchanged body, shared: treat it as read-only."""
        return load_model(
            self.body,
            file=self.model,
            legacy_inertia=self.legacy_inertia,
            contact_forces=self.contact_forces,
        )

    @property
    def engine(self) -> str:
        """The physics engine that is used here: mjx, warp or mujoco.

        Raises:
          ImportError: it is not installed.
        """
        return resolve_engine("mujoco" if self.derived == "original" else self.physics)

    def speed_of(self, obs: Any) -> Any:
        """Speed of the root along x, in m/s, that observations ``[..., O]`` tell of: ``[...]``."""
        return obs[..., int(self.mj_model.nq) - self.unseen]

    @property
    def dt(self) -> float:
        """Seconds of a control step."""
        return FRAME_SKIP * float(self.mj_model.opt.timestep)

    # ---------------------------------------------------------------- TaskEnv

    @property
    def action_space(self) -> Box:
        """Torques in units of the motors' gears, clamped by the engine to its range."""
        return Box(int(self.mj_model.nu), *map(float, self.mj_model.actuator_ctrlrange[0]))

    def reset(self, key: PRNGKey, task: Float[Array, " D"]) -> tuple[BodyState, Float[Array, " O"]]:
        """Starts an episode on the body that the task makes.

        Args:
          key: PRNG key.
          task: see ``family``.

        Returns:
          The state, and its observation.
        """
        qpos, qvel = self.start(key)
        fields = apply_task(nominal(self.mj_model, self.changes, self.derived), task, self.changes)
        fields = refresh(fields, self.mj_model, self.derived)
        physics = self._physics.reset(fields, qpos, qvel)
        return BodyState(physics, fields, jnp.zeros((), jnp.int32)), self.observe(physics)

    def step(
        self, key: PRNGKey, state: BodyState, action: Float[Array, " A"], task: Float[Array, " D"]
    ) -> tuple[BodyState, TimeStep]:
        """Advances one control step.

        Args:
          key: not used: the physics is deterministic.
          state: from ``reset`` or ``step``.
          action: the controls, unclamped, as costs see them. One that is not finite counts as
            diverged, in every engine; the engine gets zeros in its place.
          task: see ``family``.

        Returns:
          The next state, and its ``TimeStep``; ``info`` holds ``diverged`` (0 or 1), and the
          position ``x``, ``y`` and ``height`` of the body's root, in metres.
        """
        del key
        finite = jnp.isfinite(action).all()
        control = jnp.where(finite, action, 0)
        physics = self._physics.step(state.model, state.physics, control)
        sound = finite & is_sound(physics)
        physics = jax.tree.map(lambda new, old: jnp.where(sound, new, old), physics, state.physics)
        after = BodyState(physics, state.model, state.steps + 1)
        rest = (self.horizon - state.steps) * self.reward_down(state, task)
        reward = self.reward(state, after, control, task)
        sound &= jnp.isfinite(reward)  # a cost can overflow
        reward = jnp.where(sound, reward, rest)
        info = self._info(physics) | {"diverged": (~sound).astype(jnp.int32)}
        return after, TimeStep(self.observe(physics), reward, ~sound, info)

    # ---------------------------------------------------------------- parts

    @property
    def _physics(self) -> Physics:
        return make_physics(
            self.body,
            self.engine,
            file=self.model,
            frame_skip=FRAME_SKIP,
            seen=(*self.seen, "cfrc_ext") if self.contact_forces else self.seen,
            legacy_inertia=self.legacy_inertia,
            contact_forces=self.contact_forces,
        )

    def _factors(self, third: str) -> Family:
        """Log-uniform factors of mass, or of body: on masses, damping, and a third thing."""
        names = ("mass", "damping", third)[: 1 if self.variation == "mass" else 3]
        return families.log2_beta(
            -1.0, 1.0, len(names), names=names, clip_density=self.clip_density
        )

    def _contact_forces(self, physics: PhysicsState) -> Float[Array, "nbody 6"]:
        """External torques and forces on the bodies; zero unless the setting asks for them."""
        if self.contact_forces:
            return physics.seen["cfrc_ext"]
        return jnp.zeros((self.mj_model.nbody, 6))

    def _info(self, physics: PhysicsState) -> dict[str, Array]:
        """Where the root is: a free joint's first three coordinates."""
        x, y, height = physics.qpos[:3]
        return {"x": x, "y": y, "height": height}
