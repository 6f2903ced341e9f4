"""The robust meta-algorithms: which tasks to draw, paired with which of them to learn from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from roml_jax import risk, samplers
from roml_jax.risk import Alpha
from roml_jax.samplers.cem import Quantile
from roml_jax.types import Family, MetaAlgorithm


def baseline(family: Family, alpha: Alpha = 1.0) -> MetaAlgorithm:
    """Risk-neutral training: tasks from ``D_phi0``, all of them used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks in the reported CVaR, in (0, 1].

    Returns:
      A ``MetaAlgorithm``.

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Def. 2.
    """
    return MetaAlgorithm(samplers.fixed(family, alpha=alpha), risk.everything())


def cvar_ml(family: Family, alpha: Alpha) -> MetaAlgorithm:
    """CVaR-ML: tasks from ``D_phi0``, only the worst ``alpha`` of a step used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks, in (0, 1].

    Returns:
      A ``MetaAlgorithm``.

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 1.
    """
    return MetaAlgorithm(samplers.fixed(family, alpha=alpha), risk.tail(alpha))


def roml(
    family: Family,
    alpha: Alpha,
    *,
    beta: float = 0.2,
    nu: float = 0.2,
    batch: int | None = None,
    soft_update: float = 0.0,
    strict: bool = True,
    quantile: Quantile = "population",
) -> MetaAlgorithm:
    """RoML: tasks from the cross-entropy method, all of them used.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      beta: see ``samplers.cem``, as for all that follow.
      nu: fraction of reference draws.
      batch: tasks per update of the sampler; None is one training step.
      soft_update: part of ``phi`` that is kept in an update.
      strict: selection below the threshold, or up to it.
      quantile: estimator of the reference quantile.

    Returns:
      A ``MetaAlgorithm``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 2.
    """
    sampler = samplers.cem(
        family,
        alpha=alpha,
        beta=beta,
        nu=nu,
        batch=batch,
        soft_update=soft_update,
        strict=strict,
        quantile=quantile,
    )
    return MetaAlgorithm(sampler, risk.everything())


def naive(family: Family, alpha: Alpha, pool: int = 100) -> MetaAlgorithm:
    """The ablation: the worst tasks of a first pool, repeated for ever.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks, in (0, 1].
      pool: number of first tasks.

    Returns:
      A ``MetaAlgorithm``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), App. D.4.
    """
    return MetaAlgorithm(samplers.naive(family, alpha=alpha, pool=pool), risk.everything())


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

    Returns:
      A ``MetaAlgorithm``.

    Raises:
      ValueError: an argument is out of range.
    """
    return MetaAlgorithm(samplers.oracle(family, phi, nu=nu, alpha=alpha), risk.everything())
