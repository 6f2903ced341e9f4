"""RoML with kernels in the place of ``D_phi``: hard tasks in several places are all held."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm

_DEFAULTS = {
    name: p.default for name, p in inspect.signature(samplers.mixture_cem).parameters.items()
}


@dataclass(frozen=True)
class MixtureCEMConfig:
    """Settings of RoML with kernels; the defaults are those of ``samplers.mixture_cem``.

    Attributes:
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      beta: at least this fraction of what is remembered carries kernels.
      nu: least share of the original distribution in the draws.
      memory: number of tasks that are remembered.
      kernels: number of kernels.
      decay: of the trust in what is remembered, at every step.
      min_ess: least effective sample size of the weights, as a share of the draws.
      circular: components of the family's unit cube whose two ends are one, from 0.
    """

    alpha: float = 0.05
    beta: float = _DEFAULTS["beta"]
    nu: float = _DEFAULTS["nu"]
    memory: int = _DEFAULTS["memory"]
    kernels: int = _DEFAULTS["kernels"]
    decay: float = _DEFAULTS["decay"]
    min_ess: float = _DEFAULTS["min_ess"]
    circular: tuple[int, ...] = _DEFAULTS["circular"]


def mixture_cem(family: Family, alpha: Alpha, **settings: Any) -> MetaAlgorithm:
    """RoML with kernels: tasks from ``samplers.mixture_cem``, all of them used.

    Args:
      family: the task distribution; must have ``from_units``.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      **settings: of ``samplers.mixture_cem``.

    Raises:
      ValueError: an argument is out of range, or the family has no ``from_units``.

    Reference:
      Greenberg et al. (2023), Alg. 2, with another distribution to draw from.
    """
    sampler = samplers.mixture_cem(family, alpha=alpha, **settings)
    return MetaAlgorithm(sampler, risk.everything(), alpha)


MIXTURE_CEM = MethodKind(
    MixtureCEMConfig,
    lambda family, config, steps: mixture_cem(family, **vars(config)),
    label="Mixture CEM",
    look=("#882255", "h", (0, (2, 1))),
)
