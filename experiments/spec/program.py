"""The name of the program that runs, as the user types it: ours, or a script of the user's own."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_script: list[str] = []  # the words that start a user's script, before the name of a command


def set_script(words: Sequence[str]) -> None:
    """Lets hints name a script, ``["python", "boat.py"]``, in place of this package."""
    _script[:] = words


def command(name: str, words: Sequence[str] = ()) -> str:
    """What to type for a command: ``python -m experiments.train khazad-dum``."""
    start = [*_script, name] if _script else ["python", "-m", f"experiments.{name}"]
    return shlex.join([*start, *words])
