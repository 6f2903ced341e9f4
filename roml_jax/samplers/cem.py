"""The cross-entropy method: task sampling that follows the moving tail of the returns."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from roml_jax.checks import as_vector, check_choice, check_in, check_shape
from roml_jax.quantiles import quantile_in_order
from roml_jax.risk import check_alpha
from roml_jax.samplers._mixture import (
    check_family,
    check_nu,
    check_returns,
    draw_mixture,
    mixture_weights,
    random_plan,
    whole,
)
from roml_jax.types import UNTOLD, Alpha, Draw, Family, Metrics, PRNGKey, TaskSampler

Quantile: TypeAlias = Literal["population", "plain"]
QUANTILES = ("population", "plain")


class Pending(NamedTuple):
    """A CEM batch that spans several training steps."""

    tasks: Float[Array, "batch D"]  # of the family's dtype, valid below ``count``
    weights: Float[Array, " batch"]  # fixed when the tasks were drawn
    returns: Float[Array, " batch"]  # of the tasks' dtype
    plan: Bool[Array, " batch"]  # which positions are reference draws
    count: Int[Array, ""]  # type: ignore[assignment]  # int32, returns that arrived, < batch


class CEMState(NamedTuple):
    """Where the distribution stands, and the batch under way."""

    phi: Float[Array, " P"]  # float32, parameter of the sample distribution
    pending: Pending | None  # None if every training step is one CEM batch


def cem(
    family: Family,
    *,
    alpha: Alpha,
    beta: float = 0.2,
    nu: float = 0.2,
    batch: int | None = None,
    soft_update: float = 0.0,
    strict: bool = True,
    quantile: Quantile = "population",
) -> TaskSampler:
    """A sampler that moves ``D_phi`` to the worst ``alpha`` of the tasks of ``D_phi0``.

    Defaults are those of the original code. Alg. 2 to the letter is ``strict=False``,
    ``quantile="plain"`` and a family made with ``fit="ml"``.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      beta: in (0, 1); at least this fraction of a batch enters every fit.
      nu: in [0, 1); ``floor(nu * batch)`` tasks of every batch come from ``D_phi0``, at
        positions chosen at random anew for each batch (in the first batch, evenly spread).
      batch: tasks per update of ``phi``, a multiple of the n tasks of a training step;
        None makes every training step one batch.
      soft_update: in [0, 1), the part of the old ``phi`` that is kept in an update.
      strict: select returns strictly below the threshold and fill up with ties at random;
        False selects ``R <= q``.
      quantile: "population" corrects the reference quantile for the tails that a sample
        misses, "plain" does not.

    Returns:
      A ``TaskSampler``. The batch is complete, and ``phi`` fitted, inside the ``update``
      that brings its last returns. Returns that are not finite take no part; a fit that
      is empty or not finite leaves ``phi`` as it is. Info holds "updated" (whether this step
      fitted ``phi``) and, of the batch that this step completed, "selected", the number of
      tasks that were fitted to, and the quantiles "q_alpha" and "q_beta"; 0 and ``UNTOLD`` in
      steps that complete none. ``sample`` and ``update`` raise a ValueError, when traced, if n
      does not divide ``batch``.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Greenberg et al. (2023), Alg. 2 and 3, Eq. (9); Greenberg (2022), dynamic-target CEM.

    Differs from the paper in ties (``strict``) and in the quantile (``quantile``).
    """
    _check(alpha, beta, nu, batch, soft_update, quantile)

    def init(key: PRNGKey) -> CEMState:
        check_family(family)
        pending = None if batch is None else _empty_batch(batch, nu, family)
        return CEMState(jnp.asarray(family.phi0), pending)

    def sample(key: PRNGKey, state: CEMState, n: int) -> Draw:
        key_plan, key_draw = jax.random.split(key)
        if state.pending is None:
            plan = random_plan(key_plan, n, nu)
        else:
            _check_step(n, state.pending.plan.size)
            plan = jax.lax.dynamic_slice_in_dim(state.pending.plan, state.pending.count, n)
        return draw_mixture(key_draw, family, state.phi, plan)

    def update(
        key: PRNGKey, state: CEMState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[CEMState, Metrics]:
        returns = check_returns(draw, returns)
        draw = draw._replace(weights=_fit_weights(family, state.phi, draw))
        key_select, key_plan = jax.random.split(key)
        if state.pending is None:
            data, full, pending = (draw.tasks, draw.weights, returns), jnp.ones((), bool), None
        else:
            _check_step(returns.size, state.pending.plan.size)
            data, full, pending = _append(key_plan, state.pending, draw, returns, nu)

        tasks, weights, scores = data
        mask, q_alpha, q_beta = select_tail(
            key_select, scores, weights, alpha=alpha, beta=beta, strict=strict, quantile=quantile
        )
        phi, sound = _refit(family, state.phi, tasks, jnp.where(mask, weights, 0), soft_update)
        updated = full & sound
        info = {
            "updated": updated,
            "selected": jnp.where(full, mask.sum(dtype=jnp.int32), 0),
            "q_alpha": jnp.where(full, q_alpha, UNTOLD),
            "q_beta": jnp.where(full, q_beta, UNTOLD),
        }
        return CEMState(jnp.where(updated, phi, state.phi), pending), info

    return TaskSampler(init, sample, update, lambda state: state.phi)


def select_tail(
    key: PRNGKey,
    returns: Real[Array, " N"],
    weights: Real[Array, " N"],
    *,
    alpha: Alpha,
    beta: float,
    strict: bool = True,
    quantile: Quantile = "population",
) -> tuple[Bool[Array, " N"], Float[Array, ""], Float[Array, ""]]:
    """Chooses the tasks of a batch that ``phi`` is fitted to.

    The threshold is the larger of the ``alpha``-quantile under ``D_phi0``, estimated with
    the weights, and the plain ``beta``-quantile of the batch.

    Args:
      key: decides among tasks at the threshold.
      returns: ``[N]``; minus infinity is worse than all others, infinity better, and NaN takes no
        part, as in ``risk.tail_mask``.
      weights: ``[N]``, importance weights towards ``D_phi0``.
      alpha: fraction of worst tasks, in (0, 1].
      beta: fraction of the batch, in (0, 1).
      strict: select returns strictly below the threshold; if these are fewer than
        ``beta * N``, add tasks exactly at it, at random, up to ``floor(beta * N)``. False
        selects all returns up to the threshold.
      quantile: "population" or "plain" ``alpha``-quantile, see ``weighted_quantile``.

    Returns:
      ``(mask[N], q_alpha, q_beta)``; no task is selected if all returns are NaN.

    Raises:
      ValueError: an argument is out of range, or no vector of the same length as the other.

    Reference:
      Greenberg et al. (2023), Alg. 2 lines 13-16.

    Differs from the paper, which has ``strict=False`` and leaves the quantile estimator
    open; the defaults are those of the original code.
    """
    check_alpha(alpha)
    check_in("beta", beta, "(0, 1)", "the selected fraction of a batch")
    check_choice("quantile", quantile, QUANTILES)
    returns, weights = as_vector("returns", returns), as_vector("weights", weights)
    check_shape("weights", weights, returns.shape, "returns")
    valid = ~jnp.isnan(returns)
    returns, low, high = _within_reach(returns)
    order = jnp.argsort(returns)
    q_alpha = quantile_in_order(
        returns, order, alpha, jnp.where(valid, weights, 0), population=quantile == "population"
    )
    q_beta = quantile_in_order(returns, order, beta, valid.astype(returns.dtype), population=False)
    threshold = jnp.maximum(q_alpha, q_beta)
    q_alpha, q_beta = (_beyond(q, low, high) for q in (q_alpha, q_beta))
    if not strict:
        return valid & (returns <= threshold), q_alpha, q_beta

    below = valid & (returns < threshold)
    ties = valid & (returns == threshold)
    missing = whole(beta * returns.size) - below.sum()
    lots = jnp.where(ties, jax.random.uniform(key, returns.shape, jnp.float32), jnp.inf)
    drawn = jnp.zeros(returns.shape, bool)
    drawn = drawn.at[jnp.argsort(lots)].set(jnp.arange(returns.size) < missing)
    return below | (ties & drawn), q_alpha, q_beta


def _within_reach(
    returns: Float[Array, " N"],
) -> tuple[Float[Array, " N"], Float[Array, ""], Float[Array, ""]]:
    """The returns with numbers in the place of infinities, which keep their order; the range.

    Quantiles interpolate, which between infinities and numbers they cannot.
    """
    finite = jnp.isfinite(returns)
    some = finite.any()
    low = jnp.where(some, jnp.min(jnp.where(finite, returns, jnp.inf)), 0)
    high = jnp.where(some, jnp.max(jnp.where(finite, returns, -jnp.inf)), 0)
    step = high - low + 1
    returns = jnp.where(returns == -jnp.inf, low - step, returns)
    return jnp.where(returns == jnp.inf, high + step, returns), low, high


def _beyond(
    quantile: Float[Array, ""], low: Float[Array, ""], high: Float[Array, ""]
) -> Float[Array, ""]:
    """A quantile of the numbers ``_within_reach``, as infinity where it is out of their range."""
    quantile = jnp.where(quantile < low, -jnp.inf, quantile)
    return jnp.where(quantile > high, jnp.inf, quantile)


def _refit(
    family: Family,
    phi: Float[Array, " P"],
    tasks: Float[Array, "N D"],
    weights: Float[Array, " N"],
    soft_update: float,
) -> tuple[Float[Array, " P"], Bool[Array, ""]]:
    """The next ``phi``, and whether it can be used (Alg. 2 line 16)."""
    some = (weights > 0).any()
    fitted = family.fit(tasks, jnp.where(some, weights, 1))  # a fit to nothing would be NaN
    new = soft_update * phi + (1 - soft_update) * fitted
    return new.astype(phi.dtype), some & jnp.isfinite(new).all()


def _append(
    key: PRNGKey, pending: Pending, draw: Draw, returns: Float[Array, " n"], nu: float
) -> tuple[tuple[Array, Array, Array], Bool[Array, ""], Pending]:
    """Adds a step: the batch so far, whether it is full, and what is pending afterwards."""
    arrived = (draw.tasks, draw.weights, returns)
    tasks, weights, scores = (
        jax.lax.dynamic_update_slice_in_dim(buffer, new.astype(buffer.dtype), pending.count, axis=0)
        for buffer, new in zip(pending[:3], arrived, strict=True)
    )
    batch, count = pending.plan.size, pending.count + returns.size
    full = count >= batch
    plan = jnp.where(full, random_plan(key, batch, nu), pending.plan)
    count = jnp.where(full, 0, count)
    return (tasks, weights, scores), full, Pending(tasks, weights, scores, plan, count)


def _fit_weights(family: Family, phi: Float[Array, " P"], draw: Draw) -> Float[Array, " n"]:
    """The weights that the fit counts by: of the draw, or of the family's clipped densities."""
    if family.clipped_log_prob is None:
        return draw.weights
    clipped = family._replace(log_prob=family.clipped_log_prob)
    return mixture_weights(clipped, draw.tasks, phi, draw.is_reference)


def _empty_batch(batch: int, nu: float, family: Family) -> Pending:
    """Nothing pending; the reference draws are spread evenly, since there is no key."""
    marks = np.arange(batch + 1) * whole(nu * batch) // batch
    phi0 = jnp.asarray(family.phi0)
    tasks = jax.eval_shape(lambda key: family.sample(key, phi0, batch), jax.random.key(0))
    weights = jax.eval_shape(family.log_prob, tasks, phi0)
    return Pending(
        tasks=jnp.zeros(tasks.shape, tasks.dtype),
        weights=jnp.ones(batch, weights.dtype),
        returns=jnp.zeros(batch, jnp.promote_types(tasks.dtype, jnp.float32)),
        plan=jnp.asarray(np.diff(marks) > 0),
        count=jnp.zeros((), jnp.int32),
    )


def _check_step(n: int, batch: int) -> None:
    """Raises a ValueError unless steps of n tasks fill a batch exactly."""
    if n > batch:
        raise ValueError(
            f"n={n} tasks per step exceed the CEM batch={batch}: use batch=None to update phi "
            f"every step, or n <= {batch}."
        )
    if batch % n:
        divisors = [d for d in range(1, batch + 1) if batch % d == 0]
        raise ValueError(f"n={n} tasks per step must divide batch={batch}: one of {divisors}.")


def _check(
    alpha: Alpha, beta: float, nu: float, batch: int | None, soft_update: float, quantile: str
) -> None:
    """Raises a ValueError with one line for the first argument that is out of range."""
    check_alpha(alpha)
    check_in("beta", beta, "(0, 1)", "the selected fraction of a batch")
    check_nu(nu)
    check_in("soft_update", soft_update, "[0, 1)", "the kept part of phi")
    if batch is not None and batch < 1:
        raise ValueError(f"batch={batch} is a number of tasks: choose at least 1, or None.")
    check_choice("quantile", quantile, QUANTILES)
