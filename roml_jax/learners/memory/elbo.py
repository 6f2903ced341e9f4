"""The evidence lower bound of a recurrent encoder and its decoders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from roml_jax.checks import check_at_least, check_choice, check_positive
from roml_jax.decoders import TaskDecoder, TransitionDecoder
from roml_jax.encoder import Belief, BeliefEncoder
from roml_jax.learners.memory.base import Trajectory, time_major
from roml_jax.losses import weighted_mean
from roml_jax.rollout import next_obs, seen_obs
from roml_jax.types import Metrics, PRNGKey

_PAIRS = 1 << 14  # of an ELBO term and a step in a block of the decoder: some megabytes


@dataclass(frozen=True)
class BeliefConfig:
    """Settings of the encoder, the decoders and their update.

    Attributes:
      latent_size: L.
      hidden_size: of the GRU.
      action_embedding: size of the embedded action, in encoder and decoders.
      obs_embedding: size of the embedded observation, in encoder and decoders.
      reward_embedding: size of the embedded reward, in the encoder.
      layers_before: ReLU layers between the embeddings and the GRU.
      layers_after: ReLU layers between the GRU and the heads.
      decoder_layers: ReLU layers of every decoder.
      decode_reward: predict rewards; at least one decoder must be on.
      decode_obs: predict next observations.
      decode_task: predict the task.
      reward_coef: weight of the reward's reconstruction.
      obs_coef: weight of the next observation's reconstruction.
      task_coef: weight of the task's reconstruction.
      kl_weight: weight of the KL terms.
      kl_over_batch: ``"sum"`` adds the KL of all trajectories of a batch to the mean
        of their reconstruction errors, as the original code does (with a batch of 10
        and a weight of 0.1 the two count alike); ``"mean"`` averages both.
      elbo_terms: ELBO terms drawn from each trajectory with replacement; None for all.
      decode_terms: steps decoded for each ELBO term, likewise.
      rescale_terms: drawn terms stand for all: their sums are scaled up, so that loss and gradient
        are those of all terms in expectation. False keeps the sums of those drawn, as the original
        code does.
      truncation: steps that gradients flow back through the GRU; None for all.
      learning_rate: Adam's.
      encoder_max_grad_norm: norm of the encoder's clipped gradient.
      decoder_max_grad_norm: the same for each decoder.
      buffer_size: trajectories kept, rounded down to a multiple of the tasks of a step.
      batch_size: trajectories of one update.
      updates: updates per training step.
    """

    latent_size: int = 5
    hidden_size: int = 128
    action_embedding: int = 16
    obs_embedding: int = 32
    reward_embedding: int = 16
    layers_before: tuple[int, ...] = ()
    layers_after: tuple[int, ...] = ()
    decoder_layers: tuple[int, ...] = (64, 32)
    decode_reward: bool = True
    decode_obs: bool = False
    decode_task: bool = False
    reward_coef: float = 1.0
    obs_coef: float = 1.0
    task_coef: float = 1.0
    kl_weight: float = 0.1
    kl_over_batch: Literal["sum", "mean"] = "sum"
    elbo_terms: int | None = 50
    decode_terms: int | None = 50
    rescale_terms: bool = False
    truncation: int | None = 50
    learning_rate: float = 1e-3
    encoder_max_grad_norm: float = 1.0
    decoder_max_grad_norm: float = 1.0
    buffer_size: int = 10_000
    batch_size: int = 10
    updates: int = 1

    def __post_init__(self) -> None:
        """Checks what can be checked without an environment."""
        if not (self.decode_reward or self.decode_obs or self.decode_task):
            raise ValueError(
                "a belief needs something to predict: turn on at least one of decode_reward, "
                "decode_obs, decode_task"
            )
        check_choice("kl_over_batch", self.kl_over_batch, ("sum", "mean"))
        check_at_least(
            self, 1, "latent_size", "hidden_size", "batch_size", "updates", "buffer_size"
        )
        check_at_least(self, 1, "action_embedding", "obs_embedding", "reward_embedding")
        check_at_least(self, 1, "layers_before", "layers_after", "decoder_layers")
        check_at_least(self, 1, "elbo_terms", "decode_terms", "truncation")
        check_at_least(self, 0, "kl_weight", "reward_coef", "obs_coef", "task_coef")
        check_positive(self, "learning_rate", "encoder_max_grad_norm", "decoder_max_grad_norm")
        if not self.decoder_layers:
            raise ValueError("decoder_layers needs at least one size")


class BeliefModel(NamedTuple):
    """The modules; ``decoders`` holds those that are on, by name."""

    encoder: BeliefEncoder
    decoders: dict[str, nn.Module]


def make_model(config: BeliefConfig, obs_size: int, task_size: int) -> BeliefModel:
    """The encoder and the decoders that the settings turn on."""
    encoder = BeliefEncoder(
        latent_size=config.latent_size,
        hidden_size=config.hidden_size,
        action_embedding=config.action_embedding,
        obs_embedding=config.obs_embedding,
        reward_embedding=config.reward_embedding,
        layers_before=config.layers_before,
        layers_after=config.layers_after,
    )

    def transition_decoder(outputs: int, use_next_obs: bool) -> TransitionDecoder:
        return TransitionDecoder(
            outputs,
            config.decoder_layers,
            config.action_embedding,
            config.obs_embedding,
            use_next_obs,
            config.latent_size,
        )

    decoders: dict[str, nn.Module] = {}
    if config.decode_reward:
        decoders["reward"] = transition_decoder(1, use_next_obs=True)
    if config.decode_obs:
        decoders["obs"] = transition_decoder(obs_size, use_next_obs=False)
    if config.decode_task:
        decoders["task"] = TaskDecoder(task_size, config.decoder_layers)
    return BeliefModel(encoder, decoders)


def sample_latent(key: PRNGKey, belief: Belief) -> Float[Array, "... L"]:
    """``mean + exp(logvar / 2) * noise``."""
    noise = jax.random.normal(key, belief.mean.shape, belief.mean.dtype)
    return belief.mean + jnp.exp(0.5 * belief.logvar) * noise


def kl_to_previous(belief: Belief) -> Float[Array, "T1 B"]:
    """KL divergence of each posterior from the one before; the first from N(0, I).

    ``KL(q_t || q_{t-1}) = 1/2 sum_l [logvar_{t-1} - logvar_t - 1
    + exp(logvar_t - logvar_{t-1}) + (mean_t - mean_{t-1})^2 / exp(logvar_{t-1})]``.

    Args:
      belief: of ``[T + 1, B, L]``. Gradients flow through both posteriors.

    Reference: Zintgraf et al. (2020), Eq. (7).
    """
    mean_tm1 = jnp.concatenate([jnp.zeros_like(belief.mean[:1]), belief.mean[:-1]])
    logvar_tm1 = jnp.concatenate([jnp.zeros_like(belief.logvar[:1]), belief.logvar[:-1]])
    ratio = jnp.exp(belief.logvar - logvar_tm1)
    shift = jnp.square(belief.mean - mean_tm1) * jnp.exp(-logvar_tm1)
    return 0.5 * jnp.sum(logvar_tm1 - belief.logvar - 1.0 + ratio + shift, axis=-1)


def elbo_loss(
    params: PyTree,
    model: BeliefModel,
    config: BeliefConfig,
    key: PRNGKey,
    batch: Trajectory,
    weight: Float[Array, " B"] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """Negative ELBO of a batch of trajectories, with the terms drawn at random.

    For each trajectory, ``elbo_terms`` posteriors are drawn; for each of them,
    ``decode_terms`` steps of the whole trajectory, past and future, are decoded.
    Errors are summed over both and averaged over trajectories.

    Args:
      params: ``{"encoder": …, decoder: …}``.
      model: the modules.
      config: the settings.
      key: draws latents and terms.
      batch: with leaves ``[B, …]``.
      weight: ``[B]``, 0 for a trajectory that does not count and 1 for all others; None for all.

    Returns:
      The loss, and its parts.

    Reference: Zintgraf et al. (2020), Eqs. (6) and (7). Differs: with terms drawn, the sum is
      over the drawn terms, as in the original code, unless ``rescale_terms`` says otherwise.
    """
    latent_key, elbo_key, decode_key = jax.random.split(key, 3)
    obs = jax.vmap(seen_obs)(batch.obs)
    after = jax.vmap(next_obs)(batch.obs)
    belief = model.encoder.apply(
        params["encoder"], *time_major(batch), config.truncation, method="sequence"
    )
    terms = _draw(elbo_key, belief.mean.shape[0], config.elbo_terms, batch.reward.shape[:1])
    latent = _at(jnp.swapaxes(sample_latent(latent_key, belief), 0, 1), terms)  # [B, E, L]
    of_terms = _stands_for(config, config.elbo_terms, belief.mean.shape[0])
    of_steps = of_terms * _stands_for(config, config.decode_terms, batch.reward.shape[1])
    kl = of_terms * jnp.sum(_at(kl_to_previous(belief).T, terms), axis=1)  # [B]

    def mean(x: Float[Array, " B"]) -> Float[Array, ""]:
        return jnp.mean(x) if weight is None else weighted_mean(x, weight)

    metrics = {"kl": mean(kl)}
    total = jnp.sum(kl if weight is None else kl * weight)
    loss = config.kl_weight * (total if config.kl_over_batch == "sum" else metrics["kl"])
    steps = _draw(
        decode_key, batch.reward.shape[1], config.decode_terms, (latent.shape[0], latent.shape[1])
    )
    targets = {"reward": batch.reward[..., None], "obs": after}
    coefs = {"reward": config.reward_coef, "obs": config.obs_coef, "task": config.task_coef}
    for name, decoder in model.decoders.items():
        if name == "task":
            error = jnp.square(decoder.apply(params[name], latent) - batch.task[:, None])
            errors = of_terms * jnp.sum(error, axis=(1, 2))
        else:
            inputs = (obs, batch.action, after)
            errors = of_steps * _decode(
                params[name], decoder, latent, inputs, targets[name], batch.valid, steps
            )
        metrics[f"{name}_error"] = mean(errors)
        loss = loss + coefs[name] * metrics[f"{name}_error"]
    return loss, metrics | {"elbo_loss": loss}


def _stands_for(config: BeliefConfig, drawn: int | None, of: int) -> float:
    """How many terms one of those that are drawn stands for."""
    return of / drawn if config.rescale_terms and drawn is not None else 1.0


def _decode(
    params: PyTree,
    decoder: nn.Module,
    latent: Float[Array, "B E L"],
    inputs: tuple[Array, Array, Array],
    target: Float[Array, "B T F"],
    valid: Bool[Array, "B T"],
    steps: Int[Array, "B E D"] | None,
) -> Float[Array, " B"]:
    """Squared errors of decoded steps, summed over terms, steps and components.

    Everything that depends on the step alone is computed once per step and gathered. Many
    pairs of term and step are decoded in blocks that fit a cache, and once more for the
    derivative: on a CPU that takes a third of the time, and next to no memory.
    """
    of_latents = decoder.apply(params, latent, method="of_latents")
    of_steps = decoder.apply(params, *inputs, method="of_steps")
    target = jnp.concatenate([target, valid[..., None].astype(target.dtype)], axis=-1)

    def decode(
        params: PyTree, latents: Float[Array, "B e F"], steps: Int[Array, "B e D"] | None
    ) -> Float[Array, " B"]:
        if steps is None:
            step, wanted = of_steps[:, None], target[:, None]
        else:
            step, wanted = _at(of_steps, steps), _at(target, steps)
        predicted = decoder.apply(params, latents[:, :, None], step, method="combine")
        errors = jnp.sum(jnp.square(predicted - wanted[..., :-1]), axis=-1) * wanted[..., -1]
        return jnp.sum(errors, axis=(1, 2))

    pairs = target.shape[:2] if steps is None else (len(steps), steps.shape[-1])
    return _sum_blocks(decode, params, of_latents, steps, max(1, _PAIRS // math.prod(pairs)))


def _sum_blocks(
    decode: Callable[[PyTree, Array, Array | None], Float[Array, " B"]],
    params: PyTree,
    latents: Float[Array, "B E F"],
    steps: Int[Array, "B E D"] | None,
    size: int,
) -> Float[Array, " B"]:
    """``decode`` of all terms, in blocks of some, where two of these do not hold them all."""
    count = latents.shape[1]
    if count <= 2 * size:
        return decode(params, latents, steps)
    terms, whole = (latents, steps), count - count % size

    def blocks(x: Array) -> Array:  # [n, B, size, …]
        return jnp.moveaxis(x[:, :whole].reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

    decode_again = jax.checkpoint(decode)
    total = jnp.zeros(len(latents), latents.dtype)
    total, _ = jax.lax.scan(
        lambda total, block: (total + decode_again(params, *block), None),
        total,
        jax.tree.map(blocks, terms),
    )
    if whole < count:
        total += decode_again(params, *jax.tree.map(lambda x: x[:, whole:], terms))
    return total


def _draw(
    key: PRNGKey, size: int, terms: int | None, shape: tuple[int, ...]
) -> Int[Array, "..."] | None:
    """``[*shape, terms]`` indices below size with replacement; None stands for all."""
    if terms is None:
        return None
    return jax.random.randint(key, (*shape, terms), 0, size, dtype=jnp.int32)


def _at(x: Array, index: Int[Array, "B ..."] | None) -> Array:
    """Rows of ``x[b]`` at ``index[b]``, for each b; all of them for None."""
    return x if index is None else jax.vmap(lambda rows, i: rows[i])(x, index)
