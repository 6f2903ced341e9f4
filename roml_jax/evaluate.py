"""How an agent does on given tasks."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.checks import check_choice
from roml_jax.rollout import rollout, rollout_episode_returns
from roml_jax.supervised import draw_examples
from roml_jax.types import Agent, Predictor, PRNGKey, TaskData, TaskEnv

Purpose: TypeAlias = Literal["validation", "test"]
PURPOSES = ("validation", "test")


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
    env: TaskEnv | TaskData,
    agent: Agent | Predictor,
    params: Any,
    tasks: Float[Array, "n D"],
    *,
    purpose: Purpose = "test",
    deterministic: bool = True,
) -> Evaluation:
    """How an agent with fixed parameters does: one meta-episode, or one adaptation, per task.

    Args:
      key: of resets, steps and, if not deterministic, actions; or of examples.
      env: the environment, or supervised tasks for a ``Predictor``.
      agent: the behaviour; nothing of the parameters changes.
      params: ``learner.params(state)``.
      tasks: ``[n, D]``.
      purpose: a ``Predictor`` is tested on more examples than it is validated on, and after
        more inner steps; an ``Agent`` does the same in both.
      deterministic: act without sampling, as in the original experiments.

    Returns:
      An ``Evaluation``, see ``evaluate_adaptation`` for that of a ``Predictor``.
    """
    if isinstance(agent, Predictor):
        in_test = purpose == "test"
        return evaluate_adaptation(
            key,
            cast(TaskData, env),
            agent,
            params,
            tasks,
            support=agent.support,
            query=agent.test_query if in_test else agent.query,
            inner_steps=agent.steps,
            most_steps=agent.test_steps if in_test else agent.steps,
        )
    data = rollout(key, cast(TaskEnv, env), agent, params, tasks, deterministic=deterministic)
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
      purpose: what the tasks are for, validation or test.

    Raises:
      ValueError: another purpose.
    """
    check_choice("purpose", purpose, PURPOSES)
    salt = 1 + PURPOSES.index(purpose)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0x524F4D4C), salt), seed)
