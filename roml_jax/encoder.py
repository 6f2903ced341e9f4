"""The recurrent encoder: from a history of transitions to a belief over the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from roml_jax.checks import check_rows, check_shape
from roml_jax.networks import MLP, Linear, orthogonal


class Belief(NamedTuple):
    """Diagonal Gaussian over the latent task variable."""

    mean: Float[Array, "... L"]
    logvar: Float[Array, "... L"]  # log of the variance, not of the deviation

    def vector(self) -> Float[Array, "... M"]:
        """Mean and log-variance side by side, as the policy sees them (M = 2 L)."""
        return jnp.concatenate([self.mean, self.logvar], axis=-1)


def gru_gates(
    inputs: Float[Array, "... G"], recurrent: Float[Array, "... G"], hidden: Float[Array, "... E"]
) -> Float[Array, "... E"]:
    """New hidden state from the two affine maps of a GRU, G = 3 E (reset, update, new).

    The reset gate scales the recurrent map of the candidate, bias included:
    ``n = tanh(inputs_n + r * recurrent_n)``, ``h' = (1 - z) n + z h``.
    """
    size = hidden.shape[-1]
    gates = jax.nn.sigmoid(inputs[..., : 2 * size] + recurrent[..., : 2 * size])
    reset, update = gates[..., :size], gates[..., size:]
    new = jnp.tanh(inputs[..., 2 * size :] + reset * recurrent[..., 2 * size :])
    return new + update * (hidden - new)


class HistoryEncoder(nn.Module):
    """Embeddings of transitions, and a GRU over them: a hidden state for every history.

    ``step`` and ``hidden_sequence`` compute the same function; the latter does everything
    that does not depend on the hidden state once for all time steps.

    Attributes:
      hidden_size: E, size of the hidden state.
      action_embedding: size of the embedded action.
      obs_embedding: size of the embedded next observation.
      reward_embedding: size of the embedded reward.
      layers_before: ReLU layers between the embeddings and the GRU.

    Reference: Zintgraf et al. (2020), Section 3 and Appendix C.
    """

    hidden_size: int = 128
    action_embedding: int = 16
    obs_embedding: int = 32
    reward_embedding: int = 16
    layers_before: Sequence[int] = ()

    def setup(self) -> None:
        """Creates the layers."""
        self.embed_action = MLP((self.action_embedding,), nn.relu)
        self.embed_obs = MLP((self.obs_embedding,), nn.relu)
        self.embed_reward = MLP((self.reward_embedding,), nn.relu)
        self.before = MLP(self.layers_before, nn.relu)
        # All gates are orthogonalised as one [in, 3 E] matrix, not gate by gate.
        self.input_map = Linear(3 * self.hidden_size, orthogonal())
        self.recurrent_map = Linear(3 * self.hidden_size, orthogonal())

    def inputs(
        self,
        action: Float[Array, "... A"],
        reward: Float[Array, "..."],
        next_obs: Float[Array, "... O"],
    ) -> Float[Array, "... G"]:
        """The GRU's input map of embedded transitions, ``[…, 3 E]``.

        Raises:
          ValueError: while tracing, if the leading axes differ, or a size is not that of the
            parameters.
        """
        check_rows("action", action, reward.shape, "reward")
        check_rows("next_obs", next_obs, reward.shape, "reward")
        embedded = [
            self.embed_action(action),
            self.embed_obs(next_obs),
            self.embed_reward(reward[..., None]),
        ]
        return self.input_map(self.before(jnp.concatenate(embedded, axis=-1)))

    def step(
        self,
        hidden: Float[Array, "B E"],
        action: Float[Array, "B A"],
        reward: Float[Array, " B"],
        next_obs: Float[Array, "B O"],
    ) -> Float[Array, "B E"]:
        """Takes in one transition."""
        inputs = self.inputs(action, reward, next_obs)
        return gru_gates(inputs, self.recurrent_map(hidden), hidden)

    def hidden_sequence(
        self,
        action: Float[Array, "T B A"],
        reward: Float[Array, "T B"],
        next_obs: Float[Array, "T B O"],
        valid: Bool[Array, "T B"],
        truncation: int | None = None,
    ) -> Float[Array, "T1 B E"]:
        """Hidden states after 0, 1, …, T transitions, from zero.

        Args:
          action: ``[T, B, A]`` as the environment received it (an index as a float).
          reward: ``[T, B]`` raw.
          next_obs: ``[T, B, O]``.
          valid: ``[T, B]``; other steps leave the hidden state as it is.
          truncation: no gradient flows back across steps that are a multiple of it.

        Returns:
          ``[T + 1, B, E]``; index 0 is zero.

        Raises:
          ValueError: as ``inputs``, or the history is not ``[T, B]``.
        """
        if reward.ndim != 2:
            raise ValueError(f"reward must be [T, B]; got {list(reward.shape)}")
        check_shape("valid", valid, reward.shape, "reward")
        inputs = self.inputs(action, reward, next_obs)
        kernel, bias = self._recurrent_weights(next_obs.dtype)
        cut = jnp.zeros(inputs.shape[0], bool)
        if truncation is not None:
            steps = jnp.arange(inputs.shape[0])
            cut = (steps % truncation == 0) & (steps > 0)
        hidden = gru_scan(inputs, kernel, bias, valid, cut)
        return jnp.concatenate([jnp.zeros_like(hidden[:1]), hidden])

    def _recurrent_weights(self, dtype: jnp.dtype) -> tuple[Array, Array]:
        if self.is_initializing():
            self.recurrent_map(jnp.zeros((1, self.hidden_size), dtype))
        params = self.recurrent_map.variables["params"]
        return params["kernel"], params["bias"]


class BeliefEncoder(HistoryEncoder):
    """Recurrent encoder ``q(m | history)``: a ``HistoryEncoder`` and two linear heads.

    The prior is the heads' answer to the zero hidden state, so it is learned.

    Attributes:
      latent_size: L.
      layers_after: ReLU layers between the GRU and the heads.

    Reference: Zintgraf et al. (2020), Section 3 and Appendix C.
    """

    latent_size: int = 5
    layers_after: Sequence[int] = ()

    def setup(self) -> None:
        """Creates the layers."""
        super().setup()
        self.after = MLP(self.layers_after, nn.relu)
        # One map for mean and log-variance: their columns are independent draws.
        self.heads = Linear(2 * self.latent_size)

    def belief(self, hidden: Float[Array, "... E"]) -> Belief:
        """Posterior of a hidden state; of zeros: the learned prior."""
        mean, logvar = jnp.split(self.heads(self.after(hidden)), 2, axis=-1)
        return Belief(mean, logvar)

    def sequence(
        self,
        action: Float[Array, "T B A"],
        reward: Float[Array, "T B"],
        next_obs: Float[Array, "T B O"],
        valid: Bool[Array, "T B"],
        truncation: int | None = None,
    ) -> Belief:
        """Posteriors after 0, 1, …, T transitions: ``Belief`` of ``[T + 1, B, L]``.

        Arguments as for ``hidden_sequence``; index 0 is the prior.
        """
        return self.belief(self.hidden_sequence(action, reward, next_obs, valid, truncation))

    def __call__(
        self,
        action: Float[Array, "T B A"],
        reward: Float[Array, "T B"],
        next_obs: Float[Array, "T B O"],
        valid: Bool[Array, "T B"],
    ) -> Belief:
        """``sequence`` without truncation; initialises every layer."""
        return self.sequence(action, reward, next_obs, valid)


class RecurrentEncoder(HistoryEncoder):
    """A ``HistoryEncoder`` whose memory is read through a linear layer and a tanh.

    Attributes:
      latent_size: M, of what is read.

    Reference: Duan et al. (2016); sizes and tanh as in the recurrent baseline of Zintgraf
      et al. (2020).
    """

    latent_size: int = 128

    def setup(self) -> None:
        """Creates the layers."""
        super().setup()
        self.head = Linear(self.latent_size)

    def read(self, hidden: Float[Array, "... E"]) -> Float[Array, "... M"]:
        """What the policy sees of a hidden state."""
        return jnp.tanh(self.head(hidden))

    def __call__(
        self,
        action: Float[Array, "T B A"],
        reward: Float[Array, "T B"],
        next_obs: Float[Array, "T B O"],
        valid: Bool[Array, "T B"],
    ) -> Float[Array, "T1 B M"]:
        """What is read after 0, 1, …, T transitions, as in ``hidden_sequence``."""
        return self.read(self.hidden_sequence(action, reward, next_obs, valid))


@jax.custom_vjp
def gru_scan(
    inputs: Float[Array, "T B G"],
    kernel: Float[Array, "E G"],
    bias: Float[Array, " G"],
    valid: Bool[Array, "T B"],
    cut: Bool[Array, " T"],
) -> Float[Array, "T B E"]:
    """Hidden states of a GRU after each step, from zero, with a fast derivative.

    Differentiating a scan adds the kernel's gradient up step by step, which moves the
    whole kernel through memory T times. Here the backward scan only yields the
    gradient of each step's recurrent map; the kernel's is one product at the end.

    Args:
      inputs: ``[T, B, 3 E]`` input maps.
      kernel: ``[E, 3 E]`` recurrent kernel.
      bias: ``[3 E]`` recurrent bias.
      valid: ``[T, B]``; other steps keep the hidden state.
      cut: ``[T]``; no gradient flows from step t back to step t - 1 where True.
    """
    return _gru_forward(inputs, kernel, bias, valid, cut)[0]


def _gru_step(hidden: Array, inputs: Array, recurrent: Array, valid: Array) -> Array:
    return jnp.where(valid[:, None], gru_gates(inputs, recurrent, hidden), hidden)


def _gru_forward(
    inputs: Array, kernel: Array, bias: Array, valid: Array, cut: Array
) -> tuple[Array, tuple[Array, ...]]:
    def step(hidden: Array, xs: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        inputs_t, valid_t = xs
        recurrent = hidden @ kernel + bias[None, :]
        hidden = _gru_step(hidden, inputs_t, recurrent, valid_t)
        return hidden, (hidden, recurrent)

    start = jnp.zeros((inputs.shape[1], kernel.shape[0]), inputs.dtype)
    _, (hidden, recurrent) = jax.lax.scan(step, start, (inputs, valid))
    return hidden, (inputs, kernel, valid, cut, hidden, recurrent)


def _gru_backward(
    residuals: tuple[Array, ...], grads: Array
) -> tuple[Array, Array, Array, None, None]:
    inputs, kernel, valid, cut, hidden, recurrent = residuals
    before = jnp.concatenate([jnp.zeros_like(hidden[:1]), hidden[:-1]])

    def step(grad_hidden: Array, xs: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        grad_t, hidden_tm1, inputs_t, recurrent_t, valid_t, cut_t = xs
        _, pullback = jax.vjp(
            lambda h, i, r: _gru_step(h, i, r, valid_t), hidden_tm1, inputs_t, recurrent_t
        )
        grad_direct, grad_inputs, grad_recurrent = pullback(grad_hidden + grad_t)
        grad_tm1 = grad_direct + grad_recurrent @ kernel.T
        return jnp.where(cut_t, 0.0, grad_tm1), (grad_inputs, grad_recurrent)

    _, (grad_inputs, grad_recurrent) = jax.lax.scan(
        step,
        jnp.zeros_like(grads[0]),
        (grads, before, inputs, recurrent, valid, cut),
        reverse=True,
    )
    grad_kernel = jnp.einsum("tbe,tbg->eg", before, grad_recurrent)
    return grad_inputs, grad_kernel, jnp.sum(grad_recurrent, axis=(0, 1)), None, None


gru_scan.defvjp(_gru_forward, _gru_backward)
