"""The policy half of every on-policy learner: an actor-critic and its PPO update.

``improve_policy`` takes a rollout and what the agent believed at each step; it does not
know where the belief came from. A memory-less agent has a belief of size zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import distrax
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from roml_jax.checks import check_at_least, check_choice, check_positive
from roml_jax.losses import normalize_advantages, policy_loss, value_loss, weighted_mean
from roml_jax.networks import Activation, ActorCritic, Initialization, PolicyOutput, hidden_init
from roml_jax.normalize import (
    Moments,
    batch_moments,
    init_moments,
    merge_moments,
    normalize,
    normalize_rewards,
)
from roml_jax.returns import TIME_LIMITS, TimeLimit, meta_gae
from roml_jax.rollout import (
    Rollout,
    boundary_flags,
    next_obs,
    seen_obs,
)
from roml_jax.types import Discrete, Metrics, PRNGKey, TaskEnv

UNSELECTED = ("drop", "constant_advantage")


@dataclass(frozen=True)
class PolicyConfig:
    """Settings of the actor-critic and of its PPO update.

    Attributes:
      layers: sizes of the actor's and of the critic's hidden layers.
      activation: of hidden layers and embeddings.
      initialization: of hidden layers: normc, orthogonal or uniform.
      obs_embedding: size of the observation's embedding; None feeds it raw.
      latent_embedding: size of the belief's embedding; None feeds it raw.
      init_std: initial standard deviation of a Gaussian policy.
      squash: the environment receives the tanh of a Gaussian action.
      normalize_obs: running normalisation of the observation.
      normalize_latent: running normalisation of the belief.
      normalize_reward: divide rewards by the running deviation of discounted returns.
      discount: gamma of the policy's objective, in [0, 1].
      gae_lambda: trace decay, in [0, 1].
      time_limit: what a truncated step bootstraps: ignore, bootstrap or continue.
      learning_rate: Adam's.
      adam_eps: Adam's epsilon.
      anneal_updates: policy updates over which the learning rate falls linearly to
        zero; None keeps it constant.
      epochs: passes over a step's data.
      minibatches: per pass; must divide the frames of a training step.
      clip: bound on the probability ratio, and on the change of clipped values.
      entropy_coef: weight of the entropy bonus.
      value_coef: weight of the value loss.
      max_grad_norm: global norm of the clipped gradient.
      clip_value: clip the change of the value against the rollout's value.
      huber_value: Huber instead of squared value error.
      unselected: what becomes of tasks that the method did not select: ``"drop"``
        leaves them out of the policy update (Algorithm 1); ``"constant_advantage"``
        keeps their steps with an advantage of zero before normalisation, as the
        original code does.
    """

    layers: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    initialization: Initialization = "normc"
    obs_embedding: int | None = 64
    latent_embedding: int | None = 64
    init_std: float = 1.0
    squash: bool = False
    normalize_obs: bool = True
    normalize_latent: bool = True
    normalize_reward: bool = True
    discount: float = 0.99
    gae_lambda: float = 0.9
    time_limit: TimeLimit = "ignore"
    learning_rate: float = 7e-4
    adam_eps: float = 1e-8
    anneal_updates: int | None = None
    epochs: int = 2
    minibatches: int = 8
    clip: float = 0.1
    entropy_coef: float = 0.01
    value_coef: float = 0.5
    max_grad_norm: float = 0.5
    clip_value: bool = True
    huber_value: bool = True
    unselected: Literal["drop", "constant_advantage"] = "drop"

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        hidden_init(self.initialization)
        check_choice("time_limit", self.time_limit, TIME_LIMITS)
        check_choice("unselected", self.unselected, UNSELECTED)
        check_at_least(self, 1, "epochs", "minibatches", "anneal_updates")
        check_at_least(self, 1, "layers", "obs_embedding", "latent_embedding")
        check_at_least(self, 0, "entropy_coef", "value_coef")
        check_positive(self, "learning_rate", "adam_eps", "clip", "max_grad_norm", "init_std")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1]; got {getattr(self, name)}")


class PolicyParams(NamedTuple):
    """What acting needs."""

    network: PyTree
    obs_moments: Moments  # [O]
    belief_moments: Moments  # [M], M = 2 L; empty for a memory-less agent


class PolicyState(NamedTuple):
    """The policy half of a learner's state."""

    params: PolicyParams
    opt_state: PyTree
    reward_moments: Moments  # scalar, of discounted sums of reward
    updates: Int[Array, ""]  # policy updates so far


class PolicyBatch(NamedTuple):
    """Transitions for PPO, leading axis N = T * B in the whole, fewer in a minibatch."""

    obs: Float[Array, "N O"]  # normalised
    belief: Float[Array, "N M"]  # normalised
    action: Array  # int32 [N] or float32 [N, A]
    log_prob: Float[Array, " N"]  # of the policy before the update
    value: Float[Array, " N"]  # seen during the rollout
    advantage: Float[Array, " N"]  # normalised
    target: Float[Array, " N"]  # of the value
    weight: Float[Array, " N"]  # 1 for steps that count, 0 for the rest


def action_distribution(output: PolicyOutput) -> Any:
    """Distribution of the policy's own action, before any squash.

    A squashed policy needs no more: the Jacobian of tanh at the stored action is the
    same in both log-probabilities of the ratio, and the entropy bonus is the
    Gaussian's, as in the original code.
    """
    if output.std is None:
        return distrax.Categorical(logits=output.location)
    return distrax.MultivariateNormalDiag(output.location, output.std)


def make_network(env: TaskEnv, config: PolicyConfig) -> ActorCritic:
    """The actor-critic for an environment's actions."""
    space = env.action_space
    discrete = isinstance(space, Discrete)
    if discrete and config.squash:
        raise ValueError("squash needs a continuous action space; this environment's is discrete")
    return ActorCritic(
        num_actions=space.n if isinstance(space, Discrete) else space.size,
        discrete=discrete,
        layers=config.layers,
        activation=config.activation,
        initialization=config.initialization,
        obs_embedding=config.obs_embedding,
        latent_embedding=config.latent_embedding,
        init_std=config.init_std,
    )


def make_optimizer(config: PolicyConfig) -> optax.GradientTransformation:
    """Adam behind a global-norm clip, with the linear decay if there is one."""
    rate: Any = config.learning_rate
    if config.anneal_updates is not None:
        steps = config.anneal_updates * config.epochs * config.minibatches
        per_update = config.epochs * config.minibatches

        def rate(count: Array) -> Array:  # constant within a policy update
            done = (count // per_update) * per_update / steps
            return config.learning_rate * jnp.maximum(1.0 - done, 0.0)

    return optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate, eps=config.adam_eps)
    )


def to_env_action(config: PolicyConfig, action: Array) -> Array:
    """The policy's own action as the environment receives it."""
    return jnp.tanh(action) if config.squash else action


def init_policy(
    key: PRNGKey, network: ActorCritic, config: PolicyConfig, obs_size: int, belief_size: int
) -> PolicyState:
    """Fresh parameters, optimiser and moments."""
    obs, belief = jnp.zeros((1, obs_size)), jnp.zeros((1, belief_size))
    params = network.init(key, obs, belief)
    return PolicyState(
        PolicyParams(params, init_moments((obs_size,)), init_moments((belief_size,))),
        make_optimizer(config).init(params),
        init_moments(),
        jnp.zeros((), jnp.int32),
    )


def policy_inputs(
    params: PolicyParams,
    config: PolicyConfig,
    obs: Float[Array, "... O"],
    belief: Float[Array, "... M"],
) -> tuple[Float[Array, "... O"], Float[Array, "... M"]]:
    """Observation and belief as the network sees them."""
    obs = normalize(obs, params.obs_moments) if config.normalize_obs else obs
    belief = normalize(belief, params.belief_moments) if config.normalize_latent else belief
    return obs, belief


def act_on(
    network: ActorCritic,
    params: PolicyParams,
    config: PolicyConfig,
    obs: Float[Array, "n O"],
    belief: Float[Array, "n M"],
    key: PRNGKey,
    deterministic: bool,
) -> Array:
    """The policy's action for n agents: a sample, or the most likely one."""
    inputs = policy_inputs(params, config, obs, belief)
    distribution = action_distribution(network.apply(params.network, *inputs, method="policy"))
    if deterministic:
        return distribution.mode()
    return distribution.sample(seed=key)


def improve_policy(
    key: PRNGKey,
    network: ActorCritic,
    config: PolicyConfig,
    state: PolicyState,
    data: Rollout,
    belief: Float[Array, "T1 B M"],
    mask: Bool[Array, " B"],
) -> tuple[PolicyState, Metrics]:
    """One training step of the policy on a rollout.

    In the order of the original experiments: advantages from values under the
    normalisation of the rollout; then the input moments take in the new data; then
    old log-probabilities are computed under these; then the epochs of PPO.

    Args:
      key: shuffles the minibatches.
      network: the actor-critic.
      config: its settings.
      state: before the step.
      data: the rollout; only tasks in ``mask`` enter the losses.
      belief: ``[T + 1, B, 2 L]`` what the agent believed before step t, and after the
        last one.
      mask: ``[B]`` selected tasks.

    Returns:
      The new state, and metrics: losses averaged over the minibatches, and ``terminated``,
      the fraction of episodes that their task ended before the time limit.

    Reference: Schulman et al. (2017); Algorithm 1, line 8 for the mask.
    """
    reward_moments, advantages, values = _advantages(network, config, state, data, belief)
    obs = seen_obs(data.obs)
    params = state.params._replace(
        obs_moments=_take_in(state.params.obs_moments, obs),
        belief_moments=_take_in(state.params.belief_moments, belief[:-1]),
    )
    batch = _policy_batch(network, config, params, data, belief, values, advantages, mask)
    optimizer = make_optimizer(config)

    def minibatch_step(carry: tuple, index: Array) -> tuple[tuple, Metrics]:
        weights, opt_state = carry
        minibatch = jax.tree.map(lambda x: x[index], batch)
        grads, metrics = jax.grad(_ppo_loss, has_aux=True)(weights, network, config, minibatch)
        updates, opt_state = optimizer.update(grads, opt_state, weights)
        return (optax.apply_updates(weights, updates), opt_state), metrics

    index = minibatch_indices(key, batch.weight, config.epochs, config.minibatches)
    (weights, opt_state), metrics = jax.lax.scan(
        minibatch_step, (params.network, state.opt_state), index
    )
    new_state = PolicyState(
        params._replace(network=weights), opt_state, reward_moments, state.updates + 1
    )
    terminated = jnp.sum(data.terminated) / (data.episodes * data.terminated.shape[1])
    return new_state, jax.tree.map(jnp.mean, metrics) | {"terminated": terminated}


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
    order = jax.random.uniform(key, (epochs, *weight.shape)) + (weight <= 0)[None, :]
    index = jnp.argsort(order, axis=1).reshape(epochs, -1, minibatches)
    return jnp.swapaxes(index, 1, 2).reshape(epochs * minibatches, -1)


def _advantages(
    network: ActorCritic, config: PolicyConfig, state: PolicyState, data: Rollout, belief: Array
) -> tuple[Moments, Array, Array]:
    """``(reward moments, advantages [T, B], values [T, B])`` of a rollout."""
    truncated, meta_end = boundary_flags(data.episodes, data.horizon)
    rewards, reward_moments = data.reward, state.reward_moments
    if config.normalize_reward:
        reward_moments, rewards = normalize_rewards(
            reward_moments, rewards, meta_end, discount=config.discount
        )
    # A belief belongs to two observations where one episode ends and the next starts.
    episode = data.horizon * jnp.arange(data.episodes)[:, None]
    before_after = belief[episode + jnp.arange(data.horizon + 1)[None, :]]
    inputs = policy_inputs(state.params, config, data.obs, before_after)
    all_values = network.apply(state.params.network, *inputs, method="value")
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
    mask: Array,
) -> PolicyBatch:
    """All transitions of a rollout, flattened, with old log-probabilities."""
    inputs = policy_inputs(params, config, seen_obs(data.obs), belief[:-1])
    selected = jnp.broadcast_to(mask[None, :], data.valid.shape)
    weight = data.valid.astype(values.dtype)
    if config.unselected == "drop":
        weight = weight * selected
    else:
        advantages = jnp.where(selected, advantages, 0.0)
    targets = advantages + values
    normalized = normalize_advantages(advantages.reshape(-1), weight.reshape(-1))
    flat = jax.tree.map(
        lambda x: jax.lax.collapse(x, 0, 2),
        (*inputs, data.action, values, targets, weight),
    )
    obs, belief, action, values, targets, weight = flat
    output = network.apply(params.network, obs, belief, method="policy")
    log_prob = action_distribution(output).log_prob(action)
    return PolicyBatch(obs, belief, action, log_prob, values, normalized, targets, weight)


def _ppo_loss(
    weights: PyTree, network: ActorCritic, config: PolicyConfig, batch: PolicyBatch
) -> tuple[Array, Metrics]:
    """Total loss of a minibatch: policy + value - entropy."""
    output, values = network.apply(weights, batch.obs, batch.belief)
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


def _take_in(moments: Moments, x: Float[Array, "T B F"]) -> Moments:
    return merge_moments(moments, batch_moments(jax.lax.collapse(x, 0, 2), unbiased=True))


def check_sizes(env: TaskEnv, num_tasks: int, config: PolicyConfig) -> int:
    """Frames of a training step, if its sizes fit together.

    Raises:
      ValueError: with the valid numbers of minibatches.
    """
    frames = num_tasks * env.episodes * env.horizon
    if frames % config.minibatches:
        valid = [m for m in range(1, 65) if frames % m == 0]
        raise ValueError(
            f"minibatches must divide the {frames} frames of a training step: one of "
            f"{', '.join(map(str, valid))} …; got {config.minibatches}"
        )
    return frames


def after_warmup(warm: Bool[Array, ""], new: PolicyState, old: PolicyState) -> PolicyState:
    """The new policy once ``warm``; before, only the running scale of rewards goes on."""
    return keep_unless(warm, new, old._replace(reward_moments=new.reward_moments))


def keep_unless(condition: Bool[Array, ""], new: PyTree, old: PyTree) -> PyTree:
    """``new`` where the condition holds, else ``old``, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
