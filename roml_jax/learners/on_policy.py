"""The one on-policy learner: PPO, on top of whatever an agent remembers."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from roml_jax.checks import as_weights
from roml_jax.groups import apart, check_groups, each, together
from roml_jax.learners.memory.base import Memory, Trajectory, remembered_action
from roml_jax.learners.policy import policy
from roml_jax.learners.policy_parts import PolicyConfig, PolicyParams, PolicyState
from roml_jax.rollout import Rollout, rollout, rollout_extras, rollout_returns
from roml_jax.trees import finite_rows, keep_unless, where_rows
from roml_jax.types import (
    Agent,
    Boundary,
    Learner,
    Metrics,
    PRNGKey,
    TaskEnv,
    Transition,
    no_task_axes,
)


class OnPolicyParams(NamedTuple):
    """What acting needs."""

    policy: PolicyParams
    memory: PyTree


class OnPolicyState(NamedTuple):
    """State of an on-policy learner."""

    policy: PolicyState
    memory: Any  # of the memory
    frames: Float[Array, ""]  # environment steps so far, exact in a warm-up of any sane length


def on_policy(
    env: TaskEnv,
    memory: Memory,
    config: PolicyConfig,
    *,
    num_tasks: int,
    warmup_frames: int = 0,
    boundary: Boundary = Boundary(),
    groups: int = 1,
    told: int = 0,
) -> Learner:
    """PPO over meta-episodes, for agents who remember something, or nothing.

    Args:
      env: the environment.
      memory: what the agent remembers, and how that is learned.
      config: the policy's settings.
      num_tasks: B, tasks of a training step.
      warmup_frames: frames before the first update of policy and memory.
      boundary: what the agent sees between episodes, as the memory was told.
      groups: G, of the tasks, as the memory was told, see ``roml_jax.groups``.
      told: numbers that the critic is told beside each observation, see ``Learner.informed``.

    Returns:
      A ``Learner``. The policy learns from tasks by their weights. Its extras are the
      environment's info at the end of each episode, ``[B, K, …]``.

    Raises:
      ValueError: the minibatches do not divide the frames, or the tasks, of a group in a training
        step, or the groups not the tasks.

    Reference: Schulman et al. (2017); Zintgraf et al. (2020), Algorithm 1.
    """
    frames = _check_sizes(env, num_tasks, config, memory.recall is not None, groups)
    actor = policy(env, config, boundary.observation_size(env), memory.size, groups, told)

    def act(
        params: OnPolicyParams, carry: PyTree, obs: Array, key: PRNGKey, deterministic: bool
    ) -> tuple[Array, Array]:
        seen = memory.read(params.memory, carry)
        return actor.act(params.policy, obs, seen, key, deterministic), seen

    def observe(params: OnPolicyParams, carry: PyTree, transition: Transition) -> PyTree:
        return memory.observe(params.memory, carry, transition)

    agent = Agent(memory.init_carry, act, observe, actor.env_action, boundary=boundary)

    def split(key: PRNGKey) -> tuple[PRNGKey, PRNGKey]:
        """Keys of policy and memory; a blank memory draws nothing."""
        return tuple(jax.random.split(key)) if memory.size else (key, key)

    def init(key: PRNGKey) -> OnPolicyState:
        policy_key, memory_key = split(key)
        remembered = memory.init(memory_key)
        learned = () if memory.recall is None else remembered
        start = actor.init(policy_key, learned)
        return OnPolicyState(start, remembered, jnp.zeros((), jnp.float32))

    def params(state: OnPolicyState) -> OnPolicyParams:
        return OnPolicyParams(state.policy.params, memory.params(state.memory))

    def collect(
        key: PRNGKey, state: OnPolicyState, tasks: Array
    ) -> tuple[OnPolicyState, Rollout, Array]:
        data = rollout(key, env, agent, params(state), tasks)
        stored = memory.store(state.memory, to_trajectories(env, agent, data))
        state = state._replace(memory=stored, frames=state.frames + frames)
        return state, data, rollout_returns(data)

    def improve_policy(
        key: PRNGKey, state: OnPolicyState, data: Rollout, weights: Float[Array, " B"]
    ) -> tuple[PolicyState, Any, Metrics]:
        last = memory.read(memory.params(state.memory), data.carry)
        seen = jnp.concatenate([data.extras, last[None]])
        if memory.recall is None:
            new, _, metrics = actor.improve(key, state.policy, data, seen, weights)
            return new, state.memory, metrics
        recall = partial(_recall_some, memory, to_trajectories(env, agent, data), groups)
        return actor.improve(key, state.policy, data, seen, weights, state.memory, recall)

    def update(
        key: PRNGKey, state: OnPolicyState, data: Rollout, weights: Float[Array, " B"]
    ) -> tuple[OnPolicyState, Metrics]:
        weights = as_weights(weights, data.tasks.shape[0])
        policy_key, memory_key = split(key)
        new_policy, remembered, metrics = improve_policy(policy_key, state, data, weights)
        remembered, own_metrics = memory.improve(memory_key, remembered)
        warm = state.frames >= warmup_frames
        new_policy = _after_warmup(warm, new_policy, state.policy)
        remembered = keep_unless(warm, remembered, state.memory)
        return OnPolicyState(new_policy, remembered, state.frames), metrics | own_metrics

    def task_axes(state: OnPolicyState) -> OnPolicyState:
        return no_task_axes(state)._replace(memory=memory.task_axes(state.memory))

    informed = partial(
        on_policy,
        env,
        memory,
        config,
        num_tasks=num_tasks,
        warmup_frames=warmup_frames,
        boundary=boundary,
        groups=groups,
    )
    return Learner(
        init,
        collect,
        update,
        agent,
        params,
        num_tasks,
        frames,
        rollout_extras,
        task_axes,
        lambda n: informed(told=n),
    )


def to_trajectories(env: TaskEnv, agent: Agent, data: Rollout) -> Trajectory:
    """A rollout as trajectories with leaves ``[B, …]``.

    One that holds what is not finite is empty: nothing can be learned from it.
    """
    action = remembered_action(env, agent.env_action(data.action))
    trajectories = Trajectory(
        obs=jnp.moveaxis(data.obs, 2, 0),
        action=jnp.swapaxes(action, 0, 1),
        reward=data.reward.T,
        valid=data.valid.T,
        task=data.tasks,
    )
    empty = jax.tree.map(jnp.zeros_like, trajectories)._replace(task=data.tasks)
    return where_rows(finite_rows(trajectories), trajectories, empty)


def _recall_some(
    memory: Memory,
    trajectories: Trajectory,
    groups: int,
    params: PyTree,
    tasks: Int[Array, "*G b"],
) -> Float[Array, "T Gb M"]:
    """What the agents of some tasks remember, as a function of the memory's parameters."""
    assert memory.recall is not None

    def choose(tasks: Int[Array, " b"], trajectories: Trajectory) -> Trajectory:
        return jax.tree.map(lambda x: x[tasks], trajectories)

    chosen = each(choose, groups)(tasks, apart(trajectories, groups))
    return memory.recall(params, together(chosen, groups))


def _check_sizes(
    env: TaskEnv, num_tasks: int, config: PolicyConfig, whole: bool, groups: int
) -> int:
    """Frames of a training step, if its sizes fit together.

    Raises:
      ValueError: with the valid numbers of minibatches.
    """
    check_groups(groups, num_tasks=num_tasks)
    frames = num_tasks * env.episodes * env.horizon
    dealt, what = (num_tasks, "tasks") if whole else (frames, "frames")
    dealt, what = dealt // groups, f"{what} of a group" if groups > 1 else what
    if dealt % config.minibatches:
        valid = [m for m in range(1, 65) if dealt % m == 0]
        more = " …" if dealt > 64 else ""
        raise ValueError(
            f"minibatches must divide the {dealt} {what} of a training step: one of "
            f"{', '.join(map(str, valid))}{more}; got {config.minibatches}"
        )
    return frames


def _after_warmup(warm: Bool[Array, ""], new: PolicyState, old: PolicyState) -> PolicyState:
    """The new policy once ``warm``; before, only the running scale of rewards goes on."""
    return keep_unless(warm, new, old._replace(reward_moments=new.reward_moments))
