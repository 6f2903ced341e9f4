"""What ``experiments.evaluate`` can be told; light, for ``--help``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.spec.experiment import Checkpoint
from experiments.spec.words import file_to_write, place


@dataclasses.dataclass(frozen=True)
class RetestOptions:
    """What to test.

    Attributes:
      run: the directory of a seed, or one that holds several.
      checkpoint: which agent: the one that the run itself tests (tested), that of the newest
        checkpoint, or the one with the best validation by mean or by CVaR.
      tasks: number of test tasks; None for that of the run.
      task: one task, all its components: it is what all test tasks are.
      phi: of the distribution that test tasks are drawn from, in place of the original one.
      repeats: how often each is played; None as the run does.
      seed: of test tasks and noise; None for that of the run.
      csv: file for the table of all episodes; None writes nothing.
      picture: file for a picture of the returns by the first component of the tasks.
      summary: file for one row per run: mean, CVaR, shares of outcomes, phi.
    """

    run: Annotated[str, tyro.conf.Positional]
    checkpoint: Checkpoint = "tested"
    tasks: int | None = None
    task: tuple[float, ...] = ()
    phi: tuple[float, ...] = ()
    repeats: int | None = None
    seed: int | None = None
    csv: Path | None = None
    picture: Path | None = None
    summary: Path | None = None

    def __post_init__(self) -> None:
        """Finds the files."""
        for name in ("csv", "picture", "summary"):
            object.__setattr__(self, name, file_to_write(f"--{name}", getattr(self, name)))
        if isinstance(self.run, str):  # not while it is asked for
            object.__setattr__(self, "run", str(place("RUN", self.run)))
