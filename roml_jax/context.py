"""What transitions in no order say of a task: a product of Gaussians, one for each of them.

Reference: Rakelly et al. (2019), "Efficient Off-Policy Meta-Reinforcement Learning via
Probabilistic Context Variables" (PEARL), Section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from roml_jax.checks import as_real, check_rows, check_shape
from roml_jax.networks import MLP, Linear

MIN_VAR = 1e-7  # of the Gaussian of one transition


class Evidence(NamedTuple):
    """A product of Gaussians over the latent, by its natural parameters: those of factors add up.

    Zeros stand for no factor at all.
    """

    precision: Float[Array, "... L"]  # sum of 1 / var
    shift: Float[Array, "... L"]  # sum of mean / var


def no_evidence(shape: tuple[int, ...]) -> Evidence:
    """Evidence of no transition, in float32."""
    return Evidence(jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))


def gather_evidence(
    mean: Real[Array, "*batch N L"],
    var: Real[Array, "*batch N L"],
    counted: Bool[Array, "*batch N"],
) -> Evidence:
    """The product of N Gaussians, in whatever order.

    Args:
      mean: ``[…, N, L]``, of each factor.
      var: ``[…, N, L]``, of each factor; below ``MIN_VAR`` it counts as that.
      counted: ``[…, N]``, False where there is no factor, whatever stands there.

    Returns:
      ``Evidence`` of ``[…, L]``, in float32 at least.

    Raises:
      ValueError: while tracing, if shapes differ.

    Reference: Rakelly et al. (2019), Section 4.1.
    """
    mean, var = as_real("mean", mean), as_real("var", var)
    check_shape("var", var, mean.shape, "mean")
    check_rows("mean", mean, jnp.shape(counted), "counted")
    precision = 1 / jnp.maximum(var, MIN_VAR)
    live = counted[..., None]
    return Evidence(
        jnp.where(live, precision, 0).sum(axis=-2),
        jnp.where(live, mean * precision, 0).sum(axis=-2),
    )


def posterior(evidence: Evidence) -> tuple[Float[Array, "... L"], Float[Array, "... L"]]:
    """Mean and variance of a product of Gaussians; without any factor those of the prior, 0 and 1.

    The prior is no factor of the product, as in the original code: the loss draws the posterior
    towards it.
    """
    known = evidence.precision > 0
    precision = jnp.where(known, evidence.precision, 1)
    return jnp.where(known, evidence.shift / precision, 0), 1 / precision


def kl_to_prior(mean: Float[Array, "... L"], var: Float[Array, "... L"]) -> Float[Array, "..."]:
    """Kullback-Leibler divergence to the standard normal, summed over the L components."""
    return 0.5 * (var + jnp.square(mean) - 1 - jnp.log(var)).sum(axis=-1)


class ContextEncoder(nn.Module):
    """One transition to the mean and the variance of its Gaussian over the latent.

    Attributes:
      layers: sizes of the hidden layers.
      latent_size: L.
    """

    layers: tuple[int, ...]
    latent_size: int

    @nn.compact
    def __call__(
        self, transition: Float[Array, "... F"]
    ) -> tuple[Float[Array, "... L"], Float[Array, "... L"]]:
        """Maps ``[…, F]``, observation, action, reward and what else there is, to ``[…, L]``."""
        hidden = MLP(self.layers, nn.relu)(transition)
        mean, raw = jnp.split(Linear(2 * self.latent_size)(hidden), 2, axis=-1)
        return mean, jnp.maximum(jax.nn.softplus(raw), MIN_VAR)
