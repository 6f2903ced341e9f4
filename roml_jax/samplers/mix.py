"""Two samplers side by side: some draws of a step from one, the rest from the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Real

from roml_jax.checks import check_in
from roml_jax.samplers._mixture import check_returns, whole
from roml_jax.types import Draw, Extras, Metrics, PRNGKey, TaskSampler

_PLACE = "mix_place"  # where a row of the draw comes from, in the order of the two draws


class MixState(NamedTuple):
    """The states of both samplers."""

    sampler: Any
    reference: Any


def mix(sampler: TaskSampler, reference: TaskSampler, nu: float) -> TaskSampler:
    """A sampler that takes ``floor(nu * n)`` of n draws from ``reference``, the rest of its own.

    Positions are random. Every draw has the weight that its own sampler gives it: if both are right
    on average, ``E[w f(z)] = E[f(z)]`` under ``D_phi0``, so is their mean over the step. With
    ``fixed(family)`` as the reference this is the ``nu`` of ``samplers.cem``, for any sampler.

    Args:
      sampler: of most draws; it gives ``phi``.
      reference: of the others, for the same tasks.
      nu: in (0, 1), the fraction of ``reference``.

    Returns:
      A ``TaskSampler``. Each of both is updated with its own draws alone, of sizes that do not
      change from step to step: ``cem`` with a batch needs ``n - floor(nu * n)`` to divide it.
      ``extras`` of a draw hold those of both, zeros where a draw's sampler has none, and
      "mix_place"; what the learner adds goes to both. Info is that of ``sampler``, and of
      ``reference`` with ``other_`` before the names.

    Raises:
      ValueError: ``nu`` is out of range; while tracing, one of both would draw nothing, or they
        remember different things by one name.

    Reference:
      Greenberg et al. (2023), Alg. 2 lines 5-6, for the share of the original distribution.
    """
    check_in("nu", nu, "(0, 1)", "the fraction of draws from the reference")

    def init(key: PRNGKey) -> MixState:
        own_key, other_key = jax.random.split(key)
        return MixState(sampler.init(own_key), reference.init(other_key))

    def sample(key: PRNGKey, state: MixState, n: int) -> Draw:
        others = _others(n, nu)
        own_key, other_key, place_key = jax.random.split(key, 3)
        own = sampler.sample(own_key, state.sampler, n - others)
        other = reference.sample(other_key, state.reference, others)
        place = jax.random.permutation(place_key, jnp.arange(n, dtype=jnp.int32))
        own, other = _alike(own, other), _alike(other, own)
        draw = jax.tree.map(lambda a, b: jnp.concatenate([a, b])[place], own, other)
        return draw._replace(extras=draw.extras | {_PLACE: place})

    def update(
        key: PRNGKey, state: MixState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[MixState, Metrics]:
        returns, place = check_returns(draw, returns), draw.extras.get(_PLACE)
        if place is None:
            raise ValueError(f"the draw is not of this sampler: its extras have no {_PLACE!r}.")
        own_key, other_key = jax.random.split(key)
        (own, own_returns), (other, other_returns) = _apart(draw, returns, place, nu)
        first, info = sampler.update(own_key, state.sampler, own, own_returns)
        second, more = reference.update(other_key, state.reference, other, other_returns)
        info = info | {f"other_{name}": value for name, value in more.items()}
        return MixState(first, second), info

    return TaskSampler(init, sample, update, lambda state: sampler.phi(state.sampler))


def _apart(
    draw: Draw, returns: Real[Array, " n"], place: Int[Array, " n"], nu: float
) -> tuple[tuple[Draw, Array], tuple[Draw, Array]]:
    """Draws and returns of either sampler, in the order in which they were drawn."""
    rest = {name: x for name, x in draw.extras.items() if name != _PLACE}
    order = jnp.argsort(place)
    inside = jax.tree.map(lambda x: x[order], (draw._replace(extras=rest), returns))
    size = returns.size - _others(returns.size, nu)
    return jax.tree.map(lambda x: x[:size], inside), jax.tree.map(lambda x: x[size:], inside)


def _alike(draw: Draw, model: Draw) -> Draw:
    """A draw with all the extras of another, zeros where it has none of its own.

    Raises:
      ValueError: one name is of arrays of different shapes or dtypes, or of another ``mix``.
    """
    extras: Extras = dict(draw.extras)
    for name, x in model.extras.items():
        row = x.shape[1:], x.dtype
        mine = extras.setdefault(name, jnp.zeros((draw.weights.size, *row[0]), row[1]))
        if (mine.shape[1:], mine.dtype) != row or name == _PLACE:
            raise ValueError(
                f"both samplers remember {name!r}, as {mine.dtype}{list(mine.shape[1:])} and as "
                f"{x.dtype}{list(row[0])} a task: they cannot be mixed."
            )
    return draw._replace(extras=extras)


def _others(n: int, nu: float) -> int:
    """Draws of the reference; raises a ValueError unless either sampler has some."""
    others = whole(nu * n)
    if not 0 < others < n:
        raise ValueError(f"nu={nu} of n={n} tasks leaves {others} and {n - others}: choose more.")
    return others
