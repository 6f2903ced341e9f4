"""MAML: parameters from which a few gradient steps on a new task's examples go far.

Supervised: a task gives labelled examples instead of episodes, and its return is the
negative loss after adaptation. The robust methods cannot tell the difference.

Reference: Finn et al. (2017), "Model-Agnostic Meta-Learning for Fast Adaptation of Deep
Networks", Algorithm 2; the settings of *Train Hard, Fight Easy*.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from roml_jax.checks import as_weights, check_at_least, check_choice, check_positive
from roml_jax.networks import ACTIVATIONS, Activation
from roml_jax.supervised import Model, draw_examples, example_shape, mlp_regression
from roml_jax.trees import descend, where_rows
from roml_jax.types import Learner, Metrics, Predictor, PRNGKey, TaskData

Loss: TypeAlias = Callable[[PyTree, PyTree], Array]  # (params, batch of one task) -> scalar
Adapt: TypeAlias = Callable[[PyTree, PyTree, int], PyTree]  # (params, support, steps) -> params

_AVERAGES = ("batch", "selected")


# ------------------------------------------------------------------ adaptation


def make_adapt(
    loss: Loss,
    optimizer: optax.GradientTransformation = optax.sgd(0.01),
    *,
    first_order: bool = False,
) -> Adapt:
    """The inner loop: gradient steps of one task from shared parameters.

    Args:
      loss: ``(params, batch) -> scalar``, of any parameters and any batch.
      optimizer: of the inner steps; it starts anew for every task.
      first_order: take inner gradients for constants, so that derivatives of the result
        leave out the second derivatives of ``loss``.

    Returns:
      ``adapt(params, support, steps) -> params`` of one task, ``steps`` a Python int of at
      least 0. Differentiable in ``params``; vmap it over tasks with
      ``jax.vmap(adapt, (None, 0, None))``.

    Reference: Finn et al. (2017), Alg. 2 lines 5-7; its Section 5.2 for first order.
    """

    def adapt(params: PyTree, support: PyTree, steps: int) -> PyTree:
        def step(carry: tuple, _: None) -> tuple[tuple, None]:
            params, opt_state = carry
            grads = jax.grad(loss)(params, support)
            grads = jax.lax.stop_gradient(grads) if first_order else grads
            return descend(optimizer, grads, opt_state, params), None

        if not steps:  # a scan of no length has no types under jax.disable_jit
            return params
        carry = (params, optimizer.init(params))
        (params, _), _ = jax.lax.scan(step, carry, None, length=steps, unroll=True)
        return params

    return adapt


def adapted_losses(
    loss: Loss, adapt: Adapt, params: PyTree, support: PyTree, query: PyTree, steps: int
) -> Float[Array, " B"]:
    """Loss of each task on its query examples, after adaptation to its support examples.

    Args:
      loss: ``(params, batch) -> scalar``.
      adapt: as from ``make_adapt``.
      params: shared by all tasks.
      support: leaves ``[B, n, …]``.
      query: leaves ``[B, m, …]``.
      steps: inner steps, at least 0.

    Returns:
      ``[B]``.

    Reference: Finn et al. (2017), Eq. (1), before the sum over tasks.
    """
    return jax.vmap(_loss_after(loss, adapt, steps), (None, 0, 0))(params, support, query)


def _loss_after(loss: Loss, adapt: Adapt, steps: int) -> Callable[[PyTree, PyTree, PyTree], Array]:
    """``(params, support, query) -> scalar`` of one task."""

    def loss_after(params: PyTree, support: PyTree, query: PyTree) -> Float[Array, ""]:
        return loss(adapt(params, support, steps), query)

    return loss_after


# ------------------------------------------------------------------ the learner


@dataclass(frozen=True)
class MAMLConfig:
    """Settings of MAML.

    Attributes:
      num_tasks: B, tasks of a training step (a meta-iteration).
      support: examples of a task that it is adapted to.
      query: other examples of the task, that training and validation measure it by.
      test_query: as ``query``, in the test.
      inner_steps: gradient steps of the adaptation that counts, at least 0.
      test_steps: most gradient steps in the test; the return after each is recorded.
      inner_learning_rate: of these steps, positive.
      first_order: leave out second derivatives.
      learning_rate: of Adam in the outer loop, positive.
      average: the outer loss sums the tasks by their weights and divides by the number of
        all (batch) or by the sum of the weights (selected).
      layers: sizes of the hidden layers.
      activation: behind each of them.
    """

    num_tasks: int = 20
    support: int = 10
    query: int = 10
    test_query: int = 32
    inner_steps: int = 1
    test_steps: int = 5
    inner_learning_rate: float = 0.01
    first_order: bool = False
    learning_rate: float = 1e-3
    average: Literal["batch", "selected"] = "batch"
    layers: tuple[int, ...] = (40, 40)
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        """Checks all settings."""
        check_at_least(self, 1, "num_tasks", "support", "query", "test_query", "layers")
        check_at_least(self, 0, "inner_steps")
        check_at_least(self, self.inner_steps, "test_steps")
        check_positive(self, "inner_learning_rate", "learning_rate")
        check_choice("average", self.average, _AVERAGES)
        check_choice("activation", self.activation, tuple(ACTIVATIONS))


class MAMLState(NamedTuple):
    """State of the learner."""

    params: PyTree  # from which every task starts
    opt_state: optax.OptState  # of the outer loop


class MAMLBatch(NamedTuple):
    """Examples of B tasks, in place of a rollout."""

    support: PyTree  # leaves [B, n, …]
    query: PyTree  # leaves [B, m, …]


def maml(
    problem: TaskData, config: MAMLConfig = MAMLConfig(), model: Model | None = None
) -> Learner:
    """MAML on supervised problems.

    Args:
      problem: where labelled examples come from.
      config: the settings.
      model: network and loss; None for ``mlp_regression`` with ``config.layers``.

    Returns:
      A ``Learner`` whose return is the negative query loss after ``config.inner_steps``,
      and whose ``agent`` is a ``Predictor``. A frame is a labelled example.

    Reference: Finn et al. (2017), Alg. 2; Greenberg et al. (2023), Section 6.3. The outer
      loss with ``average="selected"`` is the estimator of Eq. (8) there, up to the task
      that makes ``alpha N`` whole; "batch" is that of the original code. Adam hardly
      feels the difference.
    """
    model = mlp_regression(problem, config.layers, config.activation) if model is None else model
    optimizer = optax.adam(config.learning_rate)

    def loss(params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
        x, y = batch
        return model.error(model.apply(params, x), y)

    inner = optax.sgd(config.inner_learning_rate)
    adapt = make_adapt(loss, inner, first_order=config.first_order)

    loss_after = _loss_after(loss, adapt, config.inner_steps)

    def init(key: PRNGKey) -> MAMLState:
        x, _ = example_shape(problem)
        params = model.init(key, jnp.zeros(x.shape, x.dtype))
        return MAMLState(params, optimizer.init(params))

    def collect(
        key: PRNGKey, state: MAMLState, tasks: Float[Array, "B D"]
    ) -> tuple[MAMLState, MAMLBatch, Float[Array, " B"]]:
        batch = MAMLBatch(*draw_examples(key, problem, tasks, config.support, config.query))
        losses = adapted_losses(loss, adapt, state.params, *batch, config.inner_steps)
        return state, batch, -losses

    def update(
        key: PRNGKey, state: MAMLState, batch: MAMLBatch, weights: Float[Array, " B"]
    ) -> tuple[MAMLState, Metrics]:
        del key  # nothing here is random
        weights = as_weights(weights, jax.tree.leaves(batch)[0].shape[0])
        # The same losses as in ``collect``, which a compiler of both computes once. Each task has
        # a gradient of its own, as it has parameters of its own once it is adapted: what a task
        # of weight 0 holds, infinity too, leaves no trace.
        each = jax.vmap(jax.value_and_grad(loss_after), (None, 0, 0))(state.params, *batch)
        total = weights.sum() if config.average == "selected" else jnp.float32(weights.size)
        counted = where_rows(weights > 0, each, jax.tree.map(jnp.zeros_like, each))
        value, grads = jax.tree.map(
            lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1) / jnp.where(total > 0, total, 1),
            counted,
        )
        new = descend(optimizer, grads, state.opt_state, state.params)
        metrics = {"outer_loss": value, "grad_norm": optax.tree.norm(grads)}
        return MAMLState(*new), metrics

    agent = Predictor(
        adapt,
        model.apply,
        loss,
        support=config.support,
        query=config.query,
        steps=config.inner_steps,
        test_query=config.test_query,
        test_steps=config.test_steps,
    )
    frames = config.num_tasks * (config.support + config.query)
    return Learner(init, collect, update, agent, lambda s: s.params, config.num_tasks, frames)
