"""How an agent does on given tasks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.rollout import Boundary, rollout, rollout_episode_returns
from roml_jax.supervised import draw_examples
from roml_jax.types import Agent, Predictor, PRNGKey, TaskData, TaskEnv

Purpose: TypeAlias = Literal["validation", "test"]


class Evaluation(NamedTuple):
    """Returns of n tasks; K is 1 for supervised tasks, whose return is a negative loss."""

    tasks: Float[Array, "n D"]
    episode_returns: Float[Array, "K n"]  # raw and undiscounted
    info: dict[str, Array]  # [K, n], the environment's info at the end of each episode

    @property
    def returns(self) -> Float[Array, " n"]:
        """Return of each task, the mean over its K episodes."""
        return jnp.mean(self.episode_returns, axis=0)


def evaluate(
    key: PRNGKey,
    env: TaskEnv,
    agent: Agent,
    params: Any,
    tasks: Float[Array, "n D"],
    *,
    boundary: Boundary = Boundary(),
    deterministic: bool = True,
) -> Evaluation:
    """Runs one meta-episode on every task with fixed parameters.

    Args:
      key: of resets, steps and, if not deterministic, actions.
      env: the environment.
      agent: the behaviour; nothing of the parameters changes.
      params: ``learner.params(state)``.
      tasks: ``[n, D]``.
      boundary: as in training.
      deterministic: act without sampling, as in the original experiments.
    """
    data = rollout(key, env, agent, params, tasks, deterministic=deterministic, boundary=boundary)
    return Evaluation(tasks, rollout_episode_returns(data), data.info)


def evaluate_adaptation(
    key: PRNGKey,
    problem: TaskData,
    predictor: Predictor,
    params: Any,
    tasks: Float[Array, "n D"],
    *,
    support: int,
    query: int,
    inner_steps: int,
    most_steps: int | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """Adapts to every task, and measures the result on other examples of it.

    Args:
      key: of the examples.
      problem: the supervised tasks.
      predictor: ``learner.agent``.
      params: ``learner.params(state)``, from which every task starts.
      tasks: ``[n, D]``.
      support: examples that the parameters are adapted to.
      query: examples that the loss is taken over.
      inner_steps: inner steps whose loss, negative, is the return.
      most_steps: the largest number of inner steps in info; None for ``inner_steps``.
      batch_size: tasks that are adapted to at a time, which bounds the memory.

    Returns:
      An ``Evaluation`` whose info holds ``return_after_0`` to ``return_after_<most_steps>``,
      ``[1, n]``, on the same examples.

    Raises:
      ValueError: ``most_steps`` is less than ``inner_steps``.
    """
    most_steps = inner_steps if most_steps is None else most_steps
    if most_steps < inner_steps:
        raise ValueError(f"most_steps={most_steps} must be at least inner_steps={inner_steps}.")

    def course(examples: tuple) -> Float[Array, " J"]:
        support, query = examples
        steps = range(most_steps + 1)  # with a beginning in common, which is computed once
        adapted = [predictor.adapt(params, support, count) for count in steps]
        return -jnp.stack([predictor.loss(one, query) for one in adapted])

    examples = draw_examples(key, problem, tasks, support, query)
    courses = jax.lax.map(course, examples, batch_size=batch_size)
    info = {f"return_after_{count}": courses[None, :, count] for count in range(most_steps + 1)}
    return Evaluation(tasks, info[f"return_after_{inner_steps}"], info)


def sample_tasks(key: PRNGKey, env: TaskEnv | TaskData, n: int) -> Float[Array, "n D"]:
    """n tasks from the original distribution ``D = D_phi0``."""
    return env.family.sample(key, env.family.phi0, n)


def evaluation_key(seed: int, purpose: str) -> PRNGKey:
    """A key for validation or test that no training key is derived from.

    Args:
      seed: of the run, or of the tasks that several runs are to share.
      purpose: a ``Purpose``, what the tasks are for.
    """
    salt = {"validation": 1, "test": 2}[purpose]
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0x524F4D4C), salt), seed)
