"""How fits to sine curves are drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from envs.sine import Sine
from experiments.spec.view import View
from roml_jax.types import Predictor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.spec.paradigms import Fits

_SIDE = 3  # amplitudes, and frequencies, that are drawn
# Parts of the range of each: those of 1, 3 and 4.8, and of 0.5, 1.5 and 2.8, by default.
_AMPLITUDES = np.array([0.9, 2.9, 4.7]) / 4.9
_FREQUENCIES = np.array([0.2, 1.2, 2.5]) / 2.7
_PHASE = 1.0 / (2 * np.pi)


def draw_fits(tasks: np.ndarray, fits: Fits, predictor: Predictor) -> Figure:
    """Curves and their fits before and after adaptation, a panel for each task."""
    from experiments import style

    rows = columns = _SIDE
    figure, axes = style.new_figure(2.5 * columns, 1.5 * rows + 0.5, rows, columns, sharex=True)
    shown = {0: "before", predictor.steps: "", predictor.test_steps: ""}
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


def sine_view(env: Sine) -> View:
    """The view of sine regression; what is drawn and ranged lies within the ranges of tasks."""

    def inside(part: float, limits: tuple[float, float]) -> float:
        return round(limits[0] + part * (limits[1] - limits[0]), 6)

    tasks = [
        (inside(a, env.amplitude), inside(_PHASE, env.phase), inside(w, env.frequency))
        for w in _FREQUENCIES
        for a in _AMPLITUDES
    ]
    highest = env.amplitude[1]
    edges = [round(highest * part, 6) for part in (0.0, 0.2, 0.4, 0.6, 0.8)]
    return View(
        np.array(tasks, np.float32),
        draw_fits,
        task="amplitude",
        ranges=(*edges, float("inf")),
    )
