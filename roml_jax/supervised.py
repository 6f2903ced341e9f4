"""Supervised tasks: their labelled examples, and networks with a loss to fit them.

What ``rollout.py`` is to environments: a problem knows one task, and here its examples are
drawn for many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from roml_jax.checks import as_tasks
from roml_jax.networks import ACTIVATIONS, MLP, Activation, Linear
from roml_jax.types import PRNGKey, TaskData


def draw_examples(
    key: PRNGKey, problem: TaskData, tasks: Float[Array, "B D"], support: int, query: int
) -> tuple[PyTree, PyTree]:
    """Independent support and query examples of every task.

    Args:
      key: of the draws.
      problem: what draws them.
      tasks: ``[B, D]``.
      support: n, examples of the first batch.
      query: m, of the second.

    Returns:
      Two pairs ``(x, y)``, with leaves ``[B, n, …]`` and ``[B, m, …]``.

    Raises:
      ValueError: while tracing, if tasks are not rows of the problem's components.
    """
    tasks = as_tasks(tasks, problem.family.names)
    parts = []
    for part_key, n in zip(jax.random.split(key), (support, query), strict=True):
        keys = jax.random.split(part_key, tasks.shape[0])
        parts.append(jax.vmap(partial(problem.sample_batch, n=n))(keys, tasks))
    return parts[0], parts[1]


class Model(NamedTuple):
    """Any network and any loss.

    Attributes:
      init: ``(key, x[n, …]) -> params``, the shape of x being all that is used of it.
      apply: ``(params, x[n, …]) -> prediction[n, …]``.
      error: ``(prediction[n, …], y[n, …]) -> scalar``, the mean over the n examples.
    """

    init: Callable[[PRNGKey, Array], PyTree]
    apply: Callable[[PyTree, Array], Array]
    error: Callable[[Array, Array], Array]


class _Regressor(nn.Module):
    """An MLP over the flattened input, in the shape of the label."""

    layers: tuple[int, ...]
    activation: Activation
    shape: tuple[int, ...]  # of one label

    @nn.compact
    def __call__(self, x: Float[Array, "N *inner"]) -> Float[Array, "N *outer"]:
        hidden = MLP(self.layers, ACTIVATIONS[self.activation])(x.reshape(x.shape[0], -1))
        return Linear(math.prod(self.shape))(hidden).reshape(x.shape[0], *self.shape)


def mlp_regression(
    problem: TaskData, layers: tuple[int, ...] = (40, 40), activation: Activation = "relu"
) -> Model:
    """An MLP with mean squared error, for real labels of any shape.

    Args:
      problem: gives the shapes of inputs and labels.
      layers: sizes of the hidden layers.
      activation: behind each of them.

    Returns:
      A ``Model``. Weights and biases start uniform in ``±1/sqrt(fan_in)``.

    Reference: Finn et al. (2017), Section 5.1; weights as in the original experiments.
    """
    network = _Regressor(layers, activation, example_shape(problem)[1].shape[1:])

    def error(prediction: Array, y: Array) -> Array:
        return jnp.mean(jnp.square(prediction - y))

    return Model(network.init, network.apply, error)


def example_shape(problem: TaskData) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of one labelled example, as a batch of 1."""
    sample = partial(problem.sample_batch, n=1)
    return jax.eval_shape(
        sample, jax.random.key(0), jnp.zeros(len(problem.family.names), jnp.float32)
    )
