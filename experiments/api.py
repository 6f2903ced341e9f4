"""Trainings, tests and comparisons from Python: the commands' work, with objects for results.

::

    from experiments.api import compare, train

    roml = train("khazad-dum", method="roml", seeds=range(3), frames=1e6)
    roml.test(alpha=0.05)
    compare([roml, train("khazad-dum", method="baseline", seeds=range(3), frames=1e6)]).table
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import cli
from experiments.presets import DEFAULT_ENV, PRESETS, Preset
from experiments.spec.errors import UserError
from experiments.spec.experiment import Experiment
from experiments.spec.experiment import settings as settings_of
from experiments.spec.learners import LEARNERS, LearnerKind, learners_for
from experiments.spec.words import flag_words, seed_words
from experiments.study.compared import Compared, compare
from experiments.training import runs, trainer
from experiments.training.trained import Trained, TrainedAgent, load
from roml_jax.methods import METHODS, MethodKind

__all__ = ["Compared", "Trained", "TrainedAgent", "compare", "load", "presets", "train"]
_OWN = "an environment of your own"
_ENTERED: set[str] = set()  # learners and methods of one's own, by name


def presets() -> pd.DataFrame:
    """What can be trained: a row per environment, with what goes for it unless said otherwise."""
    rows = [
        {
            "env": name,
            "summary": preset.summary,
            "learner": preset.default_learner,
            "method": preset.default_method,
            "alpha": preset.experiment.alpha,
            "frames": preset.experiment.frames,
            "learners": ", ".join(preset.learner_names()),
        }
        for name, preset in PRESETS.items()
    ]
    return pd.DataFrame(rows).set_index("env")


def train(
    env: Any = DEFAULT_ENV,
    *,
    learner: str | LearnerKind | None = None,
    method: str | MethodKind | None = None,
    seeds: int | Iterable[int] = 0,
    **settings: Any,
) -> Trained:
    """Trains and tests, unless that has been done; goes on where it was stopped.

    It does what ``python -m experiments.train`` does, in the same folders: a training that was
    begun here can be gone on with there, and the other way round.

    Args:
      env: the name of a preset, see ``presets``; or an environment or task data of your own,
        whose preset then has the name of its class, with the usual settings of learner and method.
      learner: the name of a learner, or one of your own; None for the usual one.
      method: the name of a method, or one of your own; None for the usual one.
      seeds: one run for each; several train side by side on the device.
      **settings: any flag of the command: ``frames=1e6``, ``alpha=0.05``, ``overwrite=True``,
        ``out="runs"``. Those of a part are in a mapping, ``policy={"learning_rate": 3e-4}``.

    Returns:
      The runs, one for each seed.

    Raises:
      UserError: a name or a value is not valid; in one line, before anything is compiled.
      KeyboardInterrupt: Ctrl-C; what was trained has been saved, and the same call goes on.
      RuntimeError: training had to stop because something was not finite.
    """
    with _entered(env, learner) as name:
        return _train(name, learner, method, seeds, settings)


def _train(
    name: str,
    learner: str | LearnerKind | None,
    method: str | MethodKind | None,
    seeds: int | Iterable[int],
    settings: Mapping[str, Any],
) -> Trained:
    """``train`` of a preset."""
    words = [name]
    for flag, table, choice in (("learner", LEARNERS, learner), ("method", METHODS, method)):
        if choice is not None:
            words += [f"--{flag}", choice if isinstance(choice, str) else _enter(table, choice)]
    numbers = [seeds] if isinstance(seeds, int) else list(seeds)
    words += ["--seeds", *seed_words(numbers), *_words(settings)]
    name, command = cli.parse_train(words)
    found = trainer.runs_of(name, command)
    paths = [run.path(command.options.out) for run in found]
    if command.options.overwrite or not all(map(_finished, paths, found)):
        _check(trainer.train(name, command, words), paths)
    return Trained(tuple(paths), tuple(found))


def _finished(path: Path, run: runs.Run) -> bool:
    """Whether a folder holds a run with its test, and its settings are these."""
    return runs.status(path) == "finished" and runs.check_same(path, run)


def _check(code: int, paths: list[Path]) -> None:
    """Raises what an exit code stands for in Python."""
    if code == 128 + signal.SIGINT:
        raise KeyboardInterrupt
    if code > 128:
        raise SystemExit(code)
    if code and not all(runs.status(path) == "finished" for path in paths):
        raise RuntimeError("training had to stop, for the reason above")


def _words(settings: Mapping[str, Any], part: str = "") -> list[str]:
    """Settings by keyword as words of the command line."""
    words: list[str] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            words += _words(value, f"{part}{name}.")
        else:
            several = isinstance(value, list | tuple | range)
            words += flag_words(part + name, tuple(value) if several else value)
    return words


@contextlib.contextmanager
def _entered(env: Any, learner: str | LearnerKind | None) -> Iterator[str]:
    """The name of a preset of an environment, which is its class's for one of your own.

    One of ours with other settings is the preset's for the time of the training.

    Raises:
      UserError: it is no environment, or one of ours has its name.
    """
    if isinstance(env, str):
        yield env
        return
    if not hasattr(env, "family"):
        raise UserError(
            f"env is the name of a preset, a TaskEnv or a TaskData; {type(env).__name__} "
            "has no family"
        )
    alike = [name for name, preset in PRESETS.items() if preset.env_class() is type(env)]
    if not alike:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", type(env).__name__).lower()
        if name in PRESETS and PRESETS[name].summary != _OWN:
            raise UserError(f"there is a preset {name} already: give your class another name")
        PRESETS[name] = _own_preset(env, learner)
        yield name
        return
    name = min(alike, key=lambda name: _difference(PRESETS[name].experiment.env, env))
    usual = PRESETS[name]
    experiment = dataclasses.replace(usual.experiment, env=env)
    PRESETS[name] = usual._replace(experiment=experiment)
    try:
        yield name
    finally:
        if usual.summary != _OWN:
            PRESETS[name] = usual


def _difference(a: Any, b: Any) -> int:
    """How many settings differ between two environments of one class."""
    one, other = settings_of(a), settings_of(b)
    return sum(value != other[name] for name, value in one.items())


def _own_preset(env: Any, learner: str | LearnerKind | None) -> Preset:
    """A preset of an environment of one's own, with the usual settings of everything else."""
    usual = learner if isinstance(learner, str) and learner in LEARNERS else learners_for(env)[0]
    method = METHODS["roml"].config()
    experiment: Any = Experiment(env, LEARNERS[usual].config(), method, usual, "roml")
    return Preset(_OWN, experiment, {}, {})


def _enter(table: dict[str, Any], kind: Any) -> str:
    """Puts a learner or a method into its table, under the name that people see.

    Raises:
      UserError: it is none, or another one has that name.
    """
    if known := [name for name, other in table.items() if other is kind]:
        return known[0]
    label = getattr(kind, "label", None)
    if not label:
        raise UserError(
            f"a learner is a name or a LearnerKind, a method a name or a MethodKind with a label; "
            f"got {type(kind).__name__}"
        )
    name = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    if name in table and name not in _ENTERED:
        raise UserError(f"there is a {name} already: give yours another label")
    table[name] = kind  # also in the place of what the same cell made before
    _ENTERED.add(name)
    return name
