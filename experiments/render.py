"""Videos of trained MuJoCo runs, side by side, from their checkpoints; no screen is needed.

``python -m experiments.render RUN RUN --tasks 0.5 1 2`` shows the runs as columns and the
tasks as rows. Without ``--tasks``, an easy, a median and a hard one of 64 tasks are shown, by
the mean return of all the runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import jax
import numpy as np
import tyro
from jaxtyping import Float
from tqdm import tqdm

from envs.mujoco.body_env import BodyEnv
from experiments import cli
from experiments.evaluate import find_runs
from experiments.presets import PRESETS
from experiments.spec.experiment import UserError, learner_name
from experiments.study import results
from experiments.training import agents, runs
from experiments.training.runs import Run
from experiments.videos import bodies, video
from experiments.videos.replay import Replay, choose, replay_runs
from experiments.videos.video import Caption
from roml_jax.evaluate import evaluation_key, sample_tasks

_DRAWN = 64  # tasks, of which the default ones are chosen
_RANGE_DRAWS, _RANGE_SLACK = 10_000, 0.01  # tasks that tell the range, and more of it
_MOST_RUNS, _MOST_TASKS = 8, 12
_SIDE = (64, 1920)  # pixels
_SMOOTH_FPS = 30  # pictures per second that are enough


@dataclasses.dataclass(frozen=True)
class Options:
    """What to show.

    Attributes:
      runs: directories of seeds, or ones that hold several; a column for each run.
      checkpoint: which agents: those that the runs themselves test (tested), those of the
        newest checkpoints, or those with the best validation by mean or by CVaR.
      tasks: a row for each: values, or vectors such as 0.5,1,2; none for an easy, a median
        and a hard one.
      episode: of the meta-episode, from 1 on; None for the last.
      seed: of starting positions, and of the tasks that are drawn; None for that of the first
        run.
      size: of a panel, in pixels.
      fps: pictures per second; None for real time.
      stride: control steps from one picture to the next, and then the last; None for at most 30
        pictures a second of real time.
      format: of the files.
      out: file to write, its ending is that of the format; or a folder. None for the folder
        of the first run.
    """

    runs: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")
    ] = ()
    checkpoint: agents.Checkpoint = "tested"
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK [TASK ...]")] = ()
    episode: int | None = None
    seed: int | None = None
    size: Annotated[str, tyro.conf.arg(metavar="WIDTHxHEIGHT")] = "320x240"
    fps: float | None = None
    stride: int | None = None
    format: Literal["mp4", "gif", "both"] = "both"
    out: Path | None = None


class Plan(NamedTuple):
    """What was asked for, checked."""

    env: BodyEnv
    members: list[tuple[Path, Run]]
    checkpoint: str | None  # of agents.load_agent
    tasks: Float[np.ndarray, "n D"] | None
    episode: int  # from 0 on
    seed: int
    size: tuple[int, int]  # of a panel, width and height
    fps: float
    stride: int
    files: list[Path]


class Cell(NamedTuple):
    """A panel over time."""

    row: int
    label: str  # of the run
    task: str
    qpos: Float[np.ndarray, "m nq"]
    returns: Float[np.ndarray, " m"]  # of the episode, up to each picture


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
      argv: command-line arguments.

    Returns:
      The exit code, 0.

    Raises:
      UserError: there is no run, an option is not valid, or this machine cannot draw.
    """
    plan = _plan(_parse(argv))
    tasks = plan.tasks
    if tasks is None:
        tasks = np.asarray(sample_tasks(evaluation_key(plan.seed, "test"), plan.env, _DRAWN))
    replays = replay_runs(plan.members, tasks, plan.seed, plan.checkpoint)
    words = [""] * len(tasks)
    if plan.tasks is None:
        chosen = choose(replays)
        places, words = list(chosen.values()), list(chosen)
        tasks, replays = tasks[places], [one.at(places) for one in replays]
    cells = _cells(plan, tasks, words, replays)
    count = len(cells[0].qpos)
    with _painters(plan, tasks, cells) as painters, contextlib.ExitStack() as stack:
        writers = [stack.enter_context(video.open_video(file, plan.fps)) for file in plan.files]
        pause = 0.5 if sys.stderr.isatty() else 5.0
        for t in tqdm(range(count), desc="drawing", unit=" pictures", mininterval=pause):
            picture = video.grid(_panels(cells, painters, len(tasks), t))
            for writer in writers:
                writer.add(picture)
    for file in plan.files:
        print(f"{count / plan.fps:.3g} s of video, {file.stat().st_size / 1e6:.2g} MB: {file}")
    return 0


# ------------------------------------------------------------------ what was asked for


def _parse(argv: Sequence[str]) -> Options:
    """The options.

    Raises:
      UserError: one is not valid, or no run is named.
    """
    options: Options = cli.parse(
        Options, Options(), argv, prog="python -m experiments.render", description=__doc__ or ""
    )
    if not options.runs:
        raise UserError(
            "say which runs first: python -m experiments.render RUN [RUN ...] "
            "(RUN is a directory of a seed, or one that holds several)"
        )
    for name in ("fps", "stride"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} must be positive; got {value:g}")
    if options.seed is not None and options.seed < 0:
        raise UserError(f"--seed must be at least 0; got {options.seed}")
    return options


def _plan(options: Options) -> Plan:
    """All of what was asked for, before anything compiles.

    Raises:
      UserError: something of it is impossible.
    """
    size = _size(options.size)
    paths = [path for root in options.runs for path in find_runs(Path(root))]
    paths = list(dict.fromkeys(paths))
    members = [(path, runs.read_config(path)) for path in paths]
    if len(members) > _MOST_RUNS:
        raise UserError(f"at most {_MOST_RUNS} runs can be shown; got {len(members)}")
    env = _shared_env(members)
    tasks = _tasks(env, options.tasks) if options.tasks else None
    episode = env.episodes if options.episode is None else options.episode
    if not 1 <= episode <= env.episodes:
        raise UserError(f"--episode is one of 1 to {env.episodes}; got {episode}")
    if options.stride is not None and options.stride > env.horizon:
        raise UserError(f"--stride must be at most the {env.horizon} steps of an episode")
    files = _files(options, paths)
    video.check_packages([file.suffix[1:] for file in files])
    bodies.choose_backend()
    bodies.check_drawing(env)
    stride = options.stride or max(1, int(np.ceil(1 / (env.dt * _SMOOTH_FPS))))
    checkpoint = agents.which_agent(options.checkpoint)
    seed = members[0][1].evaluation_seed if options.seed is None else options.seed
    fps = options.fps or 1 / (env.dt * stride)
    return Plan(env, members, checkpoint, tasks, episode - 1, seed, size, fps, stride, files)


def _size(text: str) -> tuple[int, int]:
    """Width and height.

    Raises:
      UserError: the text is not a possible size.
    """
    width, _, height = text.partition("x")
    low, high = _SIDE
    if not all(side.isdigit() and low <= int(side) <= high for side in (width, height)):
        raise UserError(
            f"--size is WIDTHxHEIGHT in pixels, each from {low} to {high}, 320x240 for instance; "
            f"got {text}"
        )
    return int(width), int(height)


def _shared_env(members: Sequence[tuple[Path, Run]]) -> BodyEnv:
    """The environment of all the runs, whatever engine they were trained on.

    Raises:
      UserError: one of them has no body, or they differ.
    """
    for path, run in members:
        if not isinstance(run.experiment.env, BodyEnv):
            envs = [preset.experiment.env for preset in PRESETS.values()]
            bodies = dict.fromkeys(env.body for env in envs if isinstance(env, BodyEnv))
            raise UserError(
                f"{path} is a run of {run.env}, which has no body to draw: those of "
                f"{', '.join(sorted(bodies)).replace('_', '-')} have one"
            )
    (first, run), *others = members
    env = run.experiment.env
    for path, other in others:
        if dataclasses.replace(other.experiment.env, physics=env.physics) != env:
            raise UserError(f"{first} and {path} cannot stand side by side: their tasks differ")
    return env


def _tasks(env: BodyEnv, words: Sequence[str]) -> Float[np.ndarray, "n D"]:
    """Tasks from words, each a number or numbers between commas.

    Raises:
      UserError: a word is none, has another number of components, or is out of range.
    """
    if len(words) > _MOST_TASKS:
        raise UserError(f"at most {_MOST_TASKS} tasks can be shown; got {len(words)}")
    tasks, names = [], env.family.names
    for word in words:
        try:
            tasks.append([float(part) for part in word.split(",")])
        except ValueError:
            raise UserError(f"--tasks {word}: that is no number, nor are numbers, 1,0.5") from None
        if len(tasks[-1]) != len(names):
            plural = "s" * (len(names) > 1)
            raise UserError(
                f"--tasks {word}: a task has {len(names)} component{plural}, {','.join(names)}"
            )
    drawn = np.asarray(sample_tasks(jax.random.key(0), env, _RANGE_DRAWS))
    low, high = drawn.min(axis=0), drawn.max(axis=0)
    slack = _RANGE_SLACK * (high - low)
    for word, task in zip(words, tasks, strict=True):
        inside = (low - slack <= task) & (task <= high + slack)
        for i in np.flatnonzero(~inside):
            raise UserError(
                f"--tasks {word}: {names[i]} lies between {low[i]:.2g} and {high[i]:.2g}"
            )
    return np.array(tasks, np.float32)


def _files(options: Options, paths: Sequence[Path]) -> list[Path]:
    """The files to write.

    Raises:
      UserError: the ending of a file is not that of the format.
    """
    formats = list(video.FORMATS) if options.format == "both" else [options.format]
    others = [f"{path.parent.name}-{path.name}" for path in paths[1:]]
    stem = "-beside-".join(["video", *others])
    stem = stem if len(stem) < 120 else f"video-of-{len(paths)}-runs"
    out = options.out or paths[0]
    if out.is_dir():
        return [out / f"{stem}.{name}" for name in formats]
    ending = out.suffix[1:]
    if ending not in video.FORMATS:
        return [out.with_name(f"{out.name}.{name}") for name in formats]
    if ending not in formats:
        raise UserError(f"--out {out} does not end as --format {options.format} does")
    return [out]


# ------------------------------------------------------------------ what is drawn


def _cells(
    plan: Plan, tasks: np.ndarray, words: Sequence[str], replays: Sequence[Replay]
) -> list[Cell]:
    """The panels, row by row."""
    labels, cells = _labels([run for _, run in plan.members]), []
    shown = np.append(np.arange(0, plan.env.horizon, plan.stride), plan.env.horizon)
    for i, (task, word) in enumerate(zip(tasks, words, strict=True)):
        told = _task_words(plan.env, task) + f" ({word})" * bool(word)
        told += f", episode {plan.episode + 1}"
        for label, one in zip(labels, replays, strict=True):
            rewards = np.asarray(one.reward[plan.episode, :, i], float)
            returns = np.concatenate([[0.0], np.cumsum(rewards)])
            qpos = np.asarray(one.qpos[plan.episode, shown, i], float)
            cells.append(Cell(i, label, told, qpos, returns[shown]))
    return cells


def _labels(members: Sequence[Run]) -> list[str]:
    """Names of the runs, with as much as it takes to tell them apart."""
    names = [
        results.label(run.experiment.method.name, learner_name(run.experiment.learner), run.env)
        for run in members
    ]
    for more in (
        [f", {run.env}" for run in members],
        [f", alpha {run.experiment.method.alpha:g}" for run in members],
        [f", {run.name}" if run.name else "" for run in members],
        [f", seed {run.seed}" for run in members],
    ):
        if len(set(names)) < len(names) and len(set(more)) > 1:
            names = [name + word for name, word in zip(names, more, strict=True)]
    return names


def _task_words(env: BodyEnv, task: Float[np.ndarray, " D"]) -> str:
    """A task in words, or in numbers alone if it has many components."""
    names = [name.replace("_", " ") for name in env.family.names]
    if len(names) > 4:
        return f"task {', '.join(f'{value:.2g}' for value in task)}"
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(names, task, strict=True))


@contextlib.contextmanager
def _painters(
    plan: Plan, tasks: Float[np.ndarray, "n D"], cells: Sequence[Cell]
) -> Iterator[list[bodies.Painter]]:
    """One for each task, all with the same camera."""
    models = [bodies.task_model(plan.env, task) for task in tasks]
    goals = [bodies.goal_of(plan.env, task) for task in tasks]
    width, height = plan.size
    camera = bodies.frame(
        plan.env,
        [models[cell.row] for cell in cells],
        [cell.qpos for cell in cells],
        [goals[cell.row] for cell in cells],
        width / height,
    )
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(bodies.Painter(model, camera, width, height, goal))
            for model, goal in zip(models, goals, strict=True)
        ]


def _panels(
    cells: Sequence[Cell], painters: Sequence[bodies.Painter], rows: int, t: int
) -> list[list[tuple[np.ndarray, Caption]]]:
    """The panels of one moment, in rows."""
    drawn = [
        (
            painters[cell.row].draw(cell.qpos[t]),
            Caption(cell.label, f"return {cell.returns[t]:.0f}", cell.task),
        )
        for cell in cells
    ]
    columns = len(cells) // rows
    return [drawn[i * columns : (i + 1) * columns] for i in range(rows)]


if __name__ == "__main__":
    sys.exit(cli.run(main))
