"""Learners made of learners: what a method or a machine changes about any of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from roml_jax.rollout import Rollout, rollout_returns
from roml_jax.types import Extras, Learner, Metrics, PRNGKey

Shape: TypeAlias = Callable[[Array, Array], Array]  # (rewards[T, B], returns[B]) -> [T, B]


# ------------------------------------------------------------------ shaped


def shaped(learner: Learner, shape: Shape) -> Learner:
    """A learner that improves on other rewards than it is measured by.

    Args:
      learner: whose rollouts are ``Rollout``.
      shape: ``(rewards[T, B], returns[B]) -> rewards[T, B]``, of raw rewards, before any
        normalisation; a cap on returns for instance. What it returns where a step is padding
        does not count.

    Returns:
      A ``Learner`` with the same returns, rollouts and behaviour, whose policy update sees the
      shaped rewards. A memory that is learned from stored trajectories, such as a belief,
      keeps to the raw ones.
    """

    def update(
        key: PRNGKey, state: Any, rollout: Rollout, weights: Float[Array, " B"]
    ) -> tuple[Any, Metrics]:
        reward = shape(rollout.reward, rollout_returns(rollout))
        reward = jnp.where(rollout.valid, reward, 0.0)
        return learner.update(key, state, rollout._replace(reward=reward), weights)

    told = learner.informed
    informed = None if told is None else lambda n: shaped(told(n), shape)
    return learner._replace(update=update, informed=informed)


# ------------------------------------------------------------------ rivals


class RivalRollout(NamedTuple):
    """Rollouts of both rivals on the same tasks: leading axis 2, the learner first."""

    rollout: Any  # of the learner that is wrapped, [2, …]
    returns: Float[Array, "2 B"]


def rivals(learner: Learner) -> Learner:
    """Two learners side by side, who meet the same tasks: the return is the negative regret.

    The first is the one that is trained for use, the second, its rival, shows what could have
    been had. A task with a low ``own - rival`` is one that the first does badly at *and* the
    rival does not: hard, but not hopeless. A sampler that seeks low returns then does what the
    adversary of PAIRED does.

    Args:
      learner: made twice, from different keys.

    Returns:
      A ``Learner``. Its behaviour and parameters are those of the first; metrics are those of
      the first, with "own_return" and "rival_return", means over the tasks. Extras hold both
      returns, "own" and "rival", ``[B]``, and those of the first. A training step counts the
      frames of both.

    Reference: Dennis et al. (2020), "Emergent Complexity and Zero-shot Transfer via
      Unsupervised Environment Design"; Greenberg et al. (2023), Section 6. Differs: regret is
      that of mean returns over the meta-episode of each, not of the rival's best episode.
    """

    def init(key: PRNGKey) -> Any:
        return jax.vmap(learner.init)(jax.random.split(key))

    def collect(
        key: PRNGKey, state: Any, tasks: Float[Array, "B D"]
    ) -> tuple[Any, RivalRollout, Float[Array, " B"]]:
        both = jax.vmap(learner.collect, (0, 0, None))
        state, rollout, returns = both(jax.random.split(key), state, tasks)
        return state, RivalRollout(rollout, returns), returns[0] - returns[1]

    def update(
        key: PRNGKey, state: Any, data: RivalRollout, weights: Float[Array, " B"]
    ) -> tuple[Any, Metrics]:
        both = jax.vmap(learner.update, (0, 0, 0, None))
        state, metrics = both(jax.random.split(key), state, data.rollout, weights)
        own, rival = jnp.mean(data.returns, axis=1)
        return state, first(metrics) | {"own_return": own, "rival_return": rival}

    def params(state: Any) -> Any:
        return learner.params(first(state))

    def extras(data: RivalRollout) -> Extras:
        own, rival = data.returns
        return learner.extras(first(data.rollout)) | {"own": own, "rival": rival}

    def first(tree: Any) -> Any:
        return jax.tree.map(lambda x: x[0], tree)

    def task_axes(state: Any) -> Any:
        axes = learner.task_axes(jax.eval_shape(first, state))
        return jax.tree.map(lambda at: at + 1 if at >= 0 else at, axes)

    return learner._replace(
        init=init,
        collect=collect,
        update=update,
        params=params,
        frames_per_step=2 * learner.frames_per_step,
        extras=extras,
        task_axes=task_axes,
        informed=None,
    )


# ------------------------------------------------------------------ sharded


def sharded(learner: Learner, mesh: Mesh, axis: str = "tasks") -> Learner:
    """A learner whose tasks lie on several devices; parameters and sampler are on all.

    Every task draws from a key of its own, whatever device it lies on, and sums are over all
    tasks: results are those of one device but for the order of sums.

    Args:
      learner: any; its step is compiled by ``jax.jit`` for all devices of the mesh, and the
        compiler moves what its update needs of other devices' tasks. That is sums and gradients
        alone, if the ``groups`` of the learner are a multiple of the devices; with less, whole
        rollouts.
      mesh: with an axis whose size divides ``learner.num_tasks``. Axes may be Auto or
        Explicit: a mesh of the same devices with Auto axes is what is used.
      axis: its name. An environment that calls the host knows the one name "tasks".

    Returns:
      A ``Learner``; jit what calls it.

    Raises:
      ValueError: there is no such axis, or its size does not divide the number of tasks; while
        tracing, it does not divide that of the groups.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"axis is one of {', '.join(mesh.axis_names)}; got {axis!r}")
    devices = mesh.shape[axis]
    if learner.num_tasks % devices:
        raise ValueError(
            f"num_tasks must be a multiple of the {devices} devices of the axis {axis}; "
            f"got {learner.num_tasks}"
        )
    auto = _automatic(mesh)

    def lay(state: Any) -> Any:
        layout = state_layout(learner, state, auto, axis)
        return jax.tree.map(jax.lax.with_sharding_constraint, state, layout)

    def init(key: PRNGKey) -> Any:
        return learner.init(key) if _is_explicit(axis) else lay(learner.init(key))

    def collect_apart(
        key: PRNGKey, state: Any, tasks: Float[Array, "B D"]
    ) -> tuple[Any, Any, Float[Array, " B"]]:
        by_task = NamedSharding(auto, PartitionSpec(axis))
        tasks = jax.lax.with_sharding_constraint(tasks, by_task)
        state, rollout, returns = learner.collect(key, state, tasks)
        return state, rollout, jax.lax.with_sharding_constraint(returns, by_task)

    def collect(key: PRNGKey, state: Any, tasks: Float[Array, "B D"]) -> tuple[Any, Any, Array]:
        if _is_explicit(axis):  # where most of what a rollout does is refused
            apart = jax.sharding.auto_axes(collect_apart, axes=axis, out_sharding=PartitionSpec())
            return apart(key, state, tasks)
        with jax.sharding.use_abstract_mesh(auto.abstract_mesh):
            return collect_apart(key, state, tasks)

    def update(
        key: PRNGKey, state: Any, rollout: Any, weights: Float[Array, " B"]
    ) -> tuple[Any, Metrics]:
        state, metrics = learner.update(key, state, rollout, weights)
        return state if _is_explicit(axis) else lay(state), metrics

    told = learner.informed
    informed = None if told is None else lambda n: sharded(told(n), mesh, axis)
    return learner._replace(init=init, collect=collect, update=update, informed=informed)


def state_layout(learner: Learner, state: Any, mesh: Mesh, axis: str = "tasks") -> Any:
    """Where each leaf of a learner's state lies: a ``NamedSharding`` in place of each.

    Args:
      learner: whose ``task_axes`` say what can be apart.
      state: of the learner, or its shapes.
      mesh: whose ``axis`` the tasks are laid over.
      axis: its name.

    Raises:
      ValueError: a leaf cannot be laid over the devices in equal parts.
    """
    devices = mesh.shape[axis]

    def place(leaf: Any, at: int) -> NamedSharding:
        if at >= 0 and leaf.shape[at] % devices:
            raise ValueError(
                f"groups must be a multiple of the {devices} devices of the axis {axis}; "
                f"got {leaf.shape[at]}"
            )
        spec = PartitionSpec(*(None,) * at, axis) if at >= 0 else PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree.map(place, state, learner.task_axes(state))


def by_seed(fn: Callable[..., Any], mesh: Mesh, axis: str = "seeds") -> Callable[..., Any]:
    """A function of one seed as one of many, which lie on several devices.

    Args:
      fn: ``init`` or ``step`` of ``make_train`` for instance; every argument is one seed's.
      mesh: with an axis whose size divides the number of seeds. Axes may be Auto or Explicit,
        also inside of ``jax.set_mesh``, where most of what a step does is refused otherwise.
        The tasks of each seed may lie over another axis, see ``sharded``.
      axis: its name.

    Returns:
      The function whose arguments and results have the seeds as their first axis; jit it. Seeds
      do not meet: results are those of ``jax.vmap(fn)``.

    Raises:
      ValueError: there is no such axis, or, while tracing, its size does not divide the seeds.
    """
    if axis not in mesh.axis_names:
        raise ValueError(f"axis is one of {', '.join(mesh.axis_names)}; got {axis!r}")
    auto, spec = _automatic(mesh), PartitionSpec(axis)

    def lay(tree: Any) -> Any:
        def place(x: Array) -> NamedSharding:  # the tasks of a seed may lie apart, too
            rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
            return NamedSharding(auto, PartitionSpec(axis, *rest))

        return jax.lax.with_sharding_constraint(tree, jax.tree.map(place, tree))

    def call(*args: Any) -> Any:
        for leaf in jax.tree.leaves(args):
            if leaf.shape[0] % mesh.shape[axis]:
                raise ValueError(
                    f"the number of seeds must be a multiple of the {mesh.shape[axis]} devices of "
                    f"the axis {axis}; got {leaf.shape[0]}"
                )
        if _is_explicit(axis):
            apart = jax.sharding.auto_axes(jax.vmap(fn), axes=axis, out_sharding=spec)
            return apart(*args)
        with jax.sharding.use_abstract_mesh(auto.abstract_mesh):
            return lay(jax.vmap(fn, spmd_axis_name=axis)(*lay(args)))

    return call


def _automatic(mesh: Mesh) -> Mesh:
    """The same devices with Auto axes."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def _is_explicit(axis: str) -> bool:
    """Whether ``jax.set_mesh`` has made an axis one whose shardings are types."""
    mesh = jax.sharding.get_abstract_mesh()
    return dict(zip(mesh.axis_names, mesh.axis_types, strict=True)).get(axis) is AxisType.Explicit
