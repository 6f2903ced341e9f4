"""Group DRO: cells of tasks with exponentiated weights, bounded as those of the CVaR are."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm

_DEFAULTS = {name: p.default for name, p in inspect.signature(samplers.dro).parameters.items()}


@dataclass(frozen=True)
class DROConfig:
    """Settings of group DRO; the defaults are those of ``samplers.dro``.

    Attributes:
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      eta: size of a step of the weights.
      nu: share of the draws from the original distribution.
      bins: most cells of the family's unit cube.
      decay: share of the weights that is even again after a step.
      dims: components of the cube that are cut into cells, from 0; none for all.
    """

    alpha: float = 0.05
    eta: float = _DEFAULTS["eta"]
    nu: float = _DEFAULTS["nu"]
    bins: int = _DEFAULTS["bins"]
    decay: float = _DEFAULTS["decay"]
    dims: tuple[int, ...] = _DEFAULTS["dims"]


def dro(family: Family, alpha: Alpha, **settings: Any) -> MetaAlgorithm:
    """Group DRO: tasks from ``samplers.dro``, all of them used.

    Args:
      family: the task distribution; must have ``from_units``.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      **settings: of ``samplers.dro``.

    Raises:
      ValueError: an argument is out of range, or the family cannot be cut into cells.

    Reference:
      Sagawa et al. (2020), "Distributionally Robust Neural Networks for Group Shifts", Alg. 1.
    """
    return MetaAlgorithm(samplers.dro(family, alpha=alpha, **settings), risk.everything(), alpha)


DRO = MethodKind(
    DROConfig,
    lambda family, config, steps: dro(family, **vars(config)),
    label="Group DRO",
    look=("#117733", "<", (0, (3, 2))),
)
