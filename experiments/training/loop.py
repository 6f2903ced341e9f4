"""Training loop: progress, logs, validation and checkpoints around compiled chunks.

The device runs as many training steps in a row as take about a second; between these
chunks the host does everything else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import sys
import threading
import time
from datetime import datetime
from types import FrameType
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm import auto, tqdm

from experiments.spec.errors import warn
from experiments.training import checkpoints, hosts
from experiments.training.checkpoints import Best, Saved
from experiments.training.device import FINITE, VALIDATED, Functions, Session, compiled_skip
from experiments.training.live import in_notebook
from experiments.training.runs import MetricsLog
from experiments.training.trackers import MakeTracker
from roml_jax.types import UNTOLD

_SECONDS = 1.0  # that a chunk should take
_FIRST = 20.0  # seconds after which the first checkpoint is written
_LINES = 30.0  # seconds between lines where no terminal shows a bar
_RETRY = 30.0  # seconds between attempts to save what must not be lost
Saving: TypeAlias = Literal["saved", "no room", "failed"]
_BROKEN = "broken_task"  # the metric that names the first one
_LEADING, _SKIPPED = ("step", "frames", "seconds"), "skipped"
_VALIDATION = {name: f"validation_{name}" for name in VALIDATED}


class NotFinite(Exception):
    """A loss, a return or a parameter became infinite or NaN, and training had to stop."""


def stopping_signals() -> list[int]:
    """Ctrl-C, SIGTERM, and what schedulers and closed terminals send, where nobody else heeds it.

    None outside of the main thread, which alone may handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    found = [signal.SIGINT, signal.SIGTERM]
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"):
        number: signal.Signals | None = getattr(signal, name, None)
        if number is not None and _is_free(signal.getsignal(number)):  # not so under nohup
            found.append(number)
    return list(found)


def _is_free(handler: Any) -> bool:
    """Whether a signal does what it does by default, or what we have made it do."""
    module = getattr(handler, "__module__", None) or ""
    return handler == signal.SIG_DFL or module.startswith("experiments.training.")


def leave_terminal(number: int) -> None:
    """Makes sure that after a hang-up nothing is written to the terminal, which would fail."""
    if number != getattr(signal, "SIGHUP", None):
        return
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


class StopSignal:
    """Notes the first stopping signal while it is entered; a second one stops at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._old: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        leave_terminal(number)
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> StopSignal:
        for number in stopping_signals():
            self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)


class LoopOptions(NamedTuple):
    """How the host goes about a training.

    Attributes:
      checkpoint_seconds: between checkpoints.
      skip: leave out the update of a step that is not finite, instead of stopping; needs
        functions that keep the state they are given.
      trackers: live metrics of each seed.
    """

    checkpoint_seconds: float
    skip: bool = False
    trackers: tuple[MakeTracker, ...] = ()


class Loop:
    """Training from a state to the end, or to a signal.

    Args:
      session: what trains.
      functions: compiled.
      start: the state, and the best agents so far of every seed.
      first_step: the step of the state, None if it is fresh.
      options: how to go about it.
    """

    def __init__(
        self,
        session: Session,
        functions: Functions,
        start: tuple[PyTree, list[dict[str, Best]]],
        *,
        first_step: int | None,
        options: LoopOptions,
    ) -> None:
        self.session, self.functions, self.options = session, functions, options
        self.state, self.best = start
        self.step, self.skipped = first_step or 0, 0  # updates left out since the start
        self.unsaved: str | None = None  # why the last checkpoint could not be written
        # An agent with these parameters has learned nothing: its score is taken for unknown.
        learned = any(np.isfinite(best.value) for one in self.best for best in one.values())
        self._untrained = None if learned else session.whole(session.agents(self.state)[0])
        self._metric_names = session.built.metric_names()
        self._metric_names.pop(_BROKEN, None)  # which is told when training stops
        metrics = [column for columns in self._metric_names.values() for column in columns]
        columns = [*_LEADING, *metrics, _SKIPPED, *_VALIDATION.values()]
        self._logs = [MetricsLog(path, columns, first_step) for path in session.paths]
        pairs = list(zip(session.runs, session.paths, strict=True))
        self._trackers = [[make(*pair) for pair in pairs] for make in options.trackers]
        self._before = self._logs[0].seconds
        self._start = time.perf_counter()

    def run(self) -> int | None:
        """Trains; returns the number of the signal that stopped it, or None at the end.

        Raises:
          NotFinite: something is infinite or NaN; nothing of it has been saved.
        """
        total = self.session.built.total_steps
        per_step = self.session.built.learner.frames_per_step * len(self.session.runs)
        chunk, saved, wait = 1, time.perf_counter(), min(_FIRST, self.options.checkpoint_seconds)
        with contextlib.ExitStack() as stack:
            for log in self._logs:
                stack.callback(log.close)
            for tracker in (one for each in self._trackers for one in each):
                stack.callback(tracker.close)
            stop = stack.enter_context(StopSignal())
            frames = self.session.built.paradigm.frames
            bar = stack.enter_context(_bar(total * per_step, self.step * per_step, frames))
            if self.step == 0:
                self._log([[{"step": 0, **row}] for row in self._validate(bar)])
            stopped = 0
            while self.step < total and not stopped:
                begun, before = time.perf_counter(), self.step
                self._advance(min(chunk, self._steps_to_validation()), bar)
                bar.update((self.step - before) * per_step)
                now = time.perf_counter()
                chunk = _as_many((now - begun) / (self.step - before), self.functions.chunk)
                # Several processes go by the first one's clock, and stop if any of them must.
                told = hosts.gather(chunk, now - saved > wait, stop.number or 0)
                chunk, stopped = int(told[0, 0]), int(told[:, 2].max())
                if told[0, 1]:
                    self._try_to_save()
                    saved, wait = time.perf_counter(), self.options.checkpoint_seconds
            while self._try_to_save() == "no room":  # the state lives only as long as this process
                warn(f"trying again in {_RETRY:.0f} s: make room (or Ctrl-C twice to give up)")
                time.sleep(_RETRY)
        return stopped or None

    def tested_agent(self, i: int) -> tuple[PyTree, int]:
        """The agent of the i-th seed that is to be tested, and the step that it is of.

        An agent is its parameters and the state of the sampler.
        """
        which = self.session.built.experiment.tested_agent()
        if which == "final":
            return self.session.one(self.session.agents(self.state), i), self.step
        best = self.best[i][which.removeprefix("best-")]
        return best.agent, int(best.step)

    # -------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """Writes the checkpoint of every seed, of as many as can be.

        Raises:
          Exception: one could not be written.
        """
        failure = None
        for i, (run, path) in enumerate(zip(self.session.runs, self.session.paths, strict=True)):
            saved = Saved(self.session.one(self.state, i), self.best[i])
            if not hosts.is_first():  # which was needed to put the state together
                continue
            about = run.describe(self.session.seeds, self.session.alphas)
            try:
                checkpoints.save(path, self.step, saved, about)
            except Exception as error:  # each part of orbax has its own
                failure = failure or error
        if failure is not None:
            raise failure

    def _try_to_save(self) -> Saving:
        """Saves; says why if that is impossible now, for training goes on without."""
        self.unsaved, result = None, 0
        try:
            self.save()
        except Exception as error:  # a full disk, a lost drive, a folder that is gone
            if hosts.other_died(error):
                raise
            told = [line for line in str(error).splitlines() if line.strip()]
            reason = told[0] if told else type(error).__name__
            self.unsaved = f"the checkpoint of step {self.step:,} could not be written: {reason}"
            warn(self.unsaved)
            result = 1 if checkpoints.lacks_room(error) else 2
        results: tuple[Saving, ...] = ("saved", "no room", "failed")
        return results[int(hosts.gather(result)[0, 0])]

    # -------------------------------------------------------------- training

    def _steps_to_validation(self) -> int:
        built = self.session.built
        every = built.experiment.validation_every
        return min(every - self.step % every, built.total_steps - self.step)

    def _advance(self, n: int, bar: tqdm) -> None:
        """Runs up to n steps, no further than one that is not finite; validates when due."""
        built, before, first = self.session.built, self.state, self.step
        self.state, metrics = self.functions.run_chunk(before, np.int32(n))
        metrics = jax.tree.map(np.asarray, metrics)
        fine = metrics[FINITE][:n].reshape(n, -1)  # [n, seeds]
        good = n if fine.all() else int(np.argmin(fine.all(axis=1)))
        failed = good < n
        n = good + failed
        self.step += n
        if failed and self.options.skip:
            self._leave_out(before, good, ~fine[good])
        due = self.step % built.experiment.validation_every == 0 or self.step == built.total_steps
        checks = self._validate(bar) if due and (not failed or self.options.skip) else None
        tables = [self._rows(metrics, n, i) for i in range(len(self.session.runs))]
        for i, rows in enumerate(tables):
            for j, row in enumerate(rows):
                row |= {"step": first + j + 1, _SKIPPED: int(not fine[j, i])}
            rows[-1] |= checks[i] if checks else {}
        self._log(tables)
        if failed and not self.options.skip:
            seed = int(np.argmin(fine[good]))
            task = metrics[_BROKEN][good] if len(tables) == 1 else metrics[_BROKEN][good, seed]
            raise NotFinite(self._diagnosis(tables[seed][good], seed) + self._name_task(task))
        for i, check in enumerate(checks or []):
            if not np.isfinite([*check.values()]).all() and not self.options.skip:
                raise NotFinite(self._diagnosis(check, i))

    def _leave_out(self, before: PyTree, good: int, bad: np.ndarray) -> None:
        """Repeats the good steps from ``before``, and skips the next one where it is bad."""
        run_chunk, several = self.functions.run_chunk, len(self.session.runs) > 1
        state = run_chunk(before, np.int32(good))[0] if good else before
        after, _ = run_chunk(state, np.int32(1))
        mended = compiled_skip(several)(state, after, bad if several else bad[0])
        self.state = self.session.lay(mended)
        self.skipped += int(bad.sum())

    def _diagnosis(self, row: dict[str, Any], i: int) -> str:
        """What is wrong with the i-th seed, by the metrics of its step or of its validation."""
        names = self._metric_names
        watched = [column for name in self.session.built.watched for column in names[name]]
        known = [column for column in [*watched, *_VALIDATION.values()] if column in row]
        wrong = [f"{column} is {row[column]}" for column in known if not np.isfinite(row[column])]
        told = ", ".join(wrong) or "a parameter is not finite, though all losses are"
        alphas = self.session.alphas
        level = f"alpha {alphas[i]:g}, " if alphas else ""
        return f"{level}seed {self.session.seeds[i]}, step {self.step:,}: {told}"

    def _name_task(self, task: np.ndarray) -> str:
        """A task without a finite return, in words; nothing if there was none."""
        if not np.isfinite(task).all():
            return ""
        names = self.session.built.env.family.names
        told = ", ".join(f"{name} {value:g}" for name, value in zip(names, task, strict=True))
        return f" (a task of this kind: {told})"

    def _rows(self, metrics: dict[str, np.ndarray], n: int, i: int) -> list[dict[str, Any]]:
        """The metrics of the first n steps of a chunk, for the i-th seed, by column."""
        table: dict[str, np.ndarray] = {}
        for name, columns in self._metric_names.items():
            values = metrics[name][:n] if len(self.session.runs) == 1 else metrics[name][:n, i]
            if name not in self.session.built.watched:
                values = np.where(values == UNTOLD, np.nan, values)
            table |= dict(zip(columns, values.reshape(n, -1).T, strict=True))
        return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]

    def _validate(self, bar: tqdm) -> list[dict[str, Any]]:
        """Mean and CVaR of every seed, shown on the bar (averaged over seeds); notes the best."""
        agents = self.session.agents(self.state)
        params = agents[0]
        results = self.functions.validate(params)
        if self._untrained is not None and not same(self._untrained, self.session.whole(params)):
            self._untrained = None
        for i, result in enumerate(results):
            known = result if self._untrained is None else np.full_like(result, np.nan)
            self._note_best(i, agents, dict(zip(VALIDATED, known, strict=True)))
        mean, tail = np.mean(results, axis=0)
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        bar.set_postfix_str(f"mean {mean:.3f}, CVaR {tail:.3f}{skipped}")
        return [dict(zip(_VALIDATION.values(), result, strict=True)) for result in results]

    def _note_best(self, i: int, agents: PyTree, scores: dict[str, np.ndarray]) -> None:
        """Keeps the agent of the i-th seed where it validates as well as ever before."""
        best = self.best[i]
        better = [n for n, x in scores.items() if n not in best or as_good(x, best[n].value)]
        if better:
            now = jax.device_get(self.session.one(agents, i))
            best |= {name: Best(now, np.int32(self.step), scores[name]) for name in better}

    def _log(self, tables: list[list[dict[str, Any]]]) -> None:
        """Writes the rows of every seed."""
        seconds = round(self._before + time.perf_counter() - self._start, 3)
        per_step = self.session.built.learner.frames_per_step
        for i, rows in enumerate(tables):
            for row in rows:
                row |= {"frames": row["step"] * per_step, "seconds": seconds}
            self._logs[i].write(*rows)
            for trackers in self._trackers:
                for row in rows:
                    trackers[i].write(row)


def _as_many(seconds: float, most: int) -> int:
    """Steps of a chunk, by the seconds that one takes."""
    return int(np.clip(_SECONDS / seconds, 1, most))


def same(a: PyTree, b: PyTree) -> bool:
    """Whether two pytrees hold the same numbers."""
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def unscored(best: dict[str, Best]) -> dict[str, Best]:
    """The best agents so far, where their scores are no measure any more: any score beats them."""
    return {name: one._replace(value=np.full_like(one.value, np.nan)) for name, one in best.items()}


def as_good(value: float | np.ndarray, best: float | np.ndarray) -> bool:
    """Whether a score is as good as the best one so far: NaN only where that is NaN, too."""
    return bool(value >= best or np.isnan(best))


class _Lines(tqdm):
    """The bar for a file: a dated line now and then, without the bar."""

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Writes a line."""
        del pos
        now, text = datetime.now().isoformat(" ", "seconds"), str(self) if msg is None else msg
        if text.strip():
            self.fp.write(f"{now}  {text.strip().replace('  , ', ', ')}\n")
        self.fp.flush()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Takes nothing back: lines stay."""


def _bar(total: int, done: int, frames: str) -> tqdm:
    """Progress in frames of all seeds, by what they are called."""
    notebook, terminal = in_notebook(), sys.stderr.isatty()
    bar = "{bar:24} " if terminal else "{bar} " if notebook else ""
    counts = "{percentage:3.0f}% " + bar + "{n_fmt}/{total_fmt} " + frames
    layout = counts + ", {rate_fmt}, {remaining} left"
    kind = auto.tqdm if notebook else tqdm if terminal else _Lines
    return kind(
        total=total,
        initial=done,
        unit=f" {frames}",
        unit_scale=True,
        mininterval=0.5 if terminal or notebook else _LINES,
        bar_format=layout + "  {postfix}",
        disable=not hosts.is_first(),
    )
