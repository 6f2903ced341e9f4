"""Draws the figures that compare methods on an environment, from compact results alone.

``python -m experiments.figures khazad-dum`` reads ``experiments/results/khazad-dum`` and
writes ``figures/khazad-dum``: learning curves, sample episodes, tests, the task sampler,
outcomes and ranges of tasks, losses in the course of adaptation and what alpha buys, each with
its caption in ``captions.md``, and the tables. ``table1``, ``table2`` or ``table3`` in the place
of an environment sets a table of the paper beside all stored results. Nothing is trained.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments import cli
from experiments.domains.paper import TABLES
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
    one_of("environment or table", options.env, [*PRESETS, *TABLES])
    if options.env in TABLES:
        return _table(options)
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
    asked = "environment", "ENV", f"ENV: {', '.join([*PRESETS, *TABLES])}"
    return cli.parse_about("figures", FigureOptions, asked, argv, __doc__)


def _table(options: FigureOptions) -> int:
    """Writes and prints a table of the paper beside our results."""
    for name in ("methods", "beside", "format"):
        if getattr(options, name) != getattr(FigureOptions, name):
            raise UserError(f"--{name} is for figures; {options.env} takes --results and --out")
    from experiments.study import paper_tables  # heavy: not for --help

    out = options.out / options.env
    print(paper_tables.write(TABLES[options.env], options.results, out))
    print(out / "table.md")
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
