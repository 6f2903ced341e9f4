"""What learning from episodes and learning from labelled examples have each of their own.

Everything else, from the training loop to the tables, is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from experiments.spec.view import Info, View
from roml_jax.evaluate import evaluation_key
from roml_jax.rollout import rollout
from roml_jax.supervised import draw_examples
from roml_jax.types import Agent, Predictor, PRNGKey, TaskData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture: TypeAlias = Callable[[PyTree, int], "Figure"]  # (params, seed) -> what they do


class Paradigm(NamedTuple):
    """What depends on where a learner's data come from.

    Attributes:
      frames: what a frame is called.
      returns: what returns are, for captions.
      picture: name of the picture of what a trained learner does.
      per_task: ``(env, agent) -> words``, what a task gives in one training step.
      make_picture: ``(env, agent, view) -> draw(params, seed)``, which makes that picture.
    """

    frames: str
    returns: str
    picture: str
    per_task: Callable[[Any, Any], str]
    make_picture: Callable[[Any, Any, View], Picture]


def paradigm_of(env: Any) -> Paradigm:
    """The paradigm of an environment or of supervised tasks."""
    return SUPERVISED if isinstance(env, TaskData) else REINFORCEMENT


# ------------------------------------------------------------------ reinforcement


def make_play(
    env: Any, agent: Agent, view: View
) -> Callable[[PyTree, int], tuple[np.ndarray, Info]]:
    """Sample episodes of trained agents on the view's n tasks.

    Returns:
      ``(params, seed) -> (obs[K, H+1, n, O], info[K, n])`` of a rollout without sampled
      actions; the seed decides the noise. Where the agent saw no start of an episode, its
      first observation is what the first step led to.
    """

    def run(key: PRNGKey, params: PyTree, tasks: jax.Array) -> tuple:
        data = rollout(key, env, agent, params, tasks, deterministic=True)
        return data.path_obs, data.info

    return _on_view(run, view)


def _on_view(run: Callable, view: View) -> Callable[[PyTree, int], Any]:
    """``(params, seed) -> result`` on the view's tasks, from ``run(key, params, tasks)``."""
    compiled, tasks = jax.jit(run), jnp.asarray(view.tasks)

    def on_view(params: PyTree, seed: int) -> Any:
        key = jax.random.fold_in(evaluation_key(seed, "test"), 1)
        return jax.tree.map(np.asarray, compiled(key, params, tasks))

    return on_view


def _draw_episodes(env: Any, agent: Agent, view: View) -> Picture:
    play = make_play(env, agent, view)
    return lambda params, seed: view.draw(view.tasks, *play(params, seed))


REINFORCEMENT = Paradigm(
    "frames",
    "returns per episode",
    "episodes",
    lambda env, agent: f"{env.episodes} episodes x {env.horizon} steps",
    _draw_episodes,
)


# ------------------------------------------------------------------ supervised


class Fits(NamedTuple):
    """What a trained learner makes of some tasks: n of them, m places, J numbers of steps."""

    support: tuple[Any, Any]  # x and y, [n, k]
    x: Any  # [n, m], in ascending order
    y: Any  # [n, m], the labels there
    predictions: Any  # [J, n, m], after 0 … J - 1 inner steps


def make_fit(
    env: TaskData, predictor: Predictor, view: View, places: int = 256
) -> Callable[[PyTree, int], Fits]:
    """Adapts trained learners to the view's n tasks, whose inputs and labels are numbers.

    Args:
      env: the supervised tasks.
      predictor: the behaviour.
      view: the tasks to adapt to.
      places: m, at which predictions and labels are compared.

    Returns:
      ``(params, seed) -> Fits``; the seed decides the examples.
    """

    def run(key: PRNGKey, params: PyTree, tasks: jax.Array) -> Fits:
        support, (x, y) = draw_examples(key, env, tasks, predictor.support, places)
        order = jnp.argsort(x, axis=1)
        x, y = (jnp.take_along_axis(values, order, axis=1) for values in (x, y))

        def predict(steps: int) -> Array:
            adapted = jax.vmap(predictor.adapt, (None, 0, None))(params, support, steps)
            return jax.vmap(predictor.predict)(adapted, x)

        counts = range(predictor.test_steps + 1)
        return Fits(support, x, y, jnp.stack([predict(steps) for steps in counts]))

    return _on_view(run, view)


def _draw_fits(env: TaskData, predictor: Predictor, view: View) -> Picture:
    fit = make_fit(env, predictor, view)
    return lambda params, seed: view.draw(view.tasks, fit(params, seed), predictor)


SUPERVISED = Paradigm(
    "examples",
    "returns are negative losses after adaptation",
    "fits",
    lambda env, predictor: f"({predictor.support} + {predictor.query}) examples",
    _draw_fits,
)
