"""Live metrics beside ``metrics.csv``: TensorBoard events, Weights & Biases.

A tracker that fails, for want of room or of a connection, is given up with a warning:
training does not depend on it.
"""

from __future__ import annotations

import importlib
import math
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.spec.errors import UserError, warn
from experiments.spec.experiment import settings
from experiments.training.runs import WANDB_ID, Run, write_whole


class Tracker:
    """Takes the rows of ``metrics.csv``, as long as that works.

    Args:
      name: for people.
      write: takes the frames so far and the finite numbers of a row, by column.
      close: ends the log.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[int, dict[str, float]], object],
        close: Callable[[], object],
    ) -> None:
        self.name, self._write, self._close = name, write, close
        self._works = True

    def write(self, row: dict[str, Any]) -> None:
        """Logs a row."""
        numbers = {name: float(value) for name, value in row.items() if value is not None}
        frames = int(numbers.pop("frames"))
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        self._try(lambda: self._write(frames, finite))

    def close(self) -> None:
        """Ends the log."""
        self._try(self._close)

    def _try(self, action: Callable[[], object]) -> None:
        if not self._works:
            return
        try:
            action()
        except Exception as error:  # of a library, a disk or a network, none worth a training
            self._works = False
            warn(f"{self.name} is given up: {str(error) or type(error).__name__}")


MakeTracker = Callable[[Run, Path], Tracker]  # of the run of a directory


def tensorboard() -> MakeTracker:
    """Events beside the other files of a run.

    Raises:
      UserError: tensorboardX is not installed.
    """
    library = _import("tensorboardX", "--tensorboard")

    def make(run: Run, path: Path) -> Tracker:
        del run
        writer = library.SummaryWriter(str(path))

        def write(frames: int, numbers: dict[str, float]) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, frames)

        return Tracker("TensorBoard", write, writer.close)

    return make


def wandb(project: str) -> MakeTracker:
    """A run of a project of Weights & Biases, which a resumed training goes on with.

    Raises:
      UserError: wandb is not installed.
    """
    library = _import("wandb", "--wandb")

    def make(run: Run, path: Path) -> Tracker:
        note = path / WANDB_ID
        if not note.is_file():
            write_whole(note, uuid.uuid4().hex[:16])
        group = f"{run.env}, {run.name or run.label()}"
        log = library.init(
            project=project,
            group=group,
            name=f"{group}, seed {run.seed}",
            id=note.read_text(encoding="utf-8"),
            resume="allow",
            config={**settings(run.experiment), "seed": run.seed},
            dir=str(path),
            reinit="create_new",
        )

        def write(frames: int, numbers: dict[str, float]) -> None:
            log.log({**numbers, "frames": frames}, step=int(numbers["step"]))

        return Tracker("Weights & Biases", write, log.finish)

    return make


def _import(name: str, flag: str) -> Any:
    """A library of an extra.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"{flag} needs: pip install {name}") from error
