"""What a job is, and what is done about one that ends, whatever the engine."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

State: TypeAlias = Literal["waiting", "running", "ended", "lost"]
_LOOK = 1.0  # seconds between looks at the jobs
_TRIES = 5  # starts of a job that is stopped or lost by no fault of its own
_GRACE = 60.0  # seconds in which stopped trainings save
_PR_SET_PDEATHSIG = 1


class Job(NamedTuple):
    """A training that is to run somewhere."""

    name: str
    argv: list[str]  # of experiments.train
    log: Path  # what it says
    cores: int
    gpus: float
    memory: int  # bytes


class Launcher(Protocol):
    """An engine. Its jobs are known by what ``submit`` returns."""

    def submit(self, job: Job) -> Any:
        """Starts a job as soon as there is room for it."""

    def look(self, handle: Any) -> tuple[State, int | None]:
        """How far a job is, and its exit code once it has ended."""

    def cancel(self, handle: Any) -> None:
        """Lets a job save, and end."""

    def close(self) -> None:
        """Leaves the engine."""


def run_all(jobs: Sequence[Job], launcher: Launcher) -> tuple[int, list[str]]:
    """Runs jobs until all have ended, or Ctrl-C.

    One that a signal has stopped, or whose machine is lost, starts again, where it left off if the
    output is on a shared disk. One that fails does not end the others.

    Returns:
      The exit code, 0, 1 or 130, and what has failed.
    """
    followed = [_Followed(job, launcher) for job in jobs]
    _say(f"{len(jobs)} jobs; what they say goes to {jobs[0].log.parent if jobs else 'no file'}")
    try:
        while left := [one for one in followed if not one.over]:
            for one in left:
                one.look()
            time.sleep(_LOOK * any(not one.over for one in left))
    except KeyboardInterrupt:
        _stop([one for one in followed if not one.over])
        return 130, [one.failure for one in followed if one.failure]
    finally:
        launcher.close()
    failures = [one.failure for one in followed if one.failure]
    return int(bool(failures)), failures


class _Followed:
    """A job and what has become of it."""

    def __init__(self, job: Job, launcher: Launcher) -> None:
        self.job, self._launcher = job, launcher
        self.over, self.failure = False, ""
        self._handle, self._tries, self._state = launcher.submit(job), 1, "waiting"

    def look(self) -> None:
        """Says what has changed, and starts anew what was stopped."""
        state, code = self._launcher.look(self._handle)
        if state == "running" != self._state:
            _say(f"{self.job.name} runs")
        self._state = state
        if state in ("waiting", "running"):
            return
        stopped = state == "lost" or (code or 0) >= 128
        if stopped and self._tries < _TRIES:
            _say(f"{self.job.name} was {'lost' if state == 'lost' else 'stopped'}: once more")
            self._handle, self._state = self._launcher.submit(self.job), "waiting"
            self._tries += 1
            return
        self.over = True
        if state == "ended" and code == 0:
            _say(f"{self.job.name} is finished")
            return
        self.failure = f"{self.job.name}: {_reason(self.job, state, code)}"
        _say(f"failed: {self.failure}")

    def cancel(self) -> None:
        """Lets it save, and end."""
        self._launcher.cancel(self._handle)

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return self._launcher.look(self._handle)[0] in ("waiting", "running")


def _stop(left: list[_Followed]) -> None:
    """Cancels jobs, and waits until they have saved."""
    _say(f"stopping {len(left)} jobs, which save first")
    for one in left:
        one.cancel()
    end = time.monotonic() + _GRACE
    with contextlib.suppress(KeyboardInterrupt):
        while (left := [one for one in left if one.runs()]) and time.monotonic() < end:
            time.sleep(_LOOK)
    for one in left:
        _say(f"{one.job.name} has not ended yet")


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}", flush=True)


def _reason(job: Job, state: State, code: int | None) -> str:
    """Why a job failed: the last that it said."""
    lines = job.log.read_text(encoding="utf-8").splitlines() if job.log.is_file() else []
    told = next((line for line in reversed(lines) if line.strip()), "")
    what = "its machine was lost" if state == "lost" else f"exit code {code}"
    return f"{what}, {told or 'and it said nothing'}; see {job.log}"


# ------------------------------------------------------------------ on the machine that runs it


class Training:
    """A training in a process of its own, which ends with the one that started it."""

    def __init__(self, argv: Sequence[str], log: Path, folder: Path) -> None:
        """Remembers what to run, in which folder; starts nothing."""
        self.argv, self.log, self.folder = list(argv), log, folder
        self._child: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Trains; returns the exit code, 128 plus the number of a signal that ended it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "experiments.train", *self.argv]
        with self.log.open("a", encoding="utf-8") as told:
            self._child = subprocess.Popen(
                command, cwd=self.folder, stdout=told, stderr=told, preexec_fn=_end_with_parent
            )
            try:
                code = self._child.wait()
            except BaseException:  # whoever runs us wants it back
                self.stop()
                raise
        self._child = None
        return code if code >= 0 else 128 - code

    def stop(self) -> None:
        """Lets it save, and end."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_GRACE)


def _end_with_parent() -> None:
    """Has Linux send SIGTERM when the process that started this one is gone."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
