"""How episodes of the point are named, counted and drawn."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from envs.point import Point
from experiments.spec.view import Info, Map, View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In order along a bar; colours of Okabe and Ito, as in style.py.
_OUTCOMES = {"reached": ("#0072B2", ""), "missed": ("#D55E00", "////")}
_INK = "#7A7F87"  # where goals may be
_ANGLES = (0.0, 0.63, 1.26, 1.88, 2.51, 3.15)  # fifths of π, the last rounded up
_AROUND, _ACROSS = 8, 5  # goals that are drawn, of the disk and of the half circle


def columns(info: Info) -> Info:
    """Whether the goal was ``reached`` or ``missed`` at the end, and how far away it was."""
    ends = np.where(info["reached"] == 1, "reached", "missed")
    return {"goal": ends, "distance": info["distance"]}


def positions(obs: Float[np.ndarray, "... O"]) -> Float[np.ndarray, "... 2"]:
    """The position, without what else an agent sees."""
    return obs[..., :2]


def draw_episodes(env: Point, tasks: np.ndarray, obs: np.ndarray, info: Info) -> Figure:
    """Paths of the first and of the last episode, and the goals, as large as they count."""
    from matplotlib.patches import Circle

    from experiments import style

    del info
    goals = np.asarray(jax.vmap(env.goal)(jnp.asarray(tasks)))
    shown = sorted({0, len(obs) - 1})
    figure, axes = style.new_figure(2.6 * len(shown), 2.9, 1, len(shown), sharey=True)
    for ax, episode in zip(axes.ravel(), shown, strict=True):
        draw_ground(env, ax)
        for i, goal in enumerate(goals):
            color = style.shade(i, len(goals))
            ax.add_patch(Circle(tuple(goal), env.goal_radius, color=color, alpha=0.15, lw=0))
            ax.plot(*goal, "x", color=color)
            ax.plot(*positions(obs[episode, :, i]).T, ".-", color=color, lw=0.9, ms=2)
        ax.set_title(f"episode {episode + 1}")
        ax.set_xlabel("x")
    axes[0, 0].set_ylabel("y")
    return figure


def draw_ground(env: Point, ax: Axes) -> None:
    """Where goals may be: the edge of the disk, or the half circle; and the start."""
    angles = np.linspace(0, math.pi * (2 if env.goals == "disk" else 1), 100)
    ax.plot(env.radius * np.cos(angles), env.radius * np.sin(angles), color=_INK, lw=0.8)
    ax.plot(0, 0, "+", color=_INK)
    ax.set_aspect("equal")


def draw_small(env: Point, ax: Axes, places: np.ndarray, outcomes: list[str]) -> None:
    """Paths in the colours of their ends, each with a dot where it ends."""
    draw_ground(env, ax)
    for path, outcome in zip(places, outcomes, strict=True):
        color, _ = _OUTCOMES[outcome]
        ax.plot(*path.T, color=color, lw=0.7)
        ax.plot(*path[-1], ".", color=color)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def _legend() -> list[Artist]:
    from matplotlib.lines import Line2D

    ends = [
        Line2D([], [], color=color, marker=".", lw=0.7, label=name)
        for name, (color, _) in _OUTCOMES.items()
    ]
    return [*ends, Line2D([], [], color=_INK, lw=0.8, label="where goals are")]


def point_view(env: Point) -> View:
    """The view of the point; what is drawn and ranged lies where its goals are."""
    if env.goals == "disk":
        task, unit = "x", ""
        ranges = tuple(float(edge) for edge in np.linspace(-env.radius, env.radius, 6).round(6))
        angles = 2 * math.pi * np.arange(_AROUND) / _AROUND
        tasks = 0.8 * env.radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        task, unit, ranges = "angle", "radians", _ANGLES
        tasks = math.pi * np.linspace(0.1, 0.9, _ACROSS)[:, None]
    return View(
        tasks.round(6).astype(np.float32),
        partial(draw_episodes, env),
        task=task,
        unit=unit,
        ranges=ranges,
        columns=columns,
        outcome="goal",
        outcomes=_OUTCOMES,
        trace=positions,
        map=Map(partial(draw_small, env), _legend),
    )
