"""The test of trained agents, once more, from their checkpoints alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import cli, style
from experiments.presets import PRESETS
from experiments.spec.build import Built, build
from experiments.spec.errors import UserError, warn
from experiments.spec.experiment import Experiment
from experiments.spec.words import phi_column
from experiments.training import agents, checkpoints, pictures, report, runs
from experiments.training.options import RetestOptions
from experiments.training.runs import Run
from roml_jax.types import Family


def retest(options: RetestOptions) -> int:
    """Tests all runs that are asked for, prints their tables and writes the files.

    Returns:
      The exit code: 1 if some runs had to be left out.

    Raises:
      UserError: there is no run, or none that can be tested.
    """
    groups: dict[tuple[str, Experiment], list[tuple[Path, Run]]] = {}
    failed: dict[Path, str] = {}
    for path in find_runs(Path(options.run)):
        try:
            run = runs.read_config(path)
        except (UserError, ModuleNotFoundError) as error:
            failed[path] = _reason(error)
            continue
        groups.setdefault((run.env, run.experiment), []).append((path, run))
    tables, summary, which = [], [], agents.which_agent(options.checkpoint)
    for (env, experiment), members in groups.items():
        try:
            rows = _retest_group(env, experiment, members, options, which)
        except (UserError, ModuleNotFoundError) as error:
            failed |= {path: _reason(error) for path, _ in members}
            continue
        summary += rows[0]
        tables += rows[1]
    if not tables:
        raise UserError("; ".join(dict.fromkeys(failed.values())))
    for path, reason in failed.items():
        warn(f"{path} is left out: {reason}")
    _write(options.csv, pd.concat(tables))
    if options.picture is not None:
        options.picture.parent.mkdir(parents=True, exist_ok=True)
        style.save(pictures.by_task(tables), options.picture)
        print(options.picture)
    _write(options.summary, pd.DataFrame(summary).fillna(0.0))  # outcomes that never happened
    return int(bool(failed))


def _reason(error: Exception) -> str:
    """Why a run cannot be tested here."""
    return f"it {cli.needs(error)}" if isinstance(error, ModuleNotFoundError) else str(error)


def _retest_group(
    env: str,
    experiment: Experiment,
    members: list[tuple[Path, Run]],
    options: RetestOptions,
    which: str | None,
) -> tuple[list[dict[str, Any]], list[pd.DataFrame]]:
    """Tests the seeds of one experiment; prints their table, returns it by seed and by task."""
    built, view = build(experiment), PRESETS[env].view_of(experiment.env)
    tasks = options.tasks or experiment.test_tasks
    plays = options.repeats or experiment.test_repeats
    family = built.env.family
    draw = agents.other_tasks(family, options.task, options.phi)
    test = agents.make_test(built, view, tasks, plays, draw)
    alpha, scores, notes, tables = experiment.alpha, [], [], []
    for path, run in members:
        (params, sampler), step = agents.load_agent(path, built, which)
        table = (
            test(params, run.evaluation_seed).assign(seed=run.seed)
            if options.seed is None
            else test(params, options.seed)
        )
        phi = agents.final_phi(sampler, built)
        scores.append(agents.score(table, alpha, view, phi)._replace(seed=run.seed))
        notes.append(f"seed {run.seed}: {_note(path, built, table, step, options)}")
        tables.append(table.assign(run=str(path)))
    words = report.tasks_words(tasks, plays)
    if draw is not None:
        words += " " + _where(family, options)
    print(f"{env}, {members[0][1].label()}, test on {words}")
    print(report.table(scores, alpha), *notes, sep="\n", end="\n\n", flush=True)
    return [_summary(run, s) for (_, run), s in zip(members, scores, strict=True)], tables


def _where(family: Family, options: RetestOptions) -> str:
    """Where the tasks of a test are from that are not of the original distribution."""
    numbers = options.task or options.phi
    names = family.names if options.task else map(phi_column, family.phi_names)
    told = ", ".join(f"{name} {value:g}" for name, value in zip(names, numbers, strict=True))
    return f"of one kind, {told}" if options.task else f"of {told}"


def find_runs(root: Path) -> list[Path]:
    """Directories of runs, at or below a directory, in order of their seeds.

    Raises:
      UserError: there are none.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no directory: give a run, runs/ENV/… for instance")
    found = [file.parent for file in root.rglob(runs.CONFIG)]
    if not found:
        raise UserError(f"{root} holds no run: no {runs.CONFIG} in it or below")
    found = [path for path in found if checkpoints.steps(path)]
    if not found:
        raise UserError(f"{root} holds no checkpoint yet: train it first")
    return sorted(found, key=lambda path: (path.parent, len(path.name), path.name))


def _write(file: Path | None, table: pd.DataFrame) -> None:
    """Writes a table, if a file is named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        runs.write_whole(file, table.to_csv(index=False))
        print(f"{len(table):,} rows written to {file}")


def _summary(run: Run, score: agents.Score) -> dict[str, Any]:
    """The row of one run."""
    return {
        "env": run.env,
        "method": run.experiment.method_name,
        "learner": run.experiment.learner_name,
        "seed": run.seed,
        "alpha": run.experiment.alpha,
        "mean": score.mean,
        "cvar": score.cvar,
        **({} if score.cvar_by_halves is None else {"cvar_by_halves": score.cvar_by_halves}),
        **dict(sorted(score.shares.items())),
        **{phi_column(name): value for name, value in score.phi.items()},
    }


def _note(path: Path, built: Built, table: pd.DataFrame, step: int, options: RetestOptions) -> str:
    """How the agent and the result stand to the run's own."""
    file, total = path / runs.TEST, built.total_steps
    tested = built.experiment.tested_agent()
    if options.checkpoint not in ("tested", "newest" if tested == "final" else tested):
        return f"step {step:,} of {total:,}"
    if tested == "final" and step != total:
        return f"unfinished, checkpoint of step {step:,} of {total:,}"
    other = (options.tasks, options.seed, options.repeats) != (None,) * 3
    other |= bool(options.task or options.phi)
    if other or not file.is_file():
        return f"step {step:,}"
    old = pd.read_csv(file)
    if len(old) != len(table):
        return f"{file} has other tasks"
    gap = float(np.abs(old["return"].to_numpy() - table["return"].to_numpy(float)).max())
    return f"as in {file}" if gap < 1e-6 else f"differs from {file} by up to {gap:.2g} an episode"
