"""One training as it is asked for: what is left to do, the training, the test."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jax.sharding import Mesh

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec import program
from experiments.spec.build import Built, build
from experiments.spec.errors import UserError, warn
from experiments.spec.words import check_alphas, check_seeds
from experiments.training import (
    agents,
    checkpoints,
    compile_cache,
    hosts,
    live,
    lock,
    placement,
    report,
    runs,
    trackers,
)
from experiments.training.device import Session, compile_functions, start_state
from experiments.training.loop import (
    Loop,
    LoopOptions,
    NotFinite,
    leave_terminal,
    stopping_signals,
    unscored,
)
from experiments.training.runs import Run


def train(env: str, command: cli.Command, argv: Sequence[str]) -> int:
    """Trains and tests what was asked for, unless it is finished.

    Args:
      env: the name of the preset.
      command: all else.
      argv: the words that said it, which are to be repeated after a stop.

    Returns:
      The exit code: 0; 1 if training had to stop because something was not finite; 128 plus
      the number of the signal that stopped it.

    Raises:
      UserError: what was asked for is impossible.
    """
    options = command.options
    hosts.join(options.coordinator, options.process_id, options.num_processes)
    compile_cache.keep_programs(options.compile_cache)
    try:
        return _train_here(env, command, argv)
    except Exception as error:
        if hosts.other_died(error):
            again = program.command("train", argv)
            told = str(error).splitlines()[0]
            print(
                f"error: a process of this training is gone ({told}): start all of them again, "
                f"to go on from the last checkpoint: {again}",
                file=sys.stderr,
            )
            hosts.leave(1)
        raise


def _train_here(env: str, command: cli.Command, argv: Sequence[str]) -> int:
    """``train`` in each process that trains."""
    options = dataclasses.replace(command.options, out=hosts.place(command.options.out))
    hosts.quiet()
    chosen = runs_of(env, command)
    if not options.checkpoint_minutes > 0:
        raise UserError("--checkpoint-minutes must be positive")
    mesh, chosen = _place(chosen, options)
    built = build(chosen[0].experiment, mesh)  # refuses what cannot be, before any folder is made
    with lock.hold([run.path(options.out) for run in chosen]):
        return _train_held(chosen, built, options, argv)


def runs_of(env: str, command: cli.Command) -> list[Run]:
    """The runs that a command is about, done or not.

    Raises:
      UserError: seeds, levels or the name of their folder are not valid.
    """
    options = command.options
    name = _folder(options.name)
    chosen = [Run(env, command.experiment, seed, name) for seed in check_seeds(options.seeds)]
    if alphas := check_alphas(options.alphas):
        chosen = [run.at_alpha(alpha) for alpha in alphas for run in chosen]
    return chosen


def _place(chosen: list[Run], options: cli.Options) -> tuple[Mesh | None, list[Run]]:
    """Where runs are to lie, and the runs with as many groups of tasks as that needs."""
    learner: Any = chosen[0].experiment.learner

    def ask_files() -> tuple[int, int | None]:
        if options.overwrite:
            return len(chosen), None
        paths = [run.path(options.out) for run in chosen]
        left = [path for path in paths if runs.status(path) != "finished"]
        return len(left or paths), runs.groups_of(paths[0])

    count, groups = hosts.first(ask_files)
    mesh = placement.make_mesh(options.devices, options.mesh, count, learner.num_tasks)
    return mesh, [
        run._replace(experiment=placement.in_groups(run.experiment, mesh, groups)) for run in chosen
    ]


def _train_held(chosen: list[Run], built: Built, options: cli.Options, argv: Sequence[str]) -> int:
    """``train`` of runs whose folders are no other process's."""
    todo = hosts.first(lambda: [chosen.index(run) for run in _to_do(chosen, options)])
    chosen = [chosen[i] for i in todo]
    paths, seeds = [run.path(options.out) for run in chosen], [run.seed for run in chosen]
    step = hosts.first(lambda: None if options.overwrite else common_step(paths))
    session = Session(built, chosen, paths)
    if step is not None and step > built.total_steps:
        raise UserError(
            f"{paths[0]} has come to step {step:,}, and --frames ends at {built.total_steps:,}: "
            "choose more, or --overwrite"
        )
    other_tasks = hosts.first(
        lambda: step is not None and any(map(runs.validates_otherwise, paths, chosen))
    )
    print(report.plan(built, chosen, paths, step), flush=True)
    for run, path in zip(chosen, paths, strict=True):
        path.mkdir(parents=True, exist_ok=True)
        if step is None:
            runs.clear(path)
        (path / runs.TEST).unlink(missing_ok=True)  # of fewer frames, or of another agent
        runs.write_config(path, run, seeds, session.alphas)
    check_room(paths[0], built.state_bytes * len(seeds))
    again = [word for word in argv if word not in ("--overwrite", "--no-overwrite")]
    try:
        with _termination_as_interrupt():
            stopped, loop = _train(session, step, _loop_options(options), other_tasks)
            if stopped is None:
                _finish(session, loop)
                return _say_unsaved(loop)
    except KeyboardInterrupt as interrupt:
        stopped = int(str(interrupt) or signal.SIGINT)
    except NotFinite as error:
        print(f"error: {error}; {_way_out(paths)}", file=sys.stderr)
        return 1
    at = _newest_of_all([checkpoints.good_steps(path) for path in paths]) or 0
    print(f"stopped at step {at:,}; go on with: {program.command('train', again)}")
    return 128 + stopped


def _say_unsaved(loop: Loop) -> int:
    """The exit code of a training that has come to its end, with or without its last checkpoint."""
    if loop.unsaved is None:
        return 0
    print(f"error: {loop.unsaved}; the test is of the agent in memory", file=sys.stderr)
    return 1


def _loop_options(options: cli.Options) -> LoopOptions:
    """How to go about the training."""
    chosen = [trackers.tensorboard()] if options.tensorboard else []
    chosen += [trackers.wandb(options.wandb)] if options.wandb else []
    chosen += [live.curve()] if live.in_notebook() else []
    return LoopOptions(60 * options.checkpoint_minutes, options.on_nan == "continue", tuple(chosen))


def _train(
    session: Session, step: int | None, options: LoopOptions, other_tasks: bool
) -> tuple[int | None, Loop]:
    """Compiles and trains; returns the signal that stopped it, if any, and what it came to.

    Where validations have ``other_tasks`` than before, the best so far is no measure for them.
    """
    functions, seconds = compile_functions(session, keep=options.skip)
    print(f"{'compile':8}{seconds:.1f} s", flush=True)
    state, best = start_state(session, functions, step)
    loop = Loop(
        session,
        functions,
        (state, [*map(unscored, best)] if other_tasks else best),
        first_step=step,
        options=options,
    )
    stopped = loop.run()
    if loop.skipped:
        print(f"{loop.skipped} updates were skipped, see the column skipped of {runs.METRICS}")
    return stopped, loop


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Lets other signals end the process as Ctrl-C does, where the loop does not wait for them."""

    def interrupt(number: int, frame: object) -> None:
        leave_terminal(number)
        raise KeyboardInterrupt(number)

    old = {number: signal.signal(number, interrupt) for number in stopping_signals()[1:]}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _way_out(paths: list[Path]) -> str:
    """What can be done about numbers that are not finite."""
    step = _newest_of_all([checkpoints.good_steps(path) for path in paths])
    where = f"{paths[0] if len(paths) == 1 else paths[0].parent}/"
    if step is None:
        return f"no checkpoint comes before it; see {runs.METRICS} in {where}"
    return (
        f"the last good checkpoint is of step {step:,}, in {where}; --on-nan continue goes on "
        "from there without the updates that are not finite"
    )


def check_room(path: Path, size: int) -> None:
    """Warns of a disk that may be too small for the checkpoints: two, and one in the making."""
    free, need = shutil.disk_usage(path).free, (checkpoints.KEPT + 1) * size
    if free < need:
        told = f"{free / 2**30:.2g} GiB are free under {path}"
        warn(f"{told}, and checkpoints can take up to {need / 2**30:.2g} GiB before compression")


def _finish(session: Session, loop: Loop) -> None:
    """Tests every seed, writes its figures and prints the table; ``test.csv`` comes last."""
    from experiments import style
    from experiments.training import pictures

    built, start = session.built, time.perf_counter()
    experiment, view = built.experiment, PRESETS[session.runs[0].env].view_of(built.env)
    test = agents.make_test(built, view, experiment.test_tasks, experiment.test_repeats)
    draw = built.paradigm.make_picture(built.env, built.agent, view) if view else None
    scores: dict[float, list[agents.Score]] = {}
    steps: list[int] = []
    for i, (run, path) in enumerate(zip(session.runs, session.paths, strict=True)):
        (params, sampler), step = loop.tested_agent(i)
        steps.append(step)
        table = test(params, run.evaluation_seed).assign(seed=run.seed)
        metrics = pd.read_csv(path / runs.METRICS)
        style.save(pictures.curve(metrics, run, built), path / "curve.png")
        style.save(pictures.sampler(metrics, run, built), path / "cem.png")
        if draw is not None:
            picture = draw(params, run.evaluation_seed)
            style.save(picture, path / f"{built.paradigm.picture}.png")
        runs.note(path, tested_step=step)
        runs.write_whole(path / runs.TEST, table.to_csv(index=False))
        phi = agents.final_phi(sampler, built)
        alpha = run.experiment.alpha
        scores.setdefault(alpha, []).append(agents.score(table, alpha, view, phi))
    tasks = report.tasks_words(experiment.test_tasks, experiment.test_repeats)
    seconds = time.perf_counter() - start
    tested = report.agent_words(experiment.tested_agent(), steps)
    print(f"\n{session.runs[0].label()}, test of {tested} on {tasks} ({seconds:.0f} s)")
    for alpha, group in scores.items():
        print(*[f"\nalpha {alpha:g}"] * (len(scores) > 1), report.table(group, alpha), sep="\n")


def _folder(name: str | None) -> str | None:
    if name is not None and (not name or name.startswith(".") or Path(name).name != name):
        raise UserError(f"--name is that of one folder, roml-nu-0 for instance; got {name!r}")
    return name


def _to_do(chosen: list[Run], options: cli.Options) -> list[Run]:
    """Those runs that are not finished yet, which the same command may have come to.

    Raises:
      UserError: none is left, or a directory holds something that must not be touched.
    """
    states = [runs.status(run.path(options.out)) for run in chosen]
    if options.overwrite:
        return chosen
    finished = []
    for run, state in zip(chosen, states, strict=True):
        if state != "new" and not runs.check_same(run.path(options.out), run):
            continue  # there is more to do, or to test
        if state == "finished":
            finished.append(run)
    if len(finished) == len(chosen):
        told = finished[0].path(options.out)
        raise UserError(f"{told} holds a finished run: choose --overwrite or another --out")
    for run in finished:
        print(f"{'skip':8}{run.path(options.out)}: finished")
    return [run for run in chosen if run not in finished]


def common_step(paths: list[Path]) -> int | None:
    """The step that unfinished seeds can go on from together, or None to start anew.

    Raises:
      UserError: there is no such step.
    """
    good = [checkpoints.good_steps(path) for path in paths]
    for path, found in zip(paths, good, strict=True):
        if not found and checkpoints.steps(path):
            raise UserError(f"all checkpoints of {path} are damaged: --overwrite starts anew")
    step = _newest_of_all(good)
    # Seeds side by side are saved one by one; the first time, some may not have come to it.
    beside = [runs.side_by_side(path) for path in paths]
    cut_short = all(len(seeds) == len(paths) and seeds == beside[0] for seeds in beside)
    if step is None and any(good) and not cut_short:
        at = zip(paths, good, strict=True)
        told = ", ".join(f"{path.name} at {max(found, default=0):,}" for path, found in at)
        raise UserError(f"seeds stopped at different steps ({told}): go on with them apart")
    return step


def _newest_of_all(good: list[list[int]]) -> int | None:
    return max(set.intersection(*map(set, good)), default=None)
