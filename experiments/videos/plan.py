"""What a video is to show: runs, tasks, sizes and files, checked before anything compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from envs.mujoco.body_env import BodyEnv
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.training import agents, runs
from experiments.training.report import label
from experiments.training.retest import find_runs
from experiments.training.runs import Run
from experiments.videos import bodies, video
from experiments.videos.options import RenderOptions
from roml_jax.evaluate import sample_tasks

_RANGE_DRAWS, _RANGE_SLACK = 10_000, 0.01  # tasks that tell the range, and more of it
_MOST_RUNS, _MOST_TASKS = 8, 12
_SIDE = (64, 1920)  # pixels
_SMOOTH_FPS = 30  # pictures per second that are enough


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


def make_plan(options: RenderOptions) -> Plan:
    """All of what was asked for, before anything compiles.

    Raises:
      UserError: something of it is impossible.
    """
    size = parse_size(options.size)
    paths = [path for root in options.runs for path in find_runs(Path(root))]
    paths = list(dict.fromkeys(paths))
    members = [(path, runs.read_config(path)) for path in paths]
    if len(members) > _MOST_RUNS:
        raise UserError(f"at most {_MOST_RUNS} runs can be shown; got {len(members)}")
    env = shared_env(members)
    tasks = parse_tasks(env, options.tasks) if options.tasks else None
    episode = env.episodes if options.episode is None else options.episode
    if not 1 <= episode <= env.episodes:
        raise UserError(f"--episode is one of 1 to {env.episodes}; got {episode}")
    if options.stride is not None and options.stride > env.horizon:
        raise UserError(f"--stride must be at most the {env.horizon} steps of an episode")
    files = choose_files(options, paths)
    video.check_packages([file.suffix[1:] for file in files])
    bodies.choose_backend()
    bodies.check_drawing(env)
    stride = options.stride or max(1, int(np.ceil(1 / (env.dt * _SMOOTH_FPS))))
    checkpoint = agents.which_agent(options.checkpoint)
    seed = members[0][1].evaluation_seed if options.seed is None else options.seed
    fps = options.fps or 1 / (env.dt * stride)
    return Plan(env, members, checkpoint, tasks, episode - 1, seed, size, fps, stride, files)


def parse_size(text: str) -> tuple[int, int]:
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


def shared_env(members: Sequence[tuple[Path, Run]]) -> BodyEnv:
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


def parse_tasks(env: BodyEnv, words: Sequence[str]) -> Float[np.ndarray, "n D"]:
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


def choose_files(options: RenderOptions, paths: Sequence[Path]) -> list[Path]:
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


def run_labels(members: Sequence[Run]) -> list[str]:
    """Names of the runs, with as much as it takes to tell them apart."""
    names = [
        label(run.experiment.method_name, run.experiment.learner_name, run.env) for run in members
    ]
    for more in (
        [f", {run.env}" for run in members],
        [f", alpha {run.experiment.alpha:g}" for run in members],
        [f", {run.name}" if run.name else "" for run in members],
        [f", seed {run.seed}" for run in members],
    ):
        if len(set(names)) < len(names) and len(set(more)) > 1:
            names = [name + word for name, word in zip(names, more, strict=True)]
    return names


def task_words(env: BodyEnv, task: Float[np.ndarray, " D"]) -> str:
    """A task in words, or in numbers alone if it has many components."""
    names = [name.replace("_", " ") for name in env.family.names]
    if len(names) > 4:
        return f"task {', '.join(f'{value:.2g}' for value in task)}"
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(names, task, strict=True))
