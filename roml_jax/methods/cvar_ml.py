"""CVaR-ML, Algorithm 1: learning from the tail of each batch of tasks alone."""

from __future__ import annotations

from dataclasses import dataclass

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm


@dataclass(frozen=True)
class CVaRMLConfig:
    """Settings of CVaR-ML.

    Attributes:
      alpha: fraction of worst tasks that is learned from, in (0, 1].
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Checks the settings."""
        risk.check_alpha(self.alpha)


def cvar_ml(family: Family, alpha: Alpha) -> MetaAlgorithm:
    """CVaR-ML: tasks from ``D_phi0``, only the worst ``alpha`` of a step used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks, in (0, 1].

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 1.
    """
    return MetaAlgorithm(samplers.fixed(family), risk.tail(alpha), alpha)


CVAR_ML = MethodKind(
    CVaRMLConfig,
    lambda family, config, steps: cvar_ml(family, config.alpha),
    label="CVaR-ML",
    look=("#E69F00", "s", (0, (4, 1.5))),
)
