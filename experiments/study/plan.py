"""What a comparison is to train: its rows, seeds in groups, and words for all of it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec import program
from experiments.spec.build import Built, build
from experiments.spec.errors import UserError
from experiments.spec.words import seed_words, split_row
from experiments.study import schedule
from experiments.study.options import CompareOptions
from experiments.training import runs
from experiments.training.host import free_memory
from experiments.training.runs import Run
from experiments.training.trainer import common_step

_GIB = 2**30


class Row(NamedTuple):
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
        level = f"alpha={run.experiment.alpha:g}"
        return f"{self.spec}{',' if ':' in self.spec else ':'}{level}" if self.alphas else self.spec

    def whole(self, chosen: list[Run]) -> list[int]:
        """The seeds that have all their runs among some."""
        seeds = [run.seed for run in chosen]
        return [seed for seed in dict.fromkeys(seeds) if seeds.count(seed) == self.width]


class Group(NamedTuple):
    """Seeds that train side by side."""

    method: Row
    seeds: tuple[int, ...]
    step: int | None

    @property
    def argv(self) -> list[str]:
        """Arguments of experiments.train."""
        return [*self.method.argv, "--seeds", *seed_words(self.seeds)]

    @property
    def memory(self) -> int:
        """Bytes that training takes."""
        row = self.method
        return schedule.memory_of(row.built.state_bytes * row.copies * row.width, len(self.seeds))

    @property
    def frames(self) -> int:
        """Still to train, over all seeds."""
        built = self.method.built
        steps = built.total_steps - (self.step or 0)
        return steps * built.learner.frames_per_step * len(self.seeds) * self.method.width


def _own_words(rest: list[str], known: set[str], own: set[str]) -> list[str]:
    """Those of the words that are for a method: flags that only others take are left out."""
    words: list[str] = []
    kept = True
    for word in rest:
        if word.startswith("--"):
            (flag,) = cli.given_flags([word])
            kept = flag in own or flag not in known
        words += [word] * kept
    return words


def make_row(spec: str, options: CompareOptions, rest: list[str]) -> Row:
    """The runs of a row, with all its settings checked.

    Args:
      spec: the word of the row, without the usual learner.
      options: of the comparison.
      rest: flags that every training gets, if it has them.

    Raises:
      UserError: a flag or a value is not valid, or learner and method do not go together.
    """
    learner, (name, words) = split_row(spec)[0], schedule.parse_spec(spec)
    changes = spec.partition(":")[2]
    usual = PRESETS[options.env].default_learner
    folder = f"{name}-{learner or usual},{changes}" if changes else None
    argv = [options.env] + (["--learner", learner] if learner else [])
    known, own = schedule.all_flags(options.env), schedule.flags_of(options.env, [(learner, name)])
    argv += ["--method", name, *_own_words(rest, known, own), *words]
    argv += ["--name", folder] if folder else []
    argv += ["--out", options.out] if options.out != CompareOptions.out else []
    if options.checkpoint_minutes != CompareOptions.checkpoint_minutes:
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
    return Row(spec, argv, chosen, built, copies, options.alphas)


def check_different(methods: list[Row]) -> None:
    """Raises a UserError for two methods that are one."""
    seen: dict[object, str] = {}
    for method in methods:
        other = seen.setdefault(method.built.experiment, method.spec)
        if other != method.spec:
            raise UserError(f"{other} and {method.spec} have the same settings: name one of them")


# ------------------------------------------------------------------ the plan


def make_groups(
    methods: list[Row], done: list[list[Run]], options: CompareOptions
) -> tuple[list[Group], int | None]:
    """What trains, in order, and the memory that is free."""
    groups: list[Group] = []
    # That of another machine is its own affair: as many seeds as are asked for, or one a job.
    here = options.launcher == "local"
    free = free_memory() if here else None
    for method, finished in zip(methods, done, strict=True):
        size = method.built.state_bytes * method.copies * method.width
        most = schedule.seeds_at_once(size, free, options.at_once)
        steps = next_steps(method, finished, options.out)
        groups += [Group(method, *group) for group in schedule.side_by_side(steps, most)]
    return groups, free


def finished(method: Row, out: str) -> list[Run]:
    """Those runs of a method that are finished.

    Raises:
      UserError: a directory holds a run of other settings, or something else.
    """
    states = [runs.status(run.path(out)) for run in method.runs]
    for run, state in zip(method.runs, states, strict=True):
        if state != "new":
            runs.check_same(run.path(out), run)
    return [run for run, state in zip(method.runs, states, strict=True) if state == "finished"]


def next_steps(method: Row, done: list[Run], out: str) -> dict[int, int | None]:
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
            step = common_step([path for seed in part for path in paths[seed]])
            steps |= dict.fromkeys(part, step)
    return {seed: steps[seed] for seed in paths}


def plan_words(
    options: CompareOptions,
    methods: list[Row],
    done: list[list[Run]],
    groups: list[Group],
    free: int | None,
) -> str:
    """What will be done, a line per group, then the commands."""
    rows = [("method", "seeds", "start", "frames to train")]
    for method, finished in zip(methods, done, strict=True):
        if seeds := method.whole(finished):
            told = " ".join(seed_words(seeds))
            rows.append((method.spec, told, "finished", "0"))
        for group in groups:
            if group.method is method:
                start = "new" if group.step is None else f"step {group.step:,}"
                told = " ".join(seed_words(group.seeds))
                rows.append((method.spec, told, start, f"{group.frames:,}"))
    rows.append(("all", "", "", f"{sum(group.frames for group in groups):,}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    learners = dict.fromkeys(method.built.experiment.learner_name for method in methods)
    memory = "unknown" if free is None else f"{free / _GIB:.1f} GiB free"
    where = f"memory: {memory}"
    if options.launcher != "local":
        most = max((group.memory for group in groups), default=0) / _GIB
        where = f"by {options.launcher}: {len(groups)} jobs of {options.job_cores} cores, "
        where += f"{options.job_gpus:g} GPUs and up to {most:.1f} GiB each"
    return "\n".join(
        [
            f"{options.env} on {', '.join(learners)}, {where}",
            *(
                f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d:>{widths[3]}}"
                for a, b, c, d in rows
            ),
            *(program.command("train", group.argv) for group in groups),
        ]
    )
