"""Sampling for learnability: the frontier of what the learner can do, not the tail."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm

_DEFAULTS = {
    name: p.default for name, p in inspect.signature(samplers.learnability).parameters.items()
}


@dataclass(frozen=True)
class LearnabilityConfig:
    """Settings of sampling for learnability; the defaults are those of ``samplers.learnability``.

    Attributes:
      alpha: fraction of worst tasks that is reported, in (0, 1].
      threshold: a return above it is a success; none for the mean return of new tasks.
      outcome: name of an environment's info at the end of an episode that is compared with the
        threshold instead of the return; empty for the return.
      replay_share: share of draws from the buffer, in [0, 1).
      capacity: number of tasks in the buffer.
      min_fill: the part of it that is filled before any draw comes from it.
      staleness: share of draws by age.
      rate: least weight of the last visit in the success rate of a task.
    """

    alpha: float = 0.05
    threshold: float | None = _DEFAULTS["threshold"]
    outcome: str = _DEFAULTS["outcome"]
    replay_share: float = _DEFAULTS["replay_share"]
    capacity: int = _DEFAULTS["capacity"]
    min_fill: float = _DEFAULTS["min_fill"]
    staleness: float = _DEFAULTS["staleness"]
    rate: float = _DEFAULTS["rate"]


def learnability(family: Family, alpha: Alpha, **settings: Any) -> MetaAlgorithm:
    """Sampling for learnability: tasks from ``samplers.learnability``, all of them used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is reported, in (0, 1].
      **settings: of ``samplers.learnability``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Rutherford et al. (2024), "No Regrets: Investigating and Improving Regret Approximations for
      Curriculum Discovery".
    """
    risk.check_alpha(alpha)
    return MetaAlgorithm(samplers.learnability(family, **settings), risk.everything(), alpha)


LEARNABILITY = MethodKind(
    LearnabilityConfig,
    lambda family, config, steps: learnability(family, **vars(config)),
    label="Learnability",
    look=("#999933", ">", (0, (1, 2))),
    aim="mean",
)
