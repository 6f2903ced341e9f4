"""RL²: a recurrent policy that learns to learn, by reinforcement alone.

Reference: Duan et al. (2016), "RL²: Fast Reinforcement Learning via Slow Reinforcement
Learning"; Wang et al. (2016), "Learning to Reinforcement Learn".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from roml_jax.checks import check_at_least
from roml_jax.learners.memory import RecurrentConfig, recurrent
from roml_jax.learners.on_policy import on_policy
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.types import Boundary, Learner, TaskEnv


@dataclass(frozen=True)
class RL2Config:
    """Settings of RL² on PPO.

    Attributes:
      num_tasks: B, tasks of a training step; minibatches are dealt by task.
      warmup_frames: frames before the first update.
      boundary: what the agent sees between episodes.
      policy: the policy's own settings; ``minibatches`` must divide ``num_tasks``.
      memory: the recurrent memory's own settings.
      groups: of the tasks, which deal minibatches apart from each other, so that many devices need
        not exchange rollouts; divides num_tasks.
    """

    num_tasks: int = 32
    warmup_frames: int = 0
    boundary: Boundary = Boundary()
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    memory: RecurrentConfig = field(default_factory=RecurrentConfig)
    groups: int = 1

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_at_least(self, 1, "num_tasks", "groups")
        check_at_least(self, 0, "warmup_frames")


def rl2(env: TaskEnv, config: RL2Config = RL2Config()) -> Learner:
    """RL² on PPO: a GRU over the transitions of a task, trained by the policy's own loss.

    The memory is unrolled anew over whole meta-episodes in every minibatch, so that it is
    never stale, and gradients cross the ends of episodes. It starts blank on every new task
    and is kept over its K episodes.

    Args:
      env: the environment.
      config: the settings.

    Returns:
      A ``Learner``.

    Raises:
      ValueError: if the minibatches do not divide the tasks of a training step.

    Reference: Duan et al. (2016), Section 2. Differs: the policy sees the current observation
      beside the memory, which has seen it too; and rewards are normalised for the policy's
      loss, as in the other on-policy learners here.
    """
    return on_policy(
        env,
        recurrent(env, config.memory, config.boundary),
        config.policy,
        num_tasks=config.num_tasks,
        warmup_frames=config.warmup_frames,
        boundary=config.boundary,
        groups=config.groups,
    )
