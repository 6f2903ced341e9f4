"""Tables of a comparison: methods against each other, against the paper, and by range of tasks.

``summarize`` does all the arithmetic, as one table of raw numbers; the rest words it.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.presets import PRESETS
from experiments.study.intervals import Interval, bootstrap, paired, signed_rank
from experiments.study.results import Results, label, tested_words
from experiments.training import runs

BASELINE = "baseline"
_MOST_PAIRS = 15  # that a table for people shows: those of six methods
_PAIRS = ["method", "reference", "seeds"] + [
    column
    for name in ("mean", "cvar")
    for column in (*(f"{name}_gain{end}" for end in ("", "_low", "_high", "_error")), f"{name}_p")
]
_TEX = {
    "\\": r"\textbackslash{}",
    **{char: "\\" + char for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{char: f"${char}$" for char in "<>|"},
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
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
      results: of one environment and learner.
      missing: seeds that were asked for and are not finished, by method.

    Returns:
      The text of ``table.md``.
    """
    summary, pairs = summarize(results), compare_pairs(results)
    sheets = word(summary, results, missing, pairs)
    text = "\n\n".join(map(markdown, sheets)) + "\n"
    tex = "% for \\input{table}; needs no package\n" + "\n\n".join(map(latex, sheets)) + "\n"
    for name, table in {"table.csv": summary, "pairs.csv": pairs}.items():
        csv = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        runs.write_whole(folder / name, csv)
    for name, content in {"table.md": text, "table.tex": tex}.items():
        runs.write_whole(folder / name, content)
    return text


# ------------------------------------------------------------------ numbers


def summarize(results: Results) -> pd.DataFrame:
    """A row per method, in raw numbers.

    Args:
      results: of one environment and learner.

    Returns:
      Columns ``method``, ``label``, ``alpha``, ``seeds`` (their number), and four for each
      quantity: its mean over seeds ``q``, the interval ``q_low``, ``q_high``, and
      ``q_error``. Quantities are ``mean`` and ``cvar``; ``mean_gain`` and ``cvar_gain``, the
      differences to the baseline over the seeds that both have; ``published_mean`` and
      ``published_cvar``; ``mean_LOW_HIGH``, the mean return over a range of tasks; and
      ``cvar_at_ALPHA``, the CVaR at several levels. What cannot be computed, or compared
      because alpha differs, is NaN.
    """
    alphas = results.runs.groupby("method")["alpha"].first()
    rows = []
    for method in results.runs["method"].unique():
        own = results.runs[results.runs["method"] == method].iloc[0]
        scores = _scores(results, method)
        row: dict[str, Any] = {
            "method": method,
            "label": label(method, own["learner"], own["env"]),
            "alpha": own["alpha"],
            "seeds": len(scores),
        }
        found = {name: bootstrap(scores[name].to_numpy()) for name in ("mean", "cvar")}
        comparable = {"mean": True, "cvar": own["alpha"] == alphas.get(BASELINE)}
        for name, fair in comparable.items():
            found[f"{name}_gain"] = _gain(results, method, name) if fair else _NOTHING
        found |= _published(own)
        tests = results.tests[results.tests["method"] == method]
        for low, high in _ranges(results):
            means = tests.loc[(tests["low"] == low) & (tests["high"] == high), "mean"]
            found[range_name(low, high)] = bootstrap(means.dropna().to_numpy())
        risk = results.risk[(results.risk["method"] == method) & results.risk["steps"].isna()]
        for level in _levels(results):
            found[level_name(level)] = bootstrap(risk.loc[risk["alpha"] == level, "cvar"])
        for name, interval in found.items():
            row |= dict(zip(_columns(name), interval, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def compare_pairs(results: Results) -> pd.DataFrame:
    """A row for each pair of methods with the same ``alpha``, in raw numbers.

    Args:
      results: of one environment and learner.

    Returns:
      Columns ``method``, ``reference``, ``seeds`` (the number that both have), and for
      ``mean`` and ``cvar`` the difference ``mean_gain``, its interval ``mean_gain_low``,
      ``mean_gain_high``, ``mean_gain_error``, and ``mean_p``, the p-value of no difference
      by the signed-rank test, uncorrected for the number of pairs.
    """
    alphas = results.runs.groupby("method")["alpha"].first()
    rows = []
    for reference, method in itertools.combinations(results.runs["method"].unique(), 2):
        if alphas[reference] != alphas[method]:
            continue
        row: dict[str, Any] = {"method": method, "reference": reference}
        for name in ("mean", "cvar"):
            own, base = _both(results, method, reference, name)
            row |= {"seeds": own.size} | dict(
                zip(_columns(f"{name}_gain"), paired(own, base), strict=True)
            )
            row[f"{name}_p"] = signed_rank(own, base)
        rows.append(row)
    return pd.DataFrame(rows, columns=_PAIRS)


_NOTHING = Interval(np.nan, np.nan, np.nan, np.nan)


def range_name(low: float, high: float) -> str:
    """The quantity that is the mean return over tasks from ``low`` to ``high``."""
    return f"mean_{low:g}_{high:g}"


def level_name(alpha: float) -> str:
    """The quantity that is the CVaR at a level, whatever a method aims at."""
    return f"cvar_at_{alpha:g}"


def _levels(results: Results) -> list[float]:
    return sorted(results.risk.loc[results.risk["steps"].isna(), "alpha"].unique())


def _columns(quantity: str) -> list[str]:
    return [quantity, *(f"{quantity}_{end}" for end in ("low", "high", "error"))]


def _scores(results: Results, method: str) -> pd.DataFrame:
    """Mean and CVaR over all test tasks, by seed."""
    tests = results.tests
    whole = tests[(tests["method"] == method) & tests["low"].isna()]
    return whole.set_index("seed")[["mean", "cvar"]]


def _ranges(results: Results) -> list[tuple[float, float]]:
    pairs = results.tests[["low", "high"]].dropna().drop_duplicates().sort_values("low")
    return list(pairs.itertuples(index=False, name=None))


def _gain(results: Results, method: str, name: str) -> Interval:
    """The difference to the baseline, over the seeds that both have."""
    if method == BASELINE:
        return _NOTHING
    return paired(*_both(results, method, BASELINE, name))


def _both(
    results: Results, method: str, reference: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """What two methods score on the seeds that both have, in the same order."""
    own, base = _scores(results, method)[name], _scores(results, reference)[name]
    both = own.index.intersection(base.index)
    return own[both].to_numpy(), base[both].to_numpy()


def _published(run: pd.Series) -> dict[str, Interval]:
    """What the paper's authors found, where that is known."""
    preset = PRESETS.get(run["env"])
    known = preset.published if preset and run["learner"] == preset.default_learner else None
    value = (known or {}).get(run["method"])
    mean = Interval(*value.mean, np.nan) if value else _NOTHING
    tail = Interval(*value.cvar, np.nan) if value else _NOTHING
    if preset and run["alpha"] != preset.experiment.method.alpha:
        tail = _NOTHING
    return {"published_mean": mean, "published_cvar": tail}


# ------------------------------------------------------------------ words


def word(
    summary: pd.DataFrame,
    results: Results,
    missing: dict[str, list[int]],
    pairs: pd.DataFrame | None = None,
) -> list[Sheet]:
    """The numbers as tables for people, those that have something to say."""
    env, learner = results.runs[["env", "learner"]].iloc[0]
    base = label(BASELINE, learner, env)
    alphas = summary["alpha"].unique()
    tail = f"CVaR {alphas[0]:g}" if len(alphas) == 1 else "CVaR"
    heads = {
        "mean": "mean return",
        "cvar": tail,
        "mean_gain": f"mean \N{MINUS SIGN} {base}",
        "cvar_gain": f"CVaR \N{MINUS SIGN} {base}",
        "published_mean": "published mean",
        "published_cvar": "published CVaR",
    }
    notes = [
        f"Mean over seeds (95 % bootstrap interval) ± standard error, {tested_words(results.runs)}."
    ]
    if summary["mean_gain"].notna().any():
        notes.append(f"Differences to {base} are taken seed by seed, on the same test tasks.")
    if summary["published_mean"].notna().any():
        known = summary["published_mean_low"].notna().any()
        notes.append(f"Published: mean over seeds{' (95 % interval)' * bool(known)}.")
    notes += [
        f"Not finished, and not in these tables: {label(method, learner, env)}, "
        f"seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}."
        for method, seeds in missing.items()
        if seeds
    ]
    sheets = [_sheet(f"{env}: test returns", summary, heads, notes)]
    if pairs is not None and 0 < len(pairs) <= _MOST_PAIRS:
        sheets.append(_pair_sheet(f"{env}: differences, seed by seed", pairs, learner, env))
    if len(alphas) > 1 and _levels(results):
        heads = {level_name(level): f"CVaR {level:g}" for level in _levels(results)[:-1]}
        heads[level_name(1.0)] = "mean"
        sheets.append(_sheet(f"{env}: CVaR of the test returns by level", summary, heads, []))
    if ranges := _ranges(results):
        preset = PRESETS.get(env)
        task = preset.view.task if preset and preset.view else "task"
        heads = {range_name(low, high): _range_words(low, high) for low, high in ranges}
        sheets.append(_sheet(f"{env}: mean return by {task}", summary, heads, []))
    return sheets


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
    columns = [_cells(summary, name) for name in shown]
    rows = [
        [str(name), str(seeds), *cells]
        for name, seeds, *cells in zip(summary["label"], summary["seeds"], *columns, strict=True)
    ]
    return Sheet(title, ["method", "seeds", *shown.values()], rows, notes)


def _pair_sheet(title: str, pairs: pd.DataFrame, learner: str, env: str) -> Sheet:
    names = [
        f"{label(method, learner, env)} \N{MINUS SIGN} {label(reference, learner, env)}"
        for method, reference in zip(pairs["method"], pairs["reference"], strict=True)
    ]
    columns = [names, pairs["seeds"].map(str)]
    for name in ("mean", "cvar"):
        columns += [_cells(pairs, f"{name}_gain"), pairs[f"{name}_p"].map(_p_value)]
    notes = [
        "Mean over seeds (95 % bootstrap interval) ± standard error; p of no difference by "
        "Wilcoxon's signed-rank test, two-sided, not corrected for the number of pairs."
    ]
    head = ["methods", "seeds", "mean return", "p", "CVaR", "p"]
    return Sheet(title, head, [list(row) for row in zip(*columns, strict=True)], notes)


def _p_value(p: float) -> str:
    if not np.isfinite(p):
        return ""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _cells(summary: pd.DataFrame, quantity: str) -> list[str]:
    """``−0.253 (−0.261, −0.243) ± 0.005`` for every method; empty where nothing is known."""
    table = summary[_columns(quantity)]
    size = table[quantity].abs().max()
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    cells = []
    for mean, low, high, error in table.itertuples(index=False, name=None):
        text = f"{mean:z.{digits}f}" if np.isfinite(mean) else ""
        text += f" ({low:z.{digits}f}, {high:z.{digits}f})" if np.isfinite(low) else ""
        text += f" ± {error:z.{digits}f}" if np.isfinite(error) else ""
        cells.append(text.replace("-", "\N{MINUS SIGN}"))
    return cells


def _range_words(low: float, high: float) -> str:
    return f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
