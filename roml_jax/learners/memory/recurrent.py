"""A memory that the policy's own loss trains: a GRU unrolled over whole meta-episodes."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from roml_jax.checks import check_at_least
from roml_jax.encoder import RecurrentEncoder
from roml_jax.learners.memory.base import (
    Memory,
    Trajectory,
    history_observer,
    remembered_size,
    time_major,
)
from roml_jax.types import Boundary, Metrics, PRNGKey, TaskEnv


@dataclass(frozen=True)
class RecurrentConfig:
    """Settings of a recurrent memory.

    Attributes:
      hidden_size: of the GRU.
      latent_size: M, of what the policy sees.
      action_embedding: of the encoder.
      obs_embedding: of the encoder.
      reward_embedding: of the encoder.
      layers_before: ReLU layers between the embeddings and the GRU.
      truncation: steps that gradients flow back through the GRU; None for all.
    """

    hidden_size: int = 128
    latent_size: int = 128
    action_embedding: int = 16
    obs_embedding: int = 32
    reward_embedding: int = 16
    layers_before: tuple[int, ...] = ()
    truncation: int | None = None

    def __post_init__(self) -> None:
        """Checks the settings."""
        check_at_least(self, 1, "hidden_size", "latent_size", "layers_before", "truncation")
        check_at_least(self, 1, "action_embedding", "obs_embedding", "reward_embedding")


def recurrent(env: TaskEnv, config: RecurrentConfig, boundary: Boundary) -> Memory:
    """A GRU over action, reward and next observation, trained through the policy's loss.

    Args:
      env: gives the sizes.
      config: the settings.
      boundary: what the agent sees between episodes.

    Returns:
      A ``Memory`` whose state is its parameters, and which has a ``recall``.

    Reference: Duan et al. (2016), "RL²: Fast Reinforcement Learning via Slow Reinforcement
      Learning".
    """
    encoder = RecurrentEncoder(
        hidden_size=config.hidden_size,
        latent_size=config.latent_size,
        action_embedding=config.action_embedding,
        obs_embedding=config.obs_embedding,
        reward_embedding=config.reward_embedding,
        layers_before=config.layers_before,
    )
    obs_size, action_size = boundary.observation_size(env), remembered_size(env)

    def init(key: PRNGKey) -> PyTree:
        obs, action = (jnp.zeros((1, 1, size), jnp.float32) for size in (obs_size, action_size))
        return encoder.init(key, action, obs[..., 0], obs, jnp.ones((1, 1), bool))

    def init_carry(n: int) -> Float[Array, "n E"]:
        return jnp.zeros((n, config.hidden_size), jnp.float32)

    def read(params: PyTree, carry: Float[Array, "n E"]) -> Float[Array, "n M"]:
        return encoder.apply(params, carry, method="read")

    def store(state: PyTree, trajectories: Trajectory) -> PyTree:
        return state

    def improve(key: PRNGKey, state: PyTree) -> tuple[PyTree, Metrics]:
        return state, {}

    def recall(params: PyTree, trajectories: Trajectory) -> Float[Array, "T B M"]:
        steps = time_major(trajectories)
        hidden = encoder.apply(params, *steps, config.truncation, method="hidden_sequence")
        return encoder.apply(params, hidden[:-1], method="read")

    return Memory(
        config.latent_size,
        init,
        lambda state: state,
        init_carry,
        read,
        history_observer(env, encoder),
        store,
        improve,
        recall,
    )
