"""Meta-episodes: K episodes of H steps on each of B tasks, and their boundaries.

Environments know one episode of one task. Here, and only here, it is decided what
happens between episodes (the task stays, the belief is kept) and between tasks (the
belief starts anew), and what the agent sees there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from roml_jax.checks import as_tasks
from roml_jax.returns import episode_returns, meta_returns
from roml_jax.trees import where_rows
from roml_jax.types import Agent, Extras, PRNGKey, TaskEnv, TimeStep, Transition


class Rollout(NamedTuple):
    """One meta-episode on each of B tasks; every observation is stored once.

    ``obs[k, 0]`` is the observation that the first action of episode k was chosen on,
    and ``obs[k, H]`` the terminal one. A terminated episode is padded to H steps: its
    state stands still, rewards are zero and ``valid`` is False.
    """

    obs: Float[Array, "K H1 B O"]  # with the done flag, if there is one
    action: Array  # int32 [T, B] or float32 [T, B, A], before any squash
    reward: Float[Array, "T B"]  # raw
    terminated: Bool[Array, "T B"]  # the task ended the episode at this step
    valid: Bool[Array, "T B"]  # False in the padding
    extras: PyTree  # [T, B, …], what the agent wanted stored
    info: dict[str, Array]  # [K, B], the environment's info at the end of each episode
    tasks: Float[Array, "B D"]
    carry: PyTree  # [B, …], the agent's memory after the last step
    start_unseen: Bool[Array, " K"]  # obs[k, 0] is obs[k - 1, H]: the agent saw no start
    told: Float[Array, "K H1 B C"] | None = None  # what the critic is told beside each
    # observation, and the agent is not: see ``Learner.informed``

    @property
    def path_obs(self) -> Float[Array, "K H1 B O"]:
        """Observations of each episode, to draw its path: no first one is of another episode.

        A start that nobody has seen is given by what the first step led to.
        """
        unseen = self.start_unseen[:, None, None]
        first = jnp.where(unseen, self.obs[:, 1], self.obs[:, 0])
        return jnp.concatenate([first[:, None], self.obs[:, 1:]], axis=1)

    @property
    def episodes(self) -> int:
        """K."""
        return self.obs.shape[0]

    @property
    def horizon(self) -> int:
        """H."""
        return self.obs.shape[1] - 1


def seen_obs(obs: Float[Array, "K H1 *rest"]) -> Float[Array, "T *rest"]:
    """Observations that the T actions were chosen on."""
    return jax.lax.collapse(obs[:, :-1], 0, 2)


def next_obs(obs: Float[Array, "K H1 *rest"]) -> Float[Array, "T *rest"]:
    """Observations that the T actions led to; the terminal one at an episode's end."""
    return jax.lax.collapse(obs[:, 1:], 0, 2)


def boundary_flags(episodes: int, horizon: int) -> tuple[Bool[Array, " T"], Bool[Array, " T"]]:
    """``(truncated, meta_end)`` of the T steps: the time limit's ends, and the last one."""
    steps = jnp.arange(episodes * horizon)
    truncated = (steps + 1) % horizon == 0
    return truncated, steps == episodes * horizon - 1


def rollout(
    key: PRNGKey,
    env: TaskEnv,
    agent: Agent,
    params: Any,
    tasks: Float[Array, "B D"],
    *,
    deterministic: bool = False,
    episodes: int | None = None,
) -> Rollout:
    """Runs one meta-episode on every task.

    Args:
      key: typed key; every reset, step and action draws from a key of its own.
      env: one environment, vmapped here over tasks.
      agent: the behaviour; its memory starts blank and is kept over the K episodes, and its
        ``boundary`` says what it sees between them.
      params: of the agent.
      tasks: ``[B, D]``.
      deterministic: act without sampling.
      episodes: K, at least 1; None for that of the environment.

    Returns:
      A ``Rollout``, in float32.

    Raises:
      ValueError: while tracing, if tasks are not rows of the environment's components, or there
        is no episode.
    """
    episodes = env.episodes if episodes is None else episodes
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1.")
    tasks = as_tasks(tasks, env.family.names)
    num_tasks, boundary = tasks.shape[0], agent.boundary
    reset_key, env_key, act_key, begin_key = jax.random.split(key, 4)
    shape = (episodes, env.horizon)
    reset_keys = jax.random.split(reset_key, (episodes, num_tasks))
    env_keys = jax.random.split(env_key, (*shape, num_tasks))
    act_keys = jax.random.split(act_key, shape)
    begin_keys = jax.random.split(begin_key, episodes)
    is_last = jnp.arange(env.horizon) == env.horizon - 1

    def flagged(obs: Array, done: Array) -> Array:
        obs = obs.astype(jnp.float32)
        if not boundary.done_flag:
            return obs
        return jnp.concatenate([obs, done[:, None].astype(obs.dtype)], axis=1)

    def step(loop: tuple, xs: tuple) -> tuple[tuple, tuple]:
        state, info, alive, obs, carry = loop
        act_key, env_key, last = xs
        action, extras = agent.act(params, carry, obs, act_key, deterministic)
        env_action = agent.env_action(action)
        new_state, out = jax.vmap(env.step)(env_key, state, env_action, tasks)
        state = where_rows(alive, new_state, state)
        info = where_rows(alive, out.info, info)
        reward = jnp.where(alive, out.reward, 0).astype(jnp.float32)
        terminated = alive & out.terminated
        new_obs = flagged(out.obs, last | terminated)
        new_obs = where_rows(alive, new_obs, obs)
        carry = agent.observe(params, carry, Transition(env_action, reward, new_obs, alive))
        loop = (state, info, alive & ~terminated, new_obs, carry)
        return loop, (new_obs, action, reward, terminated, alive, extras)

    def episode(loop: tuple, xs: tuple) -> tuple[tuple, tuple]:
        last_obs, carry, is_first = loop
        reset_keys, begin_key, *step_keys = xs
        state, start_obs = jax.vmap(env.reset)(reset_keys, tasks)
        obs = flagged(start_obs, jnp.zeros(num_tasks, bool))
        if boundary.observation == "terminal":
            obs = jnp.where(is_first, obs, last_obs)
        carry = agent.begin(params, carry, obs, begin_key)
        alive = jnp.ones(num_tasks, bool)
        info = _blank_info(env, agent, params, state, carry, obs, tasks)
        start = (state, info, alive, obs, carry)
        (_, info, _, last_obs, carry), steps = jax.lax.scan(step, start, (*step_keys, is_last))
        return (last_obs, carry, jnp.zeros((), bool)), (obs, info, steps)

    size = boundary.observation_size(env)
    loop = (
        jnp.zeros((num_tasks, size), jnp.float32),
        agent.init_carry(num_tasks),
        jnp.ones((), bool),
    )
    (_, carry, _), (first_obs, info, steps) = jax.lax.scan(
        episode, loop, (reset_keys, begin_keys, act_keys, env_keys)
    )
    obs, *per_step = steps
    flat = jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), per_step)
    action, reward, terminated, valid, extras = flat
    obs = jnp.concatenate([first_obs[:, None], obs], axis=1)
    unseen = (jnp.arange(episodes) > 0) & (boundary.observation == "terminal")
    return Rollout(obs, action, reward, terminated, valid, extras, info, tasks, carry, unseen)


def rollout_returns(rollout: Rollout) -> Float[Array, " B"]:
    """Return of each task: the mean over its K episodes, undiscounted."""
    return meta_returns(rollout.reward, rollout.episodes)


def rollout_episode_returns(rollout: Rollout) -> Float[Array, "K B"]:
    """Undiscounted return of each episode of each task."""
    return episode_returns(rollout.reward, rollout.episodes)


def rollout_extras(rollout: Rollout) -> Extras:
    """The environment's info at the end of each episode, ``[B, K, …]``, as ``Learner.extras``."""
    return {name: jnp.swapaxes(x, 0, 1) for name, x in rollout.info.items()}


def _blank_info(
    env: TaskEnv, agent: Agent, params: Any, state: Any, carry: Any, obs: Array, tasks: Array
) -> dict[str, Array]:
    """Zeros of the structure of ``TimeStep.info``, found without running a step."""

    def one_step(state: Any, obs: Array) -> TimeStep:
        act_key, env_key = jax.random.split(jax.random.key(0))
        action, _ = agent.act(params, carry, obs, act_key, True)
        keys = jax.random.split(env_key, tasks.shape[0])
        return jax.vmap(env.step)(keys, state, agent.env_action(action), tasks)[1]

    shapes = jax.eval_shape(one_step, state, obs)
    return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes.info)
