"""Jobs as tasks of a Ray cluster; without one, of this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from experiments.study.launch.jobs import Job, State, Training


class RayLauncher:
    """Ray finds the machine; the checkout and the output must be at the same place on all."""

    def __init__(self) -> None:
        """Joins the cluster that RAY_ADDRESS names, or starts one of this machine."""
        import ray

        self._ray = ray
        self._owner = not ray.is_initialized()
        if self._owner:
            os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that starts here
            ray.init(log_to_driver=False, logging_level=logging.ERROR)

    def submit(self, job: Job) -> Any:
        """A task with what the job needs; one that does not fit the cluster waits."""

        def train() -> int:
            return Training(job.argv, job.log, folder)()

        folder = Path.cwd()
        resources: Any = {"num_cpus": job.cores, "num_gpus": job.gpus, "memory": job.memory}
        # A machine that is lost is our affair: what was said to run is then said to run again.
        return self._ray.remote(**resources, max_retries=0)(train).remote()

    def look(self, handle: Any) -> tuple[State, int | None]:
        """Whether it has ended."""
        ready, _ = self._ray.wait([handle], timeout=0)
        if not ready:
            return "running" if self._is_placed(handle) else "waiting", None
        errors = self._ray.exceptions
        try:
            return "ended", self._ray.get(handle)
        except errors.TaskCancelledError:
            return "ended", 130
        except errors.RayError:
            return "lost", None

    def _is_placed(self, handle: Any) -> bool:
        """Whether a machine has been found for it."""
        try:
            from ray.util.state import get_task

            found = get_task(handle.task_id().hex())
        except Exception:  # the cluster does not say, without its dashboard
            return True
        one = found[0] if isinstance(found, list) and found else found
        return getattr(one, "state", "RUNNING") == "RUNNING"

    def cancel(self, handle: Any) -> None:
        """Interrupts the task, which stops its training."""
        self._ray.cancel(handle, force=False)

    def close(self) -> None:
        """Leaves the cluster, which stays."""
        if self._owner:
            self._ray.shutdown()
