"""How episodes of MuJoCo bodies are named, counted and drawn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from envs.mujoco.body_env import BodyEnv
from envs.mujoco.engines import is_nvidia
from experiments.spec.view import Info, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_UNIT = {"velocity": "m/s", "x": "m", "y": "m"}
_DRAWN = 5  # tasks, and ranges of tasks
_SMOOTH = 10  # control steps over which a speed is averaged


def body_view(env: BodyEnv) -> View:
    """The view of one variation of one body."""
    name, (least, most) = env.family.names[0], env.bounds
    if name == "velocity":
        tasks = np.linspace(0.1, 0.9, _DRAWN)[:, None] * most
        edges = np.linspace(least, most, _DRAWN + 1)
    elif name == "x":
        angles = np.arange(8) / 8 * 2 * np.pi
        tasks = 0.8 * most * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        edges = np.linspace(least, most, _DRAWN + 1)
    else:  # factors, alike on a logarithmic scale
        widest = np.log2(most)
        low, *inner, high = 100 * 2 ** (np.linspace(-1, 1, _DRAWN + 1) * widest)
        edges = np.array([np.floor(low), *np.round(inner), np.ceil(high)]) / 100
        tasks = np.ones((_DRAWN, len(env.family.names)))
        tasks[:, 0] = 2 ** (np.linspace(-0.9, 0.9, _DRAWN) * widest)
    draw = _draw_paths if name == "x" else _draw_speeds(env)
    return View(
        tasks.astype(np.float32),
        draw,
        task=name.replace("_", " "),
        unit=_UNIT.get(name, "factor"),
        ranges=tuple(map(float, edges)),
        columns=_columns,
    )


def about_body(env: BodyEnv) -> dict[str, Any]:
    """What a run notes of its body: who steps it, and which file of one's own it is of."""
    about = {"engine": env.engine}
    if env.model is not None:
        about["model_sha256"] = hashlib.sha256(Path(env.model).read_bytes()).hexdigest()
    return about


def physics_words(env: BodyEnv) -> str:
    """Which engine steps the bodies, who chose it, and what to know of it."""
    names = {"mujoco": "MuJoCo in C", "mjx": "MJX", "warp": "MJX-Warp"}
    chosen = f", chosen for this {jax.default_backend().upper()}" * (env.physics == "auto")
    words = f"{names[env.engine]} ({env.engine}{chosen}), derived {env.derived}"
    words += f", body of {env.model}" * (env.model is not None)
    if env.engine == "warp":
        return f"{words}; its kernels compile when first used, which takes a minute or two"
    if is_nvidia() and (env.engine == "mjx" or env.physics == "auto"):
        return f"{words}; for many tasks warp is faster: pip install 'roml-jax[warp]'"
    return words


def _columns(info: Info) -> Info:
    """Where the episode ended, in metres, and whether its simulation diverged."""
    return {name: info[name] for name in ("x", "y", "height", "diverged")}


def _draw_speeds(env: BodyEnv) -> Any:
    """Speeds along x in the first and the last episode, a line for each task."""

    def draw(tasks: np.ndarray, obs: np.ndarray, info: Info) -> Figure:
        from experiments import style

        figure, panels = _panels(obs, 2.4)
        window = np.ones(_SMOOTH) / _SMOOTH
        for ax, seen in panels:
            for i, task in enumerate(tasks):
                smooth = np.convolve(env.speed_of(seen[:, i]), window, "valid")
                time = env.dt * (np.arange(len(smooth)) + _SMOOTH / 2)
                ax.plot(time, smooth, color=style.shade(i, len(tasks)), label=f"{task[0]:.2g}")
            ax.set_xlabel("time (s)")
        panels[0][0].set_ylabel("speed along x (m/s)")
        panels[-1][0].legend(
            title=env.family.names[0].replace("_", " "), loc="center left", bbox_to_anchor=(1, 0.5)
        )
        return figure

    return draw


def _draw_paths(tasks: np.ndarray, obs: np.ndarray, info: Info) -> Figure:
    """Paths of the first and of the last episode to goals all around."""
    from experiments import style

    figure, panels = _panels(obs, 2.7)
    for ax, seen in panels:
        for i, goal in enumerate(tasks):
            color = style.shade(i, len(tasks))
            ax.plot(*seen[:, i, :2].T, color=color, lw=0.9)
            ax.plot(*goal, "x", color=color)
        ax.set_aspect("equal")
        ax.set_xlabel("x (m)")
    panels[0][0].set_ylabel("y (m)")
    return figure


def _panels(obs: np.ndarray, height: float) -> tuple[Figure, list[tuple[Axes, np.ndarray]]]:
    """Axes for the first and the last episode, each with its observations ``[H+1, n, O]``."""
    from experiments import style

    shown = sorted({0, len(obs) - 1})
    figure, axes = style.new_figure(2.6 * len(shown), height, 1, len(shown), sharey=True)
    panels = []
    for ax, episode in zip(axes.ravel(), shown, strict=True):
        ax.set_title(f"episode {episode + 1}")
        panels.append((ax, obs[episode]))
    return figure, panels
