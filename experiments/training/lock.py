"""One process to a run: a lock beside each run's folder, also on file systems that are shared.

A file that only one process can create says who holds it. Its holder touches it now and then;
that of a process that has died on this machine, or of one elsewhere that has not been heard of
for minutes, is taken over.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.spec.errors import UserError

_BEAT = 20.0  # seconds between signs of life
_SILENCE = 300.0  # seconds after which a holder elsewhere counts as dead


@contextlib.contextmanager
def hold(paths: Sequence[Path]) -> Iterator[None]:
    """Holds the locks of run folders while it is entered.

    Raises:
      UserError: another process holds one; names it.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    with contextlib.ExitStack() as stack:
        held: list[Path] = []
        for path in dict.fromkeys(paths):
            _take(path, mine)
            held.append(_file(path))
            stack.callback(_drop, _file(path), mine)
        over = threading.Event()
        beat = threading.Thread(target=_show_life, args=(held, over), daemon=True)
        beat.start()
        stack.callback(over.set)
        yield


def _file(path: Path) -> Path:
    """Beside the folder, which may have to be made or cleared by whoever holds it."""
    return path.with_name(f".{path.name}.lock")


def _take(path: Path, mine: dict[str, Any]) -> None:
    file = _file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(3):  # a stale lock may be in the way, then another process that saw it, too
        try:
            with os.fdopen(
                os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644), "w", encoding="utf-8"
            ) as new:
                json.dump(mine, new)
            return
        except FileExistsError:
            holder = _read(file)
            if holder is not None and _lives(file, holder):
                break
            _set_aside(file, holder)
    told = _read(file) or {}
    raise UserError(
        f"{path} is in use by process {told.get('pid', '?')} on {told.get('host', '?')}: wait for "
        "it, or stop it"
    )


def _read(file: Path) -> dict[str, Any] | None:
    """What a lock says; None if it is gone, {} if nothing can be read of it."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}


def _lives(file: Path, holder: dict[str, Any]) -> bool:
    """Whether the holder of a lock may still be at work."""
    if holder.get("host") == socket.gethostname() and "pid" in holder:
        try:
            os.kill(int(holder["pid"]), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True
    probe = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    try:
        probe.touch()  # the clock of the file system, which may not be ours
        return probe.stat().st_mtime - file.stat().st_mtime < _SILENCE
    except FileNotFoundError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _set_aside(file: Path, holder: dict[str, Any] | None) -> None:
    """Removes a stale lock, but never one that another process has put in its place."""
    aside = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if _read(aside) != holder:  # it was not the stale one any more
            with contextlib.suppress(FileExistsError):
                os.link(aside, file)
        aside.unlink()


def _drop(file: Path, mine: dict[str, Any]) -> None:
    if _read(file) == mine:
        file.unlink(missing_ok=True)


def _show_life(files: list[Path], over: threading.Event) -> None:
    while not over.wait(_BEAT):
        for file in files:
            with contextlib.suppress(OSError):
                os.utime(file)
