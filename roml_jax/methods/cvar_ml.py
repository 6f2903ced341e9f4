"""CVaR-ML, Algorithm 1: learning from the tail of each batch of tasks alone."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Array, Int

from roml_jax import risk, samplers
from roml_jax.checks import check_in
from roml_jax.methods.kind import MethodKind
from roml_jax.methods.soft_risk import falling_level
from roml_jax.types import Alpha, Family, MetaAlgorithm, Schedule


@dataclass(frozen=True)
class CVaRMLConfig:
    """Settings of CVaR-ML.

    Attributes:
      alpha: fraction of worst tasks that is learned from, in (0, 1].
      soft_risk: share of the training, in [0, 1], over which that fraction falls from 1 to
        ``alpha``; 0 starts at ``alpha``, as Algorithm 1 does.
    """

    alpha: float = 0.05
    soft_risk: float = 0.0

    def __post_init__(self) -> None:
        """Checks the settings."""
        risk.check_alpha(self.alpha)
        check_in("soft_risk", self.soft_risk, "[0, 1]", "a share of the training")


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


def soft_cvar_ml(family: Family, alpha: Alpha, *, steps: int, soft_risk: float) -> Schedule:
    """CVaR-ML whose tail falls from all tasks of a step to the worst ``alpha`` of them.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      steps: see ``soft_risk.falling_level``.
      soft_risk: see ``soft_risk.falling_level``.

    Returns:
      A function of the training step, see ``roml_jax.train.make_train``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 1; Greenberg et al. (2022), Sec. 3, for the soft risk.
    """
    risk.check_alpha(alpha)
    level_at, sampler = falling_level(alpha, soft_risk, steps), samplers.fixed(family)

    def at(step: Int[Array, ""]) -> MetaAlgorithm:
        return MetaAlgorithm(sampler, risk.tail(level_at(step)), alpha)

    return at


def _make(family: Family, config: CVaRMLConfig, steps: int) -> MetaAlgorithm | Schedule:
    if not config.soft_risk:
        return cvar_ml(family, config.alpha)
    return soft_cvar_ml(family, config.alpha, steps=steps, soft_risk=config.soft_risk)


CVAR_ML = MethodKind(
    CVaRMLConfig,
    _make,
    label="CVaR-ML",
    look=("#E69F00", "s", (0, (4, 1.5))),
    paced=lambda config: config.soft_risk > 0,
)
