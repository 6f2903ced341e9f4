"""Trains methods over seeds, and compares their tests with confidence intervals.

``python -m experiments.compare khazad-dum --methods baseline cvar-ml roml --seeds 0..29``
trains what is not finished yet and writes compact results and tables. A method may be a
variant, ``cvar-ml:policy.unselected=constant_advantage``; ``--learners varibad ppo rl2`` puts each
of these below each method, and a method may name its own, ``rl2/roml:nu=0``. Any flag of
``experiments.train``, ``--frames 1e6`` for instance, applies to all rows that have it.
``--alphas 0.01 0.1 1`` trains each method for each of these, side by side. The same command goes
on after a stop.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
from collections.abc import Sequence

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec import program
from experiments.spec.errors import UserError
from experiments.spec.words import check_alphas, check_seeds, one_of, split_row
from experiments.study import schedule
from experiments.study.options import CompareOptions

_NOT_HERE = {
    "--method": "name methods by --methods",
    "--learner": "name learners by --learners, or before a method, as in ppo/roml",
    "--name": "the folder of a variant has the name of the variant",
    "--overwrite": "remove what is to be trained anew, or choose another --out",
    "--no-overwrite": "nothing is overwritten",
    **dict.fromkeys(
        ("--coordinator", "--process-id", "--num-processes"),
        "several processes train one group of seeds at a time, by experiments.train",
    ),
}


def main(argv: Sequence[str]) -> int:
    """Runs the command: arguments to exit code, see ``comparing.compare``.

    Raises:
      UserError: what was asked for is impossible.
    """
    options, rest = _parse(argv)
    from experiments.study.comparing import compare  # heavy: not for --help

    return compare(options, rest, argv)


def _parse(argv: Sequence[str]) -> tuple[CompareOptions, list[str]]:
    """CompareOptions of the comparison, and the flags that every training gets.

    Returns:
      The options, whose ``methods`` are the words of all rows, and flags with their values.

    Raises:
      UserError: something is not valid.
    """
    flags = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(CompareOptions)]
    own: list[str] = []
    rest: list[str] = []
    chosen = own
    for word in argv:
        if word.startswith("--"):
            flag = word.split("=", 1)[0].replace("_", "-")
            mine = flag in (*flags, "--no-plan", "--no-collect", "--help")
            chosen = own if mine else rest
        chosen.append(word)
    options: CompareOptions = cli.parse(
        CompareOptions,
        CompareOptions(),
        own,
        prog=program.command("compare"),
        description=__doc__ or "",
    )
    one_of("environment", options.env, PRESETS)
    rows = schedule.row_words(options.env, options.methods, options.learners)
    options = dataclasses.replace(options, methods=rows)
    check_seeds(options.seeds)
    check_alphas(options.alphas)
    if options.at_once is not None and options.at_once < 1:
        raise UserError(f"--at-once must be at least 1; got {options.at_once}")
    if not options.checkpoint_minutes > 0:
        raise UserError("--checkpoint-minutes must be positive")
    for flag in cli.given_flags(rest):
        if reason := _NOT_HERE.get(flag):
            raise UserError(f"{flag} is no flag of a comparison: {reason}")
    _check_shared(options, rest, flags)
    return options, rest


def _check_shared(options: CompareOptions, rest: list[str], flags: list[str]) -> None:
    """Raises a UserError for a flag of all rows that none of them has.

    Args:
      options: of the comparison, whose ``methods`` are the words of all rows.
      rest: the flags of all rows, with their values.
      flags: of the comparison itself.
    """
    heads = {word.partition(":")[0]: schedule.parse_spec(word)[0] for word in options.methods}
    known = schedule.all_flags(options.env)
    pairs = [(split_row(head)[0], method) for head, method in heads.items()]
    of_some = schedule.flags_of(options.env, pairs)
    for flag in cli.given_flags(rest):
        near = difflib.get_close_matches(flag, flags, n=1, cutoff=0.75)
        if near and flag not in known:
            raise UserError(f"unknown flag {flag}, did you mean {near[0]}? --help lists all")
        if flag in known and flag not in of_some:
            raise UserError(f"{flag} is a setting of none of {', '.join(heads)}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
