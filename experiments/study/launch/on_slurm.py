"""Jobs of SLURM, by submitit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.spec.errors import UserError
from experiments.study.launch.jobs import Job, State, Training

_WAITING = ("PENDING", "REQUEUED", "UNKNOWN")
_LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")


class SlurmLauncher:
    """``sbatch`` for each job; SLURM goes on with those that it preempts, or that take too long."""

    def __init__(
        self, hours: float, parameters: Sequence[str], cluster: str | None = "slurm"
    ) -> None:
        """Finds SLURM.

        Args:
          hours: that a job may take, after which SLURM goes on with it in another.
          parameters: NAME=VALUE, of submitit.
          cluster: which engine of submitit's.

        Raises:
          UserError: it is not there, or a parameter is none.
        """
        import submitit

        self._submitit, self._hours, self._cluster = submitit, hours, cluster
        if wrong := [word for word in parameters if "=" not in word]:
            raise UserError(f"--slurm are NAME=VALUE, partition=gpu for instance; got {wrong[0]}")
        pairs = [word.split("=", 1) for word in parameters]
        self._more = {f"slurm_{name.removeprefix('slurm_')}": value for name, value in pairs}
        try:
            self._executor(Path.cwd())
        except RuntimeError as error:
            raise UserError(f"--launcher slurm: {str(error).splitlines()[0]}") from error

    def _executor(self, folder: Path) -> Any:
        return self._submitit.AutoExecutor(folder=folder, cluster=self._cluster)

    def submit(self, job: Job) -> Any:
        """A job of SLURM with what it needs."""
        executor = self._executor(job.log.parent / "slurm")
        try:
            executor.update_parameters(
                name=job.name,
                cpus_per_task=job.cores,
                gpus_per_node=math.ceil(job.gpus),
                mem_gb=math.ceil(job.memory / 2**30),
                timeout_min=math.ceil(60 * self._hours),
                **self._more,
            )
        except (NameError, TypeError) as error:
            raise UserError(f"--slurm: {str(error).splitlines()[0]}") from error
        return executor.submit(_Requeued(job.argv, job.log, Path.cwd()))

    def look(self, handle: Any) -> tuple[State, int | None]:
        """What SLURM says of it."""
        if not handle.done():
            return "waiting" if handle.state in _WAITING else "running", None
        try:
            return "ended", handle.result()
        except Exception:  # of submitit, or of whatever ended the process
            state = str(handle.state)
            if state.startswith("CANCELLED"):
                return "ended", 143
            return ("lost", None) if state in _LOST else ("ended", 1)

    def cancel(self, handle: Any) -> None:
        """``scancel``, which sends SIGTERM."""
        handle.cancel(check=False)

    def close(self) -> None:
        """Nothing to leave: SLURM keeps what is not cancelled."""


class _Requeued(Training):
    """A training that SLURM may take its machine from, and start again."""

    def checkpoint(self, *_: Any) -> Any:
        """Called by submitit before the machine is lost: saves, and asks to go on."""
        import submitit

        self.stop()
        return submitit.helpers.DelayedSubmission(_Requeued(self.argv, self.log, self.folder))
