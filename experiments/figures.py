"""Draws the figures that compare methods on an environment, from compact results alone.

``python -m experiments.figures khazad-dum`` reads ``experiments/results/khazad-dum`` and
writes ``figures/khazad-dum``: learning curves, sample episodes, tests, the task sampler,
outcomes and ranges of tasks, losses in the course of adaptation and what alpha buys, each with
its caption in ``captions.md``, and the tables. Nothing is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.words import one_of
from experiments.study.options import FORMATS, FigureOptions


def main(argv: Sequence[str]) -> int:
    """Runs the command: arguments to exit code.

    Raises:
      UserError: there are no results, or an option is not valid.
    """
    options = _parse(argv)
    one_of("environment", options.env, PRESETS)
    usual = PRESETS[options.env].experiment.env
    same = [name for name in PRESETS if PRESETS[name].experiment.env == usual]
    for other in options.beside:
        one_of("preset", other, [name for name in same if name != options.env])
    formats = [one_of("format", kind, FORMATS) for kind in options.format]
    if not formats:
        raise UserError(f"--format needs one or more of {', '.join(FORMATS)}")
    from experiments.study.drawing import draw_all  # heavy: not for --help

    draw_all(options, formats)
    return 0


def _parse(argv: Sequence[str]) -> FigureOptions:
    asked = "environment", "ENV", f"ENV: {', '.join(PRESETS)}"
    return cli.parse_about("figures", FigureOptions, asked, argv, __doc__)


if __name__ == "__main__":
    sys.exit(cli.run(main))
