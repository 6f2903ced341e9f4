"""The distributions of distrax that are used here.

Importing distrax takes as long as importing all the rest, so that is left to the first use.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
from jaxtyping import Array, Key


@functools.cache
def _distrax() -> Any:
    with jax.ensure_compile_time_eval():  # constants that it makes are none of a trace's
        import distrax
    return distrax


def beta(alpha: Array, beta: Array) -> Any:
    """``distrax.Beta``."""
    return _distrax().Beta(alpha, beta)


def normal(mean: Array, std: Array) -> Any:
    """``distrax.Normal``."""
    return _distrax().Normal(mean, std)


def diagonal_normal(mean: Array, std: Array) -> Any:
    """``distrax.MultivariateNormalDiag``."""
    return _distrax().MultivariateNormalDiag(mean, std)


def sample_tanh_normal(key: Key[Array, ""], mean: Array, std: Array) -> tuple[Array, Array]:
    """A sample of the tanh of a diagonal normal, and its log-density, ``[…, A]`` and ``[…]``.

    The density is taken at the value before the tanh, so that it holds where the action rounds
    to 1.
    """
    normal = diagonal_normal(mean, std)
    value = normal.sample(seed=key)
    action, log_det = _distrax().Tanh().forward_and_log_det(value)
    return action, normal.log_prob(value) - log_det.sum(axis=-1)


def categorical(*, logits: Any = None, probs: Any = None) -> Any:
    """``distrax.Categorical``."""
    return _distrax().Categorical(logits=logits, probs=probs)
