"""Training loop: progress, logs, validation and checkpoints around compiled chunks.

The device runs as many training steps in a row as take about a second; between these
chunks the host does everything else.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from experiments import checkpoints
from experiments.config import UserError
from experiments.device import Functions, Session
from experiments.runs import MetricsLog
from roml_jax.evaluate import evaluation_key

_SECONDS = 1.0  # that a chunk should take
_LEADING = ("step", "frames", "seconds")
_VALIDATION = ("validation_mean", "validation_cvar")


class StopSignal:
    """Notes the first Ctrl-C or SIGTERM while it is entered; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._old: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


class Loop:
    """Training from a state to the end, or to a signal."""

    def __init__(
        self,
        session: Session,
        functions: Functions,
        state: PyTree,
        *,
        first_step: int | None,
        checkpoint_minutes: float,
        tensorboard: bool,
    ) -> None:
        self.session, self.functions, self.state = session, functions, state
        self.step = first_step or 0
        names = session.built.metric_names()
        self._metric_names = names
        columns = [*_LEADING, *(c for cs in names.values() for c in cs), *_VALIDATION]
        self._logs = [MetricsLog(path, columns, first_step) for path in session.paths]
        self._writers = [_event_writer(path) for path in session.paths] if tensorboard else []
        self._checkpoint_seconds = 60 * checkpoint_minutes
        self._before = self._logs[0].seconds
        self._start = time.perf_counter()

    def run(self) -> int | None:
        """Trains; returns the number of the signal that stopped it, or None at the end."""
        built, chunk = self.session.built, 1
        per_step = built.learner.frames_per_step * len(self.session.runs)
        saved = time.perf_counter()
        with StopSignal() as stop, _bar(built.total_steps * per_step, self.step * per_step) as bar:
            if self.step == 0:
                self._log([{"step": 0, "frames": 0, **row} for row in self._validate(bar)])
            while self.step < built.total_steps and stop.number is None:
                begun = time.perf_counter()
                n = min(chunk, self._steps_to_validation())
                self._advance(n, bar)
                bar.update(n * per_step)
                seconds = (time.perf_counter() - begun) / n
                chunk = int(np.clip(_SECONDS / seconds, 1, self.functions.chunk))
                if time.perf_counter() - saved > self._checkpoint_seconds:
                    self.save()
                    saved = time.perf_counter()
        self.save()
        for log in [*self._logs, *self._writers]:
            log.close()
        return stop.number

    def save(self) -> None:
        """Writes the checkpoint of every seed."""
        for i, (run, path) in enumerate(zip(self.session.runs, self.session.paths, strict=True)):
            checkpoints.save(path, self.step, self.session.one(self.state, i), run.describe())

    def _steps_to_validation(self) -> int:
        every, total = (
            self.session.built.experiment.validation_every,
            self.session.built.total_steps,
        )
        return min(every - self.step % every, total - self.step)

    def _advance(self, n: int, bar: tqdm) -> None:
        """Runs a chunk of n steps, with the validation that falls on its end."""
        self.state, metrics = self.functions.run_chunk(self.state, np.int32(n))
        metrics = jax.tree.map(np.asarray, metrics)
        first, self.step = self.step, self.step + n
        built = self.session.built
        due = self.step % built.experiment.validation_every == 0 or self.step == built.total_steps
        checks = self._validate(bar) if due else [{} for _ in self.session.runs]
        for j in range(n):
            last = j == n - 1
            self._log(
                [
                    {"step": first + j + 1, **self._row(metrics, j, i), **(check if last else {})}
                    for i, check in enumerate(checks)
                ]
            )

    def _row(self, metrics: dict[str, np.ndarray], j: int, i: int) -> dict[str, Any]:
        """The metrics of step j of a chunk, for the i-th seed, by column."""
        row: dict[str, Any] = {}
        for name, columns in self._metric_names.items():
            value = metrics[name][j] if len(self.session.runs) == 1 else metrics[name][j, i]
            row |= dict(zip(columns, np.ravel(value), strict=True))
        return row

    def _validate(self, bar: tqdm) -> list[dict[str, Any]]:
        """Mean and CVaR of every seed, also shown on the bar (averaged over seeds)."""
        params = self.session.built.learner.params(self.state.learner)
        results = [
            np.asarray(
                self.functions.validate(
                    self.session.one(params, i), evaluation_key(seed, "validation")
                )
            )
            for i, seed in enumerate(self.session.seeds)
        ]
        mean, tail = np.mean(results, axis=0)
        bar.set_postfix_str(f"mean {mean:.3f}, CVaR {tail:.3f}")
        return [dict(zip(_VALIDATION, result, strict=True)) for result in results]

    def _log(self, rows: list[dict[str, Any]]) -> None:
        """Writes one row of every seed."""
        seconds = round(self._before + time.perf_counter() - self._start, 3)
        frames = rows[0]["step"] * self.session.built.learner.frames_per_step
        for log, row in zip(self._logs, rows, strict=True):
            log.write([row | {"frames": frames, "seconds": seconds}])
        for writer, row in zip(self._writers, rows, strict=False):
            for name, value in row.items():
                writer.add_scalar(name, float(value), frames)


def _bar(total: int, done: int) -> tqdm:
    """Progress in frames of all seeds."""
    layout = "{percentage:3.0f}% {bar:24} {n_fmt}/{total_fmt} frames, {rate_fmt}, {remaining} left"
    return tqdm(
        total=total,
        initial=done,
        unit=" frames",
        unit_scale=True,
        mininterval=0.5 if sys.stderr.isatty() else 5.0,
        bar_format=layout + "  {postfix}",
    )


def _event_writer(path: Path) -> Any:
    """Writes TensorBoard events beside the other files of a run."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs: pip install tensorboardX") from error
    return SummaryWriter(str(path))
