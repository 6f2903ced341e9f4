"""What ``experiments.compare`` and ``experiments.figures`` can be told; light, for ``--help``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.presets import DEFAULT_ENV
from experiments.spec.words import Seeds, place

FORMATS = ("png", "pdf")  # of figures


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """What to compare.

    Attributes:
      env: the environment.
      methods: [LEARNER/]METHOD or [LEARNER/]METHOD:flag=value,…, with the flags of
        experiments.train.
      learners: each of them below each method that names none; none for the environment's usual.
      seeds: of each method, 0 1 2 or 0..9.
      alphas: sweep alpha: each method becomes one for each of these; none for the usual one.
      out: folder of all runs.
      results: folder of results and tables of all environments; None for OUT/results.
      at_once: most seeds that train side by side; None for as many as memory allows.
      checkpoint_minutes: minutes between checkpoints during training.
      launcher: who runs the trainings: this process, one after another (local), a Ray cluster, or
        SLURM, all at once.
      job_cores: of each training in a cluster.
      job_gpus: of each training in a cluster; a part of one shares it.
      job_hours: that SLURM gives each, before it goes on with it in another job.
      slurm: NAME=VALUE, partition=gpu for instance: what else SLURM shall know.
      plan: only say what would be done.
      collect: train nothing; make results and tables of what is finished.
    """

    env: Annotated[str, tyro.conf.Positional] = DEFAULT_ENV
    methods: tuple[str, ...] = ("baseline", "cvar-ml", "roml")
    learners: tuple[str, ...] = ()
    seeds: Seeds = tuple(range(10))
    alphas: tuple[float, ...] = ()
    out: str = "runs"
    results: str | None = None
    at_once: int | None = None
    checkpoint_minutes: float = 10.0
    launcher: Literal["local", "ray", "slurm"] = "local"
    job_cores: int = 2
    job_gpus: float = 0.0
    job_hours: float = 24.0
    slurm: tuple[str, ...] = ()
    plan: bool = False
    collect: bool = False

    def __post_init__(self) -> None:
        """Finds the folders."""
        object.__setattr__(self, "out", str(place("--out", self.out)))
        if self.results is not None:
            object.__setattr__(self, "results", str(place("--results", self.results)))


@dataclasses.dataclass(frozen=True)
class FigureOptions:
    """What to draw, and where to.

    Attributes:
      env: the environment, or a table of the paper.
      results: folder of compact results, with a folder for each environment.
      out: folder of figures, likewise.
      methods: those to draw, all if none is named; they keep their order and their colours.
      beside: other presets of the same environment, whose methods METHOD@ENV join these.
      format: png, pdf or both.
    """

    env: Annotated[str, tyro.conf.Positional]
    results: Path = Path("experiments/results")
    out: Path = Path("figures")
    methods: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    format: tuple[str, ...] = FORMATS

    def __post_init__(self) -> None:
        """Finds the folders."""
        for name in ("results", "out"):
            object.__setattr__(self, name, place(f"--{name}", getattr(self, name)))


@dataclasses.dataclass(frozen=True)
class ReferenceOptions:
    """Which results get the rows of what is reached without learning.

    Attributes:
      env: the environment.
      results: folder of compact results, with a folder for each environment.
    """

    env: Annotated[str, tyro.conf.Positional]
    results: Path = Path("experiments/results")

    def __post_init__(self) -> None:
        """Finds the folder."""
        object.__setattr__(self, "results", place("--results", self.results))
