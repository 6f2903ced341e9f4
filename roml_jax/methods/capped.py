"""Return capping: learning from all tasks, whose returns count no more than those of the tail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from roml_jax import risk, samplers
from roml_jax.checks import check_in
from roml_jax.methods.kind import MethodKind
from roml_jax.normalize import Moments, batch_moments, init_moments, merge_moments
from roml_jax.quantiles import weighted_quantile
from roml_jax.rollout import Rollout
from roml_jax.types import Alpha, Extras, Family, Learner, MetaAlgorithm, Metrics, PRNGKey
from roml_jax.wrappers import shaped

_FARTHEST = 10.0  # deviations from the cap that the critic is told of


@dataclass(frozen=True)
class CappedConfig:
    """Settings of return capping.

    Attributes:
      alpha: fraction of worst tasks whose best return is the cap, in (0, 1].
      cap_step: part of the way to the quantile of a step's returns that the cap goes, in (0, 1].
      cap_floor: the cap is at least this; None for no floor.
    """

    alpha: float = 0.05
    cap_step: float = 0.2
    cap_floor: float | None = None

    def __post_init__(self) -> None:
        """Checks what nothing else does."""
        risk.check_alpha(self.alpha)
        _check_step(self.cap_step)


class CappedState(NamedTuple):
    """A learner, and where the cap stands."""

    learner: Any
    cap: Float[Array, ""]  # float32, of the return of a task
    returns: Moments  # scalar, of all returns so far; their weight is below one before the first


class CappedRollout(NamedTuple):
    """A learner's rollout with the returns that the cap is measured by."""

    rollout: Any
    returns: Float[Array, " B"]


def with_cap(
    learner: Learner, alpha: Alpha, *, cap_step: float = 0.2, cap_floor: float | None = None
) -> Learner:
    """A learner of ``E[min(R, C)]``, where the cap C follows the ``alpha``-quantile of returns R.

    If C is that quantile for the policy of the best CVaR, that policy is the best of the capped
    return, too. A return above the cap earns nothing more, but its trajectory is learned from: what
    was enough, and for the critic. A step is worth ``min(G_t, C) - min(G_{t-1}, C)`` of the running
    return G, in raw rewards, and the critic is told how far ``G_{t-1}`` is from the cap: the
    capped reward depends on it, and no observation has it.

    A learner without a critic of rollouts (``Learner.informed`` is None) learns from the tasks of
    ``R <= C`` alone. Where R is differentiated, as by MAML, that is the gradient of ``min(R, C)``.

    Args:
      learner: any.
      alpha: fraction of worst tasks whose best return is the cap, in (0, 1].
      cap_step: in (0, 1]; the cap moves by this part of its distance from the quantile of a
        step's returns, and starts at the first.
      cap_floor: the cap is at least this; None for no floor. It keeps the cap from staying low as
        long as all is beyond it.

    Returns:
      A ``Learner`` with the same returns and behaviour. Metrics are those of ``learner``, with
      "cap", and "capped", the share of tasks above it. Returns that are not finite do not move it.

    Raises:
      ValueError: an argument is out of range.

    Reference:
      Mead et al. (2025), "Return Capping: Sample Efficient CVaR Policy Gradient Optimisation".
      There, trajectories of one task are capped. Here, the return of a task is the mean over its
      meta-episode, with the noise of that one: where a task is noisy the tail of trajectories is
      not that of tasks, and the cap is the former's. The quantile is corrected for tails that a
      sample misses, as in ``samplers.cem``.
    """
    risk.check_alpha(alpha)
    _check_step(cap_step)
    base = learner.informed(1) if learner.informed else learner

    def init(key: PRNGKey) -> CappedState:
        return CappedState(base.init(key), jnp.zeros((), jnp.float32), init_moments())

    def collect(
        key: PRNGKey, state: CappedState, tasks: Float[Array, "B D"]
    ) -> tuple[CappedState, CappedRollout, Float[Array, " B"]]:
        inner, rollout, returns = base.collect(key, state.learner, tasks)
        return state._replace(learner=inner), CappedRollout(rollout, returns), returns

    def update(
        key: PRNGKey, state: CappedState, data: CappedRollout, weights: Float[Array, " B"]
    ) -> tuple[CappedState, Metrics]:
        cap, moments = _follow(state, data.returns, alpha, cap_step, cap_floor)
        above = data.returns > cap
        if learner.informed:
            below = shaped(base, lambda reward, _: capped_rewards(reward, cap, data.rollout))
            distance = _distance(data.rollout, cap, jnp.sqrt(moments.var))
            rollout = data.rollout._replace(told=distance)
            inner, metrics = below.update(key, state.learner, rollout, weights)
        else:
            kept = jnp.where(above, 0, weights)
            inner, metrics = base.update(key, state.learner, data.rollout, kept)
        told = {"cap": cap, "capped": jnp.mean(above.astype(jnp.float32))}
        return CappedState(inner, cap, moments), metrics | told

    def extras(data: CappedRollout) -> Extras:
        return base.extras(data.rollout)

    def task_axes(state: CappedState) -> CappedState:
        alone = jax.tree.map(lambda _: -1, state)
        return alone._replace(learner=base.task_axes(state.learner))

    return base._replace(
        init=init,
        collect=collect,
        update=update,
        params=lambda state: base.params(state.learner),
        extras=extras,
        task_axes=task_axes,
        informed=None,
    )


def capped_rewards(
    reward: Float[Array, "T B"], cap: Float[Array, ""], rollout: Rollout
) -> Float[Array, "T B"]:
    """Rewards whose sum over a meta-episode is that of ``min(R, cap)``, up to a constant.

    Args:
      reward: ``[T, B]``, raw.
      cap: of the return of a task, the mean over its episodes.
      rollout: whose rewards they are.

    Returns:
      ``[T, B]``; a sum is ``K min(R, cap) - K min(0, cap)``.
    """
    total = jnp.minimum(_running(reward), cap * rollout.episodes)
    return jnp.diff(total, axis=0)


def _running(reward: Float[Array, "T B"]) -> Float[Array, "T1 B"]:
    """Sums of the rewards before each step, and after the last."""
    return jnp.pad(jnp.cumsum(reward, axis=0), ((1, 0), (0, 0)))


def _distance(
    rollout: Rollout, cap: Float[Array, ""], deviation: Float[Array, ""]
) -> Float[Array, "K H1 B 1"]:
    """How far what was earned so far is above the cap, in deviations of returns."""
    episodes, horizon = rollout.episodes, rollout.horizon
    at = horizon * jnp.arange(episodes)[:, None] + jnp.arange(horizon + 1)[None]
    earned = _running(rollout.reward)[at] / episodes
    scale = jnp.maximum(deviation, jnp.finfo(jnp.float32).eps)
    return jnp.clip((earned - cap) / scale, -_FARTHEST, _FARTHEST)[..., None]


def _follow(
    state: CappedState,
    returns: Float[Array, " B"],
    alpha: Alpha,
    step: float,
    floor: float | None,
) -> tuple[Float[Array, ""], Moments]:
    """The cap after a step's returns, and the moments of all of them."""
    returns = returns.astype(jnp.float32)
    known = jnp.isfinite(returns)
    counts = jnp.where(known.any(), known, True).astype(jnp.float32)
    seen = jnp.where(known, returns, 0)
    quantile = weighted_quantile(seen, alpha, counts, population=True)
    first = state.returns.weight < 1
    cap = jnp.where(first, quantile, state.cap + step * (quantile - state.cap))
    cap = jnp.where(known.any(), cap, state.cap)
    if floor is not None:
        cap = jnp.maximum(cap, floor)
    return cap, merge_moments(state.returns, batch_moments(seen, known))


def _check_step(step: float) -> None:
    check_in("cap_step", step, "(0, 1]", "the part of the way that the cap goes")


def capped(family: Family, alpha: Alpha) -> MetaAlgorithm:
    """Return capping: tasks from ``D_phi0``, all of them used; the learner is to be ``with_cap``.

    Args:
      family: the task distribution.
      alpha: fraction of worst tasks of the CVaR that is aimed at, in (0, 1].

    Raises:
      ValueError: ``alpha`` is out of range.

    Reference:
      Mead et al. (2025).
    """
    return MetaAlgorithm(samplers.fixed(family), risk.everything(), risk.check_alpha(alpha))


CAPPED = MethodKind(
    CappedConfig,
    lambda family, config, steps: capped(family, config.alpha),
    label="Return capping",
    wrap=lambda learner, config: with_cap(learner, **vars(config)),
    look=("#A6761D", "*", (0, (1, 1))),
)
