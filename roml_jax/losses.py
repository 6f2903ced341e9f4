"""Losses of PPO, as functions of arrays."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Real

from roml_jax.checks import as_vector, check_shape


def weighted_mean(x: Real[Array, " N"], weight: Real[Array, " N"]) -> Float[Array, ""]:
    """Mean by non-negative weights, of whatever size; 0 when all weights are.

    Raises:
      ValueError: while tracing, if they are not as many.
    """
    x, weight = _vectors(x=x, weight=weight)
    total = jnp.sum(weight)
    return jnp.sum(x * weight) / jnp.where(total > 0, total, 1.0)


def normalize_advantages(
    advantages: Float[Array, " N"], weight: Float[Array, " N"]
) -> Float[Array, " N"]:
    """``(A - mean) / (std + 1e-5)`` over the weighted samples, unbiased deviation.

    The size of the weights does not matter: the deviation divides by
    ``sum(w) - sum(w²) / sum(w)``, which is ``n - 1`` for n weights of 1. A single sample is 0.

    Raises:
      ValueError: while tracing, if there are not as many weights.
    """
    advantages, weight = _vectors(advantages=advantages, weight=weight)
    mean = weighted_mean(advantages, weight)
    squares = jnp.sum(weight * jnp.square(advantages - mean))
    freedom = jnp.sum(weight) - weighted_mean(weight, weight)
    std = jnp.sqrt(squares / jnp.where(freedom > 0, freedom, 1.0))
    return (advantages - mean) / (std + 1e-5)


def policy_loss(
    log_probs: Float[Array, " N"],
    old_log_probs: Float[Array, " N"],
    advantages: Float[Array, " N"],
    weight: Float[Array, " N"],
    clip: float,
) -> Float[Array, ""]:
    """Clipped surrogate, negated: ``-mean(min(rho A, clip(rho, 1 ± clip) A))``.

    Raises:
      ValueError: while tracing, if the parts are not of one length.

    Reference: Schulman et al. (2017), Eq. (7).
    """
    log_probs, old_log_probs, advantages, weight = _vectors(
        log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages, weight=weight
    )
    # A weight of zero does not undo an overflow of the ratio.
    change = jnp.where(weight > 0, log_probs - old_log_probs, 0.0)
    ratio = jnp.exp(change)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return -weighted_mean(jnp.minimum(ratio * advantages, clipped * advantages), weight)


def value_loss(
    values: Float[Array, " N"],
    old_values: Float[Array, " N"],
    targets: Float[Array, " N"],
    weight: Float[Array, " N"],
    *,
    clip: float | None,
    huber: bool,
) -> Float[Array, ""]:
    """Half the mean error of the value, pessimistic about changes beyond ``clip``.

    Args:
      values: ``[N]`` new values.
      old_values: ``[N]`` values during the rollout.
      targets: ``[N]``.
      weight: ``[N]``, non-negative.
      clip: bound on the change from ``old_values``; None for the plain error.
      huber: Huber error of threshold 1 (``d^2 / 2`` inside), else ``d^2``.

    Raises:
      ValueError: while tracing, if the parts are not of one length.
    """
    values, old_values, targets, weight = _vectors(
        values=values, old_values=old_values, targets=targets, weight=weight
    )

    def error(d: Array) -> Array:
        return optax.losses.huber_loss(d, delta=1.0) if huber else jnp.square(d)

    losses = error(values - targets)
    if clip is not None:
        clipped = old_values + jnp.clip(values - old_values, -clip, clip)
        losses = jnp.maximum(losses, error(clipped - targets))
    return 0.5 * weighted_mean(losses, weight)


def _vectors(**parts: Any) -> list[Array]:
    """All parts as vectors of floats.

    Raises:
      ValueError: while tracing, if they are not of one length.
    """
    vectors = [as_vector(name, part) for name, part in parts.items()]
    for name, vector in zip(parts, vectors, strict=True):
        check_shape(name, vector, vectors[0].shape, next(iter(parts)))
    return vectors
