"""VariBAD: a recurrent variational belief over the task, and PPO on top of it.

Reference: Zintgraf et al. (2020), "VariBAD: A Very Good Method for Bayes-Adaptive
Deep RL via Meta-Learning"; the settings of *Train Hard, Fight Easy*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from roml_jax.buffers import TrajectoryBuffer, add_block, init_buffer, sample_trajectories
from roml_jax.checks import check_at_least
from roml_jax.learners.belief import (
    BeliefConfig,
    BeliefModel,
    BeliefState,
    Trajectory,
    improve_belief,
    init_belief,
    make_model,
)
from roml_jax.learners.policy import (
    PolicyConfig,
    PolicyParams,
    PolicyState,
    act_on,
    after_warmup,
    check_sizes,
    improve_policy,
    init_policy,
    keep_unless,
    make_network,
    to_env_action,
)
from roml_jax.rollout import Boundary, Rollout, rollout, rollout_returns
from roml_jax.types import Agent, Discrete, Learner, Metrics, PRNGKey, TaskEnv, Transition


@dataclass(frozen=True)
class VariBADConfig:
    """Settings of VariBAD on PPO.

    Attributes:
      num_tasks: B, tasks of a training step.
      warmup_frames: frames before the first update of policy and belief.
      boundary: what the agent sees between episodes.
      policy: the policy's own settings.
      belief: the belief's own settings.
    """

    num_tasks: int = 32
    warmup_frames: int = 5000
    boundary: Boundary = Boundary()
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    belief: BeliefConfig = field(default_factory=BeliefConfig)

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_at_least(self, 1, "num_tasks")
        check_at_least(self, 0, "warmup_frames")


class VariBADParams(NamedTuple):
    """What acting needs."""

    policy: PolicyParams
    encoder: PyTree


class VariBADState(NamedTuple):
    """State of the learner."""

    policy: PolicyState
    belief: BeliefState
    buffer: TrajectoryBuffer  # of Trajectory
    frames: Float[Array, ""]  # environment steps so far


def varibad(env: TaskEnv, config: VariBADConfig = VariBADConfig()) -> Learner:
    """VariBAD on PPO.

    The policy sees the posterior's mean and log-variance beside the observation. No
    gradient of the policy reaches the encoder. The belief starts from the learned prior
    on every new task and is kept over its K episodes.

    Args:
      env: the environment.
      config: the settings.

    Returns:
      A ``Learner``. The belief learns from all tasks, the policy from the selected ones.

    Raises:
      ValueError: if sizes do not fit together.

    Reference: Zintgraf et al. (2020), Algorithm 1 and Eqs. (6)–(8). Differs from the
      original code: the newest trajectories can be sampled at once, and evaluation
      does not change the training's reward scale.
    """
    frames = check_sizes(env, config.num_tasks, config.policy)
    _check_buffer(config)
    obs_size = config.boundary.observation_size(env)
    network = make_network(env, config.policy)
    model = make_model(config.belief, obs_size, len(env.family.names))
    agent = make_agent(env, config, model)

    def init(key: PRNGKey) -> VariBADState:
        policy_key, belief_key = jax.random.split(key)
        latent = 2 * config.belief.latent_size
        return VariBADState(
            init_policy(policy_key, network, config.policy, obs_size, latent),
            init_belief(belief_key, model, config.belief, obs_size, _action_size(env)),
            _empty_buffer(env, config),
            jnp.zeros(()),
        )

    def params(state: VariBADState) -> VariBADParams:
        return VariBADParams(state.policy.params, state.belief.params["encoder"])

    def collect(
        key: PRNGKey, state: VariBADState, tasks: Array
    ) -> tuple[VariBADState, Rollout, Array]:
        data = rollout(key, env, agent, params(state), tasks, boundary=config.boundary)
        block = to_trajectories(env, agent, data)
        state = state._replace(buffer=add_block(state.buffer, block), frames=state.frames + frames)
        return state, data, rollout_returns(data)

    def update(
        key: PRNGKey, state: VariBADState, data: Rollout, mask: Bool[Array, " B"]
    ) -> tuple[VariBADState, Metrics]:
        policy_key, belief_key = jax.random.split(key)
        last = model.encoder.apply(state.belief.params["encoder"], data.carry, method="belief")
        beliefs = jnp.concatenate([data.extras, last.vector()[None]])
        policy, metrics = improve_policy(
            policy_key, network, config.policy, state.policy, data, beliefs, mask
        )
        belief, belief_metrics = learn_belief(belief_key, model, config.belief, state)
        warm = state.frames >= config.warmup_frames
        filled = state.buffer.size >= config.belief.batch_size
        belief = keep_unless(warm & filled, belief, state.belief)
        policy = after_warmup(warm, policy, state.policy)
        return state._replace(policy=policy, belief=belief), metrics | belief_metrics

    return Learner(init, collect, update, agent, params, config.num_tasks, frames)


def make_agent(env: TaskEnv, config: VariBADConfig, model: BeliefModel) -> Agent:
    """The behaviour: its memory is the GRU's hidden state, which begins at zero."""
    network = make_network(env, config.policy)

    def init_carry(n: int) -> Array:
        return jnp.zeros((n, config.belief.hidden_size))

    def act(
        params: VariBADParams, carry: Array, obs: Array, key: PRNGKey, deterministic: bool
    ) -> tuple[Array, Array]:
        belief = model.encoder.apply(params.encoder, carry, method="belief").vector()
        args = (network, params.policy, config.policy, obs, belief)
        return act_on(*args, key, deterministic), belief

    def observe(params: VariBADParams, carry: Array, transition: Transition) -> Array:
        action = encoder_action(env, transition.action)
        new = model.encoder.apply(
            params.encoder, carry, action, transition.reward, transition.next_obs, method="step"
        )
        return jnp.where(transition.valid[:, None], new, carry)

    return Agent(init_carry, act, observe, partial(to_env_action, config.policy))


def encoder_action(env: TaskEnv, action: Array) -> Float[Array, "... A"]:
    """The action as the belief sees it: a vector, or an index as one float."""
    if isinstance(env.action_space, Discrete):
        return action[..., None].astype(jnp.float32)
    return action


def to_trajectories(env: TaskEnv, agent: Agent, data: Rollout) -> Trajectory:
    """A rollout as trajectories with leaves ``[B, …]`` for the buffer."""
    action = encoder_action(env, agent.env_action(data.action))
    return Trajectory(
        obs=jnp.moveaxis(data.obs, 2, 0),
        action=jnp.swapaxes(action, 0, 1),
        reward=data.reward.T,
        valid=data.valid.T,
        task=data.tasks,
    )


def learn_belief(
    key: PRNGKey, model: BeliefModel, config: BeliefConfig, state: VariBADState
) -> tuple[BeliefState, Metrics]:
    """The belief's updates of one training step, each on a fresh batch."""

    def one_update(belief: BeliefState, key: PRNGKey) -> tuple[BeliefState, Metrics]:
        sample_key, loss_key = jax.random.split(key)
        batch = sample_trajectories(sample_key, state.buffer, config.batch_size)
        return improve_belief(loss_key, model, config, belief, batch)

    keys = jax.random.split(key, config.updates)
    belief, metrics = jax.lax.scan(one_update, state.belief, keys)
    return belief, jax.tree.map(jnp.mean, metrics)


def _check_buffer(config: VariBADConfig) -> None:
    """Raises a ValueError if a batch is more than the buffer can hold in whole steps."""
    tasks, batch = config.num_tasks, config.belief.batch_size
    if config.belief.buffer_size // tasks * tasks < batch:
        raise ValueError(
            f"buffer_size must hold a batch of {batch} in whole steps of {tasks} tasks: at least "
            f"{-(-batch // tasks) * tasks}; got {config.belief.buffer_size}"
        )


def _empty_buffer(env: TaskEnv, config: VariBADConfig) -> TrajectoryBuffer:
    steps = env.episodes * env.horizon
    obs_size = config.boundary.observation_size(env)

    def one_trajectory() -> Trajectory:
        return Trajectory(
            jnp.zeros((env.episodes, env.horizon + 1, obs_size)),
            jnp.zeros((steps, _action_size(env))),
            jnp.zeros(steps),
            jnp.zeros(steps, bool),
            jnp.zeros(len(env.family.names)),
        )

    example = jax.eval_shape(one_trajectory)
    return init_buffer(example, config.belief.buffer_size, config.num_tasks)


def _action_size(env: TaskEnv) -> int:
    space = env.action_space
    return 1 if isinstance(space, Discrete) else space.size
