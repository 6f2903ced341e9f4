"""The training loop as two pure functions.

This is the whole of a robust meta-algorithm: draw tasks, collect, weigh, let the
learner learn, tell the sampler. It does not know whether it is jitted, scanned,
vmapped over seeds or sharded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from roml_jax.risk import summarize
from roml_jax.types import UNTOLD, Extras, Learner, MetaAlgorithm, Metrics, PRNGKey, Schedule


class TrainState(NamedTuple):
    """Everything that training is, so also everything that a checkpoint holds."""

    learner: Any
    sampler: Any
    key: PRNGKey
    step: Int[Array, ""]  # training steps so far


class StepMetrics(NamedTuple):
    """What one training step says of itself, by who says it."""

    learner: Metrics  # finite, if training goes well
    sampler: Metrics  # UNTOLD where it has nothing to say
    tasks: Metrics  # "return_mean", "phi" after the step, those of ``risk.summarize``, and
    # "broken_tasks", how many returns are not finite, with the first "broken_task" of them

    def flat(self) -> dict[str, Any]:
        """All of them by name; also of the shapes of metrics.

        Raises:
          ValueError: two have the same name.
        """
        names = [*self.learner, *self.sampler, *self.tasks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two metrics of a training step have the name {', '.join(twice)}")
        return self.learner | self.sampler | self.tasks


def make_train(
    learner: Learner, method: MetaAlgorithm | Schedule
) -> tuple[Callable[[PRNGKey], TrainState], Callable[[TrainState], tuple[TrainState, Metrics]]]:
    """Puts a learner under a robust meta-algorithm.

    Args:
      learner: the baseline learner; its ``num_tasks`` tasks are drawn at every step.
      method: where tasks come from, and how much of them the learner may use; or a function
        of the step (int32, traced) that gives it, for an ``alpha`` that falls during training
        for instance. The sampler's state must have the same structure at every step.

    Returns:
      ``init: key -> TrainState`` and ``step: TrainState -> (TrainState, metrics)``.
      Metrics are those of ``StepMetrics``, by name; the same structure at every step.

    Reference: Algorithm 1 and Algorithm 2.
    """
    init, grouped_step = make_grouped_train(learner, method)

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        state, metrics = grouped_step(state)
        return state, metrics.flat()

    return init, step


def make_grouped_train(
    learner: Learner, method: MetaAlgorithm | Schedule
) -> tuple[Callable[[PRNGKey], TrainState], Callable[[TrainState], tuple[TrainState, StepMetrics]]]:
    """``make_train`` with metrics that are still told apart by who says them."""

    def method_at(step: Int[Array, ""]) -> MetaAlgorithm:
        return method if isinstance(method, MetaAlgorithm) else method(step)

    def init(key: PRNGKey) -> TrainState:
        key, learner_key, sampler_key = jax.random.split(key, 3)
        start = jnp.zeros((), jnp.int32)
        sampler_state = method_at(start).sampler.init(sampler_key)
        return TrainState(learner.init(learner_key), sampler_state, key, start)

    def step(state: TrainState) -> tuple[TrainState, StepMetrics]:
        sampler, weigh, alpha = method_at(state.step)
        key, draw_key, collect_key, update_key, sampler_key = jax.random.split(state.key, 5)
        draw = sampler.sample(draw_key, state.sampler, learner.num_tasks)
        learner_state, rollout, returns = learner.collect(collect_key, state.learner, draw.tasks)
        draw = draw._replace(extras=_together(draw.extras, learner.extras(rollout)))
        weights = weigh(draw, returns)
        learner_state, metrics = learner.update(update_key, learner_state, rollout, weights)
        sampler_state, info = sampler.update(sampler_key, state.sampler, draw, returns)
        told = {"return_mean": jnp.mean(returns), "phi": sampler.phi(sampler_state)}
        told |= summarize(draw, returns, alpha) | _broken(draw.tasks, returns)
        new = TrainState(learner_state, sampler_state, key, state.step + 1)
        return new, StepMetrics(metrics, info, told)

    return init, step


def _together(own: Extras, of_learner: Extras) -> Extras:
    """What sampler and learner say of each task.

    Raises:
      ValueError: while tracing, if both use a name.
    """
    if twice := sorted({*own} & {*of_learner}):
        raise ValueError(f"sampler and learner both have extras {', '.join(twice)}")
    return own | of_learner


def _broken(tasks: Float[Array, "B D"], returns: Float[Array, " B"]) -> Metrics:
    """How many tasks have no finite return, and the first of them, ``UNTOLD`` if there is none."""
    broken = ~jnp.isfinite(returns)
    first = tasks[jnp.argmax(broken)]
    return {
        "broken_tasks": jnp.sum(broken, dtype=jnp.int32),
        "broken_task": jnp.where(broken.any(), first, UNTOLD),
    }
