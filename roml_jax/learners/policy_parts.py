"""What a policy is made of: its settings, parameters, network and optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from roml_jax import distributions
from roml_jax.checks import check_at_least, check_choice, check_in, check_positive
from roml_jax.networks import Activation, ActorCritic, Initialization, PolicyOutput, hidden_init
from roml_jax.normalize import Moments, normalize
from roml_jax.returns import TIME_LIMITS, TimeLimit
from roml_jax.types import Discrete, TaskEnv

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
      minibatches: per pass; must divide the frames of a training step, or its tasks if the
        memory learns with the policy.
      clip: bound on the probability ratio, and on the change of clipped values.
      entropy_coef: weight of the entropy bonus.
      value_coef: weight of the value loss.
      max_grad_norm: global norm of the clipped gradient.
      clip_value: clip the change of the value against the rollout's value.
      huber_value: Huber instead of squared value error.
      unselected: what becomes of tasks that count nothing for the method: ``"drop"``
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
        check_in("discount", self.discount, "[0, 1]", "what a later reward is worth")
        check_in("gae_lambda", self.gae_lambda, "[0, 1]", "the decay of traces")


class PolicyParams(NamedTuple):
    """What acting needs."""

    network: PyTree
    obs_moments: Moments  # [O]
    belief_moments: Moments  # [M], M = 2 L; empty for a memory-less agent


class PolicyState(NamedTuple):
    """The policy half of a learner's state."""

    params: PolicyParams
    opt_state: PyTree  # of (network, parameters of a memory that learns with it)
    reward_moments: Moments  # scalar, of discounted sums of reward


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


def action_distribution(output: PolicyOutput) -> Any:
    """Distribution of the policy's own action, before any squash.

    A squashed policy needs no more: the Jacobian of tanh at the stored action is the
    same in both log-probabilities of the ratio, and the entropy bonus is the
    Gaussian's, as in the original code.
    """
    if output.std is None:
        return distributions.categorical(logits=output.location)
    return distributions.diagonal_normal(output.location, output.std)


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
