"""How the episodes of an environment are named, counted and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from envs.khazad_dum import HEIGHT, WIDTH, path_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Info = dict[str, np.ndarray]  # [K, n], the environment's info at the end of each episode


class View(NamedTuple):
    """What people want to see of an environment's episodes.

    Attributes:
      outcome: the column of ``columns`` whose shares are reported.
      columns: ``info -> columns`` of ``test.csv``, each ``[K, n]``.
      tasks: ``[n, D]``, the tasks whose episodes are drawn.
      draw: ``(tasks[n, D], obs[K, H+1, n, O], info, terminal) -> Figure``; ``terminal``
        says that the first observation of episodes 2 … K is the last one of the episode
        before, not the start.
      task: what the first component of a task is.
      unit: of that component, if it has one.
      ranges: edges of ranges of that component, increasing, over which tests are averaged.
      trace: ``obs[..., O] -> position[..., 2]``, for the paths of sample episodes.
    """

    outcome: str
    columns: Callable[[Info], Info]
    tasks: Float[np.ndarray, "n D"]
    draw: Callable[[np.ndarray, np.ndarray, Info, bool], Figure]
    task: str
    unit: str
    ranges: tuple[float, ...]
    trace: Callable[[np.ndarray], np.ndarray]


# ------------------------------------------------------------------ Khazad-Dum

_RAINS, _REPEATS = (0.02, 0.1, 0.25, 0.5), 32  # drawn: from a drizzle to the tail's downpour


def khazad_dum_columns(info: Info) -> Info:
    """The label of each episode: its bridge and its end, ``short_done`` for instance."""
    return {"path": np.vectorize(path_label)(info["path"], info["status"])}


def khazad_dum_positions(
    obs: Float[np.ndarray, "... O"],
) -> Float[np.ndarray, "... 2"]:
    """The position that an observation stands for: the mean of the cells by their weights."""
    weights = obs[..., : WIDTH * HEIGHT].reshape(*obs.shape[:-1], WIDTH, HEIGHT)
    x = (weights.sum(-1) * np.arange(WIDTH)).sum(-1)
    y = (weights.sum(-2) * np.arange(HEIGHT)).sum(-1)
    return np.stack([x, y], axis=-1)


def draw_khazad_dum(tasks: np.ndarray, obs: np.ndarray, info: Info, terminal: bool) -> Figure:
    """First and last episodes on the map, a column for each rain."""
    from experiments import style
    from experiments.render_khazad_dum import draw_paths, legend_handles

    paths = np.swapaxes(khazad_dum_positions(obs), 1, 2)  # [K, n, H+1, 2]
    if terminal:
        paths[1:, :, 0] = paths[1:, :, 1]  # a start that nobody has seen
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
        row[0].set_ylabel(f"episode {episode + 1}{', from step 1' if terminal and episode else ''}")
    figure.legend(handles=legend_handles(), loc="outside lower center", ncols=4, fontsize=8)
    return figure


KHAZAD_DUM = View(
    "path",
    khazad_dum_columns,
    np.repeat(np.array(_RAINS, np.float32), _REPEATS)[:, None],
    draw_khazad_dum,
    task="rain",
    unit="std of the noise, in cells",
    ranges=(0.0, 0.05, 0.1, 0.2, 0.3, 0.46, float("inf")),  # the last holds 1 % of the tasks
    trace=khazad_dum_positions,
)
