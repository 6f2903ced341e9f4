"""One look for all figures: Okabe-Ito colours, thin axes, no frame where no data is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito (2008), told apart with every common kind of colour vision.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
GREY = "#7A7F87"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK)

_RC: Any = {
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.8,
    "axes.labelsize": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.dpi": 160,
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure in inches and its axes ``[rows, columns]``; works without a display."""
    mpl.rcParams.update(_RC)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG at 160 dots per inch, whole or not at all."""
    partial = path.with_name(f".{path.name}")
    figure.savefig(partial, dpi=160, format="png")
    partial.replace(path)


def millions(ax: Axes) -> None:
    """Labels the x axis in millions of frames, or in thousands for short runs."""
    unit, name = (1e6, "million frames") if ax.get_xlim()[1] >= 1e6 else (1e3, "thousand frames")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
    ax.set_xlabel(name)
