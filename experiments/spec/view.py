"""How what a learner does in an environment is named, counted and drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from envs.khazad_dum import HEIGHT, WIDTH, path_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.spec.paradigms import Fits
    from roml_jax.learners.maml import MAMLConfig

Info = dict[str, np.ndarray]  # [K, n], the environment's info at the end of each episode


class View(NamedTuple):
    """What people want to see of an environment's episodes, or of fits to labelled examples.

    Attributes:
      outcome: the column of ``columns`` whose shares are reported; None if there is none.
      columns: ``info -> columns`` of ``test.csv``, each ``[K, n]``.
      tasks: ``[n, D]``, the tasks that are drawn.
      draw: ``(tasks[n, D], obs[K, H+1, n, O], info, terminal) -> Figure``; ``terminal``
        says that the first observation of episodes 2 … K is the last one of the episode
        before, not the start. For supervised tasks, ``(tasks[n, D], fits, config) -> Figure``
        with the settings of the learner.
      task: what the first component of a task is.
      unit: of that component, if it has one.
      ranges: edges of ranges of that component, increasing, over which tests are averaged.
      trace: ``obs[..., O] -> position[..., 2]``, for the paths of sample episodes; None if
        there are no paths.
    """

    outcome: str | None
    columns: Callable[[Info], Info]
    tasks: Float[np.ndarray, "n D"]
    draw: Callable[..., Figure]
    task: str
    unit: str
    ranges: tuple[float, ...]
    trace: Callable[[np.ndarray], np.ndarray] | None


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
    from experiments.domains.khazad_dum.draw import draw_paths, legend_handles

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


# ------------------------------------------------------------------ sine regression

_AMPLITUDES, _FREQUENCIES, _PHASE = (1.0, 3.0, 4.8), (0.5, 1.5, 2.8), 1.0


def draw_sine(tasks: np.ndarray, fits: Fits, config: MAMLConfig) -> Figure:
    """Curves and their fits before and after adaptation, a panel for each task."""
    from experiments import style

    rows, columns = len(_FREQUENCIES), len(_AMPLITUDES)
    figure, axes = style.new_figure(2.5 * columns, 1.5 * rows + 0.5, rows, columns, sharex=True)
    shown = {0: "before", config.inner_steps: "", config.test_steps: ""}
    colors = (style.GREY, style.BLUE, style.VERMILION)
    for i, ax in enumerate(axes.ravel()):
        ax.plot(fits.x[i], fits.y[i], color=style.BLACK, lw=0.8, ls=(0, (4, 2)), label="task")
        for (steps, name), color in zip(shown.items(), colors, strict=False):
            words = name or f"after {steps} step{'s' * (steps != 1)}"
            ax.plot(fits.x[i], fits.predictions[steps, i], color=color, label=words)
        look = {"color": style.BLACK, "ms": 4, "zorder": 3}
        ax.plot(fits.support[0][i], fits.support[1][i], ".", label="support examples", **look)
        amplitude, _, frequency = tasks[i]
        ax.set_title(f"amplitude {amplitude:g}, frequency {frequency:g}", fontsize=9)
    for ax in axes[-1]:
        ax.set_xlabel("x")
    for ax in axes[:, 0]:
        ax.set_ylabel("y")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    return figure


SINE = View(
    None,
    lambda info: info,
    np.array([(a, _PHASE, w) for w in _FREQUENCIES for a in _AMPLITUDES], np.float32),
    draw_sine,
    task="amplitude",
    unit="",
    ranges=(0.0, 1.0, 2.0, 3.0, 4.0, float("inf")),
    trace=None,
)
