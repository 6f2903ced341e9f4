"""Pictures of Khazad-Dum episodes: their paths over the map, coloured by their end.

Works on a headless machine; the caller makes the figure and saves it::

    fig, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
    for ax, paths in zip(axes, paths_of_each_panel):
        draw_paths(ax, paths, legend=False)
    fig.legend(handles=legend_handles(), loc="outside lower center", ncols=5, frameon=False)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from envs.khazad_dum import (
    ABYSS,
    AT_GOAL,
    BRIDGE,
    FALLEN,
    FREE,
    GOAL,
    HEIGHT,
    START,
    UNDER_WAY,
    WALL,
    WIDTH,
    cell_kind,
)


class _Look(NamedTuple):
    name: str
    color: str
    marker: str
    size: float


# Okabe-Ito hues; the end markers tell the outcomes apart without colour.
_LOOKS = {
    AT_GOAL: _Look("reached the goal", "#005B96", "o", 16.0),
    FALLEN: _Look("fell", "#E8590C", "X", 36.0),
    UNDER_WAY: _Look("neither", "#B5568F", "s", 18.0),
}
_CELLS = {ABYSS: "#1D2130", BRIDGE: "#DFCFAF", FREE: "#F6F3EC", WALL: "#8B8F98"}
_RAIN_FLOOR, _RAIN, _GOAL, _INK = "#E1EDF6", "#8FBBDD", "#9AD6A8", "#3A3F4B"
_EXPOSED_BRIDGE = (1.5, 2.5, 1.0, 3.0)  # left, bottom, width, height; cells


def draw_map(ax: Axes) -> None:
    """Draws the map: walls, abyss, bridges, start square and goal.

    Args:
      ax: the axes; its limits, ticks and aspect are set.
    """
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH]
    cells = jnp.array(np.stack([xs, ys], -1).reshape(-1, 2), jnp.float32)
    kinds = np.asarray(jax.vmap(cell_kind)(cells)).reshape(HEIGHT, WIDTH)
    colors = ListedColormap([_CELLS[kind] for kind in sorted(_CELLS)])
    edges_x, edges_y = np.arange(WIDTH + 1) - 0.5, np.arange(HEIGHT + 1) - 0.5
    ax.pcolormesh(edges_x, edges_y, kinds, cmap=colors, vmin=0, vmax=len(_CELLS) - 1, zorder=0)

    left, bottom, width, height = _EXPOSED_BRIDGE
    ax.add_patch(Rectangle((left, bottom), width, height, color=_RAIN_FLOOR, lw=0, zorder=1))
    ax.add_collection(_rain_drops())
    ax.add_patch(Rectangle((GOAL[0] - 0.5, GOAL[1] - 0.5), 1, 1, color=_GOAL, lw=0, zorder=1))
    side = START[1] - START[0]
    ax.add_patch(
        Rectangle((START[0], START[0]), side, side, fill=False, ec=_INK, ls=(0, (4, 3)), zorder=1)
    )
    ax.set(xlim=(0.1, WIDTH - 1.1), ylim=(0.1, HEIGHT - 1.1), aspect="equal")  # half the wall
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def draw_paths(
    ax: Axes,
    paths: Float[np.ndarray, "N steps 2"],
    outcomes: Int[np.ndarray, " N"] | None = None,
    *,
    alpha: float | None = None,
    legend: bool = True,
) -> None:
    """Draws episodes over the map, each in the colour of its outcome.

    Args:
      ax: the axes; the map is drawn, too.
      paths: positions ``[N, H + 1, 2]`` of N episodes, from the start on.
      outcomes: final ``status`` of each episode: 1 at the goal, -1 fallen, 0 neither.
        By default it is read off the last position.
      alpha: opacity of a path, in (0, 1]; by default less, the more episodes end alike.
      legend: whether to put a legend under the axes, with the share of each outcome.

    Raises:
      ValueError: if ``paths`` is empty or has another shape, or ``outcomes`` another length.
    """
    paths = np.asarray(paths, float)
    if paths.ndim != 3 or paths.shape[-1] != 2 or not paths.size:
        raise ValueError(f"paths must have shape [N, H + 1, 2], N > 0, not {paths.shape}")
    outcomes = _outcomes(paths[:, -1]) if outcomes is None else np.asarray(outcomes)
    if outcomes.shape != paths.shape[:1]:
        raise ValueError(f"outcomes must have shape {paths.shape[:1]}, not {outcomes.shape}")

    draw_map(ax)
    for status, look in _LOOKS.items():
        chosen = paths[outcomes == status]
        if not len(chosen):
            continue
        opacity = float(np.clip(8 / len(chosen), 0.2, 0.85)) if alpha is None else alpha
        # Rarer outcomes lie on top.
        order = 3 - len(chosen) / len(paths)
        lines = LineCollection(list(chosen), colors=look.color, alpha=opacity, lw=1.2, zorder=order)
        ax.add_collection(lines)
        style: dict[str, Any] = {"color": look.color, "linewidths": 0.5, "edgecolors": "white"}
        x, y = chosen[:, -1].T
        ax.scatter(x, y, s=look.size, marker=look.marker, zorder=order + 2, **style)
    x, y = paths[:, 0].T
    ax.scatter(x, y, s=4, color=_INK, lw=0, zorder=3)
    if legend:
        ax.legend(
            handles=legend_handles(outcomes),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.02),
            ncols=2,
            frameon=False,
            fontsize="small",
        )


def legend_handles(outcomes: Int[np.ndarray, " N"] | None = None) -> list[Artist]:
    """The entries of a legend, for one axes or for a figure of many.

    Args:
      outcomes: final ``status`` of each episode; its outcomes are named with their share.
        By default every outcome is named, without a share.

    Returns:
      Handles with labels: the outcomes first, then the parts of the map.
    """
    handles: list[Artist] = []
    for status, look in _LOOKS.items():
        share = None if outcomes is None else np.mean(outcomes == status)
        if share == 0:
            continue
        label = look.name if share is None else f"{look.name} ({share:.0%})"
        style: dict[str, Any] = {"markersize": look.size**0.5, "markeredgecolor": "white"}
        handles.append(
            Line2D([], [], color=look.color, marker=look.marker, mew=0.5, label=label, **style)
        )
    return [
        *handles,
        Patch(fc=_RAIN_FLOOR, ec=_RAIN, hatch="////", lw=0, label="exposed bridge (rain)"),
        Patch(color=_CELLS[BRIDGE], lw=0, label="covered bridge"),
        Patch(color=_CELLS[ABYSS], lw=0, label="abyss"),
        Patch(color=_GOAL, lw=0, label="goal"),
        Patch(fill=False, ec=_INK, ls="--", label="start"),
    ]


def _outcomes(xy: np.ndarray) -> np.ndarray:
    """The status of the episodes that end at positions ``[N, 2]``."""
    at_goal = (np.rint(xy) == GOAL).all(-1)
    kinds = np.asarray(jax.vmap(cell_kind)(jnp.asarray(xy, jnp.float32)))
    return np.where(at_goal, AT_GOAL, np.where(kinds == ABYSS, FALLEN, UNDER_WAY))


def _rain_drops() -> LineCollection:
    """Slanted strokes over the exposed bridge, in staggered rows."""
    left, bottom, width, height = _EXPOSED_BRIDGE
    rows = np.arange(bottom + 0.08, bottom + height - 0.2, 0.25)
    drops = [
        ((x, y), (x + 0.06, y + 0.17))
        for row, y in enumerate(rows)
        for x in np.arange(left + (0.09 if row % 2 else 0.19), left + width - 0.06, 0.2)
    ]
    return LineCollection(drops, colors=_RAIN, lw=0.8, zorder=1)
