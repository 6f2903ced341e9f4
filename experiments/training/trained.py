"""Trainings as objects: their metrics, tests and agents, from the folders that they wrote."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Array, PyTree
from matplotlib.figure import Figure

from experiments.presets import PRESETS
from experiments.spec.build import Built, build
from experiments.spec.errors import UserError
from experiments.spec.experiment import Checkpoint
from experiments.spec.words import one_of, seed_words
from experiments.training import agents, exported, pictures, runs
from experiments.training.runs import Run
from roml_jax.evaluate import evaluate, evaluation_key
from roml_jax.types import Agent, Predictor

_CHECKPOINTS = ("tested", "newest", "best-mean", "best-cvar")


@dataclasses.dataclass(frozen=True)
class TrainedAgent:
    """An agent of a run, and what is needed to let it act.

    Attributes:
      env: the environment, or the supervised tasks.
      behaviour: ``Agent`` or ``Predictor``, pure functions of ``params``.
      params: its parameters.
      phi: where the task sampler stood, by component.
      step: the training step that it is of.
    """

    env: Any
    behaviour: Agent | Predictor
    params: PyTree
    phi: dict[str, float]
    step: int

    def returns(self, tasks: Any, seed: int = 0) -> np.ndarray:
        """What it reaches on tasks of your choice.

        Args:
          tasks: ``[n, D]``, or ``[n]`` where a task has one component.
          seed: of the noise.

        Returns:
          ``[n]``, the mean return over the episodes of each task.

        Raises:
          ValueError: tasks have other components than those of the environment.
        """
        tasks = np.asarray(tasks, np.float32)
        tasks = tasks[:, None] if tasks.ndim == 1 else tasks
        return np.asarray(self._returns(self.params, tasks, evaluation_key(seed, "test")))

    def export(self, file: str | Path, n: int = 1) -> None:
        """Writes the agent as one file, which runs without this project, see ``exported``.

        Args:
          file: ends in ``.zip``.
          n: how many of it act side by side.

        Raises:
          UserError: it is not an agent that acts, or the file has another ending.
        """
        if not isinstance(self.behaviour, Agent):
            raise UserError("what is trained here acts in no environment: take its params")
        exported.write(Path(file), self.env, self.behaviour, self.params, n=n)

    @functools.cached_property
    def _returns(self) -> Callable[[PyTree, np.ndarray, Array], Array]:
        env, behaviour = self.env, self.behaviour

        def play(params: PyTree, tasks: Array, key: Array) -> Array:
            return evaluate(key, env, behaviour, params, tasks, purpose="test").returns

        return jax.jit(play)


@dataclasses.dataclass(frozen=True)
class Trained:
    """Runs of one training: a seed each, and a level each in a sweep of alpha.

    Attributes:
      paths: their folders.
      runs: what was asked for, in the same order.
    """

    paths: tuple[Path, ...]
    runs: tuple[Run, ...]

    @property
    def seeds(self) -> list[int]:
        """Of the runs, each once."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def finished(self) -> bool:
        """Whether all are trained to their end, and tested."""
        return all(runs.status(path) == "finished" for path in self.paths)

    @property
    def metrics(self) -> pd.DataFrame:
        """All of ``metrics.csv``: a row per training step, and one for the untrained agent."""
        return self._tables(runs.METRICS)

    @property
    def tests(self) -> pd.DataFrame:
        """All of ``test.csv``: a row per task and episode.

        Raises:
          UserError: a run is not finished.
        """
        return self._tables(runs.TEST)

    def test(
        self,
        alpha: float | None = None,
        *,
        tasks: int | None = None,
        repeats: int | None = None,
        seed: int | None = None,
        checkpoint: Checkpoint = "tested",
    ) -> pd.DataFrame:
        """What the test says of each run: from its file, or played anew where more is asked for.

        Args:
          alpha: of the CVaR, in (0, 1]; None for that which the run aimed at.
          tasks: of another test, the number of its tasks.
          repeats: likewise, how often each of them is played.
          seed: likewise, of its tasks and noise.
          checkpoint: tested, newest, best-mean or best-cvar.

        Returns:
          A row per run, with its mean, its CVaR and the share of each outcome.

        Raises:
          UserError: a value is not valid, or there is no test or checkpoint yet.
        """
        if alpha is not None and not 0 < alpha <= 1:
            raise UserError(f"alpha is the fraction of worst tasks, in (0, 1]; got {alpha}")
        one_of("checkpoint", checkpoint, _CHECKPOINTS)
        stored = (tasks, repeats, seed, checkpoint) == (None, None, None, "tested")
        plays: dict[float, Callable[[PyTree, int], pd.DataFrame]] = {}  # by level
        rows = []
        for path, run in zip(self.paths, self.runs, strict=True):
            level = run.experiment.alpha if alpha is None else alpha
            view = PRESETS[run.env].view_of(run.experiment.env)
            if stored:
                table = _read(path, runs.TEST)
            else:
                built = build(run.experiment)
                (params, _), _ = agents.load_agent(path, built, agents.which_agent(checkpoint))
                if run.experiment.alpha not in plays:
                    plays[run.experiment.alpha] = self._player(built, tasks, repeats)
                play = plays[run.experiment.alpha]
                table = play(params, run.evaluation_seed if seed is None else seed)
            score = agents.score(table, level, view, {})
            row = {"seed": run.seed, "alpha": level, "mean": score.mean, "cvar": score.cvar}
            if score.cvar_by_halves is not None:
                row["cvar_by_halves"] = score.cvar_by_halves
            rows.append(row | score.shares)
        return pd.DataFrame(rows).fillna(0.0).set_index("seed")

    def agent(self, seed: int | None = None, checkpoint: Checkpoint = "tested") -> TrainedAgent:
        """An agent, from the checkpoints.

        Args:
          seed: of its run; None for the first.
          checkpoint: tested, newest, best-mean or best-cvar.

        Raises:
          UserError: there is no such run or checkpoint.
        """
        one_of("checkpoint", checkpoint, _CHECKPOINTS)
        seed = self.seeds[0] if seed is None else seed
        if seed not in self.seeds:
            told = " ".join(seed_words(self.seeds))
            raise UserError(f"there is no run of seed {seed}; seeds are {told}")
        i = [run.seed for run in self.runs].index(seed)
        built = build(self.runs[i].experiment)
        which = agents.which_agent(checkpoint)
        (params, sampler), step = agents.load_agent(self.paths[i], built, which)
        return TrainedAgent(
            built.env, built.agent, params, agents.final_phi(sampler, built), int(step)
        )

    def plot(self) -> Figure:
        """Validation mean and CVaR against frames, of each seed and on average."""
        run = self.runs[0]
        return pictures.curves(self.metrics, run, build(run.experiment).paradigm.frames)

    @property
    def pictures(self) -> dict[str, Path]:
        """The pictures that the first run has of itself, by name: curve, cem, episodes or fits."""
        return {file.stem: file for file in sorted(self.paths[0].glob("*.png"))}

    def save(self, folder: str | Path) -> Trained:
        """Copies the runs, checkpoints and all, to where ``load`` finds them.

        Args:
          folder: of all runs, as ``out`` is.

        Raises:
          UserError: a run is there already.
        """
        places = tuple(run.path(folder) for run in self.runs)
        for place in places:
            if runs.status(place) != "new":
                raise UserError(f"{place} holds a run already: choose another folder")
        for path, place in zip(self.paths, places, strict=True):
            shutil.copytree(path, place, dirs_exist_ok=True)
        return Trained(places, self.runs)

    def __repr__(self) -> str:
        """What was trained, where it lies and how far it is."""
        run = self.runs[0]
        told = "finished" if self.finished else "unfinished"
        seeds = " ".join(seed_words(self.seeds))
        return f"<{run.env}, {run.label()}, seeds {seeds}, {told}, in {self.paths[0].parent}>"

    def _tables(self, name: str) -> pd.DataFrame:
        """The tables of all runs, with columns for what they differ in."""
        parts = []
        sweep = len({run.experiment.alpha for run in self.runs}) > 1
        for path, run in zip(self.paths, self.runs, strict=True):
            own = {"seed": run.seed} | ({"alpha": run.experiment.alpha} if sweep else {})
            table = _read(path, name)
            parts.append(table.drop(columns=[*own], errors="ignore"))
            for i, (column, value) in enumerate(own.items()):
                parts[-1].insert(i, column, value)
        return pd.concat(parts, ignore_index=True)

    def _player(
        self, built: Built, tasks: int | None, repeats: int | None
    ) -> Callable[[PyTree, int], pd.DataFrame]:
        """A test that is compiled once for all seeds of an experiment."""
        for name, value in (("tasks", tasks), ("repeats", repeats)):
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1; got {value}")
        experiment, view = built.experiment, PRESETS[self.runs[0].env].view_of(built.env)
        n, plays = tasks or experiment.test_tasks, repeats or experiment.test_repeats
        return agents.make_test(built, view, n, plays)


def load(path: str | Path) -> Trained:
    """The runs in a folder, or below it: of one training, whose settings differ in alpha alone.

    Args:
      path: ``runs/ENV/METHOD-LEARNER``, or that of a seed.

    Raises:
      UserError: there is no run, or there are those of several trainings; names them.
    """
    root = Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"{root} is no directory: give a run, runs/ENV/… for instance")
    found = sorted(
        (file.parent for file in root.rglob(runs.CONFIG)),
        key=lambda place: (place.parent, len(place.name), place.name),
    )
    if not found:
        raise UserError(f"{root} holds no run: no {runs.CONFIG} in it or below")
    read = [runs.read_config(place) for place in found]
    if len(groups := _trainings(read)) > 1:
        raise UserError(f"{root} holds several trainings: load one of {', '.join(groups)}")
    return Trained(tuple(found), tuple(read))


def _trainings(found: Sequence[Run]) -> list[str]:
    """The folders of different trainings, a sweep of alpha as one."""
    names = [f"{run.env}/{(run.name or run.folder).rpartition(',alpha=')[0]}" for run in found]
    plain = [f"{run.env}/{run.name or run.folder}" for run in found]
    told = [name if not name.endswith("/") else own for name, own in zip(names, plain, strict=True)]
    return list(dict.fromkeys(told))


def _read(path: Path, name: str) -> pd.DataFrame:
    """A table of a run.

    Raises:
      UserError: it is not there yet.
    """
    file = path / name
    if not file.is_file():
        raise UserError(f"{file} is not there yet: the run is {runs.status(path)}")
    return pd.read_csv(file)
