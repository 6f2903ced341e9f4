"""The work of a comparison: trainings group by group, then results and tables."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from experiments import cli
from experiments.spec import program
from experiments.spec.errors import UserError
from experiments.spec.words import seed_words
from experiments.study import results, sheets
from experiments.study.launch import make_jobs, make_launcher
from experiments.study.launch.jobs import run_all
from experiments.study.options import CompareOptions
from experiments.study.plan import (
    Group,
    Row,
    check_different,
    finished,
    make_groups,
    make_row,
    plan_words,
)
from experiments.training.trainer import train


def compare(options: CompareOptions, rest: list[str], argv: Sequence[str]) -> int:
    """Trains what is not finished yet, and compares.

    Args:
      options: of the comparison.
      rest: flags that every training gets.
      argv: the words that said it, which are to be repeated after a stop.

    Returns:
      The exit code: 0; 1 if a training failed; or 128 plus the number of the signal that
      stopped one.

    Raises:
      UserError: what was asked for is impossible.
    """
    methods = [make_row(spec, options, rest) for spec in options.methods]
    check_different(methods)
    done = [finished(method, options.out) for method in methods]
    if options.plan or not options.collect:
        groups, free = make_groups(methods, done, options)
        print(plan_words(options, methods, done, groups, free), end="\n\n", flush=True)
    if options.plan:
        return 0
    again = program.command("compare", argv)
    try:
        code, failures = (0, []) if options.collect else _train(groups, options)
        if code < 128:
            finish(methods, options, quiet=bool(failures))
    except KeyboardInterrupt:
        code = 130
    if code >= 128:
        print(f"stopped; go on with the comparison: {again}")
        return code
    for failure in failures:
        print("failed:", failure, file=sys.stderr)
    return code


def _train(groups: list[Group], options: CompareOptions) -> tuple[int, list[str]]:
    """Trains groups here or elsewhere; returns the exit code and what has failed."""
    launcher = make_launcher(options)
    return (
        train_groups(groups) if launcher is None else run_all(make_jobs(groups, options), launcher)
    )


def train_groups(groups: list[Group]) -> tuple[int, list[str]]:
    """Trains group by group until a signal; returns the exit code and what has failed."""
    failures: list[str] = []
    for group in groups:
        try:
            code, reason = train(*cli.parse_train(group.argv), group.argv), ""
        except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
            code, reason = 1, (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            jax.clear_caches()
            gc.collect()
        if code >= 128:
            return code, failures
        if code:
            told = f"{group.method.spec}, seeds {' '.join(seed_words(group.seeds))}"
            failures.append(f"{told}: {reason or f'exit code {code}, as said when it ended'}")
            print("failed:", failures[-1], file=sys.stderr, flush=True)
    return int(bool(failures)), failures


def finish(methods: list[Row], options: CompareOptions, quiet: bool) -> None:
    """Writes compact results and tables of all finished runs, and prints the tables.

    Args:
      methods: all of the comparison.
      options: of the comparison.
      quiet: that nothing is finished is no error of its own.
    """
    folder = Path(options.results or Path(options.out) / "results") / options.env
    members: list[tuple[str, Path]] = []
    missing: dict[str, list[int]] = {}
    for method in methods:
        done = finished(method, options.out)
        members += [(method.row(run), run.path(options.out)) for run in done]
        for run in method.runs:
            missing.setdefault(method.row(run), []).extend([] if run in done else [run.seed])
    if quiet and not members:
        return
    results.write(folder, results.collect(members))
    found = results.read(folder)  # the tables follow from the files alone
    print("\n" + sheets.write(folder, found, missing))
    print(f"results and tables are in {folder}")
