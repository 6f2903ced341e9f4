"""The training loop as two pure functions.

This is the whole of a robust meta-algorithm: draw tasks, collect, select, let the
learner learn, tell the sampler. It does not know whether it is jitted, scanned,
vmapped over seeds or sharded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from roml_jax.types import Learner, MetaAlgorithm, Metrics, PRNGKey


class TrainState(NamedTuple):
    """Everything that training is, so also everything that a checkpoint holds."""

    learner: Any
    sampler: Any
    key: PRNGKey
    step: Int[Array, ""]  # training steps so far


def make_train(
    learner: Learner, method: MetaAlgorithm
) -> tuple[Callable[[PRNGKey], TrainState], Callable[[TrainState], tuple[TrainState, Metrics]]]:
    """Puts a learner under a robust meta-algorithm.

    Args:
      learner: the baseline learner; its ``num_tasks`` tasks are drawn at every step.
      method: where tasks come from, and which of them the learner may use.

    Returns:
      ``init: key -> TrainState`` and ``step: TrainState -> (TrainState, metrics)``.
      Metrics are those of the learner, of the sampler and ``return_mean`` over the
      tasks drawn; the same structure at every step.

    Reference: Algorithm 1 and Algorithm 2.
    """
    sampler, select = method

    def init(key: PRNGKey) -> TrainState:
        key, learner_key = jax.random.split(key)
        return TrainState(learner.init(learner_key), sampler.init(), key, jnp.zeros((), jnp.int32))

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        key, draw_key, collect_key, update_key, sampler_key = jax.random.split(state.key, 5)
        draw = sampler.sample(draw_key, state.sampler, learner.num_tasks)
        learner_state, rollout, returns = learner.collect(collect_key, state.learner, draw.tasks)
        learner_state, metrics = learner.update(update_key, learner_state, rollout, select(returns))
        sampler_state, info = sampler.update(sampler_key, state.sampler, draw, returns)
        metrics = metrics | info | {"return_mean": jnp.mean(returns)}
        return TrainState(learner_state, sampler_state, key, state.step + 1), metrics

    return init, step
