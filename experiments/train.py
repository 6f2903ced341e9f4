"""Trains and tests a robust meta-learner.

``python -m experiments.train khazad-dum --method roml --seeds 0 1 2``; everything is
explained by ``--help``. The same command goes on with a run that was stopped.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from jaxtyping import PyTree

from experiments import checkpoints, cli, report, runs, testing
from experiments.config import UserError, build
from experiments.device import Session, compile_functions, start_state
from experiments.loop import Loop
from experiments.presets import PRESETS
from experiments.runs import Run


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
      argv: command-line arguments.

    Returns:
      The exit code: 0, or 128 plus the number of the signal that stopped the training.

    Raises:
      UserError: what was asked for is impossible.
    """
    env, command = cli.parse_train(argv)
    options = command.options
    name, seeds = _folder(options.name), _distinct(options.seeds)
    chosen = [Run(env, command.experiment, seed, name) for seed in seeds]
    if not options.checkpoint_minutes > 0:
        raise UserError("--checkpoint-minutes must be positive")
    paths = [run.path(options.out) for run in chosen]
    step = _first_step(chosen, paths, options.overwrite)
    built = build(command.experiment)
    session = Session(built, chosen, paths)
    print(report.plan(built, chosen, paths, step), flush=True)
    for run, path in zip(chosen, paths, strict=True):
        if step is None:
            path.mkdir(parents=True, exist_ok=True)
            runs.clear(path)
        runs.write_config(path, run)
    again = shlex.join(word for word in argv if word not in ("--overwrite", "--no-overwrite"))
    try:
        stopped, state = _train(session, step, options)
        if stopped is None:
            _finish(session, state)
            return 0
    except KeyboardInterrupt:
        stopped, state = 2, None
    at = max((checkpoints.latest_step(path) or 0) for path in paths)
    print(f"stopped at step {at:,}; go on with: python -m experiments.train {again}".rstrip())
    return 128 + stopped


def _train(session: Session, step: int | None, options: cli.Options) -> tuple[int | None, PyTree]:
    """Compiles and trains; returns the signal that stopped it, if any, and the state."""
    functions, seconds = compile_functions(session)
    print(f"{'compile':8}{seconds:.1f} s", flush=True)
    loop = Loop(
        session,
        functions,
        start_state(session, functions, step),
        first_step=step,
        checkpoint_minutes=options.checkpoint_minutes,
        tensorboard=options.tensorboard,
    )
    return loop.run(), loop.state


def _finish(session: Session, state: PyTree) -> None:
    """Tests every seed, writes its figures and prints the table; ``test.csv`` comes last."""
    from experiments import run_figures, style

    built, start = session.built, time.perf_counter()
    experiment, view = built.experiment, PRESETS[session.runs[0].env].view
    test = testing.make_test(built, view, experiment.test_tasks)
    all_params = built.learner.params(state.learner)
    scores = []
    for i, (run, path) in enumerate(zip(session.runs, session.paths, strict=True)):
        params = session.one(all_params, i)
        table = test(params, run.seed)
        metrics = pd.read_csv(path / runs.METRICS)
        style.save(run_figures.curve(metrics, run), path / "curve.png")
        style.save(run_figures.sampler(metrics, run, built), path / "cem.png")
        if view is not None:
            style.save(run_figures.episodes(params, run, built, view), path / "episodes.png")
        runs.write_whole(path / runs.TEST, table.to_csv(index=False))
        phi = testing.final_phi(session.one(state.sampler, i), experiment)
        scores.append(testing.score(table, experiment.method.alpha, view, phi))
    tasks, seconds = experiment.test_tasks, time.perf_counter() - start
    print(f"\n{session.runs[0].label()}, test on {tasks:,} tasks ({seconds:.0f} s)")
    print(report.table(scores, experiment.method.alpha))


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        told = " ".join(map(str, seeds)) or "none"
        raise UserError(f"--seeds are one or more different numbers from 0 on; got {told}")
    return seeds


def _folder(name: str | None) -> str | None:
    if name is not None and (not name or name.startswith(".") or Path(name).name != name):
        raise UserError(f"--name is that of one folder, roml-nu-0 for instance; got {name!r}")
    return name


def _first_step(chosen: list[Run], paths: list[Path], overwrite: bool) -> int | None:
    """The step that all seeds go on from, or None to start anew.

    Raises:
      UserError: a directory holds something that must not be touched.
    """
    states = [runs.status(path) for path in paths]
    if overwrite:
        return None
    for path, state in zip(paths, states, strict=True):
        if state == "finished":
            raise UserError(f"{path} holds a finished run: choose --overwrite or another --out")
    steps = [checkpoints.latest_step(path) for path in paths]
    for run, path, step in zip(chosen, paths, steps, strict=True):
        if step is not None:
            runs.check_same(path, run)
    if len(set(steps)) > 1:
        told = ", ".join(f"seed {r.seed} at {s or 0}" for r, s in zip(chosen, steps, strict=True))
        raise UserError(f"seeds stopped at different steps ({told}): go on with them apart")
    return steps[0]


if __name__ == "__main__":
    sys.exit(cli.run(main))
