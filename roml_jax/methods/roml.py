"""RoML, Algorithm 2: hard tasks are over-sampled by the cross-entropy method."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.samplers.cem import Quantile
from roml_jax.types import Alpha, Family, MetaAlgorithm

_CEM = {name: p.default for name, p in inspect.signature(samplers.cem).parameters.items()}


@dataclass(frozen=True)
class RoMLConfig:
    """Settings of RoML; the defaults are those of ``samplers.cem``.

    Attributes:
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      beta: at least this fraction of a CEM batch enters every fit.
      nu: fraction of tasks drawn from the original distribution.
      batch: tasks per update of phi, a multiple of the tasks of a step; None for
        an update at every step.
      soft_update: the part of phi that is kept in an update.
      strict: fit to returns strictly below the threshold; else up to it.
      quantile: estimator of the reference quantile.
    """

    alpha: float = 0.05
    beta: float = _CEM["beta"]
    nu: float = _CEM["nu"]
    batch: int | None = _CEM["batch"]
    soft_update: float = _CEM["soft_update"]
    strict: bool = _CEM["strict"]
    quantile: Quantile = _CEM["quantile"]


def cem_settings(config: RoMLConfig) -> dict[str, Any]:
    """Those settings that are of ``samplers.cem``, but for ``alpha``."""
    return {name: getattr(config, name) for name in _CEM if name not in ("family", "alpha")}


def roml(family: Family, alpha: Alpha, **settings: Any) -> MetaAlgorithm:
    """RoML: tasks from the cross-entropy method, all of them used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      **settings: of ``samplers.cem``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 2.
    """
    return MetaAlgorithm(samplers.cem(family, alpha=alpha, **settings), risk.everything(), alpha)


ROML = MethodKind(
    RoMLConfig,
    lambda family, config, steps: roml(family, config.alpha, **cem_settings(config)),
    label="RoML",
    look=("#009E73", "^", (0, (5, 1.5, 1, 1.5))),
)
