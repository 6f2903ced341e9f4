"""Sampling for learnability: tasks that are sometimes solved, and sometimes not."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from roml_jax.samplers._buffer import Buffer, Settings, buffered
from roml_jax.types import Draw, Family, TaskSampler


def learnability(
    family: Family,
    *,
    threshold: float | None = None,
    outcome: str = "",
    replay_share: float = 0.5,
    capacity: int = 64,
    min_fill: float = 0.5,
    staleness: float = 0.1,
    rate: float = 0.05,
) -> TaskSampler:
    """A sampler that keeps the tasks of the most learnable success rates, and draws from them.

    A visit is a success if the return is above ``threshold``. With s successes in v visits the
    rate p of a task has the density of a beta distribution, if any rate is as likely before; its
    score is what ``p (1 - p)`` is then expected to be, ``(s + 1) (v - s + 1) / ((v + 2) (v + 3))``:
    a sixth for a task of one visit, whichever its end was; less for one that is always or never
    solved; and up to a quarter for one that is solved every other time. Tasks so stay in the
    buffer, and are played again, until it is known that they are not worth it.

    Draws come from the buffer and from ``D_phi0`` as in ``samplers.replay``, but all tasks of the
    buffer are alike, but for their ages.

    Args:
      family: the task distribution; only ``phi0`` and ``sample`` are used.
      threshold: of a success; None for the mean return of the step's new tasks, or of all if there
        is none, so that what is told are tasks that are played now better, now worse than the mean.
      outcome: name of what the learner adds to a draw, ``[n]`` or ``[n, K]``, that is compared with
        the threshold instead of the return, such as an environment's info at the end of its K
        episodes; a visit then counts as the share of its episodes. "" for the return.
      replay_share: in [0, 1), share of draws from the buffer.
      capacity: number of tasks in the buffer, at least 1: a few times the tasks of a step.
      min_fill: in [0, 1], the part of it that is filled before any draw comes from it.
      staleness: in [0, 1], share of the draws from the buffer by age, else all are alike.
      rate: in (0, 1], the least weight of the last visit in the success rate; v is at most
        ``1 / rate``, since the learner moves on.

    Returns:
      A ``TaskSampler`` with the weights, ``extras`` and info of ``samplers.replay``. Where the
      return or the outcome is not finite, the visit tells nothing.

    Raises:
      ValueError: an argument is out of range; while tracing, a draw is not of this sampler, or the
        learner adds no such outcome.

    Reference:
      Rutherford et al. (2024), "No Regrets: Investigating and Improving Regret Approximations for
      Curriculum Discovery", SFL.

    Differs from the paper, which plays thousands of new levels many times now and then, learns from
    none of that, and makes its buffer anew of the best: here rates come from the plays that are
    learned from, over many steps, at no cost but their age and their noise.
    """
    settings = Settings(replay_share, capacity, min_fill, math.inf, staleness, rate)
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold={threshold} must be finite, or None.")

    def successes(draw: Draw, returns: Real[Array, " n"]) -> Float[Array, " n"]:
        told = _told(draw, returns, outcome)
        above = told > (_level(draw, told) if threshold is None else threshold)
        known = jnp.isfinite(told).all(axis=1) & jnp.isfinite(returns)
        return jnp.where(known, above.astype(jnp.float32).mean(axis=1), jnp.inf)

    def score(known: Buffer) -> Float[Array, " N"]:
        visits = jnp.minimum(known.visits.astype(jnp.float32), 1 / rate)
        solved = known.mean * visits
        return (solved + 1) * (visits - solved + 1) / ((visits + 2) * (visits + 3))

    return buffered(family, settings, successes, score)


def _told(draw: Draw, returns: Real[Array, " n"], outcome: str) -> Float[Array, "n K"]:
    """What is compared with the threshold.

    Raises:
      ValueError: the draw has no such outcome, or not one or K of each task.
    """
    if not outcome:
        return returns.astype(jnp.float32)[:, None]
    if outcome not in draw.extras:
        names = ", ".join(sorted(draw.extras))
        raise ValueError(f"the learner adds no outcome {outcome!r} to a draw; there are {names}.")
    told = jnp.asarray(draw.extras[outcome])
    if told.ndim not in (1, 2) or told.shape[0] != returns.size:
        raise ValueError(f"outcome {outcome!r} must be [n] or [n, K]; got {list(told.shape)}")
    return told.astype(jnp.float32).reshape(returns.size, -1)


def _level(draw: Draw, told: Float[Array, "n K"]) -> Float[Array, ""]:
    """The mean over the new tasks of what is finite, over all if none of theirs is."""
    finite = jnp.isfinite(told)
    new = finite & draw.is_reference[:, None]
    used = jnp.where(new.any(), new, finite)
    count = jnp.maximum(used.sum(dtype=jnp.int32), 1).astype(told.dtype)
    return jnp.where(used, told, 0).sum() / count
