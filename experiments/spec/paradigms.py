"""What learning from episodes and learning from labelled examples have each of their own.

Everything else, from the training loop to the tables, is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from roml_jax.evaluate import (
    Evaluation,
    Purpose,
    evaluate,
    evaluate_adaptation,
    evaluation_key,
)
from roml_jax.rollout import rollout
from roml_jax.supervised import draw_examples
from roml_jax.types import PRNGKey, TaskData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.spec.experiment import Built
    from experiments.spec.view import Info, View

Draw = Callable[[PyTree, int], "Figure"]
Evaluate = Callable[[PRNGKey, PyTree, Float[Array, "n D"]], Evaluation]


class Paradigm(NamedTuple):
    """What depends on where a learner's data come from.

    Attributes:
      frames: what a frame is called.
      returns: what returns are, for captions.
      picture: name of the picture of what a trained learner does.
      per_task: what a task gives in one training step, in words.
      evaluate: ``(built, purpose) -> evaluate(key, params, tasks)``.
      make_draw: ``(built, view) -> draw(params, seed)``, which makes that picture.
    """

    frames: str
    returns: str
    picture: str
    per_task: Callable[[Built], str]
    evaluate: Callable[[Built, Purpose], Evaluate]
    make_draw: Callable[[Built, View], Draw]


def paradigm_of(env: Any) -> Paradigm:
    """The paradigm of an environment or of supervised tasks."""
    return SUPERVISED if isinstance(env, TaskData) else REINFORCEMENT


# ------------------------------------------------------------------ reinforcement


def make_play(built: Built, view: View) -> Callable[[PyTree, int], tuple[np.ndarray, Info]]:
    """Sample episodes of trained agents on the view's n tasks.

    Returns:
      ``(params, seed) -> (obs[K, H+1, n, O], info[K, n])`` of a rollout without sampled
      actions; the seed decides the noise.
    """
    agent, boundary = built.learner.agent, built.boundary

    def run(key: PRNGKey, params: PyTree, tasks: jax.Array) -> tuple:
        data = rollout(key, built.env, agent, params, tasks, deterministic=True, boundary=boundary)
        return data.obs, data.info

    return _on_view(run, view)


def _on_view(run: Callable, view: View) -> Callable[[PyTree, int], Any]:
    """``(params, seed) -> result`` on the view's tasks, from ``run(key, params, tasks)``."""
    compiled, tasks = jax.jit(run), jnp.asarray(view.tasks)

    def on_view(params: PyTree, seed: int) -> Any:
        key = jax.random.fold_in(evaluation_key(seed, "test"), 1)
        return jax.tree.map(np.asarray, compiled(key, params, tasks))

    return on_view


def _draw_episodes(built: Built, view: View) -> Draw:
    play, terminal = make_play(built, view), built.boundary.observation == "terminal"
    return lambda params, seed: view.draw(view.tasks, *play(params, seed), terminal)


def _rollouts(built: Built, purpose: Purpose) -> Evaluate:
    """Without sampled actions; the same for validation and test."""
    agent, boundary = built.learner.agent, built.boundary
    return lambda key, params, tasks: evaluate(
        key, built.env, agent, params, tasks, boundary=boundary
    )


REINFORCEMENT = Paradigm(
    "frames",
    "returns per episode",
    "episodes",
    lambda built: f"{built.env.episodes} episodes x {built.env.horizon} steps",
    _rollouts,
    _draw_episodes,
)


# ------------------------------------------------------------------ supervised


class Fits(NamedTuple):
    """What a trained learner makes of some tasks: n of them, m places, J numbers of steps."""

    support: tuple[Any, Any]  # x and y, [n, k]
    x: Any  # [n, m], in ascending order
    y: Any  # [n, m], the labels there
    predictions: Any  # [J, n, m], after 0 … J - 1 inner steps


def make_fit(built: Built, view: View, places: int = 256) -> Callable[[PyTree, int], Fits]:
    """Adapts trained learners to the view's n tasks, whose inputs and labels are numbers.

    Args:
      built: the experiment.
      view: its tasks.
      places: m, at which predictions and labels are compared.

    Returns:
      ``(params, seed) -> Fits``; the seed decides the examples.
    """
    config, predictor = built.experiment.learner, built.learner.agent

    def run(key: PRNGKey, params: PyTree, tasks: jax.Array) -> Fits:
        support, (x, y) = draw_examples(key, built.env, tasks, config.support, places)
        order = jnp.argsort(x, axis=1)
        x, y = (jnp.take_along_axis(values, order, axis=1) for values in (x, y))

        def predict(steps: int) -> Array:
            adapted = jax.vmap(predictor.adapt, (None, 0, None))(params, support, steps)
            return jax.vmap(predictor.predict)(adapted, x)

        return Fits(support, x, y, jnp.stack(list(map(predict, range(config.test_steps + 1)))))

    return _on_view(run, view)


def _draw_fits(built: Built, view: View) -> Draw:
    fit, config = make_fit(built, view), built.experiment.learner
    return lambda params, seed: view.draw(view.tasks, fit(params, seed), config)


def _adaptation(built: Built, purpose: Purpose) -> Evaluate:
    """In the test with its own number of query examples, and after more inner steps."""
    config, in_test = built.experiment.learner, purpose == "test"
    query = config.test_query if in_test else config.query
    most_steps = config.test_steps if in_test else config.inner_steps
    return lambda key, params, tasks: evaluate_adaptation(
        key,
        built.env,
        built.learner.agent,
        params,
        tasks,
        support=config.support,
        query=query,
        inner_steps=config.inner_steps,
        most_steps=most_steps,
    )


def _examples_per_task(built: Built) -> str:
    config = built.experiment.learner
    return f"({config.support} + {config.query}) examples"


SUPERVISED = Paradigm(
    "examples",
    "returns are negative losses after adaptation",
    "fits",
    _examples_per_task,
    _adaptation,
    _draw_fits,
)
