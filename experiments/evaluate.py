"""Repeats the test of trained agents from their checkpoints alone.

``python -m experiments.evaluate runs/khazad-dum/roml-varibad`` tests every seed below a
directory; ``--tasks`` and ``--seed`` choose other test tasks, and ``--repeats 2`` plays each of
them twice, for a CVaR that does not rank tasks by their own noise. ``--task 1.7`` tests on that
task alone, ``--phi 0.3`` on tasks of a harder distribution.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli
from experiments.spec.errors import UserError
from experiments.spec.words import check_seed
from experiments.training.options import RetestOptions


def main(argv: Sequence[str]) -> int:
    """Runs the command: arguments to exit code.

    Raises:
      UserError: there is no run, or an option is not valid.
    """
    options = _parse(argv)
    for name in ("tasks", "repeats"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1; got {value}")
    check_seed("--seed", options.seed)
    if options.picture is not None and options.picture.suffix not in (".png", ".pdf"):
        raise UserError(f"--picture is a .png or a .pdf; got {options.picture}")
    from experiments.training.retest import retest  # heavy: not for --help

    return retest(options)


def _parse(argv: Sequence[str]) -> RetestOptions:
    asked = "run", "RUN", "RUN is a directory of a seed, or one that holds several"
    return cli.parse_about("evaluate", RetestOptions, asked, argv, __doc__)


if __name__ == "__main__":
    sys.exit(cli.run(main))
