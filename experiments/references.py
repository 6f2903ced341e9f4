"""Adds what is reached without learning to stored results, and makes their tables again.

``python -m experiments.references khazad-dum`` plays agents that do nothing, and agents that act
at random, on the test tasks of all seeds of ``experiments/results/khazad-dum``. A comparison does
so by itself; this is for results whose runs are not at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec.words import one_of
from experiments.study.options import ReferenceOptions


def main(argv: Sequence[str]) -> int:
    """Runs the command: arguments to exit code.

    Raises:
      UserError: there are no results, or an option is not valid.
    """
    asked = "environment", "ENV", f"ENV: {', '.join(PRESETS)}"
    options = cli.parse_about("references", ReferenceOptions, asked, argv, __doc__)
    one_of("environment", options.env, PRESETS)
    from experiments.study import results, sheets  # heavy: not for --help

    folder = options.results / options.env
    found = results.with_references(results.read(folder), options.env)
    results.write(folder, found)
    print(sheets.write(folder, results.read(folder), {}))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
