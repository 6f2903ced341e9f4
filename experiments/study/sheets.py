"""Tables of a comparison in words: Markdown, LaTeX, and the files that hold them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from experiments.presets import PRESETS, Preset
from experiments.spec.words import split_row
from experiments.study.references import REFERENCES
from experiments.study.results import HALVES, Results, tested_words
from experiments.study.tables import (
    BASELINE,
    baselines,
    columns,
    compare_pairs,
    learners_of,
    level_name,
    levels,
    published_of,
    range_name,
    ranges,
    summarize,
)
from experiments.training import runs
from experiments.training.report import BY_HALVES, label, learner_label, method_label

SHOWN = "Mean over seeds (95 % interval by Student's t) ± standard error"
FEW_SHOWN = "of fewer than four seeds, their values"
_MOST_PAIRS = 15  # that a table for people shows: those of six methods
_TEX = {
    "\\": r"\textbackslash{}",
    **{char: "\\" + char for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"${char}$" for char in "<>|"},
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{RIGHTWARDS ARROW}": r"$\to$",
}


class Sheet(NamedTuple):
    """A table in words: a title, a heading for each column, rows of cells, notes below."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str]


def write(folder: Path, results: Results, missing: dict[str, list[int]]) -> str:
    """Writes ``table.csv``, ``pairs.csv``, ``table.md`` and ``table.tex``.

    Args:
      folder: of the results.
      results: of one environment.
      missing: seeds that were asked for and are not finished, by method.

    Returns:
      The text of ``table.md``.
    """
    summary, pairs = summarize(results), compare_pairs(results)
    sheets = word(summary, results, missing, pairs)
    return write_sheets(folder, sheets, {"table.csv": summary, "pairs.csv": pairs})


def write_sheets(folder: Path, sheets: list[Sheet], numbers: dict[str, pd.DataFrame]) -> str:
    """Writes ``table.md``, ``table.tex``, and the raw numbers by the names of their files.

    Returns:
      The text of ``table.md``.
    """
    text = "\n\n".join(map(markdown, sheets)) + "\n"
    tex = "% for \\input{table}; needs no package\n" + "\n\n".join(map(latex, sheets)) + "\n"
    for name, table in numbers.items():
        csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        runs.write_whole(folder / name, csv)
    for name, content in {"table.md": text, "table.tex": tex}.items():
        runs.write_whole(folder / name, content)
    return text


def word(
    summary: pd.DataFrame,
    results: Results,
    missing: dict[str, list[int]],
    pairs: pd.DataFrame | None = None,
) -> list[Sheet]:
    """The numbers as tables for people, those that have something to say."""
    env, learners = results.runs["env"].iloc[0], learners_of(results)
    several = len(set(learners.values())) > 1
    based = baselines(results).items()
    base = BASELINE if several else "".join(label(row, learner, env) for learner, row in based)
    alphas = summary["alpha"].dropna().unique()
    tail = f"CVaR {alphas[0]:g}" if len(alphas) == 1 else "CVaR"
    heads = {
        "mean": "mean return",
        "cvar": tail,
        **({HALVES: f"{tail} by halves"} if HALVES in summary else {}),
        "mean_gain": f"mean \N{MINUS SIGN} {base}",
        "cvar_gain": f"CVaR \N{MINUS SIGN} {base}",
        "published_mean": "published mean",
        "published_cvar": "published CVaR",
    }
    notes = [f"{SHOWN}, {tested_words(results.runs)}; {FEW_SHOWN}."]
    if summary["mean_gain"].notna().any():
        base = "the baseline of the same learner" if several else base
        notes.append(f"Differences to {base} are taken seed by seed, on the same test tasks.")
    if HALVES in summary:
        notes.append(f"By halves: {BY_HALVES}.")
    without = summary.loc[summary["method"].isin(REFERENCES), "label"]
    if len(without):
        notes.append(f"Without learning: {', '.join(without)}.")
    if summary[["published_mean", "published_cvar"]].notna().any(axis=None):
        sure = bool(summary["published_cvar_low"].notna().any())
        notes.append(f"Published: mean over seeds{' (95 % interval)' * sure}.")
        known = {row: published_of(row, learner, env) for row, learner in learners.items()}
        notes += [
            f"Published {label(row, learners[row], env)}: {value.note}."
            for row, value in known.items()
            if value and value.note
        ]
    notes += [
        f"Not finished, and not in these tables: {label(method, learners.get(method), env)}, "
        f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}."
        for method, seeds in missing.items()
        if seeds
    ]
    sheets = [_sheet(f"{env}: test returns", summary, heads, notes)]
    if several:
        sheets += [
            _matrix(f"{env}: {heads[name]}, learners by methods", summary, name, learners)
            for name in ("mean", "cvar")
        ]
    for words, part in {} if pairs is None else _groups(pairs, learners).items():
        if len(part) <= _MOST_PAIRS:
            title = f"{env}: differences{words}, seed by seed"
            sheets.append(_pair_sheet(title, part, learners, env))
    if len(alphas) > 1 and levels(results):
        heads = {level_name(level): f"CVaR {level:g}" for level in levels(results)[:-1]}
        heads[level_name(1.0)] = "mean"
        sheets.append(_sheet(f"{env}: CVaR of the test returns by level", summary, heads, []))
    if found := ranges(results):
        preset = PRESETS.get(env)
        task = _task_name(preset)
        heads = {range_name(low, high): _range_words(low, high) for low, high in found}
        sheets.append(_sheet(f"{env}: mean return by {task}", summary, heads, []))
    return sheets


def _task_name(preset: Preset | None) -> str:
    view = preset.view_of(preset.experiment.env) if preset else None
    return view.task if view else "task"


def markdown(sheet: Sheet) -> str:
    """A sheet in Markdown, aligned for the terminal too."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in [sheet.head, *sheet.rows]]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [
        "| " + " | ".join(map(str.ljust, row, widths)) + " |"
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join([f"## {sheet.title}", "", *lines, *(f"\n{note}" for note in sheet.notes)])


def latex(sheet: Sheet) -> str:
    """A sheet as a plain LaTeX ``tabular``, with its title and notes as paragraphs."""
    lines = [" & ".join(map(escape, row)) + r" \\" for row in [sheet.head, *sheet.rows]]
    table = [
        rf"\begin{{tabular}}{{{'l' * len(sheet.head)}}}",
        r"\hline",
        lines[0],
        r"\hline",
        *lines[1:],
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n\n".join([escape(sheet.title), "\n".join(table), *map(escape, sheet.notes)])


def escape(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_TEX.get(char, char) for char in text)


def _sheet(title: str, summary: pd.DataFrame, heads: dict[str, str], notes: list[str]) -> Sheet:
    """Columns that are empty for every method are left out."""
    shown = {name: head for name, head in heads.items() if summary[name].notna().any()}
    columns = [cells_of(summary, name) for name in shown]
    rows = [
        [str(name), str(seeds), *cells]
        for name, seeds, *cells in zip(summary["label"], summary["seeds"], *columns, strict=True)
    ]
    return Sheet(title, ["method", "seeds", *shown.values()], rows, notes)


def _matrix(title: str, summary: pd.DataFrame, quantity: str, learners: dict[str, str]) -> Sheet:
    """One quantity, learners as rows and methods as columns; empty where nothing was run."""
    shown = summary[summary["method"].isin(learners)]
    places = [(learners[row], split_row(row)[1]) for row in shown["method"]]
    cells = dict(zip(places, cells_of(shown, quantity), strict=True))
    methods = list(dict.fromkeys(method for _, method in places))
    rows = [
        [learner_label(learner), *(cells.get((learner, method), "") for method in methods)]
        for learner in dict.fromkeys(learner for learner, _ in places)
    ]
    return Sheet(title, ["learner", *map(method_label, methods)], rows, [f"{SHOWN}; {FEW_SHOWN}."])


def _groups(pairs: pd.DataFrame, learners: dict[str, str]) -> dict[str, pd.DataFrame]:
    """The pairs of each learner, and those between learners, by words for it."""
    one = len(set(learners.values())) == 1
    groups: dict[str, list[bool]] = {}
    own = [learners[method] for method in pairs["method"]]
    other = [learners[method] for method in pairs["reference"]]
    both = [a if a == b else None for a, b in zip(own, other, strict=True)]
    for learner in dict.fromkeys(both):
        words = " between learners" if learner is None else f" of {learner_label(learner)}"
        groups["" if one else words] = [learner == this for this in both]
    return {words: pairs[chosen] for words, chosen in groups.items()}


def _pair_sheet(title: str, pairs: pd.DataFrame, learners: dict[str, str], env: str) -> Sheet:
    names = [
        f"{label(method, learners[method], env)} \N{MINUS SIGN} "
        f"{label(reference, learners[reference], env)}"
        for method, reference in zip(pairs["method"], pairs["reference"], strict=True)
    ]
    columns = [names, pairs["seeds"].map(str)]
    for name in ("mean", "cvar"):
        columns += [cells_of(pairs, f"{name}_gain"), pairs[f"{name}_p"].map(_p_value)]
    notes = [
        f"{SHOWN}; {FEW_SHOWN}; p of no difference by "
        "Wilcoxon's signed-rank test, two-sided, not corrected for the number of pairs."
    ]
    head = ["methods", "seeds", "mean return", "p", "CVaR", "p"]
    return Sheet(title, head, [list(row) for row in zip(*columns, strict=True)], notes)


def _p_value(p: float) -> str:
    if not np.isfinite(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def digits_of(values: pd.Series) -> int:
    """How many digits behind the point the largest of some numbers needs."""
    size = values.abs().max()
    return 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0


def cells_of(summary: pd.DataFrame, quantity: str, digits: int | None = None) -> list[str]:
    """``−0.253 (−0.261, −0.243) ± 0.005`` for every row; empty where nothing is known.

    Args:
      summary: with the ``columns`` of the quantity.
      quantity: its name.
      digits: behind the point; None for those that the largest number needs.
    """
    table = summary[columns(quantity)]
    digits = digits_of(table[quantity]) if digits is None else digits
    cells = []
    for mean, low, high, error, few in table.itertuples(index=False, name=None):
        text = f"{mean:z.{digits}f}" if np.isfinite(mean) else ""
        text += f" ({low:z.{digits}f}, {high:z.{digits}f})" if np.isfinite(low) else ""
        text += f" ± {error:z.{digits}f}" if np.isfinite(error) else ""
        if few:
            text = ", ".join(f"{float(value):z.{digits}f}" for value in few.split())
        cells.append(text.replace("-", "\N{MINUS SIGN}"))
    return cells


def _range_words(low: float, high: float) -> str:
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
