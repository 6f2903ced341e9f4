"""The naive sampler of the ablation: the worst of some first tasks, for ever."""

from __future__ import annotations

from dataclasses import dataclass

from roml_jax import risk, samplers
from roml_jax.methods.kind import MethodKind
from roml_jax.types import Alpha, Family, MetaAlgorithm


@dataclass(frozen=True)
class NaiveConfig:
    """Settings of the naive sampler.

    Attributes:
      alpha: fraction of worst tasks of the pool that is repeated, in (0, 1].
      pool: number of first tasks.
    """

    alpha: float = 0.05
    pool: int = 100


def naive(family: Family, alpha: Alpha, pool: int = 100) -> MetaAlgorithm:
    """The ablation: the worst tasks of a first pool, repeated for ever.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks, in (0, 1].
      pool: number of first tasks.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.4.
    """
    return MetaAlgorithm(samplers.naive(family, alpha=alpha, pool=pool), risk.everything(), alpha)


NAIVE = MethodKind(
    NaiveConfig,
    lambda family, config: naive(family, config.alpha, config.pool),
    label="Naive",
    look=("#CC79A7", "v", (0, (1, 1))),
)
