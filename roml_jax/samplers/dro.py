"""Group distributionally robust optimisation: exponentiated weights of cells of the unit cube."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real

from roml_jax.checks import check_in, check_shape
from roml_jax.risk import check_alpha
from roml_jax.samplers._kernels import resample
from roml_jax.samplers._mixture import check_family, check_returns
from roml_jax.types import UNTOLD, Alpha, Draw, Family, Metrics, PRNGKey, TaskSampler

_RATE = 0.2  # of the running mean of a cell's losses
_LEAST = 1e-30  # of a weight: from 0 no product leads back
_MOST_DIMS = 3  # that are cut into cells unasked


class DROState(NamedTuple):
    """The weights of the cells, and what their losses were."""

    q: Float[Array, " cells"]  # float32, sums to 1
    loss: Float[Array, " cells"]  # float32, running mean, 0 where there was none
    visits: Int[Array, " cells"]  # int32, draws that told a loss


def dro(
    family: Family,
    *,
    alpha: Alpha,
    eta: float = 0.2,
    nu: float = 0.2,
    bins: int = 64,
    decay: float = 0.02,
    dims: tuple[int, ...] = (),
) -> TaskSampler:
    """A sampler that plays exponentiated gradient ascent against the learner, over cells of tasks.

    The family's unit cube, where ``D_phi0`` is uniform, is cut into B equal cells. A share ``nu``
    of the draws is uniform, each other one first takes a cell by its weight ``q_b``, then any place
    in it. Draws have the weights ``1 / (nu + (1 - nu) B q_b)``, whichever part they come from: at
    most ``1 / nu``, and 1 on average. A step ends with

    * ``q_b <- q_b exp(eta g_b / s)``, where ``g_b`` is the cell's loss, the negative return, and s
      the deviation of the losses between cells, so that ``eta`` does not depend on their unit;
    * the projection of q on ``q_b <= 1 / (alpha B)``, by relative entropy;
    * ``q_b <- (1 - decay) q_b + decay / B``, since the learner moves on.

    The CVaR of the cells' mean losses is ``max_q sum_b q_b g_b`` over the distributions within the
    bound, its dual form, so that for a learner who does not change q gathers on the worst ``alpha``
    of the cells, each at its bound. Without the bound it is group DRO, and ends in the worst cell.

    Cells that were not drawn have a loss as well: as in Exp3 each loss that was told is divided by
    the probability of its cell, which makes ``g`` unbiased for all of them. To vary less, only what
    a loss differs by from the running mean of its cell is divided; that mean is added.

    Args:
      family: the task distribution; must have ``from_units``.
      alpha: fraction of worst tasks that is aimed at, in (0, 1]; less than one cell is one cell, 1
        draws from ``D_phi0``.
      eta: positive, the size of a step; no weight changes by more than a factor e in one.
      nu: in (0, 1], share of the draws that are uniform.
      bins: most cells; there are the same number, at least 2, along each coordinate.
      decay: in [0, 1], share of each q that is even again after a step.
      dims: coordinates of the cube that are cut, from 0; () for all of them, of 3 at most.

    Returns:
      A ``TaskSampler``; ``extras`` of a draw hold "dro_cell". No draw counts as a reference draw.
      ``phi`` stays where it is. Returns that are not finite take no part. Info holds "ess", the
      effective sample size of the step's weights as a share of its tasks, and "cell_return", the
      mean by q of what is known of the cells' returns, ``UNTOLD`` if that is nothing.

    Raises:
      ValueError: an argument is out of range, the family has no ``from_units``, or more coordinates
        than can be cut; while tracing, a draw is not of this sampler.

    Reference:
      Sagawa et al. (2020), "Distributionally Robust Neural Networks for Group Shifts", Alg. 1; Auer
      et al. (2002), "The Nonstochastic Multiarmed Bandit Problem", for losses by probability;
      Herbster and Warmuth (2001), "Tracking the Best Linear Predictor", for the projection;
      Herbster and Warmuth (1998), "Tracking the Best Expert", for the decay; Rockafellar and
      Uryasev (2002), for the dual form.
    """
    _check(family, alpha, eta, nu, decay)
    to_tasks, cut, side = family.from_units, *_cut(family, bins, dims)
    assert to_tasks is not None  # checked
    dim, cells = len(family.names), side ** len(cut)

    def init(key: PRNGKey) -> DROState:
        check_family(family)
        zeros = jnp.zeros(cells, jnp.float32)
        return DROState(zeros + 1 / cells, zeros, jnp.zeros(cells, jnp.int32))

    def sample(key: PRNGKey, state: DROState, n: int) -> Draw:
        count_key, plan_key, cell_key, place_key, unit_key = jax.random.split(key, 5)
        spare = jax.random.uniform(count_key, (), jnp.float32)
        uniform = jax.random.permutation(plan_key, jnp.arange(n, dtype=jnp.int32)) < jnp.floor(
            nu * n + spare
        ).astype(jnp.int32)  # rounded up or down at random: on average the share is nu
        aimed = jax.random.permutation(place_key, resample(cell_key, state.q, n))
        units = jax.random.uniform(unit_key, (n, dim), jnp.float32)
        corner = jnp.stack(jnp.unravel_index(aimed, (side,) * len(cut)), axis=1)
        inside = jnp.minimum((corner.astype(jnp.float32) + units[:, cut]) / side, 1)
        units = jnp.where(uniform[:, None], units, units.at[:, cut].set(inside))
        at = jnp.clip((units[:, cut] * side).astype(jnp.int32), 0, side - 1)
        scale = side ** np.arange(len(cut) - 1, -1, -1, dtype=np.int32)
        found = jnp.sum(at * scale[None], axis=1, dtype=jnp.int32)
        cell = jnp.where(uniform, found, aimed.astype(jnp.int32))
        weights = 1 / (nu + (1 - nu) * cells * state.q[cell])
        return Draw(to_tasks(units), weights, jnp.zeros(n, bool), {"dro_cell": cell})

    def update(
        key: PRNGKey, state: DROState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[DROState, Metrics]:
        losses = -check_returns(draw, returns).astype(jnp.float32)
        cell = jnp.asarray(draw.extras.get("dro_cell", np.zeros(0, np.int32)))
        check_shape("extras['dro_cell']", cell, losses.shape, "the tasks")
        told = jnp.isfinite(losses)
        losses = jnp.where(told, losses, 0)
        gain = estimate(state, nu, cell, losses, told)
        loss, visits = _noted(state, cell, losses, told)
        some, table = (visits > 0).any(), _filled(loss, visits)
        spread = jnp.sqrt(jnp.mean(jnp.square(table - table.mean())))
        step = eta * (gain - gain.mean()) / jnp.where(spread > 0, spread, 1)
        step = jnp.where(spread > 0, jnp.clip(step, -1, 1), 0)
        raised = state.q * jnp.exp(step)
        q = project(raised / raised.sum(), alpha)
        q = jnp.maximum((1 - decay) * q + decay / cells, _LEAST)
        info = {
            "ess": jnp.square(draw.weights.mean()) / jnp.square(draw.weights).mean(),
            "cell_return": jnp.where(some, -jnp.sum(q * table), UNTOLD),
        }
        return DROState(q / q.sum(), loss, visits), info

    return TaskSampler(init, sample, update, lambda state: jnp.asarray(family.phi0))


def project(q: Float[Array, " B"], alpha: Alpha) -> Float[Array, " B"]:
    """The distribution nearest to q, by relative entropy, with no weight above ``1 / (alpha B)``.

    It is ``min(bound, c q)``: the largest weights are at the bound, and the others keep their
    proportions. How many these are is the least number that leaves no other above.

    Args:
      q: ``[B]``, positive, of sum 1.
      alpha: in (0, 1].

    Returns:
      ``[B]``, of sum 1; ``1 / B`` throughout for ``alpha`` 1.

    Reference:
      Herbster and Warmuth (2001), "Tracking the Best Linear Predictor", Sect. 5.
    """
    n = q.size
    bound = 1 / (jnp.asarray(alpha, q.dtype) * n)
    x = jnp.sort(q)[::-1]
    rest = jnp.cumsum(x[::-1])[::-1]  # of those that are not at the bound, if the ones before are
    factor = jnp.maximum(1 - jnp.arange(n, dtype=q.dtype) * bound, 0) / jnp.maximum(rest, _LEAST)
    fits = factor * x <= bound * (1 + 1e-6)
    least = jnp.where(fits.any(), jnp.argmax(fits), n - 1)
    capped = jnp.minimum(factor[least] * q, bound)
    at_bound = q > x[least]
    capped = jnp.where(at_bound | ~fits.any(), bound, capped)
    return capped / capped.sum()


def estimate(
    state: DROState,
    nu: float,
    cell: Int[Array, " n"],
    losses: Float[Array, " n"],
    told: Bool[Array, " n"],
) -> Float[Array, " B"]:
    """Losses of all cells, unbiased if those of a step are independent of their running means."""
    count = jnp.maximum(told.sum(dtype=jnp.int32), 1).astype(losses.dtype)
    chance = nu / state.q.size + (1 - nu) * state.q
    first = jnp.where(told, losses, 0).sum() / count  # for the very first step
    table = jnp.where((state.visits > 0).any(), _filled(state.loss, state.visits), first)
    differ = jnp.where(told, (losses - table[cell]) / chance[cell] / count, 0)
    return table.at[cell].add(differ)


def _filled(loss: Float[Array, " B"], visits: Int[Array, " B"]) -> Float[Array, " B"]:
    """The losses of cells, their mean where none was told; zeros if none was anywhere."""
    known = visits > 0
    count = jnp.maximum(known.sum(dtype=jnp.int32), 1).astype(loss.dtype)
    return jnp.where(known, loss, jnp.where(known, loss, 0).sum() / count)


def _noted(
    state: DROState, cell: Int[Array, " n"], losses: Float[Array, " n"], told: Bool[Array, " n"]
) -> tuple[Float[Array, " B"], Int[Array, " B"]]:
    """Running means and numbers of losses, after those of a step."""
    count = jnp.zeros_like(state.visits).at[cell].add(told.astype(jnp.int32))
    total = jnp.zeros_like(state.loss).at[cell].add(losses)
    visits = state.visits + count
    mean = total / jnp.maximum(count, 1).astype(total.dtype)
    pace = jnp.maximum(count.astype(mean.dtype) / jnp.maximum(visits, 1).astype(mean.dtype), _RATE)
    return jnp.where(count > 0, state.loss + pace * (mean - state.loss), state.loss), visits


def _cut(family: Family, bins: int, dims: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The coordinates that are cut, and into how many parts each.

    Raises:
      ValueError: there are too many, or they are none of the family's.
    """
    dim = len(family.names)
    if not dims and dim > _MOST_DIMS:
        raise ValueError(f"{dim} coordinates are too many to cut: name at most a few as dims.")
    if len({*dims}) < len(dims) or not {*dims} <= {*range(dim)}:
        raise ValueError(
            f"dims={dims} are coordinates of the cube: different ones in 0 … {dim - 1}"
        )
    cut = np.asarray(dims or range(dim), np.int32)
    side = 1
    while (side + 1) ** cut.size <= bins:
        side += 1
    if side < 2:
        raise ValueError(f"bins={bins} is less than two parts of each of {cut.size} coordinates.")
    return cut, side


def _check(family: Family, alpha: Alpha, eta: float, nu: float, decay: float) -> None:
    """Raises a ValueError with one line for the first argument that is out of range."""
    check_alpha(alpha)
    check_in("eta", eta, "(0, inf)", "the size of a step")
    check_in("nu", nu, "(0, 1]", "the share of uniform draws")
    check_in("decay", decay, "[0, 1]", "the share of the weights that is even again")
    if family.from_units is None:
        names = ", ".join(family.names)
        raise ValueError(f"the family of {names} has no from_units, which cells need.")
