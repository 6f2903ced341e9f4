"""Where a training lies: its seeds and the tasks of each over the devices of a mesh."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from experiments.spec.build import Built
from experiments.spec.devices import check_devices
from experiments.spec.errors import UserError
from experiments.spec.experiment import Experiment
from experiments.training.host import device_name
from roml_jax.trees import size_in_bytes
from roml_jax.wrappers import state_layout

AXES = ("seeds", "tasks")
_PART = re.compile(r"(seeds|tasks)=([1-9]\d*)")


def make_mesh(devices: int | str, words: str | None, runs: int, num_tasks: int) -> Mesh | None:
    """The mesh that a training asks for; None for one device, as ever.

    Args:
      devices: how many, or "all".
      words: ``seeds=S,tasks=T``, one of them alone, or None: then as many parts of the seeds as
        come out even, which need not talk to each other, and the rest for the tasks.
      runs: that train side by side.
      num_tasks: of a training step of each.

    Raises:
      UserError: there are not so many devices, or seeds or tasks do not come out even.
    """
    check_devices()
    there = jax.devices()
    shape = _parse(words)
    asked = len(there) if devices == "all" else int(devices)
    if shape is None:
        seeds = math.gcd(asked, runs)
        shape = (seeds, asked // max(seeds, 1))
    elif devices not in (1, "all", math.prod(shape)):
        raise UserError(f"--mesh {words} is of {math.prod(shape)} devices, and --devices {devices}")
    seeds, tasks = shape
    if asked < 1:
        raise UserError(f"--devices is a number from 1 on, or all; got {devices}")
    if seeds * tasks > len(there):
        more = f": JAX_NUM_CPU_DEVICES={seeds * tasks} simulates them on a CPU"
        raise UserError(
            f"{seeds * tasks} devices are asked for, and JAX finds {len(there)} "
            f"({device_name()}){more if there[0].platform == 'cpu' else ''}"
        )
    for name, parts, whole in (("seeds", seeds, runs), ("tasks", tasks, num_tasks)):
        if whole % parts:
            raise UserError(
                f"{whole} {name} cannot lie over {parts} devices in equal parts: choose a multiple "
                f"of {parts} {'--seeds' if name == 'seeds' else 'for --num-tasks'}, or another "
                "--mesh"
            )
    if seeds * tasks == 1:
        return None
    chosen = np.array(there[: seeds * tasks]).reshape(seeds, tasks)
    return Mesh(chosen, AXES, axis_types=(AxisType.Auto,) * 2)


def _parse(words: str | None) -> tuple[int, int] | None:
    """Parts of seeds and of tasks.

    Raises:
      UserError: it is no ``seeds=S,tasks=T``.
    """
    if words is None:
        return None
    found = [_PART.fullmatch(part) for part in words.split(",")]
    sizes = {match[1]: int(match[2]) for match in found if match}
    if len(sizes) < len(found):
        raise UserError(f"--mesh is seeds=2,tasks=4 for instance, or one of them; got {words}")
    return sizes.get("seeds", 1), sizes.get("tasks", 1)


def in_groups(experiment: Experiment, mesh: Mesh | None, before: int | None) -> Experiment:
    """An experiment whose learner deals tasks in groups that each fit a device.

    Args:
      experiment: whose setting ``groups`` stands if it fits, as ``before`` does.
      mesh: of its training.
      before: groups of the run that is to be gone on with; None for a new one.
    """
    learner: Any = experiment.learner
    groups, parts = getattr(learner, "groups", None), mesh.shape["tasks"] if mesh else 1
    if groups is None:
        return experiment
    if groups == 1:
        groups = before or 1
    if groups % parts:
        groups = parts
    return dataclasses.replace(experiment, learner=dataclasses.replace(learner, groups=groups))


def layout(built: Built, several: bool) -> PyTree:
    """A ``NamedSharding`` for each leaf of the state of a training.

    Args:
      built: with a mesh.
      several: the state has an axis of seeds, which comes first.
    """
    mesh, shape = built.mesh, built.state_shape
    assert mesh is not None
    whole = jax.tree.map(lambda _: replicated(mesh), shape)
    one = whole._replace(learner=state_layout(built.learner, shape.learner, mesh))
    if not several:
        return one
    return jax.tree.map(lambda x: NamedSharding(mesh, PartitionSpec("seeds", *x.spec)), one)


def all_tasks(mesh: Mesh | None) -> Mesh | None:
    """The same devices for the tasks of one seed, of a test."""
    return mesh and Mesh(mesh.devices.reshape(-1), AXES[1:], axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """What every device has."""
    return NamedSharding(mesh, PartitionSpec())


def by_seeds(mesh: Mesh, several: bool) -> NamedSharding:
    """What every device has of its own seeds; of the one seed, if there are not several."""
    return NamedSharding(mesh, PartitionSpec("seeds")) if several else replicated(mesh)


def lay(tree: PyTree, where: Any) -> PyTree:
    """A pytree by a layout, on the devices of all processes, which must all hold it."""
    leaves, structure = jax.tree.flatten(where)
    return settled(_mover(tuple(leaves), structure))(tree)


def settled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns when all devices are done.

    CPUs run programs side by side that do not wait for each other; those of several processes
    would then exchange in different orders.
    """
    return lambda *args: jax.block_until_ready(fn(*args))


@functools.cache
def _mover(where: tuple[NamedSharding, ...], structure: Any) -> Any:
    """One function for each layout, for what has been compiled is kept with it."""
    return jax.jit(lambda x: x, out_shardings=jax.tree.unflatten(structure, where))


@functools.cache
def _pick(mesh: Mesh) -> Any:
    return jax.jit(lambda x, i: x[i], out_shardings=replicated(mesh))


def to_host(tree: PyTree, mesh: Mesh, i: int | None = None) -> PyTree:
    """A pytree that lies over a mesh as NumPy arrays, leaf by leaf; keys stay keys.

    Args:
      tree: of arrays; whatever is NumPy stays as it is.
      mesh: of them.
      i: one seed of a tree with an axis of seeds; None for the whole.
    """

    def fetch(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array):
            return leaf if i is None else leaf[i]
        here = lay(leaf, replicated(mesh)) if i is None else settled(_pick(mesh))(leaf, i)
        if jax.dtypes.issubdtype(here.dtype, jax.dtypes.prng_key):
            data: Any = np.asarray(jax.random.key_data(here))
            return jax.random.wrap_key_data(data)
        return np.asarray(here)

    return jax.tree.map(fetch, tree)


def memory_of_each(built: Built, runs: int) -> int:
    """Bytes of training state on each device."""
    if built.mesh is None:
        return built.state_bytes * runs
    parts = built.mesh.shape
    axes = jax.tree.leaves(built.learner.task_axes(built.state_shape.learner))
    sizes = map(size_in_bytes, jax.tree.leaves(built.state_shape.learner))
    apart = sum(size for size, axis in zip(sizes, axes, strict=True) if axis >= 0)
    return (built.state_bytes - apart + apart // parts["tasks"]) * runs // parts["seeds"]


def in_words(built: Built) -> str:
    """Which devices, and what lies where."""
    mesh = built.mesh
    if mesh is None:
        return device_name()
    seeds, tasks = mesh.shape["seeds"], mesh.shape["tasks"]
    parts = [f"seeds over {seeds}"] * (seeds > 1) + [f"tasks over {tasks}"] * (tasks > 1)
    return f"{mesh.size} x {device_name(mesh.devices.flat[0])}, {', '.join(parts)}"
