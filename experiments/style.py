"""One look for all figures: Okabe-Ito colours, thin axes, no frame where no data is.

Sizes are those on paper: text of 7 and 8 points in figures as wide as a page's text.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform, blended_transform_factory

from roml_jax.methods import METHODS

# Okabe and Ito (2008), told apart with every common kind of colour vision.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, YELLOW, BLACK = "#56B4E9", "#CC79A7", "#F0E442", "#000000"
GREY = "#7A7F87"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE, BLACK)

PAGE = 5.5  # inches, the text of a page of one column
SMALL, LINE = 7.0, 1.2  # points of small text; its line spacing

_RC: Any = {
    "axes.prop_cycle": cycler(color=CYCLE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.linewidth": 0.6,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "figure.dpi": 200,
    "font.size": 8,
    "hatch.linewidth": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "xtick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.labelsize": SMALL,
    "ytick.major.width": 0.6,
}


# ------------------------------------------------------------------ methods


class Look(NamedTuple):
    """How a method is drawn in every figure: told apart by colour, and without it."""

    color: str
    marker: str
    dash: Any  # of its lines, as matplotlib's linestyle

    @property
    def line(self) -> dict[str, Any]:
        """All of it, as options of a line."""
        return {"color": self.color, "marker": self.marker, "ls": self.dash}


_DASHED, _DOTTED = (0, (4, 1.5)), (0, (1, 1))
DASHES = ("-", _DASHED, _DOTTED, (0, (5, 1.5, 1, 1.5)))  # of learners
_DASHDOTDOT = (0, (5, 1.5, 1, 1.5, 1, 1.5))
_LEFT_COLORS = (VERMILION, SKY, GREY)  # for variants: no method has one of these
_LEFT_SHAPES = (("P", _DOTTED), ("X", _DASHDOTDOT), ("p", _DASHED), ("*", "-"))


def looks(specs: Iterable[str]) -> dict[str, Look]:
    """How to draw methods.

    Args:
      specs: all methods of a comparison in order, also those that are not drawn. A plain
        method looks the same in all comparisons; a variant takes the next of what is left.

    Returns:
      A look for each: different ones for up to twelve variants.
    """
    found: dict[str, Look] = {}
    variants = 0
    for spec in specs:
        kind = METHODS.get(spec)
        if kind is not None and kind.look is not None:
            found[spec] = Look(*kind.look)
        elif spec not in found:
            color = _LEFT_COLORS[variants % len(_LEFT_COLORS)]
            found[spec] = Look(color, *_LEFT_SHAPES[variants % len(_LEFT_SHAPES)])
            variants += 1
    return found


def luminance(color: str) -> float:
    """Relative luminance of a colour, 0 (black) to 1 (white), as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(color)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink(color: str) -> str:
    """A colour for text on white: darkened until its contrast is 4.5 or more."""
    r, g, b = to_rgb(color)
    while 1.05 / (luminance(to_hex((r, g, b))) + 0.05) < 4.5:
        r, g, b = 0.95 * r, 0.95 * g, 0.95 * b
    return to_hex((r, g, b))


# ------------------------------------------------------------------ figures and files


def shade(i: int, n: int) -> str:
    """The i-th of n colours from dark to bright, for lines in an order."""
    return to_hex(mpl.colormaps["viridis"](0.9 * i / max(n - 1, 1)))


class _Picture(Figure):
    """A figure that a notebook shows, whether or not pyplot has drawn in it before."""

    def _repr_png_(self) -> bytes:
        data = io.BytesIO()
        self.savefig(data, dpi=110, format="png")
        return data.getvalue()


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure in inches and its axes ``[rows, columns]``; works without a display."""
    mpl.rcParams.update(_RC)
    figure = _Picture(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure, whole or not at all.

    Args:
      figure: the figure.
      path: of a ``.png``, at 200 dots per inch, or of a ``.pdf``, with TrueType fonts in it
        and without a date, so that the same data give the same bytes.
    """
    kind, partial = path.suffix[1:], path.with_name(f".{path.name}")
    metadata = {"CreationDate": None} if kind == "pdf" else None
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(partial, dpi=200, format=kind, metadata=metadata)
    partial.replace(path)


# ------------------------------------------------------------------ axes and text


def millions(ax: Axes, frames: str = "frames") -> None:
    """Labels the x axis in millions of frames, or in thousands for short runs.

    Args:
      ax: axes whose x is a number of frames.
      frames: what they are called.
    """
    unit, name = (1e6, "million") if ax.get_xlim()[1] >= 1e6 else (1e3, "thousand")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value / unit:g}")
    ax.set_xlabel(f"{name} {frames}")


def wrap(text: str, width: int = 20) -> str:
    """A text in lines of at most ``width`` characters where it can be broken.

    Breaks come after ``", "`` and spaces and, in words that are too long, after ``=``.
    """
    lines = [""]
    for word in text.split(" "):
        parts = word.replace("=", "=\n").split("\n") if len(word) > width else [word]
        for i, part in enumerate(parts):
            space = " " if i == 0 and lines[-1] else ""
            if len(lines[-1] + space + part) <= width or not lines[-1]:
                lines[-1] += space + part
            else:
                lines.append(part)
    return "\n".join(lines)


def margin(ax: Axes, y: Transform | None = None) -> Transform:
    """Coordinates right of the axes: x in inches from their edge, y in data or as given."""
    assert isinstance(ax.figure, Figure)
    edge = ax.figure.dpi_scale_trans + ScaledTranslation(1, 0, cast(Any, ax.transAxes))
    return blended_transform_factory(edge, ax.transData if y is None else y)


def name_lines(ax: Axes, names: Sequence[tuple[str, float, Look]], left: float = 0.06) -> None:
    """Names lines right of the axes, near their ends and apart from one another.

    Args:
      ax: axes whose limits and size in the figure are final in y.
      names: name, value at the right end, and look of each line; a sample of the line
        stands before its name.
      left: inches from the edge of the axes to the samples.
    """
    assert isinstance(ax.figure, Figure)
    ax.figure.draw_without_rendering()
    points = ax.get_window_extent().height / ax.figure.dpi * 72
    low, high = ax.get_ylim()
    order = sorted(names, key=lambda item: item[1])
    heights = [(LINE * SMALL * (1 + item[0].count("\n")) + 3) / points for item in order]
    places = spread([(item[1] - low) / (high - low) for item in order], heights)
    where = margin(ax, ax.transAxes)
    for (name, _, look), place in zip(order, places, strict=True):
        x = [left, left + 0.13, left + 0.26]
        ax.plot(x, [place] * 3, transform=where, clip_on=False, markevery=[1], **look.line)
        style: dict[str, Any] = {"va": "center", "fontsize": SMALL, "linespacing": LINE}
        ax.text(left + 0.31, place, name, transform=where, color=ink(look.color), **style)


def spread(centres: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Centres of labels on the unit interval, moved so that none overlaps another.

    Args:
      centres: where they would be best, increasing.
      heights: of the labels; if they sum up to more than 1, some end below 0.
    """
    placed: list[float] = []
    for centre, height in zip(centres, heights, strict=True):
        floor = placed[-1] + heights[len(placed) - 1] / 2 if placed else 0.0
        placed.append(max(centre, floor + height / 2))
    ceiling = 1.0
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling - heights[i] / 2)
        ceiling = placed[i] - heights[i] / 2
    return placed
