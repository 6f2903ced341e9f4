"""CeSoR: tasks from the cross-entropy method, weighed back to the original distribution's tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, Int

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.methods.roml import RoMLConfig, cem_settings
from roml_jax.methods.soft_risk import falling_level
from roml_jax.types import Alpha, Family, MetaAlgorithm, Schedule


@dataclass(frozen=True)
class CeSoRConfig(RoMLConfig):
    """Settings of CeSoR: those of RoML's sampler, and how its tasks are learned from.

    Attributes:
      soft_risk: share of the training, in [0, 1], over which the level of the selected tail
        falls from 1 to ``alpha``; 0 starts at ``alpha``.
      select: learn from the tail of each step alone; else from all tasks, by their weights, as
        in the runs of the paper.
      max_weight: clip importance weights to its inverse and itself; None for no clip.
    """

    soft_risk: float = 0.6
    select: bool = True
    max_weight: float | None = None


def cesor(
    family: Family,
    alpha: Alpha,
    *,
    steps: int = 0,
    soft_risk: float = 0.6,
    select: bool = True,
    max_weight: float | None = None,
    **settings: Any,
) -> Schedule:
    """CeSoR: tasks from the cross-entropy method, the worst ``alpha`` of ``D_phi0`` used.

    Every task counts by its importance weight, so that what is learned from is the tail of the
    original distribution, of which the sampler finds more tasks than there would be. The level
    of that tail falls from 1 to ``alpha``: what the best agents do well is learned before it is
    left out.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      steps: training steps of the whole training, at least 0.
      soft_risk: share of these, in [0, 1], over which the level falls; 0 for none.
      select: leave out what is better than the tail; else weigh alone.
      max_weight: see ``risk.weighted_tail``.
      **settings: of ``samplers.cem``.

    Returns:
      A function of the training step, see ``roml_jax.train.make_train``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2022), "Efficient Risk-Averse Reinforcement Learning", Alg. 1 and Sec. 3;
      Greenberg et al. (2023), Section 6.

    Differs from the original code, where the reference quantile comes from the reference draws
    alone; the runs of the 2023 paper neither select nor have a soft risk.
    """
    level_at = falling_level(alpha, soft_risk, steps)
    sampler = samplers.cem(family, alpha=alpha, **settings)
    risk.weighted_tail(1.0, max_weight=max_weight)  # checks it

    def at(step: Int[Array, ""]) -> MetaAlgorithm:
        level = level_at(step) if select else 1.0
        return MetaAlgorithm(sampler, risk.weighted_tail(level, max_weight=max_weight), alpha)

    return at


CESOR = MethodKind(
    CeSoRConfig,
    lambda family, config, steps: cesor(
        family,
        config.alpha,
        steps=steps,
        soft_risk=config.soft_risk,
        select=config.select,
        max_weight=config.max_weight,
        **cem_settings(config),
    ),
    label="CeSoR",
    look=("#D55E00", "P", (0, (3, 1, 1, 1))),
    paced=lambda config: config.select and config.soft_risk > 0,
)
