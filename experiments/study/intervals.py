"""Confidence intervals over seeds, by the bootstrap, and a test of differences."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

_ROUNDING = 1e-12  # of a number, in sums of many


class Interval(NamedTuple):
    """A mean over seeds and how well it is known."""

    mean: float
    low: float
    high: float
    error: float  # standard error of the mean, s / sqrt(n)


def bootstrap(
    values: Float[np.ndarray, " S"], *, level: float = 0.95, resamples: int = 10_000
) -> Interval:
    """The mean with its bootstrap interval: the same for the same values, always.

    Bias-corrected and accelerated (BCa) where that can be computed, by percentiles where not.

    Args:
      values: ``[S]``, one per seed, finite.
      level: of confidence, in (0, 1).
      resamples: number of bootstrap samples.

    Returns:
      The interval. One value alone has a mean only, no value not even that: the rest is NaN.

    Reference: Efron (1987), "Better Bootstrap Confidence Intervals".
    """
    values = np.asarray(values, float)
    if values.size < 2:
        return Interval(float(values[0]) if values.size else np.nan, np.nan, np.nan, np.nan)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / np.sqrt(values.size)
    if np.ptp(values) == 0:
        return Interval(mean, mean, mean, 0.0)
    low, high = _interval(values, "BCa", level, resamples)
    if not np.isfinite([low, high]).all():
        low, high = _interval(values, "percentile", level, resamples)
    return Interval(mean, low, high, float(error))


def paired(values: Float[np.ndarray, " S"], reference: Float[np.ndarray, " S"]) -> Interval:
    """The mean difference to a reference, seed by seed, with its bootstrap interval.

    Args:
      values: ``[S]``, one per seed.
      reference: ``[S]``, of the same seeds in the same order.

    Raises:
      ValueError: there are more of one than of the other.
    """
    return bootstrap(_differences(values, reference))


def signed_rank(values: Float[np.ndarray, " S"], reference: Float[np.ndarray, " S"]) -> float:
    """The two-sided p-value of no difference to a reference, seed by seed.

    Args:
      values: ``[S]``, one per seed.
      reference: ``[S]``, of the same seeds in the same order.

    Returns:
      That of Wilcoxon's signed-rank test; NaN for fewer than six seeds, which could never
      give 5 %, and 1 for no difference at all.

    Raises:
      ValueError: there are more of one than of the other.
    """
    difference = _differences(values, reference)
    if difference.size < 6:
        return np.nan
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


def _differences(
    values: Float[np.ndarray, " S"], reference: Float[np.ndarray, " S"]
) -> Float[np.ndarray, " S"]:
    """Differences seed by seed, where such as come of rounding alone are none.

    Raises:
      ValueError: there are more of one than of the other.
    """
    values, reference = np.asarray(values, float), np.asarray(reference, float)
    if values.shape != reference.shape:
        raise ValueError(f"{values.size} values cannot be paired with {reference.size}")
    rounding = np.abs(values - reference) <= _ROUNDING * np.maximum(abs(values), abs(reference))
    return np.where(rounding, 0.0, values - reference)


def _interval(values: np.ndarray, method: Any, level: float, resamples: int) -> tuple[float, float]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of a degenerate distribution, which is dealt with above
        found = stats.bootstrap(
            (values,),
            np.mean,
            confidence_level=level,
            n_resamples=resamples,
            method=method,
            vectorized=True,
            random_state=np.random.default_rng(0),
        ).confidence_interval
    return float(found.low), float(found.high)
