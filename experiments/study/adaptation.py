"""Figures of supervised meta-learning: losses in the course of adaptation; what alpha buys.

As those of ``comparison_figures``: ``(results, comparison)`` to a figure with its caption.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from experiments import style
from experiments.study.figure_parts import (
    INTERVALS,
    Comparison,
    Drawn,
    NotConcernedError,
    NothingToDrawError,
    Series,
    cvar_name,
    cvar_words,
    interval,
    looks_of,
    seed_count,
    with_rows,
)
from experiments.study.results import Results

_LEVEL = re.compile(r"[:,]alpha=[^,@]*")  # of a variant, in its name


def adaptation(results: Results, comparison: Comparison) -> Drawn:
    """CVaR and mean of the test loss against the number of inner steps, a line per method.

    Raises:
      NotConcernedError: no method adapts by inner steps.
      NothingToDrawError: they aim at different levels.
    """
    table = results.risk[results.risk["steps"].notna()]
    if table.empty:
        raise NotConcernedError("no method adapts by inner steps")
    if comparison.alpha is None:
        raise NothingToDrawError("the methods aim at different levels of CVaR")
    methods = with_rows(table, comparison, "loss after each of some inner steps")
    figure, axes = style.new_figure(style.PAGE, 2.4, 1, 2)
    names = {comparison.alpha: cvar_name(comparison), 1.0: "mean"}
    for ax, column, (level, name) in zip(axes[0], (1, 0), names.items(), strict=True):
        for i, method in enumerate(methods):
            own = table[(table["method"] == method.spec) & np.isclose(table["alpha"], level)]
            shift = 0.06 * (i - (len(methods) - 1) / 2)  # so that no interval hides another
            _draw_course(ax, own, method, shift)
            if method.published and method.published.course:
                losses = [-values[column] for values in method.published.course]
                ink = style.ink(method.look.color)
                x = np.arange(len(losses)) + shift
                ax.plot(x, losses, "D", mec=ink, mfc="white", ms=3.2, mew=0.8, zorder=3)
        ax.set(xlabel="inner steps", ylabel=f"test loss, {name}")
        ax.set_xticks(sorted(table["steps"].astype(int).unique()))
    handles = axes[0, 0].get_legend_handles_labels()[0]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=min(len(handles), 4), handlelength=3
    )
    caption = f"Loss of the test after a number of inner steps, {seed_count(table, methods)}. "
    caption += f"{cvar_words(comparison)}, those of the highest loss. Means over seeds with "
    caption += f"{INTERVALS}."
    if any(m.published and m.published.course for m in methods):
        caption += " Hollow diamonds: published means, read off plots."
    return Drawn(figure, caption)


def _draw_course(ax: Axes, own: pd.DataFrame, method: Series, shift: float) -> None:
    """The line of one method, with an interval at each number of steps."""
    groups = [(float(steps), -part["cvar"].to_numpy()) for steps, part in own.groupby("steps")]  # type: ignore[arg-type]
    x = np.array([steps for steps, _ in groups]) + shift
    ends = np.array([interval(losses) for _, losses in groups])
    ax.plot([x, x], ends.T, color=method.look.color, lw=1.0)
    y = [losses.mean() for _, losses in groups]
    ax.plot(x, y, **method.look.line, label=method.name, ms=3.5)


def frontier(results: Results, comparison: Comparison) -> Drawn:
    """Mean against CVaR of the test, a line per method with a point for each ``alpha``.

    Raises:
      NotConcernedError: no method has variants that differ in ``alpha`` alone.
      NothingToDrawError: no method knows its CVaR at several levels.
    """
    table = results.risk[results.risk["steps"].isna()]
    level = comparison.level
    alphas = results.runs.groupby("method")["alpha"].first()
    groups: dict[str, list[Series]] = {}
    for method in comparison.methods:
        groups.setdefault(_LEVEL.sub("", method.spec), []).append(method)
    if max(map(len, groups.values())) < 2:
        raise NotConcernedError("no method has been trained for several alpha")
    methods = with_rows(table, comparison, "CVaR at several levels")
    figure, axes = style.new_figure(style.PAGE, 3.2)
    ax = axes[0, 0]
    learners = {name: members[0].learner for name, members in groups.items()}
    for name, look in looks_of(learners).items():
        points = []
        for method in sorted(groups[name], key=lambda m: float(alphas[m.spec])):
            own = table[table["method"] == method.spec]
            tail, mean = (
                own[np.isclose(own["alpha"], at)].set_index("seed")["cvar"] for at in (level, 1.0)
            )
            points.append((tail.mean(), mean.mean()))
            cross: dict[str, Any] = {"color": look.color, "lw": 0.8, "alpha": 0.6}
            ax.plot(interval(tail.to_numpy()), [points[-1][1]] * 2, **cross)
            ax.plot([points[-1][0]] * 2, interval(mean.to_numpy()), **cross)
            words: dict[str, Any] = {"textcoords": "offset points", "color": style.ink(look.color)}
            words["bbox"] = {"fc": "white", "ec": "none", "pad": 0.3, "alpha": 0.8}
            text = f"{alphas[method.spec]:g}"
            ax.annotate(text, points[-1], (4, 4), fontsize=style.SMALL, **words)
        label = groups[name][0].name.partition(", alpha=")[0]
        ax.plot(*np.transpose(points), **look.line, ms=4.5, label=label)
    ax.set(xlabel=f"test return, CVaR {level:g}", ylabel="test return, mean")
    ax.legend(handlelength=3)
    return Drawn(
        figure,
        f"What alpha buys: mean and CVaR {level:g} of the test, {seed_count(table, methods)}; up "
        "and to the right is better. Each point is a method trained for the alpha beside it; "
        f"means over seeds, crosses: {INTERVALS}.",
    )


FIGURES: dict[str, Callable[[Results, Comparison], Drawn]] = {
    "adaptation": adaptation,
    "frontier": frontier,
}
