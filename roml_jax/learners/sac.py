"""Soft actor-critic conditioned on a latent, as functions of arrays: the policy half of PEARL.

Reference: Haarnoja et al. (2018), "Soft Actor-Critic: Off-Policy Maximum Entropy Deep
Reinforcement Learning with a Stochastic Actor", and "Soft Actor-Critic Algorithms and
Applications"; Christodoulou (2019), "Soft Actor-Critic for Discrete Action Settings".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, PyTree

from roml_jax import distributions
from roml_jax.checks import check_at_least, check_choice, check_in, check_positive
from roml_jax.losses import weighted_mean
from roml_jax.networks import MLP, Linear
from roml_jax.trees import descend
from roml_jax.types import ActionSpace, Discrete, Metrics, PRNGKey

CRITICS = ("value", "targets")
_LOG_STD = -20.0, 2.0  # range of a Gaussian policy's


@dataclass(frozen=True)
class SACConfig:
    """Settings of the soft actor-critic.

    Attributes:
      layers: sizes of the hidden layers of all networks.
      discount: gamma, in [0, 1].
      target_rate: part of the newest parameters in every step of the targets, in (0, 1].
      learning_rate: of Adam, for each network.
      reward_scale: what rewards are multiplied by in the critics' targets, and nowhere else.
      temperature: of the entropy bonus; None learns it, from 1 on.
      target_entropy: that a learned temperature aims at; None is ``-A`` of a Box, and half of
        the largest entropy of Discrete actions.
      critic: what the next state is worth: that which a value network with a target says
        (value, as in the published runs), or the lower of both critics' targets (targets).
      mean_penalty: weight of the squared mean of a Gaussian policy.
      std_penalty: weight of its squared log-deviation.
    """

    layers: tuple[int, ...] = (300, 300, 300)
    discount: float = 0.99
    target_rate: float = 0.005
    learning_rate: float = 3e-4
    reward_scale: float = 5.0
    temperature: float | None = 1.0
    target_entropy: float | None = None
    critic: Literal["value", "targets"] = "value"
    mean_penalty: float = 1e-3
    std_penalty: float = 1e-3

    def __post_init__(self) -> None:
        """Checks all settings."""
        check_choice("critic", self.critic, CRITICS)
        check_at_least(self, 1, "layers")
        check_at_least(self, 0, "mean_penalty", "std_penalty")
        check_positive(self, "learning_rate", "reward_scale")
        check_in("discount", self.discount, "[0, 1]", "what a later reward is worth")
        check_in("target_rate", self.target_rate, "(0, 1]", "the part of the newest parameters")
        if self.temperature is not None:
            check_positive(self, "temperature")


class Transitions(NamedTuple):
    """What a critic learns from; leading axes free."""

    obs: Float[Array, "... O"]
    action: Array  # int32 […] or float32 […, A], in (-1, 1)
    reward: Float[Array, "..."]  # raw
    next_obs: Float[Array, "... O"]
    terminated: Bool[Array, "..."]  # by the task itself; a time limit cuts nothing off


class SACParams(NamedTuple):
    """All that is learned."""

    policy: PyTree
    critics: PyTree  # both, leaves [2, …]
    value: PyTree  # of a value network; () without
    log_temperature: Float[Array, ""]


class SACState(NamedTuple):
    """The policy half of a learner's state."""

    params: SACParams
    targets: PyTree  # of the value network, or of both critics
    opt_state: SACParams  # Adam's, for each part


class SAC(NamedTuple):
    """A soft actor-critic as functions; every batch has one leading axis N.

    Attributes:
      init: ``key -> SACState``.
      act: ``(policy, obs[n, O], latent[n, L], key, deterministic) -> action``.
      next_value: ``(key, state, next_obs[N, O], latent[N, L]) -> [N]``, what is bootstrapped from.
      critic_loss: ``(critics, batch, latent[N, L], next_value[N], weight[N]) -> scalar``, the sum
        of both critics' weighted mean squared errors.
      descend_critics: ``(grads, state) -> state``.
      improve: ``(key, state, batch, latent, weight) -> (state, metrics)``, what follows a step of
        the critics: value network, targets, policy, temperature.
    """

    init: Callable[[PRNGKey], SACState]
    act: Callable[[PyTree, Array, Array, PRNGKey, bool], Array]
    next_value: Callable[[PRNGKey, SACState, Array, Array], Array]
    critic_loss: Callable[[PyTree, Transitions, Array, Array, Array], Array]
    descend_critics: Callable[[PyTree, SACState], SACState]
    improve: Callable[..., tuple[SACState, Metrics]]


class _Net(nn.Module):
    """Hidden layers of rectifiers, and a last layer that starts near zero."""

    layers: tuple[int, ...]
    outputs: int
    last: float  # bound of the last layer's weights

    @nn.compact
    def __call__(self, *inputs: Float[Array, "N _"]) -> Float[Array, "N outputs"]:
        hidden = MLP(self.layers, nn.relu)(jnp.concatenate(inputs, axis=-1))
        uniform = nn.initializers.uniform(2 * self.last)

        def init(*args: Any, **options: Any) -> Array:
            return uniform(*args, **options) - self.last

        return Linear(self.outputs, init)(hidden)


def soft_actor_critic(
    actions: ActionSpace, obs_size: int, latent_size: int, config: SACConfig
) -> SAC:
    """A soft actor-critic that sees a latent beside the observation.

    Box actions come from a Gaussian's tanh, in (-1, 1). Of Discrete actions all expectations are
    exact.

    Args:
      actions: of the environment.
      obs_size: O.
      latent_size: L.
      config: the settings.

    Returns:
      A ``SAC``. No gradient reaches the latent but through ``critic_loss``.
    """
    discrete = isinstance(actions, Discrete)
    size = actions.n if isinstance(actions, Discrete) else actions.size
    policy_net = _Net(config.layers, size if discrete else 2 * size, 1e-3)
    critic_net = _Net(config.layers, size if discrete else 1, 3e-3)
    value_net = _Net(config.layers, 1, 3e-3)
    optimizer = optax.adam(config.learning_rate)
    target_entropy = config.target_entropy
    if target_entropy is None:
        target_entropy = 0.5 * math.log(size) if discrete else -float(size)

    def init(key: PRNGKey) -> SACState:
        policy_key, critic_key, value_key = jax.random.split(key, 3)
        obs, latent = (jnp.zeros((1, n), jnp.float32) for n in (obs_size, latent_size))
        seen = (obs, latent) if discrete else (obs, jnp.zeros((1, size), jnp.float32), latent)
        keys = jax.random.split(critic_key)
        critics = jax.tree.map(
            lambda *x: jnp.stack(x), *(critic_net.init(keys[i], *seen) for i in range(2))
        )
        value = value_net.init(value_key, obs, latent) if config.critic == "value" else ()
        start = 1.0 if config.temperature is None else config.temperature
        log_temperature = jnp.log(jnp.asarray(start, jnp.float32))
        policy = policy_net.init(policy_key, obs, latent)
        params = SACParams(policy, critics, value, log_temperature)
        targets = value if config.critic == "value" else critics
        opt_state = SACParams(*(optimizer.init(part) for part in params))
        return SACState(params, targets, opt_state)

    def gaussian(policy: PyTree, obs: Array, latent: Array) -> tuple[Array, Array]:
        mean, log_std = jnp.split(policy_net.apply(policy, obs, latent), 2, axis=-1)
        return mean, jnp.clip(log_std, *_LOG_STD)

    def act(policy: PyTree, obs: Array, latent: Array, key: PRNGKey, deterministic: bool) -> Array:
        if discrete:
            chosen = distributions.categorical(logits=policy_net.apply(policy, obs, latent))
            return chosen.mode() if deterministic else chosen.sample(seed=key)
        mean, log_std = gaussian(policy, obs, latent)
        if deterministic:
            return jnp.tanh(mean)
        return distributions.sample_tanh_normal(key, mean, jnp.exp(log_std))[0]

    def both(critics: PyTree, *seen: Array) -> Float[Array, "2 N _"]:
        return jax.vmap(lambda one: critic_net.apply(one, *seen))(critics)

    def soft_value(
        key: PRNGKey, policy: PyTree, critics: PyTree, temperature: Array, obs: Array, latent: Array
    ) -> tuple[Array, Array, Array]:
        """``E[min Q - temperature log pi]``, the entropy, and the policy's penalty, each [N]."""
        if discrete:
            log_probs = jax.nn.log_softmax(policy_net.apply(policy, obs, latent))
            lower = both(critics, obs, latent).min(axis=0)
            probs = jnp.exp(log_probs)
            soft = jnp.sum(probs * (lower - temperature * log_probs), axis=-1)
            return soft, -jnp.sum(probs * log_probs, axis=-1), jnp.zeros_like(soft)
        mean, log_std = gaussian(policy, obs, latent)
        action, log_prob = distributions.sample_tanh_normal(key, mean, jnp.exp(log_std))
        lower = both(critics, obs, action, latent).min(axis=0)[:, 0]
        penalty = config.mean_penalty * jnp.square(mean).mean(axis=-1)
        penalty += config.std_penalty * jnp.square(log_std).mean(axis=-1)
        return lower - temperature * log_prob, -log_prob, penalty

    def temperature_of(params: SACParams) -> Array:
        return jax.lax.stop_gradient(jnp.exp(params.log_temperature))

    def next_value(
        key: PRNGKey, state: SACState, next_obs: Float[Array, "N O"], latent: Float[Array, "N L"]
    ) -> Float[Array, " N"]:
        if config.critic == "value":
            return value_net.apply(state.targets, next_obs, latent)[:, 0]
        temperature = temperature_of(state.params)
        return soft_value(key, state.params.policy, state.targets, temperature, next_obs, latent)[0]

    def critic_loss(
        critics: PyTree,
        batch: Transitions,
        latent: Float[Array, "N L"],
        next_value: Float[Array, " N"],
        weight: Float[Array, " N"],
    ) -> Float[Array, ""]:
        target = config.reward_scale * batch.reward
        target += config.discount * jnp.where(batch.terminated, 0, next_value)
        if discrete:
            each = both(critics, batch.obs, latent)
            q = jnp.take_along_axis(each, batch.action[None, :, None], axis=2)[..., 0]
        else:
            q = both(critics, batch.obs, batch.action, latent)[..., 0]
        errors = jnp.square(q - jax.lax.stop_gradient(target)[None])
        return jax.vmap(weighted_mean, (0, None))(errors, weight).sum()

    def descend_critics(grads: PyTree, state: SACState) -> SACState:
        critics, opt_state = descend(
            optimizer, grads, state.opt_state.critics, state.params.critics
        )
        params = state.params._replace(critics=critics)
        return state._replace(params=params, opt_state=state.opt_state._replace(critics=opt_state))

    def improve(
        key: PRNGKey,
        state: SACState,
        batch: Transitions,
        latent: Float[Array, "N L"],
        weight: Float[Array, " N"],
    ) -> tuple[SACState, Metrics]:
        params, opt_state, targets = state.params, state.opt_state, state.targets
        latent, temperature = jax.lax.stop_gradient(latent), temperature_of(params)

        def policy_loss(policy: PyTree) -> tuple[Array, tuple[Array, Array]]:
            soft, entropy, penalty = soft_value(
                key, policy, params.critics, temperature, batch.obs, latent
            )
            return weighted_mean(penalty - soft, weight), (soft, entropy)

        def value_loss(value: PyTree) -> Array:
            guess = value_net.apply(value, batch.obs, latent)[:, 0]
            return weighted_mean(jnp.square(guess - soft), weight)

        (loss, (soft, entropy)), grads = jax.value_and_grad(policy_loss, has_aux=True)(
            params.policy
        )
        entropy = weighted_mean(entropy, weight)
        metrics = {"policy_loss": loss, "entropy": entropy}
        policy = descend(optimizer, grads, opt_state.policy, params.policy)
        value: tuple[PyTree, PyTree] = (params.value, opt_state.value)
        if config.critic == "value":
            metrics["value_loss"], grads = jax.value_and_grad(value_loss)(params.value)
            value = descend(optimizer, grads, opt_state.value, params.value)
        newest = value[0] if config.critic == "value" else params.critics
        targets = optax.incremental_update(newest, targets, config.target_rate)
        warmth: tuple[PyTree, PyTree] = (params.log_temperature, opt_state.log_temperature)
        if config.temperature is None:
            warmth = descend(optimizer, entropy - target_entropy, warmth[1], warmth[0])
            metrics["temperature"] = jnp.exp(warmth[0])
        new = SACParams(policy[0], params.critics, value[0], warmth[0])
        opt_state = SACParams(policy[1], opt_state.critics, value[1], warmth[1])
        return SACState(new, targets, opt_state), metrics

    return SAC(init, act, next_value, critic_loss, descend_critics, improve)
