"""Figures of one run, from its tables and its agent."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments import style
from experiments.spec.build import Built
from experiments.training.agents import task_columns
from experiments.training.runs import Run

_BINS = 12  # of a course over tasks


def curve(metrics: pd.DataFrame, run: Run, built: Built) -> Figure:
    """Validation mean and CVaR against frames."""
    figure, axes = style.new_figure(4.6, 2.9)
    ax = axes[0, 0]
    seen = metrics.dropna(subset=["validation_mean"])
    alpha = run.experiment.alpha
    ax.plot(seen["frames"], seen["validation_mean"], color=style.BLUE)
    ax.plot(seen["frames"], seen["validation_cvar"], color=style.VERMILION)
    ends = [("mean", "validation_mean", style.BLUE)]
    ends += [(f"CVaR {alpha:g}", "validation_cvar", style.VERMILION)]
    _name_ends(ax, seen, ends)
    ax.set(xlim=(0, metrics["frames"].max()), ylabel="validation return", title=_title(run))
    style.millions(ax, built.paradigm.frames)
    return figure


def curves(metrics: pd.DataFrame, run: Run, frames: str) -> Figure:
    """Validation mean and CVaR against frames: a thin line for each run, a thick one for all.

    Args:
      metrics: of all runs, told apart by the column "seed", and "alpha" if there is one.
      run: one of them.
      frames: what frames are called.
    """
    figure, axes = style.new_figure(4.6, 2.9)
    ax = axes[0, 0]
    seen = metrics.dropna(subset=["validation_mean"])
    apart = [name for name in ("seed", "alpha") if name in seen]
    average = seen.groupby("frames")[["validation_mean", "validation_cvar"]].mean().reset_index()
    alpha = "" if "alpha" in seen else f" {run.experiment.alpha:g}"
    lines = [("mean", "validation_mean", style.BLUE)]
    lines += [(f"CVaR{alpha}", "validation_cvar", style.VERMILION)]
    for _, column, color in lines:
        for _, one in seen.groupby(apart):
            ax.plot(one["frames"], one[column], color=color, lw=0.6, alpha=0.4)
        ax.plot(average["frames"], average[column], color=color)
    if len(average):
        _name_ends(ax, average, lines)
    several = seen[apart].drop_duplicates().shape[0]
    title = _title(run) if several < 2 else f"{run.env}, {run.label()}, {several} runs"
    ax.set(xlim=(0, max(metrics["frames"].max(), 1)), ylabel="validation return", title=title)
    style.millions(ax, frames)
    return figure


def sampler(metrics: pd.DataFrame, run: Run, built: Built) -> Figure:
    """The task sampler over training: ``phi``, and what its tasks return."""
    figure, axes = style.new_figure(9.0, 3.0, 1, 2)
    left, right = axes[0]
    steps = metrics[metrics["step"] > 0]
    family = built.env.family
    columns, starts = built.metric_names()["phi"], np.asarray(family.phi0)
    parts = zip(columns, family.phi_names, starts, style.CYCLE * len(columns), strict=False)
    for column, name, start, color in parts:
        label = name.removeprefix("phi_")
        left.plot(steps["frames"], steps[column], color=color, label=label, drawstyle="steps-post")
        left.axhline(start, color=color, lw=0.9, ls=(0, (4, 3)))
    left.set(ylabel="phi", title="task distribution (dashed: the original)")
    if (steps[list(columns)] >= 0).all(axis=None):
        left.set_ylim(bottom=0)
    if len(columns) > 1:
        left.legend(ncols=1 + len(columns) // 6)
    else:
        left.set_ylabel(f"phi: {family.phi_names[0].replace('_', ' of ', 1)}")

    alpha, window = run.experiment.alpha, max(1, len(steps) // 50)
    lines = {
        "sample_mean": ("mean, tasks drawn", style.ORANGE),
        "reference_mean": ("mean, re-weighted\nto the original", style.BLUE),
        "reference_cvar": (f"CVaR {alpha:g}, likewise", style.VERMILION),
    }
    for column, (label, color) in lines.items():
        smooth = steps[column].rolling(window, center=True, min_periods=1).mean()
        right.plot(steps["frames"], steps[column], color=color, lw=0.4, alpha=0.25)
        right.plot(steps["frames"], smooth, color=color, label=label)
    average = f" (mean of {window} steps)" if window > 1 else ""
    right.set_ylabel(f"training return{average}")
    right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), labelspacing=1.0)
    for ax in (left, right):
        ax.set_xlim(0, max(metrics["frames"].max(), 1))
        style.millions(ax, built.paradigm.frames)
    figure.suptitle(_title(run), x=0.01, ha="left", fontsize=10)
    return figure


def by_task(tables: list[pd.DataFrame]) -> Figure:
    """The return of each test task by its first component, of all runs, and its course.

    Args:
      tables: tests, with the column "run" and components of tasks of the same names.
    """
    figure, axes = style.new_figure(4.6, 2.9)
    ax, table = axes[0, 0], pd.concat(tables)
    component = task_columns(table)[0]
    found = table.groupby(["run", "task_index"])[[component, "return"]].mean()
    colors = style.CYCLE * found.index.get_level_values("run").nunique()
    for (_, one), color in zip(found.groupby("run"), colors, strict=False):
        ax.scatter(one[component], one["return"], s=3, color=color, alpha=0.3, linewidths=0)
        if one[component].nunique() > _BINS:
            parts = one.groupby(pd.qcut(one[component], _BINS, duplicates="drop"), observed=True)
            middle = parts.mean()
            ax.plot(middle[component], middle["return"], color=color)
    ax.set(xlabel=component.removeprefix("task_").replace("_", " "), ylabel="return of a task")
    return figure


def _title(run: Run) -> str:
    return f"{run.env}, {run.label()}, seed {run.seed}"


def _name_ends(ax: Axes, table: pd.DataFrame, lines: list[tuple[str, str, str]]) -> None:
    """Labels lines at their right ends, at least a little apart."""
    gap = 0.07 * (ax.get_ylim()[1] - ax.get_ylim()[0])
    heights: list[float] = []
    for name, column, color in sorted(lines, key=lambda line: table[line[1]].iloc[-1]):
        value = float(table[column].iloc[-1])
        heights.append(max(value, heights[-1] + gap) if heights else value)
        text = f" {name} {value:.3f}".replace("-", "\N{MINUS SIGN}")
        place = (1.0, heights[-1])
        ax.annotate(text, place, xycoords=("axes fraction", "data"), color=color, va="center")
