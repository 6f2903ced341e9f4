"""Training on a task distribution that is known to be hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm


@dataclass(frozen=True)
class OracleConfig:
    """Settings of the oracle.

    Attributes:
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].
      phi: parameter of the task distribution to train on.
      nu: fraction of tasks drawn from the original distribution.
    """

    alpha: float = 0.05
    phi: tuple[float, ...] | None = None
    nu: float = 0.0


def oracle(
    family: Family,
    alpha: Alpha,
    phi: Sequence[float] | np.ndarray | Float[Array, " P"],
    nu: float = 0.0,
) -> MetaAlgorithm:
    """Training on a task distribution that is known to be hard.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].
      phi: ``[P]``, where the hard tail is known to be.
      nu: fraction of reference draws, in [0, 1).

    Raises:
      ValueError: an argument is out of range.
    """
    sampler = samplers.oracle(family, phi, nu=nu)
    return MetaAlgorithm(sampler, risk.everything(), risk.check_alpha(alpha))


def _make(family: Family, config: OracleConfig, steps: int) -> MetaAlgorithm:
    if config.phi is None:
        raise ValueError(f"the oracle needs --phi, for {', '.join(family.phi_names)}")
    return oracle(family, **vars(config))


ORACLE = MethodKind(
    OracleConfig,
    _make,
    label="Oracle",
    look=("#000000", "D", (0, (5, 1.5, 1, 1.5, 1, 1.5))),
)
