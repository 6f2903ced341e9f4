"""An adversary over single tasks: a network that turns noise into tasks of large regret."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree, Real

from roml_jax import distributions
from roml_jax.checks import check_in
from roml_jax.losses import policy_loss, weighted_mean
from roml_jax.networks import MLP, Linear, orthogonal
from roml_jax.normalize import Moments, init_moments
from roml_jax.samplers._mixture import check_family, check_returns
from roml_jax.samplers.adversary import judge
from roml_jax.trees import descend
from roml_jax.types import Draw, Family, Metrics, PRNGKey, TaskSampler


class DesignerState(NamedTuple):
    """The network, and what it has been doing."""

    params: PyTree
    opt_state: optax.OptState
    regret: Moments  # scalar, of all regrets so far
    phi: Float[Array, " P"]  # float32, fit to the tasks of the last step


class _Designer(nn.Module):
    """Noise to mean and deviation of a Gaussian over what becomes a task."""

    layers: tuple[int, ...]
    components: int
    init_std: float

    @nn.compact
    def __call__(self, noise: Float[Array, "n E"]) -> tuple[Array, Array]:
        hidden = MLP(self.layers, jnp.tanh, orthogonal(math.sqrt(2)))(noise)
        mean = Linear(self.components, orthogonal(0.01))(hidden)
        start = nn.initializers.constant(math.log(self.init_std))
        log_std = self.param("log_std", start, (self.components,), jnp.float32)
        return mean, jnp.broadcast_to(jnp.exp(log_std), mean.shape)


def designer(
    family: Family,
    *,
    learning_rate: float = 3e-4,
    layers: tuple[int, ...] = (64, 64),
    noise: int = 50,
    init_std: float = 1.0,
    epochs: int = 8,
    minibatches: int = 4,
    clip: float = 0.2,
    entropy_coef: float = 0.01,
    clip_regret: bool = True,
) -> TaskSampler:
    """A sampler whose tasks are made by a network, trained by PPO to find low returns.

    A task is one action of a policy that sees noise alone: a Gaussian, its tanh, and
    ``family.from_units``. Below ``wrappers.rivals`` the return is the negative regret, and this
    the adversary of PAIRED.

    Args:
      family: the task distribution; only where its tasks may lie counts.
      learning_rate: of Adam, positive.
      layers: sizes of the hidden layers.
      noise: uniform random numbers that the network sees, at least 1.
      init_std: initial deviation of the Gaussian, positive.
      epochs: passes over the tasks of a step, at least 1.
      minibatches: of each pass; must divide the tasks of a step.
      clip: bound on the probability ratio.
      entropy_coef: weight of the Gaussian's entropy.
      clip_regret: take negative regrets for 0.

    Returns:
      A ``TaskSampler``. Its draws say nothing about ``D_phi0``: their weights are 0. ``phi`` is
      the fit to the last step's tasks. Returns that are not finite take no part. Info is as that
      of ``adversary``.

    Raises:
      ValueError: an argument is out of range, or the family has no ``from_units``; while tracing,
        if the minibatches do not divide the tasks.

    Reference: Dennis et al. (2020), "Emergent Complexity and Zero-shot Transfer via Unsupervised
      Environment Design", Alg. 1; Greenberg et al. (2023), Section 6.

    Differs from the code of the published runs: a task is one action, not two; its probability
    is that of the Gaussian where it was drawn, there that of the same Gaussian at its tanh; the
    baseline is the mean over the step, as the noise tells a critic nothing.
    """
    from_units = _check(family, learning_rate, init_std, clip, entropy_coef)
    least = min(layers, default=1)
    _check_counts(noise=noise, epochs=epochs, minibatches=minibatches, layers=least)
    network = _Designer(layers, len(family.names), init_std)
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5))

    def init(key: PRNGKey) -> DesignerState:
        check_family(family)
        params = network.init(key, jnp.zeros((1, noise), jnp.float32))
        start = jnp.asarray(family.phi0)
        return DesignerState(params, optimizer.init(params), init_moments(), start)

    def policy(params: PyTree, seen: Float[Array, "n E"]) -> Any:
        return distributions.diagonal_normal(*network.apply(params, seen))

    def sample(key: PRNGKey, state: DesignerState, n: int) -> Draw:
        key_noise, key_action = jax.random.split(key)
        seen = jax.random.uniform(key_noise, (n, noise), jnp.float32)
        action = policy(state.params, seen).sample(seed=key_action)
        tasks = from_units((jnp.tanh(action) + 1) / 2)
        own = {"designer_noise": seen, "designer_action": action}
        return Draw(tasks, jnp.zeros(n, jnp.float32), jnp.zeros(n, bool), own)

    def update(
        key: PRNGKey, state: DesignerState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[DesignerState, Metrics]:
        returns = check_returns(draw, returns)
        n = returns.size
        if n % minibatches:
            raise ValueError(f"minibatches={minibatches} must divide the {n} tasks of a step")
        counted = jnp.isfinite(returns)
        moments, advantage, info = judge(state.regret, returns, counted, clip_regret)
        seen, action = draw.extras["designer_noise"], draw.extras["designer_action"]
        batch = (seen, action, policy(state.params, seen).log_prob(action), advantage, counted)

        def loss(params: PyTree, batch: tuple[Array, ...]) -> Float[Array, ""]:
            seen, action, old, advantage, counted = batch
            distribution, weight = policy(params, seen), counted.astype(jnp.float32)
            surrogate = policy_loss(distribution.log_prob(action), old, advantage, weight, clip)
            return surrogate - entropy_coef * weighted_mean(distribution.entropy(), weight)

        def minibatch_step(carry: tuple, index: Array) -> tuple[tuple, None]:
            params, opt_state = carry
            grads = jax.grad(loss)(params, jax.tree.map(lambda x: x[index], batch))
            return descend(optimizer, grads, opt_state, params), None

        keys = jax.random.split(key, epochs)
        index = jax.vmap(lambda key: jax.random.permutation(key, n))(keys)
        index = index.reshape(epochs * minibatches, -1)
        start = (state.params, state.opt_state)
        (params, opt_state), _ = jax.lax.scan(minibatch_step, start, index)
        phi = family.fit(draw.tasks, jnp.ones(n, jnp.float32)).astype(state.phi.dtype)
        return DesignerState(params, opt_state, moments, phi), info

    return TaskSampler(init, sample, update, lambda state: state.phi)


def _check(
    family: Family, learning_rate: float, init_std: float, clip: float, entropy_coef: float
) -> Any:
    """The family's map of units to tasks, if all arguments are in range.

    Raises:
      ValueError: otherwise.
    """
    check_in("learning_rate", learning_rate, "(0, inf)", "the size of a step")
    check_in("init_std", init_std, "(0, inf)", "a standard deviation")
    check_in("clip", clip, "(0, inf)", "a bound on the probability ratio")
    check_in("entropy_coef", entropy_coef, "[0, inf)", "the weight of the entropy")
    if family.from_units is None:
        raise ValueError(
            f"the family of {', '.join(family.names)} has no from_units, which a network that "
            "makes tasks needs: let the adversary move phi instead"
        )
    return family.from_units


def _check_counts(**counts: int) -> None:
    """Raises a ValueError for the first number that is less than 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name}={count} must be at least 1.")
