"""What an experiment is: frozen dataclasses that the command line, the code and JSON share.

An ``Experiment`` and a seed determine a run.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Generic, Literal, TypeAlias, TypeVar

import tyro

from experiments.spec.errors import UserError
from experiments.spec.words import check_seed, whole_number
from roml_jax.checks import check_at_least
from roml_jax.methods import METHODS

E = TypeVar("E")
L = TypeVar("L")
M = TypeVar("M")
Tested: TypeAlias = Literal["final", "best", "best-mean", "best-cvar"]
Checkpoint: TypeAlias = Literal["tested", "newest", "best-mean", "best-cvar"]


Count = Annotated[
    int,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda args: whole_number(args[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]


@dataclasses.dataclass(frozen=True)
class Experiment(Generic[E, L, M]):
    """All settings of a run but its seed.

    Attributes:
      env: the task environment, or supervised tasks.
      learner: the settings of the meta-learner.
      method: the settings of the robust meta-algorithm, ``alpha`` among them.
      learner_name: of the learner, a key of ``LEARNERS``.
      method_name: of the robust meta-algorithm, a key of ``METHODS``.
      frames: environment steps, or labelled examples, of training, rounded down to whole
        training steps.
      validation_tasks: tasks of a validation.
      validation_every: training steps between validations.
      test_tasks: tasks of the test after training.
      test_repeats: how often each of them is played; from 2 on, the CVaR is also told of tasks
        that are ranked by one half of their plays and averaged over the other.
      evaluation_seed: of the tasks of validations and test, which runs then share; None for
        the seed of the run.
      tested: the agent that is tested: that of the last step (final), or that with the best
        validation by mean, by CVaR, or by the one that the method aims at (best).
    """

    env: Annotated[E, tyro.conf.arg(name="")]
    learner: Annotated[L, tyro.conf.arg(name="")]
    method: Annotated[M, tyro.conf.arg(name="")]
    learner_name: Annotated[str, tyro.conf.Suppress]  # chosen by --learner, before all else
    method_name: Annotated[str, tyro.conf.Suppress]  # chosen by --method, likewise
    frames: Count = 8_000_000
    validation_tasks: int = 256
    validation_every: int = 50
    test_tasks: int = 3008
    test_repeats: int = 1
    evaluation_seed: int | None = None
    tested: Tested = "final"

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        counts = ("validation_tasks", "validation_every", "test_tasks", "test_repeats")
        check_at_least(self, 1, "frames", *counts)
        check_seed("--evaluation-seed", self.evaluation_seed)

    def tested_agent(self) -> str:
        """``tested`` without a choice left to the method."""
        return f"best-{METHODS[self.method_name].aim}" if self.tested == "best" else self.tested

    @property
    def alpha(self) -> float:
        """The fraction of worst tasks that the method aims at, and that is reported."""
        return self.method.alpha  # type: ignore[attr-defined]


# ------------------------------------------------------------------ names and JSON

_INLINED = ("experiment", "options", "env", "learner", "method")  # no prefix on the command line
_CHOSEN = {"learner_name": "learner", "method_name": "method"}


def at_alpha(experiment: Experiment, alpha: Any) -> Experiment:
    """The same experiment for another ``alpha``, which may be traced."""
    if isinstance(alpha, float):
        method = dataclasses.replace(experiment.method, alpha=alpha)
    else:  # no value of a setting's type, and none that could be checked
        method = copy.copy(experiment.method)
        object.__setattr__(method, "alpha", alpha)
    return dataclasses.replace(experiment, method=method)


def settings(config: Any, prefix: str = "") -> dict[str, Any]:
    """All settings by the name they have on the command line, ``policy.clip`` for instance.

    Raises:
      ValueError: two settings have one name.
    """
    pairs = [(name, getattr(owner, field)) for name, owner, field in _named(config, prefix)]
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two settings have the name {', '.join(twice)}")
    return dict(pairs)


def kinds(config: Any) -> dict[str, Any]:
    """The types of all settings, by the names that ``settings`` gives them."""
    hints: Any = functools.cache(typing.get_type_hints)
    return {name: hints(type(owner))[field] for name, owner, field in _named(config)}


def _named(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every setting: its name on the command line, the dataclass that holds it, and its field."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _named(value, prefix if field.name in _INLINED else f"{prefix}{field.name}.")
        else:
            yield prefix + _CHOSEN.get(field.name, field.name), config, field.name


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
      An instance of ``cls``; a setting that is younger than the data has its default.

    Raises:
      UserError: a field is unknown, or one without a default is missing.
    """
    hints = typing.get_type_hints(cls)
    fields = dataclasses.fields(cls)
    needed = {field.name for field in fields if not _has_default(field)}
    if wrong := sorted((needed - {*data}) | ({*data} - {field.name for field in fields})):
        raise UserError(f"settings that {cls.__name__} does not share: {', '.join(wrong)}")
    values: dict[str, Any] = {}
    for name in (field.name for field in fields if field.name in data):
        kind, value = known.get(name, hints[name]), data[name]
        if dataclasses.is_dataclass(kind):
            value = from_dict(kind, value)
        values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def _has_default(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing
