"""The cross-entropy method with a kernel density: any number of hard regions, from memory."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Real

from roml_jax.checks import check_in, check_shape
from roml_jax.quantiles import quantile_in_order
from roml_jax.risk import check_alpha
from roml_jax.samplers._kernels import draw_kernels, kernel_log_density, kernel_width, resample
from roml_jax.samplers._mixture import check_family, check_returns
from roml_jax.types import UNTOLD, Alpha, Draw, Family, Metrics, PRNGKey, TaskSampler

_PROBES = 256  # points that the effective sample size is foreseen at
_HALVINGS = 20


class MixtureCEMState(NamedTuple):
    """The last tasks, and the proposal that is made of the worst of them."""

    units: Float[Array, "memory D"]  # float32, places in the unit cube, the latest last
    returns: Float[Array, " memory"]  # float32, 0 where there is none
    trust: Float[Array, " memory"]  # float32, weights towards D_phi0, faded; 0 counts for nothing
    centres: Float[Array, "kernels D"]  # float32, of kernels of equal weight
    width: Float[Array, " D"]  # float32, of a kernel, as a part of the cube
    share: Float[Array, ""]  # float32, of D_phi0 in the proposal, in [nu, 1]


def mixture_cem(
    family: Family,
    *,
    alpha: Alpha,
    beta: float = 0.1,
    nu: float = 0.2,
    memory: int = 512,
    kernels: int = 64,
    decay: float = 0.98,
    min_ess: float = 0.1,
    circular: tuple[int, ...] = (),
) -> TaskSampler:
    """A sampler that gathers at the worst ``alpha`` of the tasks, in as many places as they are.

    Tasks are drawn as points u of the unit cube that the family maps to tasks, where ``D_phi0`` is
    uniform, from ``q(u) = s + (1 - s) k(u)``: a share s of ``D_phi0``, and kernels on the worst of
    the tasks that are remembered. These are chosen as in ``samplers.cem``, but among all that is
    remembered, so that a step of few tasks needs no hard one among them.

    Weights are ``1 / q(u)`` for all draws, whichever part they come from, so that they are at most
    ``1 / s``; on average s n of n draws are uniform. No draw counts as a reference draw, except
    while nothing is known and ``q = 1``: a weight of 1 for those that are uniform would be unbiased
    as well, but add to the variance of every estimate of the tail.

    If returns depend on the task alone, k has the fixed point ``K * 1[R <= q_alpha] / alpha``: what
    is remembered, weighed by ``1 / q``, is a sample of ``D_phi0`` for any q, so that its quantile
    is ``q_alpha``, and kernels are drawn from ``D_phi0`` below it; K is the blur by one kernel.

    Args:
      family: the task distribution; must have ``from_units``.
      alpha: fraction of worst tasks that is aimed at, in (0, 1].
      beta: in (0, 1); at least this fraction of what is remembered carries kernels.
      nu: in (0, 1]; the least s.
      memory: number of tasks that are remembered; of a step of more, the last ones.
      kernels: number of kernels, drawn anew at every step from those that could carry one.
      decay: in (0, 1]; the trust in what is remembered falls by this factor at every step, since
        the learner moves on.
      min_ess: in (0, 1]; s is large enough for the weights to have at least this effective sample
        size, as a share of the draws; 1 draws from ``D_phi0``.
      circular: coordinates of the cube, from 0, whose two ends are one, as that of an angle (1
        of ``families.disk``): kernels go on at the other end.

    Returns:
      A ``TaskSampler``; ``extras`` of a draw hold "units", the points u. Returns that are not
      finite take no part. ``phi`` stays where it is. Info holds "ess", the effective sample size
      of the step's weights as a share of its tasks, "nu", the s that they were drawn with,
      "selected", the number of tasks that may carry kernels next, and the quantiles "q_alpha" and
      "q_beta" of all that is remembered, ``UNTOLD`` if that is nothing.

    Raises:
      ValueError: an argument is out of range, or the family has no ``from_units``; while tracing,
        a draw is not of this sampler.

    Reference:
      Rubinstein and Kroese (2004), "The Cross-Entropy Method"; Zhang (1996), "Nonparametric
      Importance Sampling"; Owen and Zhou (2000), "Safe and Effective Importance Sampling", for
      the weights; Greenberg et al. (2023), Alg. 2, for the threshold.
    """
    _check(family, alpha, beta, nu, memory, kernels, decay, min_ess, circular)
    to_tasks, dim = family.from_units, len(family.names)
    assert to_tasks is not None  # checked
    closed = np.isin(np.arange(dim), circular)

    def init(key: PRNGKey) -> MixtureCEMState:
        check_family(family)
        return MixtureCEMState(
            units=jnp.zeros((memory, dim), jnp.float32),
            returns=jnp.zeros(memory, jnp.float32),
            trust=jnp.zeros(memory, jnp.float32),
            centres=jnp.full((kernels, dim), 0.5, jnp.float32),
            width=jnp.full(dim, 0.4, jnp.float32),
            share=jnp.ones((), jnp.float32),
        )

    def sample(key: PRNGKey, state: MixtureCEMState, n: int) -> Draw:
        count_key, plan_key, uniform_key, kernel_key = jax.random.split(key, 4)
        # Rounded up or down at random: on average the draws have the density q.
        spare = jax.random.uniform(count_key, (), jnp.float32)
        count = jnp.floor(state.share * n + spare).astype(jnp.int32)
        anywhere = jax.random.permutation(plan_key, jnp.arange(n, dtype=jnp.int32)) < count
        near = draw_kernels(kernel_key, state.centres, state.width, closed, n)
        uniform = jax.random.uniform(uniform_key, (n, dim), jnp.float32)
        units = jnp.where(anywhere[:, None], uniform, near)
        log_k = kernel_log_density(units, state.centres, state.width, closed)
        weights = jnp.exp(-_log_proposal(log_k, state.share))
        return Draw(to_tasks(units), weights, jnp.full(n, state.share >= 1), {"units": units})

    def update(
        key: PRNGKey, state: MixtureCEMState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[MixtureCEMState, Metrics]:
        returns = check_returns(draw, returns).astype(jnp.float32)
        check_shape(
            "extras['units']", draw.extras.get("units", np.zeros(0)), draw.tasks.shape, "the tasks"
        )
        kernel_key, probe_key = jax.random.split(key)
        units, scores, trust = _remember(state, draw, returns, decay)
        tail, q_alpha, q_beta = _tail(scores, trust, alpha, beta)
        trusted, known = jnp.where(tail, trust, 0), tail.any()
        centres = units[resample(kernel_key, trusted, kernels)]
        width = kernel_width(units, trusted, closed)
        share = _least_share(probe_key, centres, width, closed, nu, min_ess)
        info = {
            "ess": jnp.square(draw.weights.mean()) / jnp.square(draw.weights).mean(),
            "nu": state.share,
            "selected": tail.sum(dtype=jnp.int32),
            "q_alpha": jnp.where(known, q_alpha, UNTOLD),
            "q_beta": jnp.where(known, q_beta, UNTOLD),
        }
        share = jnp.where(known, share, 1)
        return MixtureCEMState(units, scores, trust, centres, width, share), info

    return TaskSampler(init, sample, update, lambda state: jnp.asarray(family.phi0))


def _log_proposal(log_k: Float[Array, " n"], share: Float[Array, ""]) -> Float[Array, " n"]:
    """``log(s + (1 - s) k)``, exactly 0 for s = 1."""
    return jnp.logaddexp(jnp.log(share), jnp.log1p(-share) + log_k)


def _remember(
    state: MixtureCEMState, draw: Draw, returns: Float[Array, " n"], decay: float
) -> tuple[Float[Array, "memory D"], Float[Array, " memory"], Float[Array, " memory"]]:
    """What is remembered of tasks, returns and weights, after one more step."""
    known = jnp.isfinite(returns)
    scores = jnp.where(known, returns, 0)
    trust = jnp.where(known, draw.weights, 0).astype(jnp.float32)
    size = state.trust.size
    return (
        jnp.concatenate([state.units, draw.extras["units"]])[-size:],
        jnp.concatenate([state.returns, scores])[-size:],
        jnp.concatenate([decay * state.trust, trust])[-size:],
    )


def _tail(
    returns: Float[Array, " N"], trust: Float[Array, " N"], alpha: Alpha, beta: float
) -> tuple[Bool[Array, " N"], Float[Array, ""], Float[Array, ""]]:
    """Marks the worst tasks of the memory, up to the larger of two quantiles, and these.

    Ties at the threshold are all of them inside, as in Alg. 2: a kernel density needs no certain
    number of tasks.
    """
    counted, order = trust > 0, jnp.argsort(returns)
    weights = jnp.where(counted.any(), trust, 1)  # quantiles of nothing would be NaN
    plain = (weights > 0).astype(returns.dtype)
    q_alpha = quantile_in_order(returns, order, alpha, weights, population=True)
    q_beta = quantile_in_order(returns, order, beta, plain, population=False)
    return counted & (returns <= jnp.maximum(q_alpha, q_beta)), q_alpha, q_beta


def _least_share(
    key: PRNGKey,
    centres: Float[Array, "M D"],
    width: Float[Array, " D"],
    circular: Bool[np.ndarray, " D"],
    nu: float,
    min_ess: float,
) -> Float[Array, ""]:
    """The least s of at least ``nu`` with which the weights vary no more than they may.

    The effective sample size, as a share of the draws, tends to ``1 / integral(1 / q)``. The
    integral falls as s grows, and is estimated at points of which half are uniform and half of k.
    """
    uniform_key, kernel_key = jax.random.split(key)
    half = _PROBES // 2
    uniform = jax.random.uniform(uniform_key, (half, width.size), jnp.float32)
    near = draw_kernels(kernel_key, centres, width, circular, half)
    log_k = kernel_log_density(jnp.concatenate([uniform, near]), centres, width, circular)
    weights = jax.nn.softmax(-jnp.logaddexp(0.0, log_k))

    def enough(s: Float[Array, ""]) -> Bool[Array, ""]:
        return jnp.sum(weights * jnp.exp(-_log_proposal(log_k, s))) <= 1 / min_ess

    def halve(_: int | Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) / 2
        return jnp.where(enough(middle), low, middle), jnp.where(enough(middle), middle, high)

    least, most = jnp.full((), nu, jnp.float32), jnp.ones((), jnp.float32)
    found = jax.lax.fori_loop(0, _HALVINGS, halve, (least, most))[1]
    return jnp.where(enough(least), least, found)


def _check(
    family: Family,
    alpha: Alpha,
    beta: float,
    nu: float,
    memory: int,
    kernels: int,
    decay: float,
    min_ess: float,
    circular: tuple[int, ...],
) -> None:
    """Raises a ValueError with one line for the first argument that is out of range."""
    check_alpha(alpha)
    check_in("beta", beta, "(0, 1)", "the fraction of the memory that carries kernels")
    check_in("nu", nu, "(0, 1]", "the least share of the original distribution")
    check_in("decay", decay, "(0, 1]", "what is kept of the trust in a task")
    check_in("min_ess", min_ess, "(0, 1]", "an effective share of the draws")
    for name, value in (("memory", memory), ("kernels", kernels)):
        if value < 1:
            raise ValueError(f"{name}={value} must be at least 1.")
    names = ", ".join(family.names)
    if family.from_units is None:
        raise ValueError(f"the family of {names} has no from_units, which kernels need.")
    if not {*circular} <= {*range(len(family.names))}:
        last = len(family.names) - 1
        raise ValueError(f"circular={circular} are coordinates of the cube: each in 0 … {last}.")
