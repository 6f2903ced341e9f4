"""What ``experiments.evaluate`` can be told; light, for ``--help``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from experiments.spec.experiment import Checkpoint


@dataclasses.dataclass(frozen=True)
class RetestOptions:
    """What to test.

    Attributes:
      run: the directory of a seed, or one that holds several.
      checkpoint: which agent: the one that the run itself tests (tested), that of the newest
        checkpoint, or the one with the best validation by mean or by CVaR.
      tasks: number of test tasks; None for that of the run.
      seed: of test tasks and noise; None for that of the run.
      csv: file for the table of all episodes; None writes nothing.
      summary: file for one row per run: mean, CVaR, shares of outcomes, phi.
    """

    run: Annotated[str, tyro.conf.Positional]
    checkpoint: Checkpoint = "tested"
    tasks: int | None = None
    seed: int | None = None
    csv: Path | None = None
    summary: Path | None = None
