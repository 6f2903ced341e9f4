"""From the settings of an experiment to the functions that run it.

Every impossible setting is found here, before anything compiles.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from experiments.spec.devices import check_devices
from experiments.spec.errors import UserError
from experiments.spec.experiment import Experiment, at_alpha, settings
from experiments.spec.learners import LEARNERS
from experiments.spec.paradigms import Paradigm, paradigm_of
from experiments.spec.words import phi_column
from roml_jax.methods import METHODS
from roml_jax.train import TrainState, make_grouped_train, make_train
from roml_jax.trees import size_in_bytes
from roml_jax.types import (
    Agent,
    Learner,
    MetaAlgorithm,
    Metrics,
    Predictor,
    PRNGKey,
    Schedule,
)
from roml_jax.wrappers import sharded


class Built(NamedTuple):
    """An experiment as functions, all of them for one seed."""

    experiment: Experiment
    env: Any  # TaskEnv or TaskData
    learner: Learner
    init: Callable[[PRNGKey], TrainState]
    step: Callable[[TrainState], tuple[TrainState, Metrics]]
    step_at: Callable[[Array, TrainState], tuple[TrainState, Metrics]]  # with an alpha, traced
    state_shape: TrainState  # of ShapeDtypeStruct
    metrics_shape: dict[str, jax.ShapeDtypeStruct]
    phi: Callable[[Any], Array]  # of a state of the task sampler
    watched: tuple[str, ...]  # metrics that must be finite: losses and returns
    mesh: Mesh | None = None  # of seeds and tasks; None for one device

    @property
    def agent(self) -> Agent | Predictor:
        """How what is trained behaves."""
        return self.learner.agent

    @property
    def paradigm(self) -> Paradigm:
        """What is peculiar to learning from episodes, or from labelled examples."""
        return paradigm_of(self.env)

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run."""
        return self.experiment.frames // self.learner.frames_per_step

    @property
    def state_bytes(self) -> int:
        """Memory of the state of one seed."""
        return size_in_bytes(self.state_shape)

    def metric_names(self) -> dict[str, tuple[str, ...]]:
        """The columns of each metric: one for a scalar, one per component of a vector."""
        columns: dict[str, tuple[str, ...]] = {}
        for name, leaf in self.metrics_shape.items():
            if name == "phi":
                columns[name] = tuple(map(phi_column, self.env.family.phi_names))
            else:
                parts = range(int(np.prod(leaf.shape)))
                columns[name] = tuple(f"{name}_{i}" for i in parts) if leaf.shape else (name,)
        return columns


def make_method(experiment: Experiment, learner: Learner) -> MetaAlgorithm | Schedule:
    """The method of an experiment, over its task distribution, for a training of a learner.

    Raises:
      ValueError: a setting is out of range.
    """
    steps = experiment.frames // learner.frames_per_step
    kind = METHODS[experiment.method_name]
    return kind.make(experiment.env.family, experiment.method, steps)


def make_learner(experiment: Experiment) -> Learner:
    """The learner of an experiment, as its method wraps it.

    Raises:
      ValueError: sizes do not fit together.
    """
    learner = LEARNERS[experiment.learner_name].make(experiment.env, experiment.learner)
    return METHODS[experiment.method_name].wrap(learner, experiment.method)


def _traced_once(f: Callable) -> Callable:
    """The same function, for all programs that it becomes a part of."""
    return f if jax.config.values["jax_disable_jit"] else jax.jit(f, inline=True)


def build(experiment: Experiment, mesh: Mesh | None = None) -> Built:
    """Makes the functions of an experiment, and traces them without compiling anything.

    The same experiment once more, to be tested or compared, is not traced again.

    Args:
      experiment: the settings.
      mesh: whose axis "tasks" the tasks of a training step lie over; None for one device.

    Raises:
      UserError: settings are impossible, alone or together.
    """
    try:
        hash(experiment)
    except TypeError:  # an environment of one's own with arrays among its settings
        return _build(experiment, mesh)
    made_by = LEARNERS[experiment.learner_name], METHODS[experiment.method_name]
    switches = jax.dtypes.canonicalize_dtype(float), jax.config.values["jax_disable_jit"]
    return _build_once(experiment, mesh, made_by, switches)


@functools.lru_cache(maxsize=8)
def _build_once(experiment: Experiment, mesh: Mesh | None, made_by: Any, switches: Any) -> Built:
    del made_by, switches  # what else decides what is built
    return _build(experiment, mesh)


def _build(experiment: Experiment, mesh: Mesh | None) -> Built:
    check_devices()
    env = experiment.env

    def parts(experiment: Experiment) -> tuple[Learner, MetaAlgorithm | Schedule]:
        learner = make_learner(experiment)
        method = make_method(experiment, learner)
        return learner if mesh is None else sharded(learner, mesh), method

    try:
        learner, method = parts(experiment)
        make_state, one_step = make_grouped_train(learner, method)
        init, grouped_step = _traced_once(make_state), _traced_once(one_step)
        state_shape = jax.eval_shape(init, jax.random.key(0))
        _, grouped = jax.eval_shape(grouped_step, state_shape)
        metrics_shape = grouped.flat()
        settings(experiment)  # each by a name of its own
    except (ValueError, ImportError) as error:  # a setting, or a package that is not installed
        raise UserError(str(error)) from error

    now = method if isinstance(method, MetaAlgorithm) else method(jnp.zeros((), jnp.int32))
    sampler = now.sampler

    def step(state: TrainState) -> tuple[TrainState, Metrics]:
        state, grouped = grouped_step(state)
        return state, grouped.flat()

    def step_at(alpha: Array, state: TrainState) -> tuple[TrainState, Metrics]:
        return make_train(*parts(at_alpha(experiment, alpha)))[1](state)

    built = Built(
        experiment,
        env,
        learner,
        init,
        step,
        _traced_once(step_at),
        state_shape,
        metrics_shape,
        sampler.phi,
        ("return_mean", *sorted(grouped.learner)),
        mesh,
    )
    if built.total_steps < 1:
        raise UserError(
            f"--frames {experiment.frames} is less than one training step: choose at least "
            f"{learner.frames_per_step} ({learner.num_tasks} tasks x "
            f"{built.paradigm.per_task(env, built.agent)})"
        )
    return built
