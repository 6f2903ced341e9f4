"""Several processes, of one machine or many, that train as one.

All of them run the same program on the same numbers. The first one decides what depends on files
and clocks, and is the only one that writes where the user looks.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from experiments.spec.errors import UserError

T = TypeVar("T")
_SILENCE = 30  # seconds without a sign of life, after which a process is taken for dead


def join(coordinator: str | None, process_id: int | None, num_processes: int | None) -> None:
    """Makes this process one of several; before anything else touches JAX's devices.

    Args:
      coordinator: HOST:PORT of the first process; "auto" where JAX finds it, and the numbers, by
        itself, under SLURM, Open MPI or on a TPU pod; None for a process alone.
      process_id: which one this is, from 0 on.
      num_processes: how many there are.

    Raises:
      UserError: they do not say together where and which.
    """
    if coordinator is None:
        if process_id is not None or num_processes is not None:
            raise UserError("--process-id and --num-processes go with --coordinator HOST:PORT")
        return
    if jax.distributed.is_initialized():
        return
    numbers: dict[str, Any] = {}
    if coordinator != "auto":
        if process_id is None or num_processes is None:
            raise UserError(
                "--coordinator HOST:PORT goes with --process-id and --num-processes; "
                "--coordinator auto finds them under SLURM, Open MPI or on a TPU pod"
            )
        if not 0 <= process_id < num_processes:
            told = f"got {process_id} of {num_processes}"
            raise UserError(f"--process-id is a number from 0 to --num-processes - 1; {told}")
        names = ("coordinator_address", "num_processes", "process_id")
        numbers = dict(zip(names, (coordinator, num_processes, process_id), strict=True))
    try:
        jax.distributed.initialize(**numbers, heartbeat_timeout_seconds=_SILENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--coordinator {coordinator}: {reason}") from error


def are_several() -> bool:
    """Whether there are other processes."""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first() -> bool:
    """Whether this process decides and writes; also true for one alone."""
    return not are_several() or jax.process_index() == 0


def place(out: str) -> str:
    """Where this process writes: of all but the first, a folder that nobody looks at."""
    return out if is_first() else tempfile.mkdtemp(prefix="roml-jax-")


def quiet() -> None:
    """Lets none but the first process say anything but errors."""
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def first(decide: Callable[[], T]) -> T:
    """What the first process decides, in all of them.

    Raises:
      Exception: as ``decide``, in all of them.
    """
    if not are_several():
        return decide()
    told: tuple[bool, Any] = (True, None)
    if is_first():
        try:
            told = True, decide()
        except Exception as error:  # which ends all of them
            told = False, error
    fine, value = pickle.loads(_share(pickle.dumps(told)))
    if not fine:
        raise value
    return value


def gather(*numbers: float) -> np.ndarray:
    """Some numbers of every process, one row each."""
    if not are_several():
        return np.array([numbers], np.float32)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(np.array(numbers, np.float32))


def other_died(error: BaseException) -> bool:
    """Whether an error is that of a process that others have left."""
    return are_several() and isinstance(error, jax.errors.JaxRuntimeError)


def leave(code: int) -> None:
    """Ends this process at once: what JAX does at the end waits for those that are gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _share(data: bytes) -> bytes:
    """The first process's bytes."""
    from jax.experimental import multihost_utils

    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.frombuffer(data.ljust(size, b"\0")[:size], np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes()
