"""Trainings as jobs of an engine that has machines: here, in a Ray cluster, or under SLURM."""

from __future__ import annotations

from pathlib import Path

from experiments.spec.errors import UserError
from experiments.study.launch.jobs import Job, Launcher
from experiments.study.options import CompareOptions
from experiments.study.plan import Group


def make_launcher(options: CompareOptions) -> Launcher | None:
    """The engine of a comparison; None for this process.

    Raises:
      UserError: what a job needs cannot be, or SLURM is not there.
      ModuleNotFoundError: its package is not installed.
    """
    if options.job_cores < 1 or options.job_gpus < 0 or not options.job_hours > 0:
        raise UserError("--job-cores is at least 1, --job-gpus at least 0, --job-hours positive")
    if options.launcher == "ray":
        from experiments.study.launch.on_ray import RayLauncher

        return RayLauncher()
    if options.launcher == "slurm":
        from experiments.study.launch.on_slurm import SlurmLauncher

        return SlurmLauncher(options.job_hours, options.slurm)
    return None


def make_jobs(groups: list[Group], options: CompareOptions) -> list[Job]:
    """A job for each group of seeds."""
    logs = Path(options.out).absolute() / "logs" / options.env
    jobs = []
    for group in groups:
        folder = group.method.runs[0].path("").parent.name
        name = f"{folder}-seeds-{'-'.join(map(str, group.seeds))}"
        resources = options.job_cores, options.job_gpus, group.memory
        argv = [*group.argv, "--out", str(Path(options.out).absolute())]
        jobs.append(Job(name, argv, logs / f"{name}.log", *resources))
    return jobs
