"""Flax modules: the actor-critic, the recurrent belief encoder and the decoders.

Weights start as in the original experiments, which used the defaults of another
framework; ``Linear`` and ``GRU`` carry these, so that presets mean the same here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Initializer: TypeAlias = jax.nn.initializers.Initializer
Activation: TypeAlias = Literal["tanh", "relu", "elu", "gelu", "silu"]
Initialization: TypeAlias = Literal["normc", "orthogonal", "uniform"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "relu": nn.relu,
    "elu": nn.elu,
    "gelu": nn.gelu,
    "silu": nn.silu,
}
TANH_GAIN = 5.0 / 3.0


def uniform_fan_in(fan_in: int) -> Any:
    """``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    bound = fan_in**-0.5

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **_: object) -> Array:
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)

    return init


def normc(gain: float = 1.0) -> Any:
    """Standard normal entries, then every output unit's weights scaled to norm ``gain``."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **_: object) -> Array:
        kernel = jax.random.normal(key, tuple(shape), dtype)
        return gain * kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)

    return init


def hidden_init(name: Initialization) -> Initializer | None:
    """Initialiser of hidden layers with the tanh gain of 5/3; None for ``uniform``."""
    table: dict[str, Initializer | None] = {
        "normc": normc(TANH_GAIN),
        "orthogonal": nn.initializers.orthogonal(TANH_GAIN),
        "uniform": None,
    }
    if name not in table:
        raise ValueError(f"initialization is one of {', '.join(table)}; got {name!r}")
    return table[name]


class Linear(nn.Module):
    """``x W + b``; weights and bias uniform in ``±1/sqrt(fan_in)`` unless told otherwise.

    Attributes:
      features: size of the output.
      kernel_init: initialiser of the ``[in, out]`` kernel; given one, the bias is zero.
    """

    features: int
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Maps ``[…, in]`` to ``[…, features]``."""
        default = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", self.kernel_init or default, (x.shape[-1], self.features))
        bias_init = nn.initializers.zeros if self.kernel_init else default
        bias = self.param("bias", bias_init, (self.features,))
        return x @ kernel + bias.reshape((1,) * (x.ndim - 1) + bias.shape)


class MLP(nn.Module):
    """Linear layers, each followed by the activation."""

    features: Sequence[int]
    activation: Callable[[Array], Array]
    kernel_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Maps ``[…, in]`` to ``[…, features[-1]]``."""
        for size in self.features:
            x = self.activation(Linear(size, self.kernel_init)(x))
        return x


class PolicyOutput(NamedTuple):
    """Parameters of the action distribution: logits, or mean and std."""

    location: Float[Array, "... A"]  # logits of a categorical, mean of a Gaussian
    std: Float[Array, "... A"] | None  # None for a categorical


class ActorCritic(nn.Module):
    """Policy and value from a normalised observation and a normalised belief.

    The two embeddings are shared by actor and critic, whose hidden stacks are separate.

    Attributes:
      num_actions: logits of a categorical, or components of a Gaussian.
      discrete: categorical instead of Gaussian.
      layers: sizes of both hidden stacks.
      activation: of embeddings and hidden layers.
      initialization: of the hidden layers; heads and embeddings have their own.
      obs_embedding: size of the observation's embedding; None feeds it raw.
      latent_embedding: size of the belief's embedding; None feeds it raw.
      init_std: initial standard deviation of a Gaussian policy.

    Reference: Zintgraf et al. (2020), Appendix C, and the original experiments' code.
    """

    num_actions: int
    discrete: bool
    layers: Sequence[int] = (64, 64)
    activation: Activation = "tanh"
    initialization: Initialization = "normc"
    obs_embedding: int | None = 64
    latent_embedding: int | None = 64
    init_std: float = 1.0

    def setup(self) -> None:
        """Creates the layers."""
        act = ACTIVATIONS[self.activation]
        kernel_init = hidden_init(self.initialization)
        embed = lambda size: None if size is None else MLP((size,), act)  # noqa: E731
        self.embed_obs = embed(self.obs_embedding)
        self.embed_belief = embed(self.latent_embedding)
        self.actor = MLP(self.layers, act, kernel_init)
        self.critic = MLP(self.layers, act, kernel_init)
        head_init = nn.initializers.orthogonal(0.01) if self.discrete else normc(1.0)
        self.actor_head = Linear(self.num_actions, head_init)
        self.critic_head = Linear(1)
        if not self.discrete:
            init = nn.initializers.constant(jnp.log(self.init_std))
            self.log_std = self.param("log_std", init, (self.num_actions,))

    def features(
        self, obs: Float[Array, "... O"], belief: Float[Array, "... M"]
    ) -> Float[Array, "..."]:
        """Shared embedding; a belief of size 0 (a memory-less agent) is left out."""
        parts = [obs if self.embed_obs is None else self.embed_obs(obs)]
        if belief.shape[-1]:
            parts.append(belief if self.embed_belief is None else self.embed_belief(belief))
        return jnp.concatenate(parts, axis=-1)

    def policy(self, obs: Float[Array, "... O"], belief: Float[Array, "... M"]) -> PolicyOutput:
        """Parameters of the action distribution."""
        return self._policy(self.features(obs, belief))

    def value(
        self, obs: Float[Array, "... O"], belief: Float[Array, "... M"]
    ) -> Float[Array, "..."]:
        """Value of being there, in units of normalised reward."""
        return self._value(self.features(obs, belief))

    def __call__(
        self, obs: Float[Array, "... O"], belief: Float[Array, "... M"]
    ) -> tuple[PolicyOutput, Float[Array, "..."]]:
        """Policy and value with the embeddings computed once."""
        features = self.features(obs, belief)
        return self._policy(features), self._value(features)

    def _policy(self, features: Array) -> PolicyOutput:
        location = self.actor_head(self.actor(features))
        if self.discrete:
            return PolicyOutput(location, None)
        std = jnp.maximum(jnp.exp(self.log_std), 1e-6)
        return PolicyOutput(location, jnp.broadcast_to(std, location.shape))

    def _value(self, features: Array) -> Array:
        return self.critic_head(self.critic(features))[..., 0]


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


class BeliefEncoder(nn.Module):
    """Recurrent encoder ``q(m | history)``: embeddings, a GRU and two linear heads.

    The prior is the heads' answer to the zero hidden state, so it is learned.
    ``step`` and ``sequence`` compute the same function; ``sequence`` does everything
    that does not depend on the hidden state once for all time steps.

    Attributes:
      latent_size: L.
      hidden_size: E, size of the hidden state.
      action_embedding: size of the embedded action; likewise obs and reward.
      obs_embedding: see above.
      reward_embedding: see above.
      layers_before: ReLU layers between the embeddings and the GRU.
      layers_after: ReLU layers between the GRU and the heads.

    Reference: Zintgraf et al. (2020), Section 3 and Appendix C.
    """

    latent_size: int = 5
    hidden_size: int = 128
    action_embedding: int = 16
    obs_embedding: int = 32
    reward_embedding: int = 16
    layers_before: Sequence[int] = ()
    layers_after: Sequence[int] = ()

    def setup(self) -> None:
        """Creates the layers."""
        self.embed_action = MLP((self.action_embedding,), nn.relu)
        self.embed_obs = MLP((self.obs_embedding,), nn.relu)
        self.embed_reward = MLP((self.reward_embedding,), nn.relu)
        self.before = MLP(self.layers_before, nn.relu)
        # All gates are orthogonalised as one [in, 3 E] matrix, not gate by gate.
        self.input_map = Linear(3 * self.hidden_size, nn.initializers.orthogonal())
        self.recurrent_map = Linear(3 * self.hidden_size, nn.initializers.orthogonal())
        self.after = MLP(self.layers_after, nn.relu)
        # One map for mean and log-variance: their columns are independent draws.
        self.heads = Linear(2 * self.latent_size)

    def inputs(
        self,
        action: Float[Array, "... A"],
        reward: Float[Array, "..."],
        next_obs: Float[Array, "... O"],
    ) -> Float[Array, "... G"]:
        """The GRU's input map of embedded transitions, ``[…, 3 E]``."""
        embedded = [
            self.embed_action(action),
            self.embed_obs(next_obs),
            self.embed_reward(reward[..., None]),
        ]
        return self.input_map(self.before(jnp.concatenate(embedded, axis=-1)))

    def belief(self, hidden: Float[Array, "... E"]) -> Belief:
        """Posterior of a hidden state; of zeros: the learned prior."""
        mean, logvar = jnp.split(self.heads(self.after(hidden)), 2, axis=-1)
        return Belief(mean, logvar)

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

    def sequence(
        self,
        action: Float[Array, "T B A"],
        reward: Float[Array, "T B"],
        next_obs: Float[Array, "T B O"],
        valid: Bool[Array, "T B"],
        truncation: int | None = None,
    ) -> Belief:
        """Posteriors after 0, 1, …, T transitions from the zero hidden state.

        Args:
          action: ``[T, B, A]`` as the environment received it (an index as a float).
          reward: ``[T, B]`` raw.
          next_obs: ``[T, B, O]``.
          valid: ``[T, B]``; other steps leave the hidden state as it is.
          truncation: no gradient flows back across steps that are a multiple of it.

        Returns:
          ``Belief`` of ``[T + 1, B, L]``; index 0 is the prior.
        """
        inputs = self.inputs(action, reward, next_obs)
        kernel, bias = self._recurrent_weights(next_obs.dtype)
        cut = jnp.zeros(inputs.shape[0], bool)
        if truncation is not None:
            steps = jnp.arange(inputs.shape[0])
            cut = (steps % truncation == 0) & (steps > 0)
        hidden = gru_scan(inputs, kernel, bias, valid, cut)
        start = jnp.zeros_like(hidden[:1])
        return self.belief(jnp.concatenate([start, hidden]))

    def __call__(
        self,
        action: Float[Array, "T B A"],
        reward: Float[Array, "T B"],
        next_obs: Float[Array, "T B O"],
        valid: Bool[Array, "T B"],
    ) -> Belief:
        """``sequence`` without truncation; initialises every layer."""
        return self.sequence(action, reward, next_obs, valid)

    def _recurrent_weights(self, dtype: jnp.dtype) -> tuple[Array, Array]:
        if self.is_initializing():
            self.recurrent_map(jnp.zeros((1, self.hidden_size), dtype))
        params = self.recurrent_map.variables["params"]
        return params["kernel"], params["bias"]


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
        """The transition's part of the first layer, bias included."""
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
        """Predictions for latents and transitions of equal leading axes."""
        return self.combine(self.of_latents(latent), self.of_steps(obs, action, next_obs))


class TaskDecoder(nn.Module):
    """Predicts the task itself from a latent sample."""

    outputs: int
    layers: Sequence[int] = (64, 32)

    @nn.compact
    def __call__(self, latent: Float[Array, "... L"]) -> Float[Array, "... outputs"]:
        """Maps ``[…, L]`` to ``[…, outputs]``."""
        return Linear(self.outputs)(MLP(self.layers, nn.relu)(latent))
