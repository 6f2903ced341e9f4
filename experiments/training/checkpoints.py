"""The entire training state on disk, one directory per seed, by orbax.

A checkpoint ``checkpoint/<step>/`` appears whole or not at all, once it has been read back. It
holds the state, the agents with the best validations so far, settings and versions, and a
manifest with the size and the SHA-256 of every file, by which a damaged one is known. The newest
two stay, and whatever else lies there. Everything is arrays and JSON: reading a stranger's
checkpoint executes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from experiments.spec.errors import UserError, warn
from experiments.training.runs import CHECKPOINT

MANIFEST = "manifest.json"
# What leaves are called, and what they were in version 0.1.
_FORMER = (
    (r"^learner/memory/(belief|buffer)/", r"learner/\1/"),
    (r"^learner/policy/opt_state/(.+)/(mu|nu)/0/", r"learner/policy/opt_state/\1/\2/"),
    (r"/agent/0/memory/", "/agent/0/encoder/"),
    (r"/agent/0/policy/", "/agent/0/"),
)
# Leaves that version 0.1 did not have, which start at zero.
_ADDED = re.compile(r"_moments/rest/")
KEPT = 2  # checkpoints of a run
_STEP = re.compile(r"0|[1-9][0-9]*")  # the folder of a checkpoint; 007 is none of ours
_OURS = re.compile(rf"\.?({_STEP.pattern})(\.removed)?")  # also in the making, or half removed
_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NO_ROOM_TOLD = re.compile("no space left|quota exceeded|resource_?exhausted", re.IGNORECASE)


class Best(NamedTuple):
    """The agent of one seed that validated best so far."""

    agent: PyTree  # (learner.params(state), sampler state), all that a test needs
    step: Any  # int32[], training steps before that validation
    value: Any  # float32[], what it scored


class Saved(NamedTuple):
    """What a checkpoint holds of one seed."""

    state: PyTree  # the TrainState
    best: dict[str, Best]  # by what is validated, "mean" and "cvar"


# ------------------------------------------------------------------ which there are


def steps(path: Path) -> list[int]:
    """Steps of a run's checkpoints in order, be they damaged or not."""
    folder = path / CHECKPOINT
    entries = [*folder.iterdir()] if folder.is_dir() else []
    return sorted(int(one.name) for one in entries if _STEP.fullmatch(one.name) and one.is_dir())


def good_steps(path: Path) -> list[int]:
    """Steps of a run's undamaged checkpoints in order; warns of each of the others."""
    good = []
    for step in steps(path):
        folder = path / CHECKPOINT / str(step)
        if fault := damage(folder):
            warn(f"{folder} is damaged ({fault}): it is left out")
        else:
            good.append(step)
    return good


def newest_step(path: Path) -> int | None:
    """The training step of a run's newest undamaged checkpoint, or None."""
    good = good_steps(path)
    return good[-1] if good else None


def damage(folder: Path) -> str | None:
    """What is wrong with the files of a checkpoint, or None if they are as they were written."""
    try:
        expected = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, (size, digest) in expected.items():
            if (folder / name).stat().st_size != size:
                return f"{name} has another size"
            if _digest(folder / name) != digest:
                return f"{name} has other bytes"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read: {error}"
    return None


# ------------------------------------------------------------------ writing


def save(path: Path, step: int, saved: Saved, description: dict[str, Any]) -> None:
    """Writes the checkpoint of one seed, then removes all but it and the one before.

    Args:
      path: the run directory.
      step: training steps done.
      saved: all of the ``TrainState``, and the best agents.
      description: settings and versions, for JSON.

    Raises:
      Exception: it could not be written, or was not read back as it was written; the ones before
        are as they were. ``lacks_room`` tells the disks that are full.
    """
    target = (path / CHECKPOINT / str(step)).resolve()
    if damage(target) is not None:
        partial = target.with_name(f".{step}")
        shutil.rmtree(partial, ignore_errors=True)
        data = {
            name: _nested(jax.tree.map(lambda leaf: np.asarray(_stored(leaf)), part))
            for name, part in saved._asdict().items()
        }
        _check_room(target.parent, data)
        with _plain_name(partial.parent) as folder:
            _write(folder / partial.name, data, description)
        _read_back(partial, data)
        seal(partial)
        _remove(target)  # a damaged one of the same step
        partial.rename(target)
    before = [other for other in steps(path) if other < step]
    kept = {str(other) for other in [*before[1 - KEPT :], step]}
    for entry in target.parent.iterdir():
        if _OURS.fullmatch(entry.name) and entry.is_dir() and entry.name not in kept:
            try:
                _remove(entry)
            except OSError as error:
                warn(f"{entry} could not be removed: {error.strerror}")


def lacks_room(error: BaseException | None) -> bool:
    """Whether something failed since a disk, or one's share of it, is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        if _NO_ROOM_TOLD.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def seal(folder: Path) -> None:
    """Writes the manifest of a checkpoint, which makes it a good one."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    names = {str(file.relative_to(folder)): [file.stat().st_size, _digest(file)] for file in files}
    names.pop(MANIFEST, None)
    (folder / MANIFEST).write_text(json.dumps(names, indent=0), encoding="utf-8")


# ------------------------------------------------------------------ reading


def restore(path: Path, shape: Saved, step: int | None = None) -> Saved:
    """Reads a checkpoint of one seed, whatever device wrote it.

    Args:
      path: the run directory.
      shape: what it holds, as ``ShapeDtypeStruct``; an empty part, ``None`` or ``{}``, is not read.
      step: of the checkpoint; None for the newest good one.

    Returns:
      NumPy leaves; keys as their data, see ``to_device``.

    Raises:
      UserError: there is no checkpoint, or it is of another state.
    """
    step = newest_step(path) if step is None else step
    if step is None:
        raise UserError(f"{path} holds no checkpoint that can be used: train it first")
    folder = (path / CHECKPOINT / str(step)).resolve()
    wanted = {name: part for name, part in shape._asdict().items() if part}
    try:
        found = {name: _pick(_read(folder / name), part) for name, part in wanted.items()}
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise UserError(
            f"{folder} cannot be read: {(str(error) or 'empty').splitlines()[0]}"
        ) from error
    return shape._replace(**found)


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


# ------------------------------------------------------------------ details


def _orbax() -> Any:
    """Orbax, imported when first needed and without its log lines."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # its errors reach us as exceptions
    return ocp


def _alone(ocp: Any) -> dict[str, Any]:
    """Options of orbax under which this process waits for no other: one writes, and one reads."""
    if jax.process_count() == 1:
        return {}
    me = jax.process_index()
    options = ocp.options.MultiprocessingOptions(me, {me}, f"process {me}")
    return {"multiprocessing_options": options}


def _write(folder: Path, data: dict[str, Any], description: dict[str, Any]) -> None:
    """Writes all parts of a checkpoint."""
    ocp = _orbax()
    alone = _alone(ocp)
    handlers = {name: ocp.PyTreeCheckpointHandler(**alone) for name in data}
    handlers |= {"config": ocp.JsonCheckpointHandler(**alone)}
    parts = {name: ocp.args.PyTreeSave(part) for name, part in data.items()}
    whole = ocp.args.Composite(**parts, config=ocp.args.JsonSave(description))
    together = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(**alone), **handlers
    )
    with ocp.Checkpointer(together, **alone) as checkpointer:
        checkpointer.save(folder, whole)


@contextlib.contextmanager
def _plain_name(folder: Path) -> Iterator[Path]:
    """The same folder by a name without brackets and the like, which orbax takes for patterns."""
    folder.mkdir(parents=True, exist_ok=True)
    if not set("[]*?\\") & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        link = Path(elsewhere) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def _read_back(folder: Path, data: dict[str, Any]) -> None:
    """Raises an OSError unless a checkpoint that was just written holds what was to be written."""
    for name, part in data.items():
        try:
            found = _read(folder / name)
        except Exception as error:  # each part of orbax has its own
            raise OSError(f"{folder.parent / folder.name} cannot be read back: {error}") from error
        read, wanted = (jax.tree.leaves_with_path(tree) for tree in (found, part))
        same = len(read) == len(wanted) and all(
            name == other and _bytes(value) == _bytes(leaf)
            for (name, value), (other, leaf) in zip(read, wanted, strict=True)
        )
        if not same:
            raise OSError(f"{folder} was not read back as it was written")


def _bytes(leaf: Any) -> tuple[Any, Any, bytes]:
    array = np.asarray(leaf)
    return array.shape, array.dtype, array.tobytes()


def _check_room(folder: Path, data: PyTree) -> None:
    """Raises OSError where a checkpoint can hardly fit; a disk found full while writing is noisy.

    The measure is the largest checkpoint there is; before the first, a hundredth of the
    arrays, since much of them is buffers that are still empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [file for file in folder.glob("[0-9]*/**/*") if file.is_file()]
    sizes: dict[str, int] = {}
    for file in files:
        name = file.relative_to(folder).parts[0]
        sizes[name] = sizes.get(name, 0) + file.stat().st_size
    guess = sum(leaf.nbytes for leaf in jax.tree.leaves(data)) // 100
    need, free = max(sizes.values(), default=guess), shutil.disk_usage(folder).free
    if free < need:
        told = f"No space left: {free / 2**20:.3g} MiB of at least {need / 2**20:.3g}"
        raise OSError(errno.ENOSPC, told, str(folder))


def _read(folder: Path) -> Any:
    """All arrays of a part of a checkpoint on the host, nested by their own names."""
    ocp = _orbax()
    handler = ocp.PyTreeCheckpointHandler(**_alone(ocp))
    with (
        _plain_name(folder.parent) as parent,
        ocp.Checkpointer(handler, **_alone(ocp)) as checkpointer,
    ):
        folder = parent / folder.name
        metadata = handler.metadata(folder)
        tree = getattr(metadata, "tree", metadata)
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(folder, ocp.args.PyTreeRestore(restore_args=as_numpy))


def _pick(read: Any, shape: PyTree) -> PyTree:
    """The leaves of a state, by their names, out of all that was read.

    Raises:
      ValueError: one is missing, or of another shape or type.
    """
    leaves = jax.tree_util.tree_leaves_with_path(read)
    stored = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

    def pick(path: Any, leaf: Any) -> np.ndarray:
        names = [name for name in _names(_name(path)) if name in stored]
        template = jax.eval_shape(_stored, leaf)
        if not names and _ADDED.search(_name(path)):
            return np.zeros(leaf.shape, leaf.dtype)
        if not names:
            raise ValueError(f"it holds no {_name(path)}")
        value = stored[names[0]]
        if (value.shape, value.dtype) != (template.shape, template.dtype):
            raise ValueError("it holds a state of other sizes than its run's config.json says")
        return value if leaf.size else np.zeros(leaf.shape, leaf.dtype)

    return jax.tree_util.tree_map_with_path(pick, shape)


def _names(name: str) -> list[str]:
    """The name of a leaf, then those that it may have had in earlier versions."""
    return [name, *(re.sub(now, former, name) for now, former in _FORMER if re.search(now, name))]


def _nested(tree: PyTree) -> dict[str, Any]:
    """A state as nested dictionaries, by the names of its leaves."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *parents, last = map(_part, path)
        inside = nested
        for parent in parents:
            inside = inside.setdefault(parent, {})
        inside[last] = leaf
    return nested


def _name(path: Any) -> str:
    return "/".join(map(_part, path))


def _part(key: Any) -> str:
    """One part of a leaf's name; what orbax would split or join is escaped, so that no two
    leaves have one name.
    """
    return quote(jax.tree_util.keystr((key,), simple=True), safe="").replace(".", "%2E")


def _remove(folder: Path) -> None:
    """Removes a checkpoint, which until then is whole: a half-removed one would seem damaged."""
    if folder.exists():
        shutil.rmtree(folder.rename(folder.with_name(f".{folder.name.strip('.')}.removed")))


def _digest(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored(leaf: Any) -> Any:
    """A leaf as orbax can hold it: keys as their data, and one zero for an empty array."""
    if _is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if leaf.size else jnp.zeros(1, leaf.dtype)
