"""Memory-less PPO: a policy that sees the current observation alone."""

from __future__ import annotations

from dataclasses import dataclass, field

from roml_jax.checks import check_at_least
from roml_jax.learners.memory import blank
from roml_jax.learners.on_policy import on_policy
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.types import Boundary, Learner, TaskEnv


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the memory-less learner.

    Attributes:
      num_tasks: B, tasks of a training step.
      warmup_frames: frames before the first update.
      boundary: what the agent sees between episodes.
      policy: the policy's own settings.
      groups: of the tasks, which deal minibatches apart from each other, so that many devices need
        not exchange rollouts; divides num_tasks.
    """

    num_tasks: int = 32
    warmup_frames: int = 0
    boundary: Boundary = Boundary()
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    groups: int = 1

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_at_least(self, 1, "num_tasks", "groups")
        check_at_least(self, 0, "warmup_frames")


def ppo(env: TaskEnv, config: PPOConfig = PPOConfig()) -> Learner:
    """Memory-less PPO: a policy that cannot tell one task from another but by what it sees.

    Args:
      env: the environment.
      config: the settings.

    Returns:
      A ``Learner``.

    Raises:
      ValueError: if the minibatches do not divide the frames of a training step.

    Reference: Schulman et al. (2017); the body of CeSoR and PAIRED in Section 6.
    """
    return on_policy(
        env,
        blank(),
        config.policy,
        num_tasks=config.num_tasks,
        warmup_frames=config.warmup_frames,
        boundary=config.boundary,
        groups=config.groups,
    )
