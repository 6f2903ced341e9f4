"""A comparison as an object: tables and figures of trainings that are there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.experiment import settings
from experiments.spec.words import join_row
from experiments.study import adaptation, drawing, results, sheets, tables
from experiments.study.comparison import FIGURES
from experiments.study.figure_parts import NothingToDrawError
from experiments.study.options import FigureOptions
from experiments.study.results import Results
from experiments.training import runs
from experiments.training.runs import Run
from experiments.training.trained import Trained


@dataclasses.dataclass(frozen=True)
class Compared:
    """What a comparison says, as objects.

    Attributes:
      results: the compact tables that all else follows from.
    """

    results: Results

    @property
    def table(self) -> pd.DataFrame:
        """Mean and CVaR of each row, with intervals and differences to the baseline."""
        return tables.summarize(self.results).set_index("label")

    @property
    def pairs(self) -> pd.DataFrame:
        """All pairs of rows, seed by seed, with a signed-rank test."""
        return tables.compare_pairs(self.results)

    @property
    def figures(self) -> dict[str, Figure]:
        """The figures that have something to show, by name."""
        env = self.results.runs["env"].iloc[0]
        comparison = drawing.compare(FigureOptions(env), self.results)
        found = {}
        for name, draw in (FIGURES | adaptation.FIGURES).items():
            try:
                found[name] = draw(self.results, comparison).figure
            except NothingToDrawError:
                continue
        return found

    def save(self, folder: str | Path) -> None:
        """Writes the results and the tables, as ``experiments.compare`` does."""
        folder = Path(folder).expanduser()
        results.write(folder, self.results)
        sheets.write(folder, self.results, {})

    def __str__(self) -> str:
        """The tables in Markdown."""
        made = sheets.word(tables.summarize(self.results), self.results, {}, self.pairs)
        return "\n\n".join(map(sheets.markdown, made))

    def _repr_markdown_(self) -> str:
        return str(self)


def compare(trainings: Sequence[Trained]) -> Compared:
    """Compares trainings of one environment by their tests.

    Args:
      trainings: in the order of the tables. What they have in common goes without saying:
        rows are named by learner, method and the settings that differ.

    Raises:
      UserError: there is none, one is not finished, or they are of several environments.
    """
    pairs = [
        (run, path)
        for training in trainings
        for run, path in zip(training.runs, training.paths, strict=True)
    ]
    if not pairs:
        raise UserError("there is nothing to compare: give one training or more")
    if len(envs := sorted({run.env for run, _ in pairs})) > 1:
        raise UserError(f"a comparison is of one environment; got {', '.join(envs)}")
    for run, path in pairs:
        if runs.status(path) != "finished":
            raise UserError(f"{path} is not finished: train seed {run.seed} to its end first")
    words = rows_of([run for run, _ in pairs])
    members = list(dict.fromkeys(zip(words, (path for _, path in pairs), strict=True)))
    return Compared(results.collect(members))


def rows_of(found: Sequence[Run]) -> list[str]:
    """The row of each run, [LEARNER/]METHOD[:flag=value,…].

    Flags are of settings that are not the preset's, and not the same in all runs that have them.
    """
    values: dict[str, set[Any]] = {}
    for run in found:
        for name, value in settings(run.experiment).items():
            values.setdefault(name, set()).add(value)
    rows = []
    for run in found:
        own = _changed(run).items()
        told = ",".join(f"{name}={_text(value)}" for name, value in own if len(values[name]) > 1)
        method = run.experiment.method_name + (f":{told}" if told else "")
        usual = PRESETS[run.env].default_learner
        rows.append(join_row(run.experiment.learner_name, method, usual))
    return rows


def _changed(run: Run) -> dict[str, Any]:
    """The settings of a run that are not those of the preset, but for how its tasks are dealt."""
    experiment = run.experiment
    usual = settings(PRESETS[run.env].choose(experiment.learner_name, experiment.method_name))
    now = settings(experiment)
    return {name: value for name, value in now.items() if value != usual[name] and name != "groups"}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
