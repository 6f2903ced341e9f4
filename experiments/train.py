"""Trains and tests a robust meta-learner.

``python -m experiments.train khazad-dum --method roml --seeds 0 1 2``; everything is
explained by ``--help``, and ``--list`` has a line for each name. The same command goes on
with a run that was stopped.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli


def main(argv: Sequence[str]) -> int:
    """Runs the command: arguments to exit code, see ``trainer.train``.

    Raises:
      UserError: what was asked for is impossible.
    """
    if "--list" in argv:
        from experiments.listing import listing

        print(listing())
        return 0
    env, command = cli.parse_train(argv)
    from experiments.training.trainer import train  # heavy: not for --help

    return train(env, command, argv)


if __name__ == "__main__":
    sys.exit(cli.run(main))
