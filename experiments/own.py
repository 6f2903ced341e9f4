"""All commands in a script of your own, which has registered its presets, learners or methods.

``sys.exit(own.run("boat"))`` at the end of ``boat.py`` makes ``python boat.py train``,
``evaluate``, ``compare``, ``figures``, ``references`` and ``render`` what
``python -m experiments.…`` are to the environments of this repository.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec import program
from experiments.spec.errors import UserError
from experiments.spec.words import one_of

COMMANDS = ("train", "evaluate", "compare", "figures", "references", "render")
_TAKE_ENV = ("train", "compare", "figures", "references")  # first of all, or the script's own


def run(env: str, argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names, for what the script has registered.

    Args:
      env: the name of the script's preset, which commands use where none is named.
      argv: a command and its words; None for those that the script was started with.

    Returns:
      The exit code.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    program.set_script(["python", os.path.relpath(sys.argv[0])])
    return cli.run(lambda rest: _run(env, rest), words)


def _run(env: str, words: Sequence[str]) -> int:
    one_of("preset", env, PRESETS)
    if not words or words[0] in ("-h", "--help"):
        usage = f"usage: {program.command('COMMAND')} …, COMMAND one of {', '.join(COMMANDS)}"
        if words:
            print(usage)
            return 0
        raise UserError(usage)
    name, rest = one_of("command", words[0], COMMANDS), list(words[1:])
    if name in _TAKE_ENV and (not rest or rest[0].startswith("-")):
        rest = [env, *rest]
    return importlib.import_module(f"experiments.{name}").main(rest)
