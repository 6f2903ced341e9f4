"""A point in the plane that seeks a goal it cannot see.

The smallest world in which a task must be found out before it can be done, and one whose best
return is known in closed form (``Point.best_return``), so that a learner can be measured by
what is left to gain.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from envs import families
from roml_jax.checks import check_at_least, check_choice, check_in, check_positive
from roml_jax.types import Box, Family, PRNGKey, TimeStep

GOALS = ("disk", "half-circle")
Goals: TypeAlias = Literal["disk", "half-circle"]


class PointState(NamedTuple):
    """What the next step needs to know."""

    xy: Float[Array, "2"]  # position


@dataclasses.dataclass(frozen=True)
class Point:
    """The point, its goals and its rewards.

    Tasks, by ``goals``:

    * disk: ``float32[2]``, the goal, uniform over the disk of ``radius`` around the start.
    * half-circle: ``float32[1]``, the angle of the goal on the circle of ``radius``, uniform in
      ``[0, π]``.

    Actions: ``float32[2]``, clipped to ±1 in each component; 1 moves the point by
    ``step_size`` along that axis. The origin is the start of every episode, which lasts
    ``horizon`` steps: ``terminated`` is never set.

    Reward, at the place after the step: minus the distance to the goal (disk), or 1 minus that
    distance within ``goal_radius`` of the goal and 0 elsewhere (half-circle).

    Observation: ``float32[2]``, the position.

    Attributes:
      goals: where goals are; on the half circle the reward is sparse.
      radius: of the disk, or of the half circle.
      goal_radius: distance at which a goal is reached, in (0, 1].
      step_size: longest move along an axis.
      horizon: H, steps of an episode.
      episodes: K, episodes of a meta-episode.

    Reference: Rakelly et al. (2019), "Efficient Off-Policy Meta-Reinforcement Learning via
      Probabilistic Context Variables", Section 6.3, for the half circle and its sparse reward.
    Differs from it: tasks are drawn anew, not from a fixed set; and the policy, too, learns from
      the sparse reward, for which the original code takes the dense one in training.
    """

    goals: Goals = "disk"
    radius: float = 1.0
    goal_radius: float = 0.2
    step_size: float = 0.1
    horizon: int = 20
    episodes: int = 2

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_choice("goals", self.goals, GOALS)
        check_positive(self, "radius", "step_size")
        # Further away, a goal that is reached would be worth less than one that is not.
        check_in("goal_radius", self.goal_radius, "(0, 1]", "the distance that reaches a goal")
        check_at_least(self, 1, "horizon", "episodes")

    @property
    def family(self) -> Family:
        """Goals in the disk, or their angles in ``[0, π]``; uniform, and tilted."""
        if self.goals == "disk":
            return families.disk(self.radius, eps=0.02)
        return families.beta(0.0, math.pi, name="angle")

    @property
    def observation_size(self) -> int:
        """O = 2, the position."""
        return 2

    @property
    def action_space(self) -> Box:
        """A move along each axis, in units of ``step_size``."""
        return Box(2)

    def reset(self, key: PRNGKey, task: Float[Array, " D"]) -> tuple[PointState, Float[Array, "2"]]:
        """Starts an episode at the origin.

        Args:
          key: not used; nothing here is random.
          task: not used; the start does not tell where the goal is.

        Returns:
          The state, and the position.
        """
        del key, task
        xy = jnp.zeros(2, jnp.float32)
        return PointState(xy), xy

    def step(
        self, key: PRNGKey, state: PointState, action: Float[Array, "2"], task: Float[Array, " D"]
    ) -> tuple[PointState, TimeStep]:
        """Advances one step.

        Args:
          key: not used; nothing here is random.
          state: from ``reset`` or ``step``.
          action: moves along x and y, clipped to ±1.
          task: the goal, or its angle.

        Returns:
          The next state, and its ``TimeStep``; ``info`` holds the ``distance`` to the goal, and
          whether it is ``reached`` (0 or 1), both after the step.
        """
        del key
        xy = state.xy + self.step_size * jnp.clip(action, -1.0, 1.0)
        distance = jnp.linalg.norm(xy - self.goal(task))
        info = {"distance": distance, "reached": self._near(distance).astype(jnp.int32)}
        return PointState(xy), TimeStep(xy, self._reward(distance), jnp.zeros((), bool), info)

    def goal(self, task: Float[Array, " D"]) -> Float[Array, "2"]:
        """Where the goal of a task is.

        Args:
          task: the goal itself (disk), or its angle (half-circle).
        """
        if self.goals == "disk":
            return task
        angle = task[0]
        return self.radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def best_return(self, task: Float[Array, " D"]) -> Float[Array, ""]:
        """The highest return of an episode, for an agent who knows the goal g.

        After t steps of size s the point can be anywhere in the square ``|x|, |y| <= s t``, for
        each axis has a step of its own: the goal is attained after ``max(|g_x|, |g_y|) / s``
        steps, rounded up. Neither reward grows with the distance, so that no step can pay more
        than in the place of that square which is nearest to the goal: g, clipped to it. The
        greedy agent, ``a = (g - xy) / s``, is there after every step, so the bound is attained::

            sum over t = 1 … H of reward(d_t),   d_t = |(|g| - s t)_+|

        Args:
          task: the goal, or its angle.

        Returns:
          The undiscounted sum of an episode's rewards; the return of a meta-episode, which is
          the mean over its episodes, cannot be higher either.
        """
        reach = self.step_size * jnp.arange(1, self.horizon + 1, dtype=jnp.float32)
        away = jnp.maximum(jnp.abs(self.goal(task))[None] - reach[:, None], 0.0)
        return self._reward(jnp.linalg.norm(away, axis=1)).sum()

    def _near(self, distance: Float[Array, "..."]) -> Bool[Array, "..."]:
        """Whether a distance to the goal is one at which it is reached."""
        return distance <= self.goal_radius

    def _reward(self, distance: Float[Array, "..."]) -> Float[Array, "..."]:
        """What a step pays that ends at a distance from the goal."""
        if self.goals == "disk":
            return -distance
        return jnp.where(self._near(distance), 1.0 - distance, 0.0)
