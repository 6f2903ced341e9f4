"""Decoders: what a latent task variable says of rewards, observations and the task."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.checks import check_rows
from roml_jax.networks import MLP, Linear, uniform_fan_in


class TransitionDecoder(nn.Module):
    """Predicts reward, or next observation, from a latent sample and a transition.

    The first layer is linear in the concatenation (latent, next observation, action,
    observation), so ``of_latents`` and ``of_steps`` compute its two parts apart and
    ``combine`` adds them: T steps and E latents cost T + E first layers for T * E pairs.

    Attributes:
      outputs: size of the prediction.
      layers: sizes of the ReLU layers.
      action_embedding: size of the embedded action.
      obs_embedding: size of the embedded observation, one layer for both of them.
      use_next_obs: the next observation is an input (reward decoder).

    Reference: Zintgraf et al. (2020), Section 3; the split is ours.
    """

    outputs: int = 1
    layers: Sequence[int] = (64, 32)
    action_embedding: int = 16
    obs_embedding: int = 32
    use_next_obs: bool = True
    latent_size: int = 5

    def setup(self) -> None:
        """Creates the layers."""
        self.embed_obs = MLP((self.obs_embedding,), nn.relu)
        self.embed_action = MLP((self.action_embedding,), nn.relu)
        step_size = (1 + self.use_next_obs) * self.obs_embedding + self.action_embedding
        fan_in = self.latent_size + step_size
        first, init = self.layers[0], uniform_fan_in(fan_in)
        self.latent_kernel = self.param("latent_kernel", init, (self.latent_size, first))
        self.step_kernel = self.param("step_kernel", init, (step_size, first))
        self.first_bias = self.param("first_bias", init, (first,))
        self.rest = MLP(self.layers[1:], nn.relu)
        self.head = Linear(self.outputs)

    def of_latents(self, latent: Float[Array, "... L"]) -> Float[Array, "... F"]:
        """The latent's part of the first layer."""
        return latent @ self.latent_kernel

    def of_steps(
        self,
        obs: Float[Array, "... O"],
        action: Float[Array, "... A"],
        next_obs: Float[Array, "... O"],
    ) -> Float[Array, "... F"]:
        """The transition's part of the first layer, bias included.

        Raises:
          ValueError: while tracing, if the leading axes differ.
        """
        check_rows("action", action, obs.shape[:-1], "obs")
        check_rows("next_obs", next_obs, obs.shape[:-1], "obs")
        parts = [self.embed_obs(next_obs)] if self.use_next_obs else []
        parts += [self.embed_action(action), self.embed_obs(obs)]
        steps = jnp.concatenate(parts, axis=-1) @ self.step_kernel
        return steps + self.first_bias.reshape((1,) * (steps.ndim - 1) + (-1,))

    def combine(
        self, latents: Float[Array, "... F"], steps: Float[Array, "... F"]
    ) -> Float[Array, "... outputs"]:
        """Predictions for pairs whose first-layer parts broadcast against each other."""
        return self.head(self.rest(nn.relu(latents + steps)))

    def __call__(
        self,
        latent: Float[Array, "... L"],
        obs: Float[Array, "... O"],
        action: Float[Array, "... A"],
        next_obs: Float[Array, "... O"],
    ) -> Float[Array, "... outputs"]:
        """Predictions for latents and transitions of equal leading axes.

        Raises:
          ValueError: while tracing, if these differ.
        """
        check_rows("latent", latent, obs.shape[:-1], "obs")
        return self.combine(self.of_latents(latent), self.of_steps(obs, action, next_obs))


class TaskDecoder(nn.Module):
    """Predicts the task itself from a latent sample."""

    outputs: int
    layers: Sequence[int] = (64, 32)

    @nn.compact
    def __call__(self, latent: Float[Array, "... L"]) -> Float[Array, "... outputs"]:
        """Maps ``[…, L]`` to ``[…, outputs]``."""
        return Linear(self.outputs)(MLP(self.layers, nn.relu)(latent))
