"""Draws a video: panels of runs and tasks, moment by moment."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from experiments.videos import bodies, video
from experiments.videos.plan import Plan, run_labels, task_words
from experiments.videos.replay import Replay, choose, replay_runs
from experiments.videos.video import Caption
from roml_jax.evaluate import evaluation_key, sample_tasks

_DRAWN = 64  # tasks, of which the default ones are chosen


class Cell(NamedTuple):
    """A panel over time."""

    row: int
    label: str  # of the run
    task: str
    qpos: Float[np.ndarray, "m nq"]
    returns: Float[np.ndarray, " m"]  # of the episode, up to each picture


def draw(plan: Plan) -> None:
    """Runs the agents, draws all pictures and writes the files."""
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


def _cells(
    plan: Plan, tasks: np.ndarray, words: Sequence[str], replays: Sequence[Replay]
) -> list[Cell]:
    """The panels, row by row."""
    labels, cells = run_labels([run for _, run in plan.members]), []
    shown = np.append(np.arange(0, plan.env.horizon, plan.stride), plan.env.horizon)
    for i, (task, word) in enumerate(zip(tasks, words, strict=True)):
        told = task_words(plan.env, task) + f" ({word})" * bool(word)
        told += f", episode {plan.episode + 1}"
        for label, one in zip(labels, replays, strict=True):
            rewards = np.asarray(one.reward[plan.episode, :, i], float)
            returns = np.concatenate([[0.0], np.cumsum(rewards)])
            qpos = np.asarray(one.qpos[plan.episode, shown, i], float)
            cells.append(Cell(i, label, told, qpos, returns[shown]))
    return cells


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
