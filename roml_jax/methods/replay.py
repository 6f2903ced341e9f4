"""Prioritised level replay: hard tasks come again, from a buffer."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.samplers.replay import ReplayScore
from roml_jax.types import Alpha, Family, MetaAlgorithm

_DEFAULTS = {name: p.default for name, p in inspect.signature(samplers.replay).parameters.items()}


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of prioritised level replay; the defaults are those of ``samplers.replay``.

    Attributes:
      alpha: fraction of worst tasks that is reported, in (0, 1].
      robust: learn from replayed tasks alone, and not at all before there are some.
      score: "return" replays the tasks of the lowest returns, "regret" those played furthest
        below their best.
      replay_share: share of draws from the buffer, in [0, 1).
      capacity: number of tasks in the buffer.
      min_fill: the part of it that is filled before any draw comes from it.
      temperature: of the ranks; small ones draw the highest scores alone.
      staleness: share of draws by age instead of rank.
      rate: least weight of the last visit in the mean return of a task.
    """

    alpha: float = 0.05
    robust: bool = False
    score: ReplayScore = _DEFAULTS["score"]
    replay_share: float = _DEFAULTS["replay_share"]
    capacity: int = _DEFAULTS["capacity"]
    min_fill: float = _DEFAULTS["min_fill"]
    temperature: float = _DEFAULTS["temperature"]
    staleness: float = _DEFAULTS["staleness"]
    rate: float = _DEFAULTS["rate"]


def replay(family: Family, alpha: Alpha, *, robust: bool = False, **settings: Any) -> MetaAlgorithm:
    """Prioritised level replay: tasks from ``samplers.replay``.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is reported, in (0, 1].
      robust: learn from replayed tasks alone: new ones have the weight 0, and before there are
        any other ones nothing is learned. Else from all.
      **settings: of ``samplers.replay``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Jiang, Grefenstette and Rocktäschel (2021), "Prioritized Level Replay"; Jiang et al. (2021),
      "Replay-Guided Adversarial Environment Design", for ``robust``.
    """
    risk.check_alpha(alpha)
    weigh = risk.chosen() if robust else risk.everything()
    return MetaAlgorithm(samplers.replay(family, **settings), weigh, alpha)


REPLAY = MethodKind(
    ReplayConfig,
    lambda family, config, steps: replay(family, **vars(config)),
    label="Replay",
    look=("#332288", "p", (0, (6, 2, 2, 2))),
)
