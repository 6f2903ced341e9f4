"""Tables of a comparison: rows against each other, against the paper, and by range of tasks.

A row is a method below a learner; it is compared with the baseline of its own learner.

``summarize`` does all the arithmetic, as one table of raw numbers; the rest words it.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from experiments.presets import PRESETS, Published
from experiments.spec.words import join_row, split_row
from experiments.study import references
from experiments.study.intervals import Interval, over_seeds, paired, signed_rank
from experiments.study.references import REFERENCES
from experiments.study.results import HALVES, Results, label

BASELINE = "baseline"
# ------------------------------------------------------------------ numbers


def summarize(results: Results) -> pd.DataFrame:
    """A row per method of each learner, in raw numbers.

    Args:
      results: of one environment.

    Returns:
      The methods first, then what is reached without learning, as far as it is known.
      Columns ``method``, ``label``, ``alpha``, ``seeds`` (their number), and five for each
      quantity: its mean over seeds ``q``, the interval ``q_low``, ``q_high``, ``q_error``, and
      ``q_values``, those of fewer than four seeds in place of an interval. Quantities are
      ``mean`` and ``cvar``; ``mean_gain`` and ``cvar_gain``, the differences to the baseline
      of the same learner over the seeds that both have; ``published_mean``, ``published_cvar``;
      ``mean_LOW_HIGH``, the mean return over a range of tasks; and ``cvar_at_ALPHA``, the CVaR
      at several levels; where tests played their tasks several times, ``cvar_by_halves``.
      What cannot be computed, or compared because alpha differs, is NaN.
    """
    alphas = results.runs.groupby("method")["alpha"].first()
    bases = baselines(results)
    rows = []
    for own in _rows(results):
        method = own["method"]
        scores = scores_of(results, method)
        if np.isnan(own["alpha"]):  # of a reference, among several
            scores = scores.assign(cvar=np.nan)
        row: dict[str, Any] = {
            "method": method,
            "label": own["label"],
            "alpha": own["alpha"],
            "seeds": len(scores),
        }
        found = {name: over_seeds(scores[name].dropna().to_numpy()) for name in ("mean", "cvar")}
        base = bases.get(own["learner"], method)
        comparable = {"mean": True, "cvar": own["alpha"] == alphas.get(base)}
        for name, fair in comparable.items():
            gain = paired(*_both(results, method, base, name)) if base != method else _NOTHING
            found[f"{name}_gain"] = gain if fair else _NOTHING
        found |= _published(own)
        tests = results.tests[results.tests["method"] == method]
        for low, high in ranges(results):
            means = tests.loc[(tests["low"] == low) & (tests["high"] == high), "mean"]
            found[range_name(low, high)] = over_seeds(means.dropna().to_numpy())
        risk = results.risk[(results.risk["method"] == method) & results.risk["steps"].isna()]
        if HALVES in risk:
            known = risk.loc[np.isclose(risk["alpha"], own["alpha"]), HALVES]
            found[HALVES] = over_seeds(known.dropna().to_numpy())
        for level in levels(results):
            found[level_name(level)] = over_seeds(risk.loc[risk["alpha"] == level, "cvar"])
        for name, interval in found.items():
            row |= dict(zip(columns(name), interval, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _rows(results: Results) -> list[dict[str, Any]]:
    """Whom the summary is of: method, label, alpha, learner and environment."""
    methods = results.runs.drop_duplicates("method")
    heads = methods[["method", "alpha", "learner", "env"]].to_dict("records")
    rows: list[dict[str, Any]] = [
        {str(name): value for name, value in row.items()} for row in heads
    ]
    first, alphas, learners = rows[0], methods["alpha"].unique(), methods["learner"].unique()
    for row in rows:
        row["label"] = label(row["method"], row["learner"], row["env"])
    known = [name for name in REFERENCES if name in set(results.tests["method"])]
    return rows + [
        first
        | {
            "method": name,
            "label": references.label(name, first["env"]),
            "alpha": alphas[0] if len(alphas) == 1 else np.nan,
            "learner": learners[0] if len(learners) == 1 else "",
        }
        for name in known
    ]


def compare_pairs(results: Results) -> pd.DataFrame:
    """A row for each pair that says something, in raw numbers.

    Args:
      results: of one environment.

    Returns:
      Pairs of the same ``alpha``, of methods below one learner or of one method below two, in
      columns ``method``, ``reference``, ``seeds`` (the number that both have), and for
      ``mean`` and ``cvar`` the difference ``mean_gain``, the four columns of its interval as
      in ``summarize``, and ``mean_p``, the p-value of no difference by the signed-rank test,
      uncorrected for the number of pairs.
    """
    alphas = results.runs.groupby("method")["alpha"].first()
    learners = learners_of(results)
    rows = []
    for reference, method in itertools.combinations(results.runs["method"].unique(), 2):
        one_method = split_row(reference)[1] == split_row(method)[1]
        if alphas[reference] != alphas[method] or not (
            one_method or learners[reference] == learners[method]
        ):
            continue
        row: dict[str, Any] = {"method": method, "reference": reference}
        for name in ("mean", "cvar"):
            own, base = _both(results, method, reference, name)
            row |= {"seeds": own.size} | dict(
                zip(columns(f"{name}_gain"), paired(own, base), strict=True)
            )
            row[f"{name}_p"] = signed_rank(own, base)
        rows.append(row)
    return pd.DataFrame(rows, columns=_PAIRS)


_NOTHING = Interval(np.nan, np.nan, np.nan, np.nan)


def learners_of(results: Results) -> dict[str, str]:
    """The learner of each row, in order."""
    rows = results.runs.drop_duplicates("method")
    return dict(zip(rows["method"], rows["learner"], strict=True))


def baselines(results: Results) -> dict[str, str]:
    """The row that is the baseline of each learner that has one."""
    rows = learners_of(results).items()
    return {learner: row for row, learner in rows if split_row(row)[1] == BASELINE}


def range_name(low: float, high: float) -> str:
    """The quantity that is the mean return over tasks from ``low`` to ``high``."""
    return f"mean_{low:g}_{high:g}"


def level_name(alpha: float) -> str:
    """The quantity that is the CVaR at a level, whatever a method aims at."""
    return f"cvar_at_{alpha:g}"


def levels(results: Results) -> list[float]:
    """The levels at which the CVaR is known."""
    return sorted(results.risk.loc[results.risk["steps"].isna(), "alpha"].unique())


def columns(quantity: str) -> list[str]:
    """The columns of a quantity: mean over seeds, interval, standard error, values of few seeds."""
    return [quantity, *(f"{quantity}_{end}" for end in Interval._fields[1:])]


_PAIRS = ["method", "reference", "seeds"] + [
    column for name in ("mean", "cvar") for column in (*columns(f"{name}_gain"), f"{name}_p")
]


def scores_of(results: Results, method: str) -> pd.DataFrame:
    """Mean and CVaR over all test tasks, by seed."""
    tests = results.tests
    whole = tests[(tests["method"] == method) & tests["low"].isna()]
    return whole.set_index("seed")[["mean", "cvar"]]


def ranges(results: Results) -> list[tuple[float, float]]:
    """The ranges of tasks that tests are averaged over."""
    pairs = results.tests[["low", "high"]].dropna().drop_duplicates().sort_values("low")
    return list(pairs.itertuples(index=False, name=None))


def _both(
    results: Results, method: str, reference: str, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """What two methods score on the seeds that both have, in the same order."""
    own, base = scores_of(results, method)[name], scores_of(results, reference)[name]
    both = own.index.intersection(base.index)
    return own[both].to_numpy(), base[both].to_numpy()


def published_of(row: str, learner: str, env: str) -> Published | None:
    """What the paper's authors found for a row of the tables; None where that is not known."""
    preset = PRESETS.get(env)
    if preset is None:
        return None
    return preset.published.get(join_row(learner, split_row(row)[1], preset.default_learner))


def _published(run: dict[str, Any]) -> dict[str, Interval]:
    """What the paper's authors found, where that is known."""
    preset = PRESETS.get(run["env"])
    value = published_of(run["method"], run["learner"], run["env"])
    mean = Interval(*value.mean, np.nan) if value else _NOTHING
    tail = Interval(*value.cvar, np.nan) if value else _NOTHING
    if preset and run["alpha"] != preset.experiment.alpha:
        tail = _NOTHING
    return {"published_mean": mean, "published_cvar": tail}
