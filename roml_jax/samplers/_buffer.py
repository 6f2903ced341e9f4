"""A memory of tasks that are worth another visit, and the sampler that such a memory makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Real

from roml_jax.checks import check_in
from roml_jax.samplers._mixture import check_family, check_returns
from roml_jax.types import UNTOLD, Draw, Family, Metrics, PRNGKey, TaskSampler

_SLOT = "buffer_slot"  # of the draw's task in the buffer; the capacity, if it is not from there


class Buffer(NamedTuple):
    """Tasks, and what is known of each, the highest first of the scores that chose them."""

    tasks: Float[Array, "capacity D"]  # float32, zeros where there is none
    mean: Float[Array, " capacity"]  # float32, running mean of the values of its visits
    best: Float[Array, " capacity"]  # float32, the largest of them
    visits: Int[Array, " capacity"]  # int32, 0 where there is no task
    seen: Int[Array, " capacity"]  # int32, the step of the last visit


class BufferState(NamedTuple):
    """The buffer and its clock."""

    buffer: Buffer
    step: Int[Array, ""]  # int32, steps so far


Values: TypeAlias = Callable[[Draw, Array], Array]  # (draw, returns[n]) -> float[n], of visits
Score: TypeAlias = Callable[[Buffer], Array]  # any number of tasks -> float32[n], the more the more


class Settings(NamedTuple):
    """How draws come from a buffer."""

    replay_share: float
    capacity: int
    min_fill: float
    temperature: float
    staleness: float
    rate: float


def buffered(family: Family, settings: Settings, values: Values, score: Score) -> TaskSampler:
    """A sampler that draws some tasks anew, and the others from those of the highest scores.

    Args:
      family: the task distribution; only ``phi0`` and ``sample`` are used.
      settings: as the arguments of ``samplers.replay``.
      values: what a visit tells of each task; where it is not finite the visit told nothing.
      score: of what is known of tasks, finite where there is a task.

    Returns:
      A ``TaskSampler`` as ``samplers.replay`` describes it.

    Raises:
      ValueError: a setting is out of range.
    """
    _check(settings)
    capacity, share = settings.capacity, settings.replay_share
    fill = math.ceil(settings.min_fill * capacity)

    def init(key: PRNGKey) -> BufferState:
        check_family(family)
        return BufferState(_blank(capacity, len(family.names)), jnp.zeros((), jnp.int32))

    def sample(key: PRNGKey, state: BufferState, n: int) -> Draw:
        count_key, plan_key, slot_key, new_key = jax.random.split(key, 4)
        filled = (state.buffer.visits > 0).sum(dtype=jnp.int32)
        # Rounded up or down at random: on average the share is what it is to be, however small n.
        spare = jax.random.uniform(count_key, (), jnp.float32)
        count = jnp.minimum(jnp.floor(share * n + spare).astype(jnp.int32), filled)
        count = jnp.where(filled >= fill, count, 0)
        order = _distinct(slot_key, probabilities(state, settings))
        turn = jax.random.permutation(plan_key, jnp.arange(n, dtype=jnp.int32))
        replayed = turn < count
        slot = jnp.where(replayed, order[jnp.minimum(turn, capacity - 1)], capacity)
        known = state.buffer.tasks[jnp.minimum(slot, capacity - 1)]
        new = family.sample(new_key, jnp.asarray(family.phi0), n)
        tasks = jnp.where(replayed[:, None], known, new)
        return Draw(tasks, (~replayed).astype(jnp.float32), ~replayed, {_SLOT: slot})

    def update(
        key: PRNGKey, state: BufferState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[BufferState, Metrics]:
        returns = check_returns(draw, returns)
        if (slot := draw.extras.get(_SLOT)) is None:
            raise ValueError(f"the draw is not of this sampler: its extras have no {_SLOT!r}.")
        visits = values(draw, returns).astype(jnp.float32)
        buffer = _remember(state, draw.tasks, slot, visits, settings.rate, score)
        inside = buffer.visits > 0
        filled = inside.sum(dtype=jnp.int32)
        total = jnp.where(inside, score(buffer), 0).sum()
        mean = total / jnp.maximum(filled, 1).astype(total.dtype)
        info = {
            "replayed": (slot < capacity).sum(dtype=jnp.int32),
            "filled": filled,
            "score": jnp.where(filled > 0, mean, UNTOLD),
        }
        return BufferState(buffer, state.step + 1), info

    return TaskSampler(init, sample, update, lambda state: jnp.asarray(family.phi0))


def probabilities(state: BufferState, settings: Settings) -> Float[Array, " capacity"]:
    """How likely each task of a buffer is to be the first that is drawn; zeros if there is none.

    Reference:
      Jiang, Grefenstette and Rocktäschel (2021), "Prioritized Level Replay", Eqs. (1)-(3).
    """
    inside = state.buffer.visits > 0
    rank = jnp.arange(1, inside.size + 1, dtype=jnp.float32)  # in order of their scores already
    by_score = jnp.where(inside, jnp.exp(-jnp.log(rank) / settings.temperature), 0)
    age = jnp.where(inside, state.step - state.buffer.seen, 0).astype(jnp.float32)
    parts = (1 - settings.staleness, by_score), (settings.staleness, age)
    return sum(
        (share * x / jnp.where(inside.any(), x.sum(), 1) for share, x in parts),
        jnp.zeros(inside.size, jnp.float32),
    )


def _distinct(key: PRNGKey, p: Float[Array, " N"]) -> Int[Array, " N"]:
    """All indices, each next one by ``p`` among those that are left; those of 0 come last.

    Reference:
      Vieira (2014), "Gumbel-max trick and weighted reservoir sampling".
    """
    log_p = jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)), -jnp.inf)
    return jnp.argsort(-(log_p + jax.random.gumbel(key, p.shape, jnp.float32))).astype(jnp.int32)


def _remember(
    state: BufferState,
    tasks: Float[Array, "n D"],
    slot: Int[Array, " n"],
    values: Float[Array, " n"],
    rate: float,
    score: Score,
) -> Buffer:
    """The buffer after visits: of its own tasks, and of new ones that may be worth a place."""
    buffer, capacity = state.buffer, state.buffer.visits.size
    old = jax.tree.map(lambda x: x[jnp.minimum(slot, capacity - 1)], buffer)
    new = slot >= capacity
    old = old._replace(tasks=tasks, visits=jnp.where(new, 0, old.visits))
    told = jnp.isfinite(values)
    rows = _visited(old, jnp.where(told, values, 0), told, state.step, rate)
    # Slots of one step differ, so that no two rows are written to one place.
    buffer = jax.tree.map(lambda x, row: x.at[slot].set(row, mode="drop"), buffer, rows)
    rows = rows._replace(visits=jnp.where(new, rows.visits, 0))  # the others have their place
    both = jax.tree.map(lambda x, row: jnp.concatenate([x, row]), buffer, rows)
    # Among equals the first stay: a new task must beat the lowest, not equal it.
    best = jnp.argsort(-jnp.where(both.visits > 0, score(both), -jnp.inf))[:capacity]
    return jax.tree.map(lambda x: x[best], both)


def _visited(
    old: Buffer, values: Float[Array, " n"], told: Bool[Array, " n"], step: Array, rate: float
) -> Buffer:
    """Rows after one visit each; one that told nothing counts for the age alone."""
    visits = old.visits + told.astype(jnp.int32)
    pace = jnp.maximum(1 / jnp.maximum(visits, 1).astype(jnp.float32), rate)
    mean = jnp.where(old.visits > 0, old.mean, 0)
    best = jnp.where(old.visits > 0, jnp.maximum(old.best, values), values)
    return Buffer(
        tasks=old.tasks,
        mean=jnp.where(told, mean + pace * (values - mean), mean),
        best=jnp.where(told, best, old.best),
        visits=visits,
        seen=jnp.full(visits.shape, step, jnp.int32),
    )


def _blank(capacity: int, dim: int) -> Buffer:
    numbers = [jnp.zeros(capacity, jnp.float32) for _ in range(2)]
    counts = [jnp.zeros(capacity, jnp.int32) for _ in range(2)]
    return Buffer(jnp.zeros((capacity, dim), jnp.float32), *numbers, *counts)


def _check(settings: Settings) -> None:
    """Raises a ValueError with one line for the first setting that is out of range."""
    check_in("replay_share", settings.replay_share, "[0, 1)", "the share of draws that replay")
    check_in("min_fill", settings.min_fill, "[0, 1]", "the part of the buffer to fill first")
    check_in("temperature", settings.temperature, "(0, inf]", "the evenness of the ranks")
    check_in("staleness", settings.staleness, "[0, 1]", "the share of the ages")
    check_in("rate", settings.rate, "(0, 1]", "the least weight of the last visit")
    if settings.capacity < 1:
        raise ValueError(f"capacity={settings.capacity} must be at least 1.")
