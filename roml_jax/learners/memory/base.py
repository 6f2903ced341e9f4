"""What an on-policy agent remembers, and how that is learned: the seam between the two.

The policy sees a memory as a vector beside the observation. How this vector comes from the
transitions so far, and what it is trained for, is each memory's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from roml_jax.encoder import HistoryEncoder
from roml_jax.rollout import next_obs
from roml_jax.types import (
    Boundary,
    Discrete,
    Metrics,
    PRNGKey,
    TaskEnv,
    Transition,
    no_task_axes,
)


class Trajectory(NamedTuple):
    """What a memory learns from: one meta-episode (batches carry a leading axis)."""

    obs: Float[Array, "K H1 O"]  # with the done flag, as in ``Rollout``
    action: Float[Array, "T A"]  # as the environment received it; an index as a float
    reward: Float[Array, " T"]  # raw
    valid: Bool[Array, " T"]
    task: Float[Array, " D"]


class Memory(NamedTuple):
    """What an agent remembers of its task, and how that is learned.

    Attributes:
      size: M, components of what the policy sees of it; 0 for an agent without a memory.
      init: ``key -> state``.
      params: ``state -> params``, what remembering needs of the state.
      init_carry: ``n -> carry``, the memories of n agents who know nothing of their task.
      read: ``(params, carry) -> [n, M]``, what the policy sees.
      observe: ``(params, carry, transition) -> carry``; the action in the transition is that
        of the environment.
      store: ``(state, trajectories) -> state`` takes in a rollout, with leaves ``[B, …]``.
      improve: ``(key, state) -> (state, metrics)``, its own learning in one training step.
      recall: ``(params, trajectories) -> [T, B, M]``, what ``read`` gave before each step, as a
        function of the parameters: the policy's loss then trains them too, and the state of
        such a memory is its parameters. None if no gradient of the policy reaches the memory.
      task_axes: ``state -> axes``, as ``Learner.task_axes``.
    """

    size: int
    init: Callable[[PRNGKey], Any]
    params: Callable[[Any], PyTree]
    init_carry: Callable[[int], PyTree]
    read: Callable[[PyTree, PyTree], Float[Array, "n M"]]
    observe: Callable[[PyTree, PyTree, Transition], PyTree]
    store: Callable[[Any, Trajectory], Any]
    improve: Callable[[PRNGKey, Any], tuple[Any, Metrics]]
    recall: Callable[[PyTree, Trajectory], Float[Array, "T B M"]] | None = None
    task_axes: Callable[[Any], Any] = no_task_axes


def remembered_action(env: TaskEnv, action: Array) -> Float[Array, "... A"]:
    """The action as a memory sees it: a vector, or an index as one float."""
    if isinstance(env.action_space, Discrete):
        return action[..., None].astype(jnp.float32)
    return action


def remembered_size(env: TaskEnv) -> int:
    """A, components of ``remembered_action``."""
    space = env.action_space
    return 1 if isinstance(space, Discrete) else space.size


def history_observer(
    env: TaskEnv, encoder: HistoryEncoder
) -> Callable[[PyTree, Array, Transition], Array]:
    """``Memory.observe`` of a hidden state ``[n, E]``: one step, but where an episode is over."""

    def observe(params: PyTree, carry: Array, transition: Transition) -> Array:
        action = remembered_action(env, transition.action)
        new = encoder.apply(
            params, carry, action, transition.reward, transition.next_obs, method="step"
        )
        return jnp.where(transition.valid[:, None], new, carry)

    return observe


def trajectory_shape(env: TaskEnv, boundary: Boundary) -> Trajectory:
    """One trajectory of an environment, as ``ShapeDtypeStruct``."""
    steps = env.episodes * env.horizon

    def one() -> Trajectory:
        obs = (env.episodes, env.horizon + 1, boundary.observation_size(env))
        return Trajectory(
            jnp.zeros(obs, jnp.float32),
            jnp.zeros((steps, remembered_size(env)), jnp.float32),
            jnp.zeros(steps, jnp.float32),
            jnp.zeros(steps, bool),
            jnp.zeros(len(env.family.names), jnp.float32),
        )

    return jax.eval_shape(one)


def time_major(trajectories: Trajectory) -> tuple[Array, Array, Array, Array]:
    """``(action, reward, next_obs, valid)`` of trajectories, with leaves ``[T, B, …]``."""
    after = jax.vmap(next_obs)(trajectories.obs)
    parts = (trajectories.action, trajectories.reward, after, trajectories.valid)
    action, reward, after, valid = (jnp.swapaxes(x, 0, 1) for x in parts)
    return action, reward, after, valid
