"""Prioritised level replay: tasks that were hard, or played below what they allow, come again."""

from __future__ import annotations

from typing import Literal, TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Real

from roml_jax.checks import check_choice
from roml_jax.samplers._buffer import Buffer, Settings, buffered
from roml_jax.types import Draw, Family, TaskSampler

ReplayScore: TypeAlias = Literal["return", "regret"]
SCORES = ("return", "regret")


def replay(
    family: Family,
    *,
    score: ReplayScore = "return",
    replay_share: float = 0.5,
    capacity: int = 128,
    min_fill: float = 0.5,
    temperature: float = 0.5,
    staleness: float = 0.3,
    rate: float = 0.5,
) -> TaskSampler:
    """A sampler that keeps the tasks of the highest scores, and draws from them again.

    Of n draws ``replay_share * n``, rounded up or down at random, are distinct tasks of the buffer,
    the others new ones from ``D_phi0``. Each next one of the buffer is drawn among those left by
    ``(1 - staleness) P_score + staleness P_age``, where ``P_score`` falls with the rank of the
    score as ``rank^(-1 / temperature)``, and ``P_age`` grows in proportion to the steps since the
    last visit. After a visit the score is new; once the buffer is full, a task from ``D_phi0`` that
    scores higher than the lowest takes its place.

    Args:
      family: the task distribution; only ``phi0`` and ``sample`` are used.
      score: what makes a task worth another visit: "return", its negative running mean return, or
        "regret", the best return that it was ever played with less that mean. What the regret of a
        task is one visit cannot tell: after the first it is taken for the mean of the others'.
      replay_share: in [0, 1), share of draws from the buffer.
      capacity: number of tasks in the buffer, at least 1: a few times the tasks of a step.
      min_fill: in [0, 1], the part of it that is filled before any draw comes from it.
      temperature: positive; small ones draw the highest scores alone, inf all alike.
      staleness: in [0, 1], the share of the ages: the learner moves on, and scores go stale.
      rate: in (0, 1], the least weight of the last visit in the running mean; 1 counts it alone.

    Returns:
      A ``TaskSampler``; ``phi`` stays where it is. New draws are reference draws of weight 1, those
      of the buffer say nothing about ``D_phi0``, and have the weight 0. ``extras`` of a draw hold
      "buffer_slot". A return that is not finite tells nothing: a new task of such is not kept, and
      the score of a known one stays. Info holds "replayed", the draws from the buffer, "filled",
      the tasks in it, and "score", their mean score, ``UNTOLD`` if there is none.

    Raises:
      ValueError: an argument is out of range; while tracing, a draw is not of this sampler.

    Reference:
      Jiang, Grefenstette and Rocktäschel (2021), "Prioritized Level Replay"; Jiang et al. (2021),
      "Replay-Guided Adversarial Environment Design", for regrets, MaxMC.

    Differs from the paper: every step has new tasks and known ones, where the paper tosses a coin
    for a step. Estimates of ``D_phi0`` so have their share of nearly every step, and the steps of
    the learner are alike; a step can be without new tasks only if less than one is their share of
    it, and it tells no such estimate then. Tasks are scored by returns, not by errors of a value,
    and the mean of returns stands for the value in the regret.
    """
    check_choice("score", score, SCORES)
    settings = Settings(replay_share, capacity, min_fill, temperature, staleness, rate)
    rule = _regret if score == "regret" else _hardness
    return buffered(family, settings, _returns, rule)


def _returns(draw: Draw, returns: Real[Array, " n"]) -> Real[Array, " n"]:
    return returns


def _hardness(known: Buffer) -> Float[Array, " N"]:
    return -known.mean


def _regret(known: Buffer) -> Float[Array, " N"]:
    regret, told = known.best - known.mean, known.visits > 1
    count = jnp.maximum(told.sum(dtype=jnp.int32), 1).astype(regret.dtype)
    return jnp.where(told, regret, jnp.where(told, regret, 0).sum() / count)
