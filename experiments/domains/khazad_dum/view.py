"""How episodes of Khazad-Dum are named, counted and drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from envs.khazad_dum import AT_GOAL, FALLEN, HEIGHT, UNDER_WAY, WIDTH, KhazadDum, path_label
from experiments.spec.view import Info, Map, View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# In order along a bar: the colours of draw.py, pale for the short way.
_OUTCOMES = {
    "short_done": ("#8DBAD9", ""),
    "short_fall": ("#F4A26B", "////"),
    "long_done": ("#005B96", ""),
    "long_fall": ("#C44508", "////"),
    "stay": ("#D9A7C9", ""),
    "stay_fall": ("#E8590C", "\\\\\\\\"),
}
# For a mean rain of 0.1; the last range holds 1 % of the tasks.
_RAINS, _REPEATS = (0.02, 0.1, 0.25, 0.5), 32  # drawn: from a drizzle to the tail's downpour
_RANGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.46)


def columns(info: Info) -> Info:
    """The label of each episode: its bridge and its end, ``short_done`` for instance."""
    return {"path": np.vectorize(path_label)(info["path"], info["status"])}


def positions(
    obs: Float[np.ndarray, "... O"],
) -> Float[np.ndarray, "... 2"]:
    """The position that an observation stands for: the mean of the cells by their weights."""
    weights = obs[..., : WIDTH * HEIGHT].reshape(*obs.shape[:-1], WIDTH, HEIGHT)
    x = (weights.sum(-1) * np.arange(WIDTH)).sum(-1)
    y = (weights.sum(-2) * np.arange(HEIGHT)).sum(-1)
    return np.stack([x, y], axis=-1)


def draw_episodes(tasks: np.ndarray, obs: np.ndarray, info: Info) -> Figure:
    """First and last episodes on the map, a column for each rain."""
    from experiments import style
    from experiments.domains.khazad_dum.draw import draw_paths, legend_handles

    paths = np.swapaxes(positions(obs), 1, 2)  # [K, n, H+1, 2]
    shown = sorted({0, len(paths) - 1})
    rains = np.unique(tasks[:, 0])
    figure, axes = style.new_figure(
        2.5 * len(rains), 2.2 * len(shown) + 0.6, len(shown), len(rains)
    )
    for row, episode in zip(axes, shown, strict=True):
        for ax, rain in zip(row, rains, strict=True):
            chosen = tasks[:, 0] == rain
            draw_paths(ax, paths[episode, chosen], info["status"][episode, chosen], legend=False)
            if episode == 0:
                ax.set_title(f"rain {rain:g}", loc="left", fontsize=9)
        row[0].set_ylabel(f"episode {episode + 1}")
    figure.legend(handles=legend_handles(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


def draw_small(ax: Axes, places: np.ndarray, outcomes: list[str]) -> None:
    """Paths over the map, with thinner lines and smaller marks."""
    from matplotlib.collections import LineCollection, PathCollection

    from experiments.domains.khazad_dum.draw import draw_paths

    ends = {"done": AT_GOAL, "fall": FALLEN}
    status = np.array([ends.get(outcome.rpartition("_")[2], UNDER_WAY) for outcome in outcomes])
    draw_paths(ax, places, status, legend=False)
    for part in ax.collections:  # made for panels of twice the size
        if isinstance(part, PathCollection):
            part.set_sizes(0.4 * part.get_sizes())
        elif isinstance(part, LineCollection):
            part.set_linewidth(0.7)


def _legend() -> list[Artist]:
    from experiments.domains.khazad_dum.draw import legend_handles

    return legend_handles()


def khazad_dum_view(env: KhazadDum) -> View:
    """The view of Khazad-Dum; what is drawn and ranged grows with the mean of the rain."""
    scale = env.rain_mean / 0.1
    rains = np.array(_RAINS, np.float32) * np.float32(scale)
    edges = [*_RANGES, float("inf")]
    return View(
        np.repeat(rains, _REPEATS)[:, None],
        draw_episodes,
        task="rain",
        unit="std of the noise, in cells",
        ranges=tuple(round(edge * scale, 6) for edge in edges),
        columns=columns,
        outcome="path",
        outcomes=_OUTCOMES,
        trace=positions,
        map=Map(draw_small, _legend),
    )
