"""Advantages and returns of meta-episodes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from roml_jax.checks import as_real, check_choice, check_shape

TimeLimit: TypeAlias = Literal["ignore", "bootstrap", "continue"]
TIME_LIMITS: tuple[TimeLimit, ...] = ("ignore", "bootstrap", "continue")


def gae(
    rewards: Float[Array, "T *batch"],
    values: Float[Array, "T *batch"],
    next_values: Float[Array, "T *batch"],
    *,
    terminated: Bool[Array, "T *batch"],
    cut: Bool[Array, "T *batch"],
    discount: float,
    trace_decay: float,
    ignored: Bool[Array, "T *batch"] | None = None,
) -> Float[Array, "T *batch"]:
    """Generalised advantage estimation with termination and cuts kept apart.

    ``delta_t = r_t + discount * (1 - terminated_t) * next_values_t - values_t`` and
    ``A_t = delta_t + discount * trace_decay * (1 - cut_t) * A_{t+1}``.

    Args:
      rewards: ``[T, …]``.
      values: ``[T, …]`` value of the observation that the action was chosen on.
      next_values: ``[T, …]`` value of the observation that the step led to.
      terminated: ``[T, …]`` True where nothing follows, so nothing is bootstrapped.
      cut: ``[T, …]`` True where step t + 1 belongs to another trajectory. Must be True
        wherever ``terminated`` is; the last step is always cut.
      discount: in [0, 1].
      trace_decay: lambda, in [0, 1].
      ignored: ``[T, …]`` True where the advantage is set to zero, so that step t - 1
        sees ``next_values`` alone.

    Returns:
      ``[T, …]`` advantages; ``advantage + value`` is the target of the critic.

    Raises:
      ValueError: while tracing, if there is no step, or shapes differ: a flag of ``[T]`` must be
        broadcast first.

    Reference: Schulman et al. (2016), Eq. (16).
    """
    rewards, values, next_values = (
        as_real(name, x)
        for name, x in (("rewards", rewards), ("values", values), ("next_values", next_values))
    )
    if not rewards.ndim or not rewards.shape[0]:
        raise ValueError(f"rewards must hold steps along its first axis; got {rewards.shape}")
    parts = {"values": values, "next_values": next_values, "terminated": terminated, "cut": cut}
    for name, part in (parts if ignored is None else parts | {"ignored": ignored}).items():
        check_shape(name, part, jnp.shape(rewards), "rewards")
    deltas = rewards + discount * jnp.where(terminated, 0.0, next_values) - values
    decay = jnp.where(cut, 0.0, discount * trace_decay)
    if ignored is not None:
        deltas = jnp.where(ignored, 0.0, deltas)
        decay = jnp.where(ignored, 0.0, decay)

    def step(advantage_tp1: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, decay_t = xs
        advantage_t = delta_t + decay_t * advantage_tp1
        return advantage_t, advantage_t

    _, advantages = jax.lax.scan(step, jnp.zeros_like(deltas[0]), (deltas, decay), reverse=True)
    return advantages


def meta_gae(
    rewards: Float[Array, "T *batch"],
    values: Float[Array, "T *batch"],
    next_values: Float[Array, "T *batch"],
    seen_next_values: Float[Array, "T *batch"],
    *,
    terminated: Bool[Array, "T *batch"],
    truncated: Bool[Array, "T *batch"],
    meta_end: Bool[Array, "T *batch"],
    discount: float,
    trace_decay: float,
    time_limit: TimeLimit = "ignore",
) -> Float[Array, "T *batch"]:
    """Advantages of meta-episodes, with three different ends of a step.

    * ``terminated``: the task ended the episode. No bootstrap, no trace beyond.
    * ``truncated``: the time limit ended the episode; see ``time_limit``.
    * ``meta_end``: the last step on this task. No trace beyond, and nothing to follow
      but what ``time_limit="bootstrap"`` reads from the terminal observation.

    Args:
      rewards: ``[T, …]`` of whole meta-episodes, with flags of the same shape.
      values: ``[T, …]`` of the observations acted upon.
      next_values: ``[T, …]`` of the observations that the steps led to: at the end of
        an episode the terminal one.
      seen_next_values: ``[T, …]`` of the observations acted upon next: at the end of
        an episode the first of the next episode. Equal to ``next_values`` elsewhere.
      terminated: ``bool[T, …]``, steps with which the task ended the episode.
      truncated: ``bool[T, …]``, steps with which the time limit did.
      meta_end: ``bool[T, …]``, last steps on a task.
      discount: in [0, 1].
      trace_decay: lambda, in [0, 1].
      time_limit: ``"ignore"`` sets the advantage of a truncated step to zero and lets
        nothing cross it (the original code's "proper time limits"); ``"bootstrap"``
        continues with the value of the terminal observation; ``"continue"`` treats the
        meta-episode as one long episode whose next step follows the reset (the
        Bayes-adaptive view of VariBAD).

    Returns:
      ``[T, …]`` advantages.

    Raises:
      ValueError: ``time_limit`` is unknown.

    Reference: Schulman et al. (2016); Zintgraf et al. (2020), Section 3.
    """
    check_choice("time_limit", time_limit, TIME_LIMITS)
    if time_limit == "continue":
        return gae(
            rewards,
            values,
            seen_next_values,
            terminated=terminated | meta_end,
            cut=terminated | meta_end,
            discount=discount,
            trace_decay=trace_decay,
        )
    bootstrap = time_limit == "bootstrap"
    return gae(
        rewards,
        values,
        next_values,
        terminated=terminated if bootstrap else terminated | meta_end,
        cut=terminated | truncated | meta_end,
        ignored=None if bootstrap else truncated,
        discount=discount,
        trace_decay=trace_decay,
    )


def episode_returns(rewards: Float[Array, "T *batch"], episodes: int) -> Float[Array, "K *batch"]:
    """Undiscounted return of each of the K episodes of equal length.

    Args:
      rewards: ``[T, …]`` raw rewards, zero where an episode had already ended.
      episodes: K, which divides T.

    Returns:
      ``[K, …]``, float32 at least.

    Raises:
      ValueError: while tracing, if K does not divide T.
    """
    rewards = as_real("rewards", rewards)
    if episodes < 1 or not rewards.ndim or not rewards.shape[0] or rewards.shape[0] % episodes:
        raise ValueError(
            f"episodes={episodes} must divide the steps of rewards, its first axis; got the shape "
            f"{rewards.shape}"
        )
    return jnp.sum(rewards.reshape((episodes, -1, *rewards.shape[1:])), axis=1)


def meta_returns(rewards: Float[Array, "T *batch"], episodes: int) -> Float[Array, " *batch"]:
    """``R(Lambda)``: the mean over the K episodes of their undiscounted returns.

    Reference: Section 3, with gamma = 1. Differs from the original code, which hands
    the sum over episodes to the CEM: selection by rank is the same.
    """
    return jnp.mean(episode_returns(rewards, episodes), axis=0)
