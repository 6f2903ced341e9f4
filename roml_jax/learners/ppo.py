"""Memory-less PPO: a policy that sees the current observation alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.checks import check_at_least
from roml_jax.learners.policy import (
    PolicyConfig,
    PolicyParams,
    PolicyState,
    act_on,
    after_warmup,
    check_sizes,
    improve_policy,
    init_policy,
    make_network,
    to_env_action,
)
from roml_jax.rollout import Boundary, Rollout, rollout, rollout_returns
from roml_jax.types import Agent, Learner, Metrics, PRNGKey, TaskEnv, Transition


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the memory-less learner.

    Attributes:
      num_tasks: B, tasks of a training step.
      warmup_frames: frames before the first update.
      boundary: what the agent sees between episodes.
      policy: the policy's own settings.
    """

    num_tasks: int = 32
    warmup_frames: int = 0
    boundary: Boundary = Boundary()
    policy: PolicyConfig = field(default_factory=PolicyConfig)

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_at_least(self, 1, "num_tasks")
        check_at_least(self, 0, "warmup_frames")


class PPOState(NamedTuple):
    """State of the memory-less learner."""

    policy: PolicyState
    frames: Float[Array, ""]  # environment steps so far


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
    frames = check_sizes(env, config.num_tasks, config.policy)
    network = make_network(env, config.policy)
    obs_size = config.boundary.observation_size(env)

    def act(
        params: PolicyParams, carry: Any, obs: Array, key: PRNGKey, deterministic: bool
    ) -> tuple[Array, Array]:
        belief = jnp.zeros((obs.shape[0], 0))
        del carry
        return act_on(network, params, config.policy, obs, belief, key, deterministic), belief

    def observe(params: PolicyParams, carry: tuple, transition: Transition) -> tuple:
        del params, transition
        return carry

    agent = Agent(lambda n: (), act, observe, partial(to_env_action, config.policy))

    def init(key: PRNGKey) -> PPOState:
        return PPOState(init_policy(key, network, config.policy, obs_size, 0), jnp.zeros(()))

    def collect(key: PRNGKey, state: PPOState, tasks: Array) -> tuple[PPOState, Rollout, Array]:
        data = rollout(key, env, agent, state.policy.params, tasks, boundary=config.boundary)
        return state._replace(frames=state.frames + frames), data, rollout_returns(data)

    def update(
        key: PRNGKey, state: PPOState, data: Rollout, mask: Array
    ) -> tuple[PPOState, Metrics]:
        blind = jnp.zeros((data.reward.shape[0] + 1, data.reward.shape[1], 0))
        args = (network, config.policy, state.policy, data, blind, mask)
        new_policy, metrics = improve_policy(key, *args)
        policy = after_warmup(state.frames >= config.warmup_frames, new_policy, state.policy)
        return state._replace(policy=policy), metrics

    return Learner(
        init, collect, update, agent, lambda s: s.policy.params, config.num_tasks, frames
    )
