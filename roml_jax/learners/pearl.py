"""PEARL: off-policy meta-learning with a latent that is inferred from transitions in any order.

Reference: Rakelly et al. (2019), "Efficient Off-Policy Meta-Reinforcement Learning via
Probabilistic Context Variables"; the settings of *Train Hard, Fight Easy*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from roml_jax import replay as memory
from roml_jax.checks import as_weights, check_at_least, check_choice, check_positive
from roml_jax.context import (
    ContextEncoder,
    Evidence,
    gather_evidence,
    kl_to_prior,
    no_evidence,
    posterior,
)
from roml_jax.groups import apart, axes_of, check_groups, each, in_each, keys_of, together
from roml_jax.learners.sac import SAC, SACConfig, SACState, Transitions, soft_actor_critic
from roml_jax.losses import weighted_mean
from roml_jax.replay import Replay, make_replay
from roml_jax.rollout import Rollout, next_obs, rollout, rollout_extras, rollout_returns, seen_obs
from roml_jax.trees import descend, finite_rows, where_rows
from roml_jax.types import (
    Agent,
    Boundary,
    Box,
    Discrete,
    Learner,
    Metrics,
    PRNGKey,
    TaskEnv,
    Transition,
    no_task_axes,
)

REPLAYS = ("own", "original")


@dataclass(frozen=True)
class PEARLConfig:
    """Settings of PEARL; the defaults are those of the published runs, where they have them.

    Attributes:
      num_tasks: B, tasks of a training step; each is collected into a slot of its own.
      collect_episodes: episodes of each task in a training step; None for those of the
        environment.
      prior_episodes: the first of them, in training and in use, are played with a latent from the
        prior, each with a new one; transitions of these alone tell the task in training. Later
        ones are played with a latent from the posterior of all that was seen before.
      slots: tasks that the replay memory holds.
      replay: a slot is emptied when it gets a new task (own), or keeps the transitions of its
        former tasks, whose rewards the critics then see with the newest task's latent (original).
      replay_depth: tasks whose transitions an "original" slot holds.
      warmup_frames: frames before the first gradient step.
      gradient_steps: of a training step.
      meta_batch: slots of a gradient step, with replacement.
      batch_size: transitions of each, for actor and critics.
      context_batch: transitions of each, for the latent.
      latent_size: L.
      encoder_layers: sizes of the context encoder's hidden layers.
      encoder_learning_rate: of Adam, for the context encoder.
      kl_weight: weight of the divergence of the posterior from the prior, summed over tasks.
      next_obs_in_context: the encoder sees what an action led to, not only its reward.
      boundary: what the agent sees between episodes.
      sac: settings of the soft actor-critic.
      groups: of the tasks, which have slots of their own, so that many devices need not exchange
        transitions; divides num_tasks, slots and meta_batch.
    """

    num_tasks: int = 4
    collect_episodes: int | None = None
    prior_episodes: int = 1
    slots: int = 100
    replay: Literal["own", "original"] = "own"
    replay_depth: int = 30
    warmup_frames: int = 0
    gradient_steps: int = 2000
    meta_batch: int = 16
    batch_size: int = 256
    context_batch: int = 100
    latent_size: int = 5
    encoder_layers: tuple[int, ...] = (200, 200, 200)
    encoder_learning_rate: float = 3e-4
    kl_weight: float = 0.1
    next_obs_in_context: bool = False
    boundary: Boundary = Boundary("start", done_flag=False)
    sac: SACConfig = field(default_factory=SACConfig)
    groups: int = 1

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        check_choice("replay", self.replay, REPLAYS)
        check_at_least(self, 1, "num_tasks", "collect_episodes", "prior_episodes")
        check_at_least(self, 1, "replay_depth", "gradient_steps", "meta_batch", "batch_size")
        check_at_least(self, 1, "context_batch", "latent_size", "encoder_layers", "groups")
        check_at_least(self, self.num_tasks, "slots")
        check_at_least(self, 0, "warmup_frames", "kl_weight")
        check_positive(self, "encoder_learning_rate")
        sizes = {"num_tasks": self.num_tasks, "slots": self.slots, "meta_batch": self.meta_batch}
        check_groups(self.groups, **sizes)


class PEARLParams(NamedTuple):
    """What acting needs."""

    policy: PyTree
    encoder: PyTree


class PEARLCarry(NamedTuple):
    """What n agents remember."""

    evidence: Evidence  # [n, L], of their task
    latent: Float[Array, "n L"]  # their guess of it, held for an episode
    obs: Float[Array, "n O"]  # the last one
    episodes: Int[Array, ""]  # int32, begun so far


class Learned(NamedTuple):
    """What gradient steps change."""

    sac: SACState
    encoder: PyTree
    encoder_opt: optax.OptState


class PEARLState(NamedTuple):
    """State of the learner."""

    learned: Learned
    replay: Replay
    frames: Float[Array, ""]  # environment steps so far, exact in a warm-up of any sane length


def pearl(env: TaskEnv, config: PEARLConfig = PEARLConfig()) -> Learner:
    """PEARL: a soft actor-critic that sees a guess of the task, inferred from transitions.

    Args:
      env: the environment. Actions of a Box are (-1, 1), stretched to its bounds.
      config: the settings.

    Returns:
      A ``Learner``. Tasks count in all losses by the weights that they had when they were
      collected, and are not drawn from the replay memory at all if that is 0. Its extras are the
      environment's info at the end of each episode, ``[B, K, …]``.

    Raises:
      ValueError: the prior's episodes are more than those that are collected.

    Reference: Rakelly et al. (2019), Algorithms 1 and 2. Differs from the code of the published
      runs, see docs/fidelity.md: slots are emptied with their task, and taken in turn.
    """
    episodes = config.collect_episodes or env.episodes
    if config.prior_episodes > episodes:
        raise ValueError(
            f"prior_episodes must be at most the {episodes} episodes that are collected; "
            f"got {config.prior_episodes}"
        )
    frames = config.num_tasks * episodes * env.horizon
    obs_size, latent_size = config.boundary.observation_size(env), config.latent_size
    actor = soft_actor_critic(env.action_space, obs_size, latent_size, config.sac)
    encoder = ContextEncoder(config.encoder_layers, latent_size)
    agent = _make_agent(env, config, actor.act, encoder)
    learn = _make_learn(env, config, actor, encoder)

    def init(key: PRNGKey) -> PEARLState:
        sac_key, encoder_key = jax.random.split(key)
        example = _example(env, config, episodes)
        one = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), x.dtype), example)
        params = encoder.init(encoder_key, _features(env, config, one))
        depth = config.replay_depth if config.replay == "original" else 1
        opt_state = optax.adam(config.encoder_learning_rate).init(params)
        learned = Learned(actor.init(sac_key), params, opt_state)
        empty = make_replay(example, config.slots // config.groups, depth)
        empty = in_each(empty, config.groups)
        return PEARLState(learned, empty, jnp.zeros((), jnp.float32))

    def params(state: PEARLState) -> PEARLParams:
        return PEARLParams(state.learned.sac.params.policy, state.learned.encoder)

    def collect(
        key: PRNGKey, state: PEARLState, tasks: Float[Array, "B D"]
    ) -> tuple[PEARLState, Rollout, Float[Array, " B"]]:
        data = rollout(key, env, agent, params(state), tasks, episodes=episodes)
        return state._replace(frames=state.frames + frames), data, rollout_returns(data)

    def update(
        key: PRNGKey, state: PEARLState, data: Rollout, weights: Float[Array, " B"]
    ) -> tuple[PEARLState, Metrics]:
        weights = as_weights(weights, data.tasks.shape[0])
        replay = _store(state.replay, data, weights, config)

        def step(learned: Learned, key: PRNGKey) -> tuple[Learned, Metrics]:
            return learn(key, learned, replay)

        def train(learned: Learned) -> tuple[Learned, Metrics]:
            keys = jax.random.split(key, config.gradient_steps)
            new, metrics = jax.lax.scan(step, learned, keys)
            return new, jax.tree.map(jnp.mean, metrics)

        _, shapes = jax.eval_shape(train, state.learned)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        warm = state.frames >= config.warmup_frames
        learned, metrics = jax.lax.cond(warm, train, lambda old: (old, nothing), state.learned)
        return PEARLState(learned, replay, state.frames), metrics

    def task_axes(state: PEARLState) -> PEARLState:
        return no_task_axes(state)._replace(replay=axes_of(state.replay, config.groups))

    return Learner(
        init, collect, update, agent, params, config.num_tasks, frames, rollout_extras, task_axes
    )


# ------------------------------------------------------------------ behaviour


def _make_agent(env: TaskEnv, config: PEARLConfig, act_with: Any, encoder: ContextEncoder) -> Agent:
    """An agent that holds a latent for an episode, and gathers evidence at every step."""
    space, obs_size = env.action_space, config.boundary.observation_size(env)

    def init_carry(n: int) -> PEARLCarry:
        latent, obs = (jnp.zeros((n, size), jnp.float32) for size in (config.latent_size, obs_size))
        evidence = no_evidence((n, config.latent_size))
        return PEARLCarry(evidence, latent, obs, jnp.zeros((), jnp.int32))

    def begin(params: PEARLParams, carry: PEARLCarry, obs: Array, key: PRNGKey) -> PEARLCarry:
        mean, var = posterior(carry.evidence)
        exploring = carry.episodes < config.prior_episodes
        mean, var = jnp.where(exploring, 0.0, mean), jnp.where(exploring, 1.0, var)
        latent = mean + jnp.sqrt(var) * jax.random.normal(key, mean.shape, mean.dtype)
        return PEARLCarry(carry.evidence, latent, obs, carry.episodes + 1)

    def act(
        params: PEARLParams, carry: PEARLCarry, obs: Array, key: PRNGKey, deterministic: bool
    ) -> tuple[Array, tuple[()]]:
        return act_with(params.policy, obs, carry.latent, key, deterministic), ()

    def observe(params: PEARLParams, carry: PEARLCarry, transition: Transition) -> PEARLCarry:
        action, reward, after, valid = transition
        if isinstance(space, Box):
            action = _to_unit(space, action)
        seen = Transitions(carry.obs, action, reward, after, jnp.zeros_like(valid))
        mean, var = encoder.apply(params.encoder, _features(env, config, seen))
        new = gather_evidence(mean[:, None], var[:, None], valid[:, None])
        evidence = jax.tree.map(jnp.add, carry.evidence, new)
        return carry._replace(evidence=evidence, obs=after)

    def env_action(action: Array) -> Array:
        return _from_unit(space, action) if isinstance(space, Box) else action

    return Agent(init_carry, act, observe, env_action, begin, config.boundary)


def _from_unit(space: Box, action: Array) -> Array:
    """Actions in (-1, 1) as the environment takes them."""
    return space.low + (action + 1) / 2 * (space.high - space.low)


def _to_unit(space: Box, action: Array) -> Array:
    return 2 * (action - space.low) / (space.high - space.low) - 1


def _features(env: TaskEnv, config: PEARLConfig, seen: Transitions) -> Float[Array, "... F"]:
    """Transitions as the context encoder sees them."""
    space = env.action_space
    action = seen.action
    if isinstance(space, Discrete):
        action = jax.nn.one_hot(action, space.n, dtype=jnp.float32)
    parts = [seen.obs, action, seen.reward[..., None]]
    parts += [seen.next_obs] if config.next_obs_in_context else []
    return jnp.concatenate(parts, axis=-1)


# ------------------------------------------------------------------ memory


def _example(env: TaskEnv, config: PEARLConfig, episodes: int) -> Transitions:
    """One collection, as ``ShapeDtypeStruct``."""
    steps, space = episodes * env.horizon, env.action_space

    def one() -> Transitions:
        obs = jnp.zeros((steps, config.boundary.observation_size(env)), jnp.float32)
        action = jnp.zeros(steps, jnp.int32)
        if isinstance(space, Box):
            action = jnp.zeros((steps, space.size), jnp.float32)
        reward, terminated = jnp.zeros(steps, jnp.float32), jnp.zeros(steps, bool)
        return Transitions(obs, action, reward, obs, terminated)

    return jax.eval_shape(one)


def _store(
    replay: Replay, data: Rollout, weights: Float[Array, " B"], config: PEARLConfig
) -> Replay:
    """The memory with a rollout; of a task of weight 0 that is not finite, nothing is kept."""
    steps = Transitions(
        seen_obs(data.obs), data.action, data.reward, next_obs(data.obs), data.terminated
    )
    steps = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)
    kept = (weights > 0) | finite_rows(steps)
    steps = where_rows(kept, steps, jax.tree.map(jnp.zeros_like, steps))
    counted = data.valid.T & kept[:, None]
    first = jnp.arange(counted.shape[1]) < config.prior_episodes * data.horizon
    is_context = jnp.broadcast_to(first, counted.shape)
    written = apart((steps, counted, is_context, weights), config.groups)
    return each(memory.write, config.groups)(replay, *written)


# ------------------------------------------------------------------ learning


def _make_learn(env: TaskEnv, config: PEARLConfig, actor: SAC, encoder: ContextEncoder) -> Any:
    """One gradient step: ``(key, learned, replay) -> (learned, metrics)``."""
    optimizer = optax.adam(config.encoder_learning_rate)
    m, n, groups = config.meta_batch, config.batch_size, config.groups

    def draw(slot_key: PRNGKey, context_key: PRNGKey, batch_key: PRNGKey, replay: Replay) -> Any:
        """What one group has for a gradient step, with leaves ``[m / G, …]``."""
        slots = memory.sample_slots(slot_key, replay, m // groups)
        context = memory.sample_context(context_key, replay, slots, config.context_batch)
        batch = memory.sample_transitions(batch_key, replay, slots, n)
        return *context, *batch, replay.weights[slots, memory.newest(replay)[slots]]

    def learn(key: PRNGKey, old: Learned, replay: Replay) -> tuple[Learned, Metrics]:
        slot_key, context_key, batch_key, latent_key, next_key, key = jax.random.split(key, 6)
        sac = old.sac
        keys = keys_of(slot_key, groups), keys_of(context_key, groups), keys_of(batch_key, groups)
        drawn = together(each(draw, groups)(*keys, replay), groups)
        context, there, batch, weight, task_weight = drawn
        batch, weight = jax.tree.map(lambda x: jax.lax.collapse(x, 0, 2), (batch, weight))
        noise = jax.random.normal(latent_key, (m, config.latent_size), jnp.float32)

        def loss(learned: tuple[PyTree, PyTree]) -> tuple[Array, tuple[Array, Metrics]]:
            critics, params = learned
            means, variances = encoder.apply(params, _features(env, config, context))
            mean, var = posterior(gather_evidence(means, variances, there))
            latent = jnp.repeat(mean + jnp.sqrt(var) * noise, n, axis=0)
            fixed = jax.lax.stop_gradient(latent)
            worth = actor.next_value(next_key, sac, batch.next_obs, fixed)
            error = actor.critic_loss(critics, batch, latent, worth, weight)
            kl = weighted_mean(kl_to_prior(mean, var), task_weight)
            told = {"critic_loss": error, "kl": kl}
            return error + config.kl_weight * m * kl, (latent, told)

        learned = (sac.params.critics, old.encoder)
        grads, (latent, told) = jax.grad(loss, has_aux=True)(learned)
        sac = actor.descend_critics(grads[0], sac)
        encoded, encoder_opt = descend(optimizer, grads[1], old.encoder_opt, old.encoder)
        sac, metrics = actor.improve(key, sac, batch, latent, weight)
        return Learned(sac, encoded, encoder_opt), told | metrics

    return learn
