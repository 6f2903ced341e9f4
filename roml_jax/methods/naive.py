"""The naive sampler of the ablation: the worst of some first tasks, for ever."""

from __future__ import annotations

from dataclasses import dataclass

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.samplers.naive import Repeat
from roml_jax.types import Alpha, Family, MetaAlgorithm


@dataclass(frozen=True)
class NaiveConfig:
    """Settings of the naive sampler.

    Attributes:
      alpha: fraction of worst tasks of the pool that is repeated, in (0, 1].
      pool: number of first tasks.
      repeat: the worst tasks of the pool, or, as the original code does, all of them.
    """

    alpha: float = 0.05
    pool: int = 100
    repeat: Repeat = "worst"


def naive(family: Family, alpha: Alpha, pool: int = 100, repeat: Repeat = "worst") -> MetaAlgorithm:
    """The ablation: the worst tasks of a first pool, repeated for ever.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks, in (0, 1].
      pool: number of first tasks.
      repeat: "worst" or "all", see ``samplers.naive``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.4.
    """
    sampler = samplers.naive(family, alpha=alpha, pool=pool, repeat=repeat)
    return MetaAlgorithm(sampler, risk.everything(), alpha)


NAIVE = MethodKind(
    NaiveConfig,
    lambda family, config, steps: naive(family, **vars(config)),
    label="Naive",
    look=("#CC79A7", "v", (0, (1, 1))),
)
