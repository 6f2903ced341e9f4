"""VariBAD: a recurrent variational belief over the task, and PPO on top of it.

Reference: Zintgraf et al. (2020), "VariBAD: A Very Good Method for Bayes-Adaptive
Deep RL via Meta-Learning"; the settings of *Train Hard, Fight Easy*.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from roml_jax.checks import check_at_least
from roml_jax.learners.memory import BeliefConfig, belief
from roml_jax.learners.on_policy import on_policy
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.types import Boundary, Learner, TaskEnv


@dataclass(frozen=True)
class VariBADConfig:
    """Settings of VariBAD on PPO.

    Attributes:
      num_tasks: B, tasks of a training step.
      warmup_frames: frames before the first update of policy and belief.
      boundary: what the agent sees between episodes.
      policy: the policy's own settings.
      belief: the belief's own settings.
      groups: of the tasks, which deal minibatches apart from each other, so that many devices need
        not exchange rollouts; divides num_tasks.
    """

    num_tasks: int = 32
    warmup_frames: int = 5000
    boundary: Boundary = Boundary()
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    belief: BeliefConfig = field(default_factory=BeliefConfig)
    groups: int = 1

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_at_least(self, 1, "num_tasks", "groups")
        check_at_least(self, 0, "warmup_frames")


def varibad(env: TaskEnv, config: VariBADConfig = VariBADConfig()) -> Learner:
    """VariBAD on PPO.

    The policy sees the posterior's mean and log-variance beside the observation. No
    gradient of the policy reaches the encoder. The belief starts from the learned prior
    on every new task and is kept over its K episodes.

    Args:
      env: the environment.
      config: the settings.

    Returns:
      A ``Learner``. The belief learns from all tasks, the policy by their weights.

    Raises:
      ValueError: if sizes do not fit together.

    Reference: Zintgraf et al. (2020), Algorithm 1 and Eqs. (6)–(8). Differs from the
      original code: the newest trajectories can be sampled at once, and evaluation
      does not change the training's reward scale.
    """
    return on_policy(
        env,
        belief(env, config.belief, config.boundary, config.num_tasks, config.groups),
        config.policy,
        num_tasks=config.num_tasks,
        warmup_frames=config.warmup_frames,
        boundary=config.boundary,
        groups=config.groups,
    )
