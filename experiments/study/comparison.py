"""Figures that compare methods, from the tables of compact results alone.

Each function takes ``(results, comparison)`` and returns a figure with its caption. All of
them work for any environment; what they need to know of it stands in ``Comparison``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments import style
from experiments.study import episodes
from experiments.study.figure_parts import (
    INTERVALS,
    Comparison,
    Drawn,
    Series,
    band_words,
    by_learner,
    course,
    cvar_name,
    cvar_words,
    interval,
    line,
    published_margin,
    published_words,
    seed_count,
    with_rows,
)
from experiments.study.results import FINAL_AGENTS, Results
from experiments.style import Look
from experiments.training.report import learner_label, method_label

_PALE = 0.3  # opacity of bars
_SHORT = 14  # characters of a name that has room beside its line


# ------------------------------------------------------------------ training


def learning(results: Results, comparison: Comparison) -> Drawn:
    """Validation mean and CVaR during training, one line per method, a row per learner.

    Lines are means over seeds; bands are 95 % confidence intervals by Student's t, which
    take the mean over seeds for normal.

    Raises:
      NothingToDrawError: no method has a validation.
    """
    table = results.validation
    methods = with_rows(table, comparison, "validation")
    compared = methods if comparison.agents == FINAL_AGENTS else []  # where the curves end
    rows = list(by_learner(methods).values())
    names = {m.spec: m.name if len(rows) == 1 else method_label(m.plain) for m in methods}
    beside = max(map(len, names.values())) <= _SHORT
    height = (2.1 if beside else 2.4) * len(rows)
    figure, axes = style.new_figure(style.PAGE, height, len(rows), 2, sharey="col")
    for (left, right), own in zip(axes, rows, strict=True):
        _draw_course(left, table, own, "mean")
        _draw_course(right, table, own, "cvar")
        left.set(ylabel="validation mean return")
        right.set(ylabel=f"validation {cvar_name(comparison)}")
        left.set_title(learner_label(own[0].learner) if len(rows) > 1 else "")
        for ax in (left, right):
            ax.set_xlim(0, _round_up(table["frames"].max()))
            style.millions(ax, comparison.frames)
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    for (left, right), own in zip(axes, rows, strict=True):  # whose limits are final
        shown = [method for method in own if method in compared]
        published_margin(left, shown, "mean")
        gutter = published_margin(right, shown, "cvar")
        if beside:
            ends = [course(table[table["method"] == m.spec], "cvar")["mean"].iloc[-1] for m in own]
            named = [(names[m.spec], float(y), m.look) for m, y in zip(own, ends, strict=True)]
            style.name_lines(right, named, left=gutter)
    if not beside:
        looks = {names[method.spec]: method.look for method in reversed(methods)}  # of the first
        key = [Line2D([], [], ms=3.5, label=n, **look.line) for n, look in reversed(looks.items())]
        figure.legend(handles=key, loc="outside lower center", ncols=2, handlelength=3)
    caption = f"Validation during training, {seed_count(table, methods)}; {comparison.returns}. "
    caption += f"{cvar_words(comparison)}. Lines: means over seeds{band_words(table, methods)}."
    caption += " Rows: learners, named above." * (len(rows) > 1)
    if words := published_words(compared, "results of the final models"):
        caption += f"{words}, in the order of the methods."
    return Drawn(figure, caption)


def _draw_course(ax: Axes, table: pd.DataFrame, methods: list[Series], column: str) -> None:
    """The lines of some methods, with their bands."""
    for i, method in enumerate(methods):
        values = course(table[table["method"] == method.spec], column)
        every = max(1, len(values) // 6)
        first = i * every // len(methods)  # so that no marker hides another
        line(ax, values, method.look, label=method.name, markevery=(first, every), ms=3.5)


def sampler(results: Results, comparison: Comparison) -> Drawn:
    """The task sampler during training, a row per method that moves it.

    Left ``phi`` and its original value; right the returns of the tasks drawn, and those of
    the original distribution by importance weights. Bands as in ``learning``.

    Raises:
      NothingToDrawError: no method moves its task distribution.
    """
    table = results.sampler
    methods = with_rows(table, comparison, "course of a task sampler")
    figure, axes = style.new_figure(style.PAGE, 1.75 * len(methods) + 0.2, len(methods), 2)
    for (left, right), method in zip(axes, methods, strict=True):
        part = table[table["method"] == method.spec]
        _draw_phi(left, part, method, comparison.phi0)
        cvar = cvar_name(comparison)
        series = {
            "sample_mean": ("mean,\ntasks drawn", method.look._replace(dash="-", marker="")),
            "reference_mean": ("mean,\noriginal tasks", Look(style.BLACK, "", (0, (2.5, 1.2)))),
            "reference_cvar": (f"{cvar},\noriginal tasks", Look(style.GREY, "", (0, (1, 1)))),
        }
        ends = []
        for column, (name, look) in series.items():
            values = course(part, column)
            line(right, values, look, lw=1.0)
            ends.append((name, float(values["mean"].iloc[-1]), look))
        right.set(ylabel="training return")
        for ax in (left, right):
            ax.set_xlim(0, _round_up(table["frames"].max()))
            style.millions(ax, comparison.frames)
        style.name_lines(right, ends)
    for ax in axes[:-1].ravel():
        ax.set_xlabel("")
    return Drawn(
        figure,
        "The task sampler during training. Left: φ of the task distribution, mean and each of "
        f"{seed_count(table, methods)} (thin); dashed: the original φ₀. Right: returns of the "
        "tasks drawn, and of the original distribution by importance weights; averages over short "
        f"windows of training steps; {comparison.returns}. Heavy lines: means over seeds"
        f"{band_words(table, methods)}.",
    )


def _draw_phi(ax: Axes, part: pd.DataFrame, method: Series, phi0: dict[str, float]) -> None:
    columns = [name for name in map(str, part) if name[:4] == "phi_" and part[name].notna().any()]
    colors = [method.look.color] if len(columns) == 1 else style.CYCLE * len(columns)
    opacity = min(0.3, 3 / part["seed"].nunique())
    for column, color in zip(columns, colors, strict=False):
        name, look = column.removeprefix("phi_"), Look(style.ink(color), "", "-")
        for _, one in part.groupby("seed"):
            ax.plot(one["frames"], one[column], color=color, lw=0.3, alpha=opacity)
        line(ax, course(part, column), look, label=name)
        if column in phi0:
            ax.axhline(phi0[column], color=style.BLACK, lw=0.8, ls=(0, (4, 2)), zorder=3)
            place: dict[str, Any] = {
                "transform": style.margin(ax),
                "va": "center",
                "fontsize": style.SMALL,
            }
            ax.text(0.03, phi0[column], "φ₀", **place)
    words = columns[0].removeprefix("phi_").replace("_", " of ", 1)
    ax.set(ylabel=f"φ: {words}" if len(columns) == 1 else "φ")
    ax.set_title(style.wrap(method.name, 34), color=style.ink(method.look.color))
    if (part[columns].min() >= 0).all():
        ax.set_ylim(bottom=0)
    if len(columns) > 1:
        ax.legend(ncols=2, columnspacing=1.0, handlelength=1.2)


def _round_up(frames: float) -> float:
    """At most 1 % more, so that the axis ends with a tick if the training ends near one."""
    unit = 10.0 ** (np.floor(np.log10(max(frames, 1))) - 2)
    return float(max(np.ceil(frames / unit), 1) * unit)


# ------------------------------------------------------------------ tests


def test(results: Results, comparison: Comparison) -> Drawn:
    """Mean and CVaR of the tested agents: bars, seeds, and the published values.

    Raises:
      NothingToDrawError: no method has a test.
    """
    table = results.tests[results.tests["low"].isna()]
    methods = with_rows(table, comparison, "test")
    figure, axes = style.new_figure(style.PAGE, 0.42 * len(methods) + 0.95, 1, 2, sharey=True)
    names = ["mean", cvar_name(comparison)]
    for ax, column, name in zip(axes[0], ("mean", "cvar"), names, strict=True):
        for i, method in enumerate(methods):
            values = table.loc[table["method"] == method.spec, column].to_numpy(float)
            color, ink = method.look.color, style.ink(method.look.color)
            ax.barh(i, values.mean(), height=0.8, color=color, alpha=_PALE, lw=0)
            ax.plot(values, np.full(len(values), i + 0.27), ".", ms=3, color=ink, mew=0, alpha=0.8)
            low, high = interval(values)
            ax.plot([low, high], [i, i], color=ink, lw=1.2)
            ax.plot(values.mean(), i, method.look.marker, color=ink, ms=4.5, label=method.name)
            if method.published:
                mean, *ends = getattr(method.published, column)
                ax.plot(ends, [i - 0.27] * 2, color=ink, lw=0.8)
                ax.plot(mean, i - 0.27, "D", mec=ink, mfc="white", ms=3.5, mew=0.8)
        ax.set(xlabel=f"test return, {name}")
    axes[0, 0].set_yticks(range(len(methods)), [style.wrap(m.name, 24) for m in methods])
    axes[0, 0].invert_yaxis()
    for ax in axes[0]:
        ax.tick_params(axis="y", length=0)
    figure.legend(
        handles=_test_key(any(m.published for m in methods)), loc="outside lower center", ncols=3
    )
    caption = (
        f"Test of the {comparison.agents}, {seed_count(table, methods)}, {_tasks(table)} tasks "
        f"each; {comparison.returns}. {cvar_words(comparison)}. Bars and their markers: means over "
        f"seeds, with {INTERVALS}; dots: seeds."
    )
    if words := published_words(methods):
        caption += f"{words}."
    return Drawn(figure, caption)


def _test_key(published: bool) -> list[Line2D]:
    """The legend of ``test``, in grey."""
    entries: dict[str, dict[str, Any]] = {
        "mean over seeds, 95 % interval": {"lw": 1.2, "marker": "o", "ms": 4.5},
        "a seed": {"lw": 0, "marker": ".", "ms": 4},
    }
    if published:
        theirs = {"lw": 0.8, "marker": "D", "mfc": "white", "ms": 3.5, "mew": 0.8}
        entries["published, 95 % interval"] = theirs
    return [Line2D([], [], color=style.GREY, label=name, **look) for name, look in entries.items()]


def ranges(results: Results, comparison: Comparison) -> Drawn:
    """Mean return by range of tasks, one line per method.

    Raises:
      NothingToDrawError: the tests have no ranges.
    """
    table = results.tests[results.tests["low"].notna()]
    methods = with_rows(table, comparison, "test by range of tasks")
    edges = table[["low", "high"]].drop_duplicates().sort_values("low").to_numpy(float)
    counts = table.groupby("low")["tasks"].sum()
    figure, axes = style.new_figure(style.PAGE, 2.5)
    ax = axes[0, 0]
    names = []
    for i, method in enumerate(methods):
        part, look = table[table["method"] == method.spec], method.look
        step = min(0.09, 0.6 / len(methods))
        shift = step * (i - (len(methods) - 1) / 2)  # so that no interval hides another
        by_range = [part.loc[part["low"] == low, "mean"].dropna() for low, _ in edges]
        x = np.flatnonzero([len(values) for values in by_range]) + shift
        found = [values.to_numpy(float) for values in by_range if len(values)]
        y = np.array([values.mean() for values in found])
        ends = np.array([interval(values) for values in found])
        ax.plot([x, x], ends.T, color=look.color, lw=1.0)
        ax.plot(x, y, **look.line, label=method.name)
        names.append((style.wrap(method.name), float(y[-1]), look))
    ax.set_xticks(range(len(edges)), [_range_label(low, high, counts) for low, high in edges])
    ax.tick_params(axis="x", length=0)
    unit = f" ({comparison.unit})" * bool(comparison.unit)
    ax.set(xlabel=f"{comparison.task}{unit}, and its share of all tasks")
    ax.set(ylabel="mean test return", xlim=(-0.4, len(edges) - 0.6))
    style.name_lines(ax, names)
    return Drawn(
        figure,
        f"Mean return by range of {comparison.task}, {seed_count(table, methods)}; "
        f"{comparison.returns}. "
        f"Points: means over seeds, with {INTERVALS}; below each range the share of the "
        "original task distribution that it holds.",
    )


def _tasks(table: pd.DataFrame) -> str:
    low, high = int(table["tasks"].min()), int(table["tasks"].max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _range_label(low: float, high: float, counts: pd.Series) -> str:
    share = 100 * counts[low] / counts.sum()
    words = f"{low:g}\N{EN DASH}{high:g}" if np.isfinite(high) else f"≥ {low:g}"
    return f"{words}\n{share:.0f} %" if share >= 9.95 else f"{words}\n{share:.1f} %"


FIGURES: dict[str, Callable[[Results, Comparison], Drawn]] = {
    "learning": learning,
    "episodes": episodes.episodes,
    "test": test,
    "sampler": sampler,
    "paths": episodes.paths,
    "ranges": ranges,
}
