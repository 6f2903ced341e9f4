"""The entire training state on disk, one directory per seed, by orbax.

A checkpoint ``checkpoint/<step>/`` appears whole or not at all, beside the older one,
which is removed afterwards. It also holds the settings and the versions of the run.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from experiments.config import UserError
from experiments.runs import CHECKPOINT


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _orbax() -> Any:
    """Orbax, imported when first needed and without its log lines."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    return ocp


def _steps(path: Path) -> list[int]:
    """Steps of the finished checkpoints of a run, in order."""
    folder = path / CHECKPOINT
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(name) for name in names if name.isdigit())


def latest_step(path: Path) -> int | None:
    """The training step of a run's newest checkpoint, or None."""
    steps = _steps(path)
    return steps[-1] if steps else None


def save(path: Path, step: int, state: PyTree, description: dict[str, Any]) -> None:
    """Writes the checkpoint of one seed, and removes older ones.

    Args:
      path: the run directory.
      step: training steps done.
      state: all of the ``TrainState``.
      description: settings and versions, for JSON.
    """
    ocp = _orbax()
    target = (path / CHECKPOINT / str(step)).resolve()
    if not target.exists():
        data = jax.tree.map(_stored, state)
        parts = ocp.args.Composite(
            state=ocp.args.PyTreeSave(data), config=ocp.args.JsonSave(description)
        )
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            checkpointer.save(target, parts)
    for entry in target.parent.iterdir():
        if entry != target:
            shutil.rmtree(entry)


def restore(path: Path, shape: PyTree) -> PyTree:
    """Reads the newest checkpoint of one seed, whatever device wrote it.

    Args:
      path: the run directory.
      shape: the state as ``ShapeDtypeStruct``.

    Returns:
      The state, with NumPy leaves; keys as their data, see ``to_device``.

    Raises:
      UserError: there is no checkpoint, or it is of another state.
    """
    ocp = _orbax()
    step = latest_step(path)
    if step is None:
        raise UserError(f"{path} holds no checkpoint yet: train it first")
    folder = (path / CHECKPOINT / str(step)).resolve()
    template = jax.tree.map(lambda leaf: jax.eval_shape(_stored, leaf), shape)
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), template)
    part = ocp.args.PyTreeRestore(template, restore_args=restore_args)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            state = checkpointer.restore(folder, ocp.args.Composite(state=part)).state
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UserError(f"{folder} cannot be read: {str(error).splitlines()[0]}") from error
    wrong = jax.tree.map(lambda a, b: a.shape != b.shape or a.dtype != b.dtype, state, template)
    if any(jax.tree.leaves(wrong)):
        raise UserError(f"{folder} holds a state of other sizes than its {path}/config.json says")
    return jax.tree.map(lambda x, leaf: x if leaf.size else np.zeros(leaf.shape), state, shape)


def to_device(states: list[PyTree], shape: PyTree) -> PyTree:
    """Restored states as one: as it is for one seed, stacked for several.

    Args:
      states: from ``restore``; emptied, so that no second copy stays behind.
      shape: the state of one seed as ``ShapeDtypeStruct``.
    """
    columns = [jax.tree.leaves(states.pop(0)) for _ in range(len(states))]
    leaves = []
    for i, leaf in enumerate(jax.tree.leaves(shape)):
        parts = [column[i] for column in columns]
        whole = parts[0] if len(parts) == 1 else np.stack(parts)
        value = jnp.array(whole, whole.dtype if _is_key(leaf) else leaf.dtype)
        leaves.append(jax.random.wrap_key_data(value) if _is_key(leaf) else value)
        for column in columns:
            column[i] = None
    return jax.tree.unflatten(jax.tree.structure(shape), leaves)


def _stored(leaf: Any) -> Any:
    """A leaf as orbax can hold it: keys as their data, and one zero for an empty array."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if leaf.size else jnp.zeros(1, leaf.dtype)
