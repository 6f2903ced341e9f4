"""What the figures of a comparison share: its methods, and lines and intervals over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from experiments import style
from experiments.presets import Published
from experiments.spec.view import Map
from experiments.spec.words import split_row
from experiments.study.intervals import FEW, over_seeds
from experiments.style import Look

INTERVALS = (
    "95 % confidence intervals over seeds by Student's t (of fewer than 4: from the lowest to the "
    "highest)"
)
_BAND = 0.18  # opacity
_FIRST, _NEXT = 0.08, 0.07  # inches from the axes to published values, and between them


class NothingToDrawError(Exception):
    """The tables lack what a figure shows; says what."""


class NotConcernedError(NothingToDrawError):
    """A figure of something that a comparison is not about; nobody misses it."""


class Series(NamedTuple):
    """A row of a comparison, as figures draw it."""

    spec: str  # as in the tables
    learner: str  # its name
    name: str  # for people
    look: Look
    published: Published | None

    @property
    def plain(self) -> str:
        """Its word without the learner."""
        return split_row(self.spec)[1]


class Comparison(NamedTuple):
    """What is compared, beside the tables."""

    methods: list[Series]  # in order
    alpha: float | None  # of the CVaR; None if the methods differ in it
    level: float  # of the CVaR by which methods of different alpha are compared
    task: str  # what task_0 is
    unit: str  # of task_0, or empty
    frames: str  # what frames are called
    returns: str  # what returns are
    agents: str  # which agents were tested
    phi0: dict[str, float]  # the original task distribution, by column
    map: Map | None
    outcomes: Mapping[str, tuple[str, str]]  # colour and hatch, in order


class Drawn(NamedTuple):
    """A figure, and what to write below it."""

    figure: Figure
    caption: str


def looks_of(learners: Mapping[str, str]) -> dict[str, Look]:
    """How to draw rows: by their methods, and with dashes of the learner where there are several.

    Args:
      learners: of all rows of a comparison in order, also those that are not drawn.

    Returns:
      A look for each, with the colour and the marker of its method.
    """
    methods = {row: split_row(row)[1] for row in learners}
    looks, order = style.looks(methods.values()), list(dict.fromkeys(learners.values()))
    if len(order) == 1:
        return {row: looks[method] for row, method in methods.items()}
    dashes = [style.DASHES[i % len(style.DASHES)] for i in range(len(order))]
    return {
        row: looks[methods[row]]._replace(dash=dashes[order.index(learner)])
        for row, learner in learners.items()
    }


# ------------------------------------------------------------------ tables


def with_rows(table: pd.DataFrame, comparison: Comparison, what: str) -> list[Series]:
    """The methods that a table knows.

    Raises:
      NothingToDrawError: it knows none.
    """
    known = set(table["method"])
    methods = [method for method in comparison.methods if method.spec in known]
    if not methods:
        raise NothingToDrawError(f"no method here has a {what}")
    return methods


def by_learner(methods: list[Series]) -> dict[str, list[Series]]:
    """The rows of each learner, in order."""
    groups: dict[str, list[Series]] = {}
    for method in methods:
        groups.setdefault(method.learner, []).append(method)
    return groups


def published_words(methods: list[Series], what: str = "results") -> str:
    """What hollow diamonds are, for captions; empty if there are none."""
    shown = [method.published for method in methods if method.published]
    known = any(np.isfinite(value.mean[1:]).all() for value in shown)
    ends = " with 95 % intervals" if known else " (means over seeds)"
    return f" Hollow diamonds: published {what}{ends}" if shown else ""


def cvar_name(comparison: Comparison) -> str:
    """The name of the CVaR, with its level if that is one for all."""
    return "CVaR" if comparison.alpha is None else f"CVaR {comparison.alpha:g}"


def cvar_words(comparison: Comparison) -> str:
    """What the CVaR is, for captions."""
    worst = "worst tasks" if comparison.alpha is None else f"worst {100 * comparison.alpha:g} %"
    return f"{cvar_name(comparison)}: mean over the {worst}{' of tasks' * bool(comparison.alpha)}"


def _seed_counts(table: pd.DataFrame, methods: list[Series]) -> pd.Series:
    return table.groupby("method")["seed"].nunique()[[m.spec for m in methods]]


def seed_count(table: pd.DataFrame, methods: list[Series]) -> str:
    """The number of seeds of each method, in words."""
    counts = _seed_counts(table, methods)
    low, high = counts.min(), counts.max()
    words = f"{high} seeds" if low == high else f"{low} to {high} seeds"
    return "1 seed" if high == 1 else words


def band_words(table: pd.DataFrame, methods: list[Series]) -> str:
    """What the bands of ``course`` are, for captions; empty if there are none."""
    counts = _seed_counts(table, methods)
    words = []
    if counts.max() >= FEW:
        words.append("95 % confidence intervals over seeds by Student's t")
    if counts.between(2, FEW - 1).any():
        words.append("from the lowest to the highest seed" + " of fewer than 4" * bool(words))
    return f"; bands: {', or '.join(words)}" if words else ""


def course(part: pd.DataFrame, column: str) -> pd.DataFrame:
    """One method's mean over seeds by frames, and its band, which one seed has none of.

    The band is the 95 % interval by Student's t, which takes the mean over seeds for normal;
    from the lowest to the highest of less than four seeds, of which t says next to nothing.

    Args:
      part: rows with ``frames`` and a value for each seed.
      column: of the value.

    Returns:
      Columns mean, low and high, by frames; frames without a value are left out.
    """
    by_frames = part.dropna(subset=[column]).groupby("frames")[column]
    found = by_frames.agg(["mean", "sem", "count", "min", "max"])
    few, one = found["count"] < FEW, found["count"] == 1
    half = found["sem"] * stats.t.ppf(0.975, np.maximum(found["count"] - 1, 1))
    low = found["min"].where(few, found["mean"] - half).mask(one)
    high = found["max"].where(few, found["mean"] + half).mask(one)
    return found.assign(low=low, high=high)[["mean", "low", "high"]]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The interval of a mean, or from the lowest to the highest of few seeds; NaN for one."""
    if 1 < len(values) < FEW:
        return float(np.min(values)), float(np.max(values))
    found = over_seeds(values)
    return found.low, found.high


# ------------------------------------------------------------------ axes


def line(ax: Axes, values: pd.DataFrame, look: Look, **options: Any) -> None:
    """A line with its band."""
    x = values.index.to_numpy()
    if values["low"].notna().any():
        ax.fill_between(x, values["low"], values["high"], color=look.color, alpha=_BAND, lw=0)
    ax.plot(x, values["mean"], **look.line, **options)


def published_margin(ax: Axes, methods: list[Series], column: str) -> float:
    """Published values right of the axes, on its scale; returns the inches they take."""
    shown = [(m, getattr(m.published, column)) for m in methods if m.published]
    where = style.margin(ax)
    for i, (method, (mean, low, high)) in enumerate(shown):
        x, ink = _FIRST + _NEXT * i, style.ink(method.look.color)
        ax.plot([x, x], [low, high], color=ink, lw=0.8, transform=where, clip_on=False)
        shape: dict[str, Any] = {"marker": "D", "ms": 3.2, "mfc": "white", "mec": ink, "mew": 0.8}
        ax.plot([x], [mean], transform=where, clip_on=False, **shape)
    if shown:
        key = style.margin(ax, ax.transAxes)
        middle = _FIRST + _NEXT * (len(shown) - 1) / 2
        ax.text(middle, 1.02, "published", transform=key, ha="center", fontsize=style.SMALL)
    return _FIRST + _NEXT * len(shown) + 0.03
