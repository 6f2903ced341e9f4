"""Risk-neutral training, which the robust methods are measured against."""

from __future__ import annotations

from dataclasses import dataclass

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm


@dataclass(frozen=True)
class BaselineConfig:
    """Settings of risk-neutral training.

    Attributes:
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        """Checks the settings."""
        risk.check_alpha(self.alpha)


def baseline(family: Family, alpha: Alpha = 1.0) -> MetaAlgorithm:
    """Risk-neutral training: tasks from ``D_phi0``, all of them used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Def. 2.
    """
    return MetaAlgorithm(samplers.fixed(family), risk.everything(), risk.check_alpha(alpha))


BASELINE = MethodKind(
    BaselineConfig,
    lambda family, config, steps: baseline(family, config.alpha),
    label=None,
    look=("#0072B2", "o", "-"),
    aim="mean",
)
