"""Figures of what agents do in test episodes: shares of outcomes, and paths on the map.

As those of ``comparison_figures``: ``(results, comparison)`` to a figure with its caption.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from experiments import style
from experiments.study.figure_parts import (
    Comparison,
    Drawn,
    NothingToDrawError,
    Series,
    seed_count,
    with_rows,
)
from experiments.study.results import TEST_COLUMNS, Results

_OTHER_OUTCOMES = ("#B9BDC3", "#7A7F87", "#E3D5B0", "#5E6B3C")
_RARE = 0.005  # below this share in all methods, an outcome goes into "other"
_SPACING = style.LINE * style.SMALL / 72  # inches from line to line
_LINES = 3.9  # of text that every bar has room for
_CHARACTER = 0.018  # width of one, as a part of a bar


def paths(results: Results, comparison: Comparison) -> Drawn:
    """Shares of the outcomes of test episodes, a stacked bar per method.

    Raises:
      NothingToDrawError: the tests name no outcomes.
    """
    table = results.tests[results.tests["low"].isna()]
    methods = with_rows(table, comparison, "test")
    shares = _shares(table, methods, list(comparison.outcomes))
    if shares.empty:
        raise NothingToDrawError("no test names its outcomes")
    thin = [
        row.index[[x > 0 and not _inside(str(n), x) for n, x in row.items()]]
        for _, row in shares.iterrows()
    ]
    heights = [max(_LINES, len(names) + 0.6) * _SPACING for names in thin]
    figure, axes = style.new_figure(style.PAGE, sum(heights) + 0.42)
    ax = axes[0, 0]
    look = _outcome_looks(comparison.outcomes, list(map(str, shares)))
    middles = np.cumsum(heights) - np.array(heights) / 2
    for middle, height, names, (_, row) in zip(
        middles, heights, thin, shares.iterrows(), strict=True
    ):
        _draw_bar(ax, middle, 0.88 * height, row, look)
        _draw_notes(ax, middle, row[names], look)
    ax.set_yticks(middles, [style.wrap(m.name) for m in methods])
    ax.set(xlim=(0, 1), ylim=(sum(heights), 0), xlabel="share of test episodes")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    return Drawn(
        figure,
        "Outcomes of test episodes: shares over tasks and episodes, means over "
        f"{seed_count(table, methods)}. Right of each bar: its thin slices, from left to right.",
    )


def _draw_bar(
    ax: Axes, middle: float, height: float, row: pd.Series, looks: dict[str, tuple[str, str]]
) -> None:
    """The bar of one method; slices that are wide enough hold their names."""
    left = 0.0
    for name, share in row.items():
        color, hatch = looks[str(name)]
        look: dict[str, Any] = {"color": color, "hatch": hatch, "ec": "white", "lw": 0}
        ax.barh(middle, share, height, left, label=str(name), **look)
        if share and (text := _inside(str(name), share)):
            shade = "white" if style.luminance(color) < 0.3 else "black"
            words: dict[str, Any] = {"color": shade, "fontsize": style.SMALL}
            ax.text(left + share / 2, middle, text, ha="center", va="center", **words)
        left += share


def _draw_notes(ax: Axes, middle: float, row: pd.Series, looks: dict[str, tuple[str, str]]) -> None:
    """The thin slices of one method right of its bar, each with its colour."""
    where = style.margin(ax)
    top = middle - (len(row) - 1) / 2 * _SPACING
    for i, (name, share) in enumerate(row.items()):
        color, hatch = looks[str(name)]
        y, side = top + i * _SPACING, 0.075
        look: dict[str, Any] = {"fc": color, "hatch": 2 * hatch, "ec": "white", "lw": 0}
        box = Rectangle((0.06, y - side / 2), side, side, transform=where, clip_on=False, **look)
        ax.add_patch(box)
        words = f"{_words(str(name))} {_percent(share)}"
        ax.text(0.17, y, words, transform=where, va="center_baseline", fontsize=style.SMALL)


def _shares(table: pd.DataFrame, methods: list[Series], known: list[str]) -> pd.DataFrame:
    """Mean over seeds, a row per method and a column per outcome; rare ones together."""
    outcomes = [name for name in map(str, table) if name not in TEST_COLUMNS]
    order = [name for name in known if name in outcomes]
    order += sorted(set(outcomes) - set(order))
    shares = table.groupby("method")[order].mean().loc[[m.spec for m in methods]]
    rare = [name for name in order if shares[name].max() < _RARE]
    kept = shares.drop(columns=rare)
    other = shares[rare].sum(axis=1)
    return kept.assign(other=other) if other.any() else kept


def _outcome_looks(
    known: Mapping[str, tuple[str, str]], names: list[str]
) -> dict[str, tuple[str, str]]:
    """Colour and hatch of each outcome."""
    unknown = [name for name in names if name not in known]
    spare = {name: (color, "") for name, color in zip(unknown, itertools.cycle(_OTHER_OUTCOMES))}
    return {name: known.get(name) or spare[name] for name in names}


def _inside(name: str, share: float) -> str:
    """What a slice says of itself: on one line, on several, or nothing if it is too thin."""
    words = [*_words(name).split(" "), _percent(share)]
    for text in (" ".join(words), "\n".join(words)):
        if (max(map(len, text.split("\n"))) + 1) * _CHARACTER <= share:
            return text
    return ""


def _words(name: str) -> str:
    return name.replace("_", ", ")


def _percent(share: float) -> str:
    if share < 0.0005:
        return "< 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def episodes(results: Results, comparison: Comparison) -> Drawn:
    """Paths of sample episodes, a row per method and a column per task: last episodes.

    Raises:
      NothingToDrawError: the environment has no map, or no episode is stored.
    """
    if comparison.map is None:
        raise NothingToDrawError("this environment has no map to draw paths on")
    table = results.episodes
    methods = with_rows(table, comparison, "sample episode")
    last = table[table["episode"] == table.groupby("method")["episode"].transform("max")]
    tasks = sorted(last["task_0"].unique())
    figure, axes = style.new_figure(
        style.PAGE, 1.08 * len(methods) + 0.55, len(methods), len(tasks)
    )
    for ax, task in zip(axes[0], tasks, strict=True):
        ax.set_title(f"{comparison.task} {task:g}")
    for row, method in zip(axes, methods, strict=True):
        for ax, task in zip(row, tasks, strict=True):
            part = last[(last["method"] == method.spec) & (last["task_0"] == task)]
            runs = [run for _, run in part.sort_values("step").groupby(["seed", "task_index"])]
            if runs:
                places = np.stack([run[["x", "y"]].to_numpy(float) for run in runs])
                comparison.map.draw(ax, places, [run["outcome"].iloc[0] for run in runs])
            else:
                ax.set_axis_off()
        ink = style.ink(method.look.color)
        row[0].set_ylabel(style.wrap(method.name, 18), color=ink, fontsize=style.SMALL)
    figure.legend(handles=comparison.map.handles(), loc="outside lower center", ncols=4)
    count = last.groupby(["method", "task_0"])["task_index"].nunique().max()
    return Drawn(
        figure,
        f"Sample episodes of the first seed of each method, {count} for each {comparison.task}: "
        "the last episode of the meta-episode, when the agent has had time to adapt.",
    )
