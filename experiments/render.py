"""Videos of trained MuJoCo runs, side by side, from their checkpoints; no screen is needed.

``python -m experiments.render RUN RUN --tasks 0.5 1 2`` shows the runs as columns and the
tasks as rows. Without ``--tasks``, an easy, a median and a hard one of 64 tasks are shown, by
the mean return of all the runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli
from experiments.spec import program
from experiments.spec.errors import UserError
from experiments.spec.words import check_seed
from experiments.videos.options import RenderOptions


def main(argv: Sequence[str]) -> int:
    """Runs the command: arguments to exit code.

    Raises:
      UserError: there is no run, an option is not valid, or this machine cannot draw.
    """
    options = _parse(argv)
    from experiments.videos.drawing import draw  # heavy: not for --help
    from experiments.videos.plan import make_plan

    draw(make_plan(options))
    return 0


def _parse(argv: Sequence[str]) -> RenderOptions:
    """The options.

    Raises:
      UserError: one is not valid, or no run is named.
    """
    options: RenderOptions = cli.parse(
        RenderOptions,
        RenderOptions(),
        argv,
        prog=program.command("render"),
        description=__doc__ or "",
    )
    if not options.runs:
        raise UserError(
            f"say which runs first: {program.command('render')} RUN [RUN ...] "
            "(RUN is a directory of a seed, or one that holds several)"
        )
    for name in ("fps", "stride"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} must be positive; got {value:g}")
    check_seed("--seed", options.seed)
    return options


if __name__ == "__main__":
    sys.exit(cli.run(main))
