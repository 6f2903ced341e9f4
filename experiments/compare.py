"""Trains methods over seeds, and compares their tests with confidence intervals.

``python -m experiments.compare khazad-dum --methods baseline cvar-ml roml --seeds 0..29``
trains what is not finished yet and writes compact results and tables. A method may be a
variant, ``cvar-ml:policy.unselected=constant_advantage``; any flag of ``experiments.train``,
``--frames 1e6`` for instance, applies to all of them. ``--alphas 0.01 0.1 1`` trains each method
for each of these, side by side. The same command goes on after a stop.
"""

from __future__ import annotations

import dataclasses
import difflib
import gc
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import jax
import tyro

from experiments import cli, train
from experiments.presets import DEFAULT_ENV, PRESETS
from experiments.spec.experiment import Built, UserError, build, settings
from experiments.study import results, schedule, tables
from experiments.training import runs
from experiments.training.runs import Run

_GIB = 2**30
_NOT_HERE = {
    "--method": "name methods by --methods",
    "--name": "the folder of a variant has the name of the variant",
    "--overwrite": "remove what is to be trained anew, or choose another --out",
    "--no-overwrite": "nothing is overwritten",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
      env: the environment.
      methods: METHOD or METHOD:flag=value,…, with the flags of experiments.train.
      seeds: of each method, 0 1 2 or 0..9.
      alphas: sweep alpha: each method becomes one for each of these; none for the usual one.
      learner: below all methods; None for the usual one of the environment.
      out: folder of all runs.
      results: folder of results and tables of all environments; None for OUT/results.
      at_once: most seeds that train side by side; None for as many as memory allows.
      checkpoint_minutes: minutes between checkpoints during training.
      plan: only say what would be done.
      collect: train nothing; make results and tables of what is finished.
    """

    env: Annotated[str, tyro.conf.Positional] = DEFAULT_ENV
    methods: tuple[str, ...] = ("baseline", "cvar-ml", "roml")
    seeds: cli.Seeds = tuple(range(10))
    alphas: tuple[float, ...] = ()
    learner: str | None = None
    out: str = "runs"
    results: str | None = None
    at_once: int | None = None
    checkpoint_minutes: float = 10.0
    plan: bool = False
    collect: bool = False


class Method(NamedTuple):
    """A row of the comparison, or, in a sweep of alpha, a row for each level."""

    spec: str
    argv: list[str]  # of experiments.train, all but --seeds
    runs: list[Run]
    built: Built
    copies: int  # of the state that training holds
    alphas: tuple[float, ...]  # of a sweep

    @property
    def width(self) -> int:
        """Runs of each seed."""
        return max(1, len(self.alphas))

    def row(self, run: Run) -> str:
        """The row that a run belongs to."""
        level = f"alpha={run.experiment.method.alpha:g}"
        return f"{self.spec}{',' if ':' in self.spec else ':'}{level}" if self.alphas else self.spec

    def whole(self, chosen: list[Run]) -> list[int]:
        """The seeds that have all their runs among some."""
        seeds = [run.seed for run in chosen]
        return [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) == self.width]


class Group(NamedTuple):
    """Seeds that train side by side."""

    method: Method
    seeds: tuple[int, ...]
    step: int | None

    @property
    def argv(self) -> list[str]:
        """Arguments of experiments.train."""
        return [*self.method.argv, "--seeds", *cli.seed_words(self.seeds)]

    @property
    def frames(self) -> int:
        """Still to train, over all seeds."""
        built = self.method.built
        steps = built.total_steps - (self.step or 0)
        return steps * built.learner.frames_per_step * len(self.seeds) * self.method.width


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
      argv: command-line arguments.

    Returns:
      The exit code: 0; 1 if a training failed; or 128 plus the number of the signal that
      stopped one.

    Raises:
      UserError: what was asked for is impossible.
    """
    options, rest = _parse(argv)
    methods = [_method(spec, options, rest) for spec in options.methods]
    _check_different(methods)
    done = [_finished(method, options.out) for method in methods]
    if options.plan or not options.collect:
        groups, free = _groups(methods, done, options)
        print(_plan(options, methods, done, groups, free), end="\n\n", flush=True)
    if options.plan:
        return 0
    again = shlex.join(["python", "-m", "experiments.compare", *argv])
    try:
        code, failures = (0, []) if options.collect else _train(groups)
        if code < 128:
            _finish(methods, options, quiet=bool(failures))
    except KeyboardInterrupt:
        code = 130
    if code >= 128:
        print(f"stopped; go on with the comparison: {again}")
        return code
    for failure in failures:
        print("failed:", failure, file=sys.stderr)
    return code


# ------------------------------------------------------------------ what was asked for


def _parse(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Options of the comparison, and the flags that every training gets.

    Raises:
      UserError: something is not valid.
    """
    flags = ["--" + field.name.replace("_", "-") for field in dataclasses.fields(Options)]
    own: list[str] = []
    rest: list[str] = []
    chosen = own
    for word in argv:
        if word.startswith("--"):
            flag = word.split("=", 1)[0].replace("_", "-")
            mine = flag in (*flags, "--no-plan", "--no-collect", "--help")
            chosen = own if mine else rest
        chosen.append(word)
    options: Options = cli.parse(
        Options, Options(), own, prog="python -m experiments.compare", description=__doc__ or ""
    )
    preset = PRESETS[cli.one_of("environment", options.env, PRESETS)]
    learner = cli.one_of("learner", options.learner or preset.default_learner, preset.learners)
    options = dataclasses.replace(options, learner=learner)
    if not options.methods or len(set(options.methods)) < len(options.methods):
        told = " ".join(options.methods) or "none"
        raise UserError(f"--methods are one or more different methods; got {told}")
    cli.distinct(options.seeds)
    cli.swept(options.alphas)
    if options.at_once is not None and options.at_once < 1:
        raise UserError(f"--at-once must be at least 1; got {options.at_once}")
    if not options.checkpoint_minutes > 0:
        raise UserError("--checkpoint-minutes must be positive")
    start = [options.env, "--learner", learner]
    known = settings(cli.parse_train(start)[1])
    for flag in (word.split("=", 1)[0] for word in rest if word.startswith("--")):
        if reason := _NOT_HERE.get(flag.replace("_", "-")):
            raise UserError(f"{flag} is no flag of a comparison: {reason}")
        near = difflib.get_close_matches(flag, flags, n=1, cutoff=0.75)
        if near and flag[2:].replace("-", "_") not in known:
            raise UserError(f"unknown flag {flag}, did you mean {near[0]}? --help lists all")
    cli.parse_train([*start, *rest])
    return options, rest


def _method(spec: str, options: Options, rest: list[str]) -> Method:
    """The runs of a method, with all its settings checked.

    Raises:
      UserError: a flag or a value of the method is not valid.
    """
    name, words = schedule.parse_spec(spec)
    changes = spec.partition(":")[2]
    folder = f"{name}-{options.learner},{changes}" if changes else None
    argv = [options.env]
    usual = PRESETS[options.env].default_learner
    argv += ["--learner", options.learner] if options.learner and options.learner != usual else []
    argv += ["--method", name, *rest, *words] + (["--name", folder] if folder else [])
    argv += ["--out", options.out] if options.out != Options.out else []
    if options.checkpoint_minutes != Options.checkpoint_minutes:
        argv += ["--checkpoint-minutes", f"{options.checkpoint_minutes:g}"]
    try:
        env, command = cli.parse_train(argv)
        built = build(command.experiment)
    except UserError as error:
        raise UserError(f"method {spec}: {error}") from error
    chosen = [Run(env, command.experiment, seed, folder) for seed in sorted(options.seeds)]
    if options.alphas:
        argv += ["--alphas", *(f"{alpha:g}" for alpha in options.alphas)]
        chosen = [run.at_alpha(alpha) for alpha in options.alphas for run in chosen]
    copies = 2 if command.options.on_nan == "continue" else 1
    return Method(spec, argv, chosen, built, copies, options.alphas)


def _check_different(methods: list[Method]) -> None:
    """Raises a UserError for two methods that are one."""
    seen: dict[object, str] = {}
    for method in methods:
        other = seen.setdefault(method.built.experiment, method.spec)
        if other != method.spec:
            raise UserError(f"{other} and {method.spec} have the same settings: name one of them")


# ------------------------------------------------------------------ the plan


def _groups(
    methods: list[Method], done: list[list[Run]], options: Options
) -> tuple[list[Group], int | None]:
    """What trains, in order, and the memory that is free."""
    groups: list[Group] = []
    free = schedule.free_memory()
    for method, finished in zip(methods, done, strict=True):
        size = method.built.state_bytes * method.copies * method.width
        most = schedule.seeds_at_once(size, free, options.at_once)
        steps = _steps(method, finished, options.out)
        groups += [Group(method, *group) for group in schedule.side_by_side(steps, most)]
    return groups, free


def _finished(method: Method, out: str) -> list[Run]:
    """Those runs of a method that are finished.

    Raises:
      UserError: a directory holds a run of other settings, or something else.
    """
    states = [runs.status(run.path(out)) for run in method.runs]
    for run, state in zip(method.runs, states, strict=True):
        if state != "new":
            runs.check_same(run.path(out), run)
    return [run for run, state in zip(method.runs, states, strict=True) if state == "finished"]


def _steps(method: Method, done: list[Run], out: str) -> dict[int, int | None]:
    """Where each seed stands that is not done; None for the start.

    That is its newest checkpoint, or, for seeds that were stopped side by side, the newest
    that all of them have, so that they go on side by side.

    Raises:
      UserError: all checkpoints of a run are damaged.
    """
    paths: dict[int, list[Path]] = {}
    for run in method.runs:
        if run not in done:
            paths.setdefault(run.seed, []).append(run.path(out))
    groups: dict[tuple[int, ...], list[int]] = {}  # by the seeds that they were stopped beside
    for seed, own in paths.items():
        groups.setdefault(tuple(runs.side_by_side(own[0])), []).append(seed)
    steps: dict[int, int | None] = {}
    for together, seeds in groups.items():
        parts = [seeds] if set(together) == set(seeds) else [[seed] for seed in seeds]
        for part in parts:
            step = train.common_step([path for seed in part for path in paths[seed]])
            steps |= dict.fromkeys(part, step)
    return {seed: steps[seed] for seed in paths}


def _plan(
    options: Options,
    methods: list[Method],
    done: list[list[Run]],
    groups: list[Group],
    free: int | None,
) -> str:
    """What will be done, a line per group, then the commands."""
    rows = [("method", "seeds", "start", "frames to train")]
    for method, finished in zip(methods, done, strict=True):
        if seeds := method.whole(finished):
            told = " ".join(cli.seed_words(seeds))
            rows.append((method.spec, told, "finished", "0"))
        for group in groups:
            if group.method is method:
                start = "new" if group.step is None else f"step {group.step:,}"
                told = " ".join(cli.seed_words(group.seeds))
                rows.append((method.spec, told, start, f"{group.frames:,}"))
    rows.append(("all", "", "", f"{sum(group.frames for group in groups):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    memory = "unknown" if free is None else f"{free / _GIB:.1f} GiB free"
    return "\n".join(
        [
            f"{options.env} on {options.learner}, memory: {memory}",
            *(
                f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>{widths[3]}}"
                for a, b, c, d in rows
            ),
            *(shlex.join(["python", "-m", "experiments.train", *group.argv]) for group in groups),
        ]
    )


# ------------------------------------------------------------------ the work


def _train(groups: list[Group]) -> tuple[int, list[str]]:
    """Trains group by group until a signal; returns the exit code and what has failed."""
    failures: list[str] = []
    for group in groups:
        try:
            code, reason = train.main(group.argv), ""
        except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
            code, reason = 1, (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            jax.clear_caches()
            gc.collect()
        if code >= 128:
            return code, failures
        if code:
            told = f"{group.method.spec}, seeds {' '.join(cli.seed_words(group.seeds))}"
            failures.append(f"{told}: {reason or f'exit code {code}, see above'}")
            print("failed:", failures[-1], file=sys.stderr, flush=True)
    return int(bool(failures)), failures


def _finish(methods: list[Method], options: Options, quiet: bool) -> None:
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
        done = _finished(method, options.out)
        members += [(method.row(run), run.path(options.out)) for run in done]
        for run in method.runs:
            missing.setdefault(method.row(run), []).extend([] if run in done else [run.seed])
    if quiet and not members:
        return
    results.write(folder, results.collect(members))
    found = results.read(folder)  # the tables follow from the files alone
    print("\n" + tables.write(folder, found, missing))
    print(f"results and tables are in {folder}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
