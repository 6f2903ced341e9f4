"""What an experiment is: frozen dataclasses that the command line, the code and JSON share.

An ``Experiment`` and a seed determine a run. ``build`` turns it into the functions that
run it, and finds every impossible setting before anything compiles.
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array
from tqdm import tqdm

from experiments.spec.paradigms import Paradigm, paradigm_of
from roml_jax import methods
from roml_jax.checks import check_at_least
from roml_jax.learners.maml import MAMLConfig, maml
from roml_jax.learners.ppo import PPOConfig, ppo
from roml_jax.learners.varibad import VariBADConfig, varibad
from roml_jax.rollout import Boundary
from roml_jax.samplers.cem import Quantile
from roml_jax.train import TrainState, make_train
from roml_jax.types import (
    Family,
    Learner,
    MetaAlgorithm,
    Metrics,
    PRNGKey,
    TaskSampler,
)

E = TypeVar("E")
L = TypeVar("L")
MethodName = Literal["baseline", "cvar-ml", "roml", "naive", "oracle"]
Tested = Literal["final", "best", "best-mean", "best-cvar"]


class UserError(Exception):
    """Something that the user can put right; shown as one line, exit code 2."""


def warn(text: str) -> None:
    """Tells the user something on a line of its own, also above a progress bar."""
    tqdm.write(f"warning: {' '.join(text.split())}", file=sys.stderr)


class LearnerKind(NamedTuple):
    """A learner by its settings and its factory."""

    config: type
    make: Callable[[Any, Any], Learner]


LEARNERS: dict[str, LearnerKind] = {
    "varibad": LearnerKind(VariBADConfig, varibad),
    "ppo": LearnerKind(PPOConfig, ppo),
    "maml": LearnerKind(MAMLConfig, maml),
}


def _whole_number(text: str) -> int:
    """An integer, also as ``8e6`` or ``8_000_000``."""
    value = float(text)
    if not value.is_integer():
        raise ValueError(f"{text} is not a whole number")
    return int(value)


Count = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda args: _whole_number(args[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]


@dataclasses.dataclass(frozen=True)
class MethodConfig:
    """A robust meta-algorithm and its settings.

    Attributes:
      name: the robust meta-algorithm.
      alpha: fraction of worst tasks that is aimed at and reported, in (0, 1].
      beta: roml: at least this fraction of a CEM batch enters every fit.
      nu: roml, oracle: fraction of tasks drawn from the original distribution.
      batch: roml: tasks per update of phi, a multiple of the tasks of a step; None for
        an update at every step.
      soft_update: roml: the part of phi that is kept in an update.
      strict: roml: fit to returns strictly below the threshold; else up to it.
      quantile: roml: estimator of the reference quantile.
      pool: naive: number of first tasks.
      phi: oracle: parameter of the task distribution to train on.
    """

    name: Annotated[MethodName, tyro.conf.arg(name="method")] = "roml"
    alpha: float = 0.05
    beta: float = 0.2
    nu: float = 0.2
    batch: int | None = 128
    soft_update: float = 0.5
    strict: bool = True
    quantile: Quantile = "population"
    pool: int = 100
    phi: tuple[float, ...] | None = None

    def used(self) -> tuple[str, ...]:
        """The settings that the method takes, beside ``alpha``."""
        roml = ("beta", "nu", "batch", "soft_update", "strict", "quantile")
        return {"roml": roml, "naive": ("pool",), "oracle": ("phi", "nu")}.get(self.name, ())

    def make(self, family: Family) -> MetaAlgorithm:
        """The method over a task distribution.

        Raises:
          ValueError: a setting is out of range.
        """
        if self.name == "oracle" and self.phi is None:
            raise ValueError(f"the oracle needs --phi, for {', '.join(family.phi_names)}")
        factory = getattr(methods, self.name.replace("-", "_"))
        return factory(family, self.alpha, **{name: getattr(self, name) for name in self.used()})


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[E, L]):
    """All settings of a run but its seed.

    Attributes:
      env: the task environment, or supervised tasks.
      learner: the meta-learner.
      method: the robust meta-algorithm.
      frames: environment steps, or labelled examples, of training, rounded down to whole
        training steps.
      validation_tasks: tasks of a validation.
      validation_every: training steps between validations.
      test_tasks: tasks of the test after training.
      evaluation_seed: of the tasks of validations and test, which runs then share; None for
        the seed of the run.
      tested: the agent that is tested: that of the last step (final), or that with the best
        validation by mean, by CVaR, or by the one that the method aims at (best).
    """

    env: Annotated[E, tyro.conf.arg(name="")]
    learner: Annotated[L, tyro.conf.arg(name="")]
    method: Annotated[MethodConfig, tyro.conf.arg(name="")]
    frames: Count = 8_000_000
    validation_tasks: int = 256
    validation_every: int = 50
    test_tasks: int = 3008
    evaluation_seed: int | None = None
    tested: Tested = "final"

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_at_least(self, 1, "frames", "validation_tasks", "validation_every", "test_tasks")
        check_at_least(self, 0, "evaluation_seed")

    def tested_agent(self) -> str:
        """``tested`` without a choice left to the method."""
        aim = "mean" if self.method.name == "baseline" else "cvar"
        return f"best-{aim}" if self.tested == "best" else self.tested


# ------------------------------------------------------------------ names and JSON

_INLINED = ("experiment", "options", "env", "learner", "method")  # no prefix on the command line


def learner_name(config: Any) -> str:
    """The name of a learner, by its settings."""
    return next(name for name, kind in LEARNERS.items() if type(config) is kind.config)


def at_alpha(experiment: Experiment, alpha: Any) -> Experiment:
    """The same experiment for another ``alpha``, which may be traced."""
    return dataclasses.replace(
        experiment, method=dataclasses.replace(experiment.method, alpha=alpha)
    )


def settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """All settings by the name they have on the command line, ``policy.clip`` for instance."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            inner = prefix if field.name in _INLINED else f"{prefix}{field.name}."
            flat |= settings(value, inner)
        else:
            renamed = isinstance(config, MethodConfig) and field.name == "name"
            flat[prefix + ("method" if renamed else field.name)] = value
    return flat


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries that JSON can hold."""
    return dataclasses.asdict(config)


def from_dict(cls: Any, data: dict[str, Any], **known: type) -> Any:
    """The inverse of ``to_dict``.

    Args:
      cls: a dataclass.
      data: as read from JSON, where tuples have become lists.
      **known: the classes of fields whose annotation leaves them open.

    Returns:
      An instance of ``cls``.

    Raises:
      UserError: a field is missing or unknown.
    """
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    if wrong := sorted(set(names) ^ set(data)):
        raise UserError(f"settings that {cls.__name__} does not share: {', '.join(wrong)}")
    values: dict[str, Any] = {}
    for name in names:
        kind, value = known.get(name, hints[name]), data[name]
        if dataclasses.is_dataclass(kind):
            value = from_dict(kind, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


# ------------------------------------------------------------------ from settings to functions


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
    watched: tuple[str, ...]  # metrics that must be finite: losses and returns

    @property
    def paradigm(self) -> Paradigm:
        """What is peculiar to learning from episodes, or from labelled examples."""
        return paradigm_of(self.env)

    @property
    def boundary(self) -> Boundary:
        """What the agent sees between episodes, in training and in evaluation."""
        return self.experiment.learner.boundary

    @property
    def total_steps(self) -> int:
        """Training steps of the whole run."""
        return self.experiment.frames // self.learner.frames_per_step

    @property
    def state_bytes(self) -> int:
        """Memory of the state of one seed."""
        leaves = jax.tree.leaves(self.state_shape)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)

    def metric_names(self) -> dict[str, tuple[str, ...]]:
        """The columns of each metric: one for a scalar, one per component of a vector."""
        columns: dict[str, tuple[str, ...]] = {}
        for name, leaf in self.metrics_shape.items():
            parts = self.env.family.phi_names if name == "phi" else range(int(np.prod(leaf.shape)))
            columns[name] = tuple(f"{name}_{part}" for part in parts) if leaf.shape else (name,)
        return columns


def build(experiment: Experiment) -> Built:
    """Makes the functions of an experiment, and traces them without compiling anything.

    Raises:
      UserError: settings are impossible, alone or together.
    """
    env = experiment.env
    try:
        method = experiment.method.make(env.family)
        learner = LEARNERS[learner_name(experiment.learner)].make(env, experiment.learner)
        init, step = (jax.jit(f) for f in make_train(learner, method))  # traced only once
        state_shape = jax.eval_shape(init, jax.random.key(0))
        _, metrics_shape = jax.eval_shape(step, state_shape)
        watched = set(metrics_shape) - _sampler_metrics(method.sampler, learner.num_tasks)
    except (ValueError, ImportError) as error:  # a setting, or a package that is not installed
        raise UserError(str(error)) from error

    def step_at(alpha: Array, state: TrainState) -> tuple[TrainState, Metrics]:
        method = at_alpha(experiment, alpha).method.make(env.family)
        return make_train(learner, method)[1](state)

    built = Built(
        experiment,
        env,
        learner,
        init,
        step,
        step_at,
        state_shape,
        metrics_shape,
        tuple(sorted(watched)),
    )
    if built.total_steps < 1:
        raise UserError(
            f"--frames {experiment.frames} is less than one training step: choose at least "
            f"{learner.frames_per_step} ({learner.num_tasks} tasks x "
            f"{built.paradigm.per_task(built)})"
        )
    return built


def _sampler_metrics(sampler: TaskSampler, n: int) -> set[str]:
    """The metrics of a task sampler, which are NaN where it has nothing to say."""

    def info(key: PRNGKey) -> Metrics:
        sample_key, update_key = jax.random.split(key)
        draw = sampler.sample(sample_key, sampler.init(), n)
        return sampler.update(update_key, sampler.init(), draw, jnp.zeros(n))[1]

    return set(jax.eval_shape(info, jax.random.key(0)))
