"""Flax modules: linear layers with the initial weights of the original, the actor-critic.

Weights start as in the original experiments, which used the defaults of another
framework; ``Linear`` carries these, so that presets mean the same here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax.checks import check_choice, check_rows

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


@functools.cache
def uniform_fan_in(fan_in: int) -> Any:
    """``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``."""
    bound = fan_in**-0.5

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **_: object) -> Array:
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)

    return init


@functools.cache
def normc(gain: float = 1.0) -> Any:
    """Standard normal entries, then every output unit's weights scaled to norm ``gain``."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **_: object) -> Array:
        kernel = jax.random.normal(key, tuple(shape), dtype)
        return gain * kernel / jnp.linalg.norm(kernel, axis=0, keepdims=True)

    return init


@functools.cache
def orthogonal(gain: float = 1.0) -> Any:
    """A (semi-)orthogonal matrix times ``gain``.

    Under vmap the matrices are made one after another: on a CPU with few cores, two
    batched QR decompositions that run at once can wait for each other for ever (seen
    with jax 0.10 and 16 seeds).
    """
    draw = nn.initializers.orthogonal(gain)

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **_: object) -> Array:
        return jax.custom_batching.sequential_vmap(lambda key: draw(key, tuple(shape), dtype))(key)

    return init


def hidden_init(name: Initialization) -> Initializer | None:
    """Initialiser of hidden layers with the tanh gain of 5/3; None for ``uniform``."""
    table: dict[str, Initializer | None] = {
        "normc": normc(TANH_GAIN),
        "orthogonal": orthogonal(TANH_GAIN),
        "uniform": None,
    }
    check_choice("initialization", name, tuple(table))
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
        """Maps ``[…, in]`` to ``[…, features]``.

        Raises:
          ValueError: while tracing, if the parameters are for inputs of another size.
        """
        size = x.shape[-1] if x.ndim else None
        known = self.get_variable("params", "kernel")
        if size is None or (known is not None and known.shape[0] != size):
            takes = "one or more" if known is None else known.shape[0]
            raise ValueError(f"{'/'.join(self.path)} takes {takes} components; got {list(x.shape)}")
        default = uniform_fan_in(x.shape[-1])
        kernel = self.param(
            "kernel", self.kernel_init or default, (x.shape[-1], self.features), jnp.float32
        )
        bias_init = nn.initializers.zeros if self.kernel_init else default
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
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
        head_init = orthogonal(0.01) if self.discrete else normc(1.0)
        self.actor_head = Linear(self.num_actions, head_init)
        self.critic_head = Linear(1)
        if not self.discrete:
            init = nn.initializers.constant(math.log(self.init_std))
            self.log_std = self.param("log_std", init, (self.num_actions,), jnp.float32)

    def features(
        self, obs: Float[Array, "... O"], belief: Float[Array, "... M"]
    ) -> Float[Array, "..."]:
        """Shared embedding; a belief of size 0 (a memory-less agent) is left out.

        Raises:
          ValueError: while tracing, if the leading axes differ.
        """
        check_rows("belief", belief, obs.shape[:-1], "obs")
        parts = [obs if self.embed_obs is None else self.embed_obs(obs)]
        if belief.shape[-1]:
            parts.append(belief if self.embed_belief is None else self.embed_belief(belief))
        return jnp.concatenate(parts, axis=-1)

    def policy(self, obs: Float[Array, "... O"], belief: Float[Array, "... M"]) -> PolicyOutput:
        """Parameters of the action distribution."""
        return self._policy(self.features(obs, belief))

    def value(
        self,
        obs: Float[Array, "... O"],
        belief: Float[Array, "... M"],
        told: Float[Array, "... C"] | None = None,
    ) -> Float[Array, "..."]:
        """Value of being there, in units of normalised reward.

        Args:
          obs: normalised.
          belief: normalised.
          told: what the critic alone is told; of this size from the first call on, or None.
        """
        return self._value(self.features(obs, belief), told)

    def __call__(
        self,
        obs: Float[Array, "... O"],
        belief: Float[Array, "... M"],
        told: Float[Array, "... C"] | None = None,
    ) -> tuple[PolicyOutput, Float[Array, "..."]]:
        """Policy and value with the embeddings computed once."""
        features = self.features(obs, belief)
        return self._policy(features), self._value(features, told)

    def _policy(self, features: Array) -> PolicyOutput:
        location = self.actor_head(self.actor(features))
        if self.discrete:
            return PolicyOutput(location, None)
        std = jnp.maximum(jnp.exp(self.log_std), 1e-6)
        return PolicyOutput(location, jnp.broadcast_to(std, location.shape))

    def _value(self, features: Array, told: Array | None) -> Array:
        if told is not None:
            features = jnp.concatenate([features, told], axis=-1)
        return self.critic_head(self.critic(features))[..., 0]
