"""VariBAD's memory: a belief over the task, learned from a buffer of trajectories."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from roml_jax.buffers import TrajectoryBuffer, add_block, init_buffer, sample_trajectories
from roml_jax.groups import apart, axes_of, check_groups, each, in_each, keys_of, together
from roml_jax.learners.memory.base import (
    Memory,
    Trajectory,
    history_observer,
    remembered_size,
    trajectory_shape,
)
from roml_jax.learners.memory.elbo import BeliefConfig, BeliefModel, elbo_loss, make_model
from roml_jax.trees import descend, keep_unless
from roml_jax.types import Boundary, Metrics, PRNGKey, TaskEnv, no_task_axes


class BeliefState(NamedTuple):
    """Parameters and optimiser."""

    params: PyTree  # {"encoder": …, "reward": …, …}
    opt_state: PyTree


class BeliefMemory(NamedTuple):
    """State of the memory."""

    belief: BeliefState
    buffer: TrajectoryBuffer  # of Trajectory


def make_optimizer(config: BeliefConfig, model: BeliefModel) -> optax.GradientTransformation:
    """One Adam; the encoder's and each decoder's gradient norms clipped on their own."""
    norms = dict.fromkeys(model.decoders, config.decoder_max_grad_norm)
    norms["encoder"] = config.encoder_max_grad_norm
    clips = {name: optax.clip_by_global_norm(norm) for name, norm in norms.items()}
    labels = {name: name for name in clips}
    return optax.chain(optax.multi_transform(clips, labels), optax.adam(config.learning_rate))


class BeliefTrainer(NamedTuple):
    """How a belief is learned from trajectories.

    Attributes:
      init: ``key -> BeliefState``.
      improve: ``(key, state, batch, weight=None) -> (state, metrics)``, one gradient step on the
        negative ELBO of a batch of trajectories ``[B, …]``, of which those of weight 0 do not
        count.
    """

    init: Callable[[PRNGKey], BeliefState]
    improve: Callable[..., tuple[BeliefState, Metrics]]


def belief_trainer(
    model: BeliefModel, config: BeliefConfig, obs_size: int, action_size: int
) -> BeliefTrainer:
    """The encoder's and the decoders' parameters, and their update.

    Args:
      model: from ``make_model``.
      config: the settings.
      obs_size: O, with the done flag if there is one.
      action_size: A, as the memory sees it.
    """
    optimizer = make_optimizer(config, model)

    def init(key: PRNGKey) -> BeliefState:
        encoder_key, *decoder_keys = jax.random.split(key, 1 + len(model.decoders))
        sizes = (obs_size, action_size, config.latent_size)
        obs, action, latent = (jnp.zeros((1, 1, size), jnp.float32) for size in sizes)
        reward, valid = jnp.zeros((1, 1), jnp.float32), jnp.ones((1, 1), bool)
        params = {"encoder": model.encoder.init(encoder_key, action, reward, obs, valid)}
        for decoder_key, (name, decoder) in zip(decoder_keys, model.decoders.items(), strict=True):
            inputs = (latent,) if name == "task" else (latent, obs, action, obs)
            params[name] = decoder.init(decoder_key, *inputs)
        return BeliefState(params, optimizer.init(params))

    def improve(
        key: PRNGKey,
        state: BeliefState,
        batch: Trajectory,
        weight: Float[Array, " B"] | None = None,
    ) -> tuple[BeliefState, Metrics]:
        grad = jax.grad(elbo_loss, has_aux=True)
        grads, metrics = grad(state.params, model, config, key, batch, weight)
        return BeliefState(*descend(optimizer, grads, state.opt_state, state.params)), metrics

    return BeliefTrainer(init, improve)


def belief(
    env: TaskEnv, config: BeliefConfig, boundary: Boundary, num_tasks: int, groups: int = 1
) -> Memory:
    """A posterior over a latent task variable, from a GRU that a decoder's loss trains.

    The policy reads the posterior's mean and log-variance, M = 2 L; no gradient of it reaches
    the encoder. The belief starts from the learned prior on every new task.

    Args:
      env: gives the sizes.
      config: the settings.
      boundary: what the agent sees between episodes.
      num_tasks: B, trajectories of a training step.
      groups: G, of the tasks, see ``roml_jax.groups``: each has a buffer of its own, of which a
        batch takes an equal part, within one trajectory.

    Returns:
      A ``Memory``. It learns from all tasks, whatever the method makes of them, and not before
      its buffer holds a batch.

    Raises:
      ValueError: the buffer cannot hold a batch in whole steps, or groups do not divide sizes.

    Reference: Zintgraf et al. (2020), Section 3, Eqs. (6)-(8).
    """
    _check_buffer(config, num_tasks)
    check_groups(groups, num_tasks=num_tasks)
    obs_size = boundary.observation_size(env)
    model = make_model(config, obs_size, len(env.family.names))
    trainer = belief_trainer(model, config, obs_size, remembered_size(env))

    def init(key: PRNGKey) -> BeliefMemory:
        slots = config.buffer_size // num_tasks * num_tasks
        shape = trajectory_shape(env, boundary)
        buffer = init_buffer(shape, slots // groups, num_tasks // groups)
        return BeliefMemory(trainer.init(key), in_each(buffer, groups))

    def read(params: PyTree, carry: Float[Array, "n E"]) -> Float[Array, "n M"]:
        return model.encoder.apply(params, carry, method="belief").vector()

    def store(state: BeliefMemory, trajectories: Trajectory) -> BeliefMemory:
        blocks = apart(trajectories, groups)
        return state._replace(buffer=each(add_block, groups)(state.buffer, blocks))

    def improve_once(
        state: BeliefState, key: PRNGKey, buffer: TrajectoryBuffer
    ) -> tuple[BeliefState, Metrics]:
        sample_key, loss_key = jax.random.split(key)
        weight, n = None, config.batch_size
        if n % groups:  # some give one more, and others one that does not count
            sample_key, more_key = jax.random.split(sample_key)
            counts = n // groups + (jax.random.permutation(more_key, groups) < n % groups)
            counted = jnp.arange(-(-n // groups)) < counts[:, None]
            weight = counted.astype(jnp.float32).reshape(-1)
        draw = partial(sample_trajectories, n=-(-n // groups))
        batch = each(draw, groups)(keys_of(sample_key, groups), buffer)
        return trainer.improve(loss_key, state, together(batch, groups), weight)

    def improve(key: PRNGKey, state: BeliefMemory) -> tuple[BeliefMemory, Metrics]:
        keys = jax.random.split(key, config.updates)

        def step(belief: BeliefState, key: PRNGKey) -> tuple[BeliefState, Metrics]:
            return improve_once(belief, key, state.buffer)

        new, metrics = jax.lax.scan(step, state.belief, keys)
        filled = jnp.sum(state.buffer.size) >= config.batch_size
        new = keep_unless(filled, new, state.belief)
        return state._replace(belief=new), jax.tree.map(jnp.mean, metrics)

    def task_axes(state: BeliefMemory) -> BeliefMemory:
        return no_task_axes(state)._replace(buffer=axes_of(state.buffer, groups))

    return Memory(
        2 * config.latent_size,
        init,
        lambda state: state.belief.params["encoder"],
        lambda n: jnp.zeros((n, config.hidden_size), jnp.float32),
        read,
        history_observer(env, model.encoder),
        store,
        improve,
        task_axes=task_axes,
    )


def _check_buffer(config: BeliefConfig, tasks: int) -> None:
    """Raises a ValueError if a batch is more than the buffer can hold in whole steps."""
    batch = config.batch_size
    if config.buffer_size // tasks * tasks < batch:
        raise ValueError(
            f"buffer_size must hold a batch of {batch} in whole steps of {tasks} tasks: at least "
            f"{-(-batch // tasks) * tasks}; got {config.buffer_size}"
        )
