"""Repeats the test of trained agents from their checkpoints alone.

``python -m experiments.evaluate runs/khazad-dum/roml-varibad`` tests every seed below a
directory; ``--tasks`` and ``--seed`` choose other test tasks.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec.experiment import Built, Experiment, UserError, build, learner_name
from experiments.training import agents, checkpoints, report, runs
from experiments.training.runs import Run


@dataclasses.dataclass(frozen=True)
class Options:
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
    checkpoint: agents.Checkpoint = "tested"
    tasks: int | None = None
    seed: int | None = None
    csv: Path | None = None
    summary: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
      argv: command-line arguments.

    Returns:
      The exit code, 0.

    Raises:
      UserError: there is no run, or an option is not valid.
    """
    options = _parse(argv)
    if options.tasks is not None and options.tasks < 1:
        raise UserError(f"--tasks must be at least 1; got {options.tasks}")
    groups: dict[tuple[str, Experiment], list[tuple[Path, Run]]] = {}
    for path in find_runs(Path(options.run)):
        run = runs.read_config(path)
        groups.setdefault((run.env, run.experiment), []).append((path, run))
    tables, summary, which = [], [], agents.which_agent(options.checkpoint)
    for (env, experiment), members in groups.items():
        built, view = build(experiment), PRESETS[env].view
        test = agents.make_test(built, view, options.tasks or experiment.test_tasks)
        alpha, scores, notes = experiment.method.alpha, [], []
        for path, run in members:
            (params, sampler), step = agents.load_agent(path, built, which)
            table = (
                test(params, run.evaluation_seed).assign(seed=run.seed)
                if options.seed is None
                else test(params, options.seed)
            )
            phi = agents.final_phi(sampler, experiment)
            scores.append(agents.score(table, alpha, view, phi)._replace(seed=run.seed))
            notes.append(f"seed {run.seed}: {_note(path, built, table, step, options)}")
            tables.append(table.assign(run=str(path)))
        summary += [_summary(run, s) for (_, run), s in zip(members, scores, strict=True)]
        tasks = options.tasks or experiment.test_tasks
        print(f"{env}, {members[0][1].label()}, test on {tasks:,} tasks")
        print(report.table(scores, alpha), *notes, sep="\n", end="\n\n", flush=True)
    _write(options.csv, pd.concat(tables))
    _write(options.summary, pd.DataFrame(summary).fillna(0.0))  # outcomes that never happened
    return 0


def _write(file: Path | None, table: pd.DataFrame) -> None:
    """Writes a table, if a file is named."""
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        runs.write_whole(file, table.to_csv(index=False))
        print(f"{len(table):,} rows written to {file}")


def _summary(run: Run, score: agents.Score) -> dict[str, Any]:
    """The row of one run."""
    method = run.experiment.method
    return {
        "env": run.env,
        "method": method.name,
        "learner": learner_name(run.experiment.learner),
        "seed": run.seed,
        "alpha": method.alpha,
        "mean": score.mean,
        "cvar": score.cvar,
        **dict(sorted(score.shares.items())),
        **{f"phi_{name}": value for name, value in score.phi.items()},
    }


def _parse(argv: Sequence[str]) -> Options:
    default = Options(run=tyro.MISSING)
    usage = "RUN is a directory of a seed, or one that holds several"
    if not any(word in ("-h", "--help") for word in argv) and (not argv or argv[0][:1] == "-"):
        raise UserError(f"say which run first: python -m experiments.evaluate RUN ({usage})")
    return cli.parse(
        Options, default, argv, prog="python -m experiments.evaluate", description=__doc__ or ""
    )


def find_runs(root: Path) -> list[Path]:
    """Directories of runs, at or below a directory, in order of their seeds.

    Raises:
      UserError: there are none.
    """
    if not root.is_dir():
        raise UserError(f"{root} is no directory: give a run, runs/khazad-dum/… for instance")
    found = [file.parent for file in root.rglob(runs.CONFIG)]
    if not found:
        raise UserError(f"{root} holds no run: no {runs.CONFIG} in it or below")
    found = [path for path in found if checkpoints.steps(path)]
    if not found:
        raise UserError(f"{root} holds no checkpoint yet: train it first")
    return sorted(found, key=lambda path: (path.parent, len(path.name), path.name))


def _note(path: Path, built: Built, table: pd.DataFrame, step: int, options: Options) -> str:
    """How the agent and the result stand to the run's own."""
    file, total = path / runs.TEST, built.total_steps
    tested = built.experiment.tested_agent()
    if options.checkpoint not in ("tested", "newest" if tested == "final" else tested):
        return f"step {step:,} of {total:,}"
    if tested == "final" and step != total:
        return f"unfinished, checkpoint of step {step:,} of {total:,}"
    if options.tasks is not None or options.seed is not None or not file.is_file():
        return f"step {step:,}"
    old = pd.read_csv(file)
    if len(old) != len(table):
        return f"{file} has other tasks"
    gap = float(np.abs(old["return"].to_numpy() - table["return"].to_numpy(float)).max())
    return f"as in {file}" if gap < 1e-6 else f"differs from {file} by up to {gap:.2g} an episode"


if __name__ == "__main__":
    sys.exit(cli.run(main))
