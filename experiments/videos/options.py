"""What ``experiments.render`` can be told; light, for ``--help``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.spec.experiment import Checkpoint
from experiments.spec.words import place


@dataclasses.dataclass(frozen=True)
class RenderOptions:
    """What to show.

    Attributes:
      runs: directories of seeds, or ones that hold several; a column for each run.
      checkpoint: which agents: those that the runs themselves test (tested), those of the
        newest checkpoints, or those with the best validation by mean or by CVaR.
      tasks: a row for each: values, or vectors such as 0.5,1,2; none for an easy, a median
        and a hard one.
      episode: of the meta-episode, from 1 on; None for the last.
      seed: of starting positions, and of the tasks that are drawn; None for that of the first
        run.
      size: of a panel, in pixels.
      fps: pictures per second; None for real time.
      stride: control steps from one picture to the next, and then the last; None for at most 30
        pictures a second of real time.
      format: of the files.
      out: file to write, its ending is that of the format; or a folder. None for the folder
        of the first run.
    """

    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
    ] = ()
    checkpoint: Checkpoint = "tested"
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]")] = ()
    episode: int | None = None
    seed: int | None = None
    size: Annotated[str, tyro.conf.arg(metavar="WIDTHxHEIGHT")] = "320x240"
    fps: float | None = None
    stride: int | None = None
    format: Literal["mp4", "gif", "both"] = "both"
    out: Path | None = None

    def __post_init__(self) -> None:
        """Finds the folders."""
        object.__setattr__(self, "runs", tuple(str(place("RUN", run)) for run in self.runs))
        if self.out is not None:
            object.__setattr__(self, "out", place("--out", self.out))
