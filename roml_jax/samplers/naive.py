"""The naive adversarial sampler: replay the worst tasks of a first pool."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Real

from roml_jax.checks import check_choice
from roml_jax.risk import tail_size
from roml_jax.samplers._mixture import check_family, check_returns
from roml_jax.types import Alpha, Draw, Family, Metrics, PRNGKey, TaskSampler

Repeat: TypeAlias = Literal["worst", "all"]
REPEATS = ("worst", "all")


class NaiveState(NamedTuple):
    """The pool of first tasks."""

    tasks: Float[Array, "pool D"]  # float32, zeros where not yet drawn
    returns: Float[Array, " pool"]  # float32, zeros where not yet known
    count: Int[Array, ""]  # type: ignore[assignment]  # int32, tasks in the pool so far


def naive(
    family: Family, *, alpha: Alpha, pool: int = 100, repeat: Repeat = "worst"
) -> TaskSampler:
    """A sampler that remembers the worst of the first ``pool`` tasks and repeats them.

    Until the pool is full, tasks come from ``D_phi0``; afterwards uniformly from the
    ``tail_size(pool, alpha)`` tasks of the pool with the lowest returns, for ever.

    Args:
      family: the task distribution; only ``phi0`` and ``sample`` are used.
      alpha: fraction of worst tasks, in (0, 1].
      pool: number of first tasks, at least 1; need not be a multiple of the tasks per step,
        the step that completes the pool keeps what fits.
      repeat: "worst", or "all": draw from the whole pool for ever. The original code does, as
        it never looks at the worst tasks that it has found; the published ablation was made so.

    Returns:
      A ``TaskSampler`` without info. Tasks with a NaN return are remembered last. The first
      tasks are reference draws of weight 1; once the pool is full, the draws say nothing about
      ``D_phi0``, and their weights are 0.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.4.
    """
    check_choice("repeat", repeat, REPEATS)
    worst = tail_size(pool, alpha)
    size = pool if repeat == "all" else worst

    def init(key: PRNGKey) -> NaiveState:
        check_family(family)
        tasks = jnp.zeros((pool, len(family.names)), jnp.float32)
        return NaiveState(tasks, jnp.zeros(pool, jnp.float32), jnp.zeros((), jnp.int32))

    def sample(key: PRNGKey, state: NaiveState, n: int) -> Draw:
        key_task, key_pick = jax.random.split(key)
        order = jnp.argsort(state.returns)  # the first ``size`` of them
        picked = state.tasks[order[jax.random.randint(key_pick, (n,), 0, size)]]
        full = state.count >= pool
        tasks = jnp.where(full, picked, family.sample(key_task, jnp.asarray(family.phi0), n))
        is_reference = jnp.broadcast_to(~full, (n,))
        return Draw(tasks, is_reference.astype(jnp.float32), is_reference)

    def update(
        key: PRNGKey, state: NaiveState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[NaiveState, Metrics]:
        returns = check_returns(draw, returns)
        n = returns.size
        slots = state.count + jnp.arange(n)
        new = NaiveState(
            tasks=state.tasks.at[slots].set(draw.tasks, mode="drop"),
            returns=state.returns.at[slots].set(returns.astype(jnp.float32), mode="drop"),
            count=jnp.minimum(state.count + n, pool),
        )
        return new, {}

    return TaskSampler(init, sample, update, lambda state: jnp.asarray(family.phi0))
