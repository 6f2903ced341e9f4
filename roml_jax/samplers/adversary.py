"""An adversary over ``phi``: the task distribution climbs the regret by its own gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from roml_jax.checks import check_in
from roml_jax.normalize import EPSILON, Moments, batch_moments, init_moments, merge_moments
from roml_jax.samplers._mixture import (
    check_family,
    check_nu,
    check_returns,
    draw_mixture,
    random_plan,
)
from roml_jax.types import UNTOLD, Draw, Family, Metrics, PRNGKey, TaskSampler

_FISHER_DRAWS = 256  # tasks that the metric of a step is estimated from
_DAMPING = 1e-3  # of the metric, relative to its mean eigenvalue


class AdversaryState(NamedTuple):
    """Where the distribution stands, and how large regrets are."""

    phi: Float[Array, " P"]  # float32, parameter of the sample distribution
    regret: Moments  # scalar, of all regrets so far


def adversary(
    family: Family, *, learning_rate: float = 0.1, nu: float = 0.0, clip_regret: bool = True
) -> TaskSampler:
    """A sampler that moves ``D_phi`` to where the return is lowest: to the largest regret.

    ``D_phi`` is taken for the policy of an adversary whose action is the task: a step follows
    the policy gradient ``E[A(z) grad log D_phi(z)]`` of the advantage A of the negative return,
    in the metric of the distributions themselves (the natural gradient), so that ``phi`` needs
    no scale. Below ``wrappers.rivals`` the return is the negative regret.

    Args:
      family: the task distribution.
      learning_rate: positive; the deviation of ``D_phi`` that a step moves by if tasks differ by
        one deviation of regret, all due to ``phi``.
      nu: in [0, 1); the fraction of tasks that come from ``D_phi0``, which the gradient leaves
        out.
      clip_regret: take negative regrets for 0: where the rival is worse there is nothing to gain.

    Returns:
      A ``TaskSampler``. Returns that are not finite take no part; a step that is not finite
      leaves ``phi`` as it is. Info holds the mean "regret" of the step, ``UNTOLD`` if no return
      is finite.

    Raises:
      ValueError: an argument is out of range.

    Reference: Dennis et al. (2020), "Emergent Complexity and Zero-shot Transfer via Unsupervised
      Environment Design", Alg. 1; Williams (1992) for the gradient; Kakade (2001), "A Natural
      Policy Gradient".
    """
    check_in("learning_rate", learning_rate, "(0, inf)", "the size of a step")
    check_nu(nu)

    def init(key: PRNGKey) -> AdversaryState:
        check_family(family)
        return AdversaryState(jnp.asarray(family.phi0), init_moments())

    def sample(key: PRNGKey, state: AdversaryState, n: int) -> Draw:
        key_plan, key_draw = jax.random.split(key)
        return draw_mixture(key_draw, family, state.phi, random_plan(key_plan, n, nu))

    def update(
        key: PRNGKey, state: AdversaryState, draw: Draw, returns: Real[Array, " n"]
    ) -> tuple[AdversaryState, Metrics]:
        returns = check_returns(draw, returns)
        counted = jnp.isfinite(returns) & ~draw.is_reference
        moments, advantage, info = judge(state.regret, returns, counted, clip_regret)
        step = _natural_step(key, family, state.phi, draw.tasks, advantage)
        phi = family.project(state.phi + learning_rate * step).astype(state.phi.dtype)
        return AdversaryState(jnp.where(jnp.isfinite(phi).all(), phi, state.phi), moments), info

    return TaskSampler(init, sample, update, lambda state: state.phi)


def judge(
    moments: Moments, returns: Float[Array, " n"], counted: Bool[Array, " n"], clip: bool
) -> tuple[Moments, Float[Array, " n"], Metrics]:
    """How much better for the adversary each task is than the mean one.

    Args:
      moments: scalar, of all regrets so far.
      returns: ``[n]``, negative regrets.
      counted: ``[n]``, False for tasks that are none of the adversary's, or of no known return.
      clip: take negative regrets for 0.

    Returns:
      The moments with these; the advantages, in deviations of regret, 0 where not ``counted``;
      and the mean "regret".
    """
    regret = jnp.where(counted, -returns, 0)
    regret = jnp.maximum(regret, 0) if clip else regret
    own = batch_moments(regret, counted)
    moments = merge_moments(moments, own)
    scale = jax.lax.rsqrt(moments.var + EPSILON)
    advantage = jnp.where(counted, (regret - own.mean) * scale, 0)
    return moments, advantage, {"regret": jnp.where(counted.any(), own.mean, UNTOLD)}


def _natural_step(
    key: PRNGKey,
    family: Family,
    phi: Float[Array, " P"],
    tasks: Float[Array, "n D"],
    advantage: Float[Array, " n"],
) -> Float[Array, " P"]:
    """The natural policy gradient; zero where all advantages are."""

    def scores(tasks: Float[Array, "m D"]) -> Float[Array, "m P"]:
        """Gradients of the log-density of each task."""
        return jax.vmap(jax.grad(lambda phi, z: family.log_prob(z[None], phi)[0]), (None, 0))(
            phi, tasks
        )

    own = jnp.where(advantage[:, None] == 0, 0, scores(tasks))
    gradient = advantage @ own / jnp.maximum(1.0, jnp.sum(advantage != 0, dtype=own.dtype))
    drawn = scores(family.sample(key, phi, _FISHER_DRAWS))
    metric = drawn.T @ drawn / _FISHER_DRAWS
    damping = _DAMPING * jnp.trace(metric) / phi.size
    return jnp.linalg.solve(metric + damping * jnp.eye(phi.size), gradient)
