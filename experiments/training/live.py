"""What a notebook shows of a training while it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.spec.paradigms import paradigm_of
from experiments.training import pictures, runs
from experiments.training.runs import Run
from experiments.training.trackers import MakeTracker, Tracker

_SHOWN = ("validation_mean", "validation_cvar")


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", {})


def curve() -> MakeTracker:
    """One picture of the validations of all runs, drawn anew with each of them."""
    from IPython.display import display

    known: list[Run] = []
    rows: list[dict[str, Any]] = []
    shown: list[Any] = []  # the handle of the picture, once there is one

    def draw() -> None:
        table = pd.DataFrame(rows)
        if table["alpha"].nunique() == 1:
            table = table.drop(columns="alpha")
        figure = pictures.curves(table, known[0], paradigm_of(known[0].experiment.env).frames)
        if shown:
            shown[0].update(figure)
        else:
            shown.append(display(figure, display_id=True))

    def make(run: Run, path: Path) -> Tracker:
        known.append(run)
        own = {"seed": run.seed, "alpha": run.experiment.alpha}
        before = pd.read_csv(path / runs.METRICS)  # of a training that goes on
        if len(before):
            seen = before.dropna(subset=[*_SHOWN])
            for values in zip(*(seen[name] for name in ("frames", *_SHOWN)), strict=True):
                rows.append(own | dict(zip(("frames", *_SHOWN), values, strict=True)))

        def write(frames: int, numbers: dict[str, float]) -> None:
            if not {*_SHOWN} <= numbers.keys():
                return
            rows.append(own | {"frames": frames} | {name: numbers[name] for name in _SHOWN})
            if run is known[-1]:  # all have told
                draw()

        return Tracker("the live curve", write, lambda: None)

    return make
