"""The PPO update of a policy, on a rollout and on what the agent remembered at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from roml_jax.groups import apart, each, keys_of, together
from roml_jax.learners.policy_parts import (
    PolicyConfig,
    PolicyParams,
    PolicyState,
    action_distribution,
    policy_inputs,
)
from roml_jax.losses import normalize_advantages, policy_loss, value_loss, weighted_mean
from roml_jax.networks import ActorCritic
from roml_jax.normalize import Moments, batch_moments, merge_moments, normalize_rewards
from roml_jax.returns import meta_gae
from roml_jax.rollout import Rollout, boundary_flags, next_obs, seen_obs
from roml_jax.trees import descend, finite_rows
from roml_jax.types import Metrics, PRNGKey

Recall: TypeAlias = Callable[[PyTree, Array], Array]  # (memory, tasks[b]) -> [T, b, M]


class PolicyBatch(NamedTuple):
    """Transitions for PPO, leading axis N = T * B in the whole, fewer in a minibatch.

    A memory that learns with the network is unrolled anew in each minibatch, which then holds
    whole meta-episodes, with leading axes ``[T, b]``.
    """

    obs: Float[Array, "N O"]  # normalised
    belief: Float[Array, "N M"]  # what was remembered, normalised
    action: Array  # int32 [N] or float32 [N, A]
    log_prob: Float[Array, " N"]  # of the policy before the update
    value: Float[Array, " N"]  # seen during the rollout
    advantage: Float[Array, " N"]  # normalised
    target: Float[Array, " N"]  # of the value
    weight: Float[Array, " N"]  # 1 for steps that count, 0 for the rest
    told: Float[Array, "N C"] | None  # what the critic alone is told


def make_improve(
    network: ActorCritic,
    config: PolicyConfig,
    optimizer: optax.GradientTransformation,
    done_flag: bool = False,
    groups: int = 1,
) -> Callable[..., tuple[PolicyState, PyTree, Metrics]]:
    """One training step of a policy on a rollout, as a function.

    In the order of the original experiments: advantages from values under the
    normalisation of the rollout; then the input moments take in the new data; then
    old log-probabilities are computed under these; then the epochs of PPO.

    Args:
      network: the actor-critic.
      config: its settings.
      optimizer: of ``(network, memory)``.
      done_flag: the last component of an observation says that an episode is over.
      groups: G, that deal minibatches apart from each other, see ``roml_jax.groups``.

    Returns:
      ``improve(key, state, data, belief, weights, memory=(), recall=None) -> (state, memory,
      metrics)`` with the rollout ``data``, ``belief[T + 1, B, M]``, what the agent remembered
      before step t and after the last one, and ``weights[B]``, how much each task counts. One
      of weight 0 that holds what is not finite leaves no trace.
      ``memory`` are parameters that learn with the network, if ``recall(memory, tasks[b])``
      gives what the agent remembers as a function of them. Metrics: losses averaged over the
      minibatches, and ``terminated``, the fraction of episodes that their task ended before
      the time limit.

    Reference: Schulman et al. (2017); Algorithm 1, line 8 for the weights.
    """

    def improve(
        key: PRNGKey,
        state: PolicyState,
        data: Rollout,
        belief: Float[Array, "T1 B M"],
        weights: Float[Array, " B"],
        memory: PyTree = (),
        recall: Recall | None = None,
    ) -> tuple[PolicyState, PyTree, Metrics]:
        data, belief, counted = _leave_out(data, belief, weights)
        reward_moments, advantages, values = _advantages(
            network, config, state, data, belief, counted, done_flag
        )
        params = state.params._replace(
            obs_moments=_take_in(state.params.obs_moments, seen_obs(data.obs), counted, groups),
            belief_moments=_take_in(state.params.belief_moments, belief[:-1], counted, groups),
        )
        batch = _policy_batch(
            network, config, params, data, belief, values, advantages, weights, groups
        )
        batch, dealt = apart((batch, batch.weight), groups)
        steps = data.reward.shape[0]
        if recall is not None:  # whole meta-episodes are dealt, by task
            dealt = apart(weights, groups)

        def deal(index: Int[Array, " n"], batch: PolicyBatch) -> PolicyBatch:
            if recall is None:
                return jax.tree.map(lambda x: x[index], batch)
            return jax.tree.map(lambda x: x.reshape(steps, -1, *x.shape[1:])[:, index], batch)

        def loss(learned: tuple, index: Int[Array, "*G n"]) -> tuple[Array, Metrics]:
            minibatch = each(deal, groups)(index, batch)
            if recall is not None:
                remembered = apart(recall(learned[1], index), groups, axis=1)
                seen = policy_inputs(params, config, minibatch.obs, remembered)[1]
                minibatch = each(_flat, groups)(minibatch._replace(belief=seen))
            return _ppo_loss(learned[0], network, config, together(minibatch, groups))

        def minibatch_step(carry: tuple, index: Array) -> tuple[tuple, Metrics]:
            learned, opt_state = carry
            grads, metrics = jax.grad(loss, has_aux=True)(learned, index)
            return descend(optimizer, grads, opt_state, learned), metrics

        index = _indices(key, dealt, config, groups)
        start = ((params.network, memory), state.opt_state)
        ((trained, memory), opt_state), metrics = jax.lax.scan(minibatch_step, start, index)
        new = PolicyState(params._replace(network=trained), opt_state, reward_moments)
        terminated = jnp.sum(data.terminated) / (data.episodes * data.terminated.shape[1])
        return new, memory, jax.tree.map(jnp.mean, metrics) | {"terminated": terminated}

    return improve


def minibatch_indices(
    key: PRNGKey, weight: Float[Array, " N"], epochs: int, minibatches: int
) -> Int[Array, "steps size"]:
    """Random partitions of N samples, those that count dealt evenly to the minibatches.

    Args:
      key: typed key.
      weight: ``[N]``; a positive weight counts.
      epochs: number of partitions.
      minibatches: parts of each; divides N.

    Returns:
      ``[epochs * minibatches, N / minibatches]``.
    """
    lots = jax.random.uniform(key, (epochs, *weight.shape), jnp.float32)
    order = lots + (weight <= 0).astype(lots.dtype)[None, :]  # those that count first
    index = jnp.argsort(order, axis=1).reshape(epochs, -1, minibatches)
    return jnp.swapaxes(index, 1, 2).reshape(epochs * minibatches, -1)


def _indices(
    key: PRNGKey, weight: Float[Array, "*G N"], config: PolicyConfig, groups: int
) -> Int[Array, "steps *G n"]:
    """``minibatch_indices`` within each group, which all take the same part in a minibatch."""

    def partitions(key: PRNGKey, weight: Float[Array, " N"]) -> Int[Array, "steps n"]:
        return minibatch_indices(key, weight, config.epochs, config.minibatches)

    index = each(partitions, groups)(keys_of(key, groups), weight)
    return index if groups == 1 else jnp.swapaxes(index, 0, 1)


def _advantages(
    network: ActorCritic,
    config: PolicyConfig,
    state: PolicyState,
    data: Rollout,
    belief: Array,
    counted: Array,
    done_flag: bool,
) -> tuple[Moments, Array, Array]:
    """``(reward moments, advantages [T, B], values [T, B])`` of a rollout."""
    truncated, meta_end = boundary_flags(data.episodes, data.horizon)
    rewards, reward_moments = data.reward, state.reward_moments
    if config.normalize_reward:
        reward_moments, rewards = normalize_rewards(
            reward_moments, rewards, meta_end, discount=config.discount, counted=counted
        )
    # A belief belongs to two observations where one episode ends and the next starts.
    episode = data.horizon * jnp.arange(data.episodes)[:, None]
    before_after = belief[episode + jnp.arange(data.horizon + 1)[None, :]]
    obs = data.obs
    if done_flag and config.time_limit == "bootstrap":
        # What an episode would have been worth that went on is asked of an observation that does.
        obs = obs.at[:, -1, :, -1].set(0)
    inputs = policy_inputs(state.params, config, obs, before_after)
    all_values = network.apply(state.params.network, *inputs, data.told, method="value")
    values, next_values = seen_obs(all_values), next_obs(all_values)
    flags = (truncated, meta_end)
    truncated, meta_end = (jnp.broadcast_to(x[:, None], rewards.shape) for x in flags)
    advantages = meta_gae(
        rewards,
        values,
        next_values,
        jnp.concatenate([values[1:], next_values[-1:]]),
        terminated=data.terminated,
        truncated=truncated & data.valid & ~data.terminated,
        meta_end=meta_end,
        discount=config.discount,
        trace_decay=config.gae_lambda,
        time_limit=config.time_limit,
    )
    return reward_moments, advantages, values


def _policy_batch(
    network: ActorCritic,
    config: PolicyConfig,
    params: PolicyParams,
    data: Rollout,
    belief: Array,
    values: Array,
    advantages: Array,
    weights: Array,
    groups: int,
) -> PolicyBatch:
    """All transitions of a rollout, flattened group by group, with old log-probabilities."""
    inputs = policy_inputs(params, config, seen_obs(data.obs), belief[:-1])
    weights = jnp.broadcast_to(weights[None, :], data.valid.shape)
    if config.unselected == "constant_advantage":
        advantages = jnp.where(weights > 0, advantages, 0.0)
        weights = jnp.where(weights > 0, weights, 1.0)
    weight = data.valid.astype(values.dtype) * weights
    targets = advantages + values
    told = None if data.told is None else seen_obs(data.told)
    flat = _flat_groups((*inputs, data.action, values, advantages, targets, weight, told), groups)
    obs, belief, action, values, advantages, targets, weight, told = flat
    normalized = normalize_advantages(advantages, weight)
    output = network.apply(params.network, obs, belief, method="policy")
    log_prob = action_distribution(output).log_prob(action)
    return PolicyBatch(obs, belief, action, log_prob, values, normalized, targets, weight, told)


def _ppo_loss(
    weights: PyTree, network: ActorCritic, config: PolicyConfig, batch: PolicyBatch
) -> tuple[Array, Metrics]:
    """Total loss of a minibatch: policy + value - entropy."""
    output, values = network.apply(weights, batch.obs, batch.belief, batch.told)
    distribution = action_distribution(output)
    log_probs = distribution.log_prob(batch.action)
    surrogate = policy_loss(log_probs, batch.log_prob, batch.advantage, batch.weight, config.clip)
    critic = value_loss(
        values,
        batch.value,
        batch.target,
        batch.weight,
        clip=config.clip if config.clip_value else None,
        huber=config.huber_value,
    )
    entropy = weighted_mean(distribution.entropy(), batch.weight)
    metrics = {"policy_loss": surrogate, "value_loss": critic, "entropy": entropy}
    return surrogate + config.value_coef * critic - config.entropy_coef * entropy, metrics


def _leave_out(
    data: Rollout, belief: Float[Array, "T1 B M"], weights: Float[Array, " B"]
) -> tuple[Rollout, Float[Array, "T1 B M"], Bool[Array, " B"]]:
    """Zeros for tasks of weight 0 that hold what is not finite; and the mask of all others."""
    held = (jnp.moveaxis(data.obs, 2, 0), data.reward.T, jnp.swapaxes(belief, 0, 1))
    counted = (weights > 0) | finite_rows(held)

    def keep(x: Array, axis: int) -> Array:
        return jnp.where(jnp.expand_dims(counted, [i for i in range(x.ndim) if i != axis]), x, 0)

    data = data._replace(
        obs=keep(data.obs, 2),
        reward=keep(data.reward, 1),
        action=keep(data.action, 1),
        told=None if data.told is None else keep(data.told, 2),
    )
    return data, keep(belief, 1), counted


def _take_in(
    moments: Moments, x: Float[Array, "T B F"], counted: Bool[Array, " B"], groups: int
) -> Moments:
    rows = jnp.broadcast_to(counted, x.shape[:2])
    batch = batch_moments(*_flat_groups((x, rows), groups), unbiased=True)
    return merge_moments(moments, batch)


def _flat(tree: PyTree) -> PyTree:
    """Leaves ``[T, b, …]`` as ``[T b, …]``."""
    return jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), tree)


def _flat_groups(tree: PyTree, groups: int) -> PyTree:
    """Leaves ``[T, B, …]`` as ``[T B, …]``, group by group."""
    return together(each(_flat, groups)(apart(tree, groups, axis=1)), groups)
