"""From command-line arguments to dataclasses, with errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Generic, Literal

import numpy as np
import tyro

from experiments.presets import DEFAULT_ENV, PRESETS
from experiments.spec.experiment import E, Experiment, L, UserError, settings

# What tyro says, and what of it is of use.
_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*?),?\)")
_STRAY = re.compile(r"Unrecognized options: (.*)")
_WHERE = re.compile(r"Error parsing (experiment\.)?(learner\.)?")


def parse_seeds(words: Sequence[str]) -> tuple[int, ...]:
    """Seeds from words: a number each, or ``FIRST..LAST``.

    Raises:
      ValueError: a word is neither.
    """
    seeds: list[int] = []
    for word in words:
        first, dots, last = word.partition("..")
        if not first.isdigit() or (dots and not last.isdigit()):
            raise ValueError(f"{word} is neither a seed, 3 for instance, nor a range, 0..9")
        seeds += range(int(first), int(last if dots else first) + 1)
    return tuple(seeds)


def seed_words(seeds: Sequence[int]) -> list[str]:
    """Seeds as on the command line, three or more in a row as ``FIRST..LAST``."""
    words: list[str] = []
    rows = np.split(np.array(seeds), np.flatnonzero(np.diff(seeds) != 1) + 1)
    for row in rows:
        words += [f"{row[0]}..{row[-1]}"] if len(row) > 2 else [str(seed) for seed in row]
    return words


def distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, if there are some and each stands once.

    Raises:
      UserError: otherwise.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        told = " ".join(map(str, seeds)) or "none"
        raise UserError(f"--seeds are one or more different numbers from 0 on; got {told}")
    return seeds


def swept(alphas: tuple[float, ...]) -> tuple[float, ...]:
    """The levels of a sweep, if each is one and stands once.

    Raises:
      UserError: otherwise.
    """
    names = [f"{alpha:g}" for alpha in alphas]  # of folders, so they must differ
    if len(set(names)) < len(names) or not all(0 < alpha <= 1 for alpha in alphas):
        told = " ".join(names)
        raise UserError(f"--alphas are different fractions of worst tasks, in (0, 1]; got {told}")
    return alphas


Seeds = Annotated[
    tuple[int, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="SEED|FIRST..LAST",
        instance_from_str=parse_seeds,
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [str(seed) for seed in value],
    ),
]


@dataclasses.dataclass(frozen=True)
class Options:
    """Where and how to run; nothing here changes the result of a training that goes well.

    Attributes:
      seeds: one run for each, 0 1 2 or 0..2; several train side by side on the device.
      out: folder of all runs.
      name: folder of these seeds in it, of a variant for instance; None for METHOD-LEARNER.
      overwrite: start anew where a run already is.
      checkpoint_minutes: minutes between checkpoints during training.
      on_nan: what to do about a loss, return or parameter that is infinite or NaN: stop, or
        continue without the update of that step (for twice the memory).
      tensorboard: also write TensorBoard events.
      wandb: also log to this project of Weights & Biases.
      alphas: sweep alpha: one run for each of these and each seed, all side by side in
        folders of their own; none for the one alpha of the method.
    """

    seeds: Seeds = (0,)
    out: str = "runs"
    name: str | None = None
    overwrite: bool = False
    checkpoint_minutes: float = 10.0
    on_nan: Literal["stop", "continue"] = "stop"
    tensorboard: bool = False
    wandb: str | None = None
    alphas: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Command(Generic[E, L]):
    """All that ``experiments.train`` can be told, beside the names of ENV and learner."""

    options: Annotated[Options, tyro.conf.arg(name="")]
    experiment: Annotated[Experiment[E, L], tyro.conf.arg(name="")]


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Calls ``main`` and turns what the user can put right into one line and exit code 2."""
    try:
        return main(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = f"cannot use {error.filename}: {error.strerror}" if error.filename else str(error)
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def parse_train(argv: Sequence[str]) -> tuple[str, Command]:
    """The name of the preset, and everything else.

    Args:
      argv: ``[ENV] [--learner NAME] [any setting of the preset]``.

    Raises:
      UserError: a name, a flag or a value is not valid.
      SystemExit: with code 0, after ``--help``.
    """
    rest = list(argv)
    env = rest.pop(0) if rest and not rest[0].startswith("-") else DEFAULT_ENV
    preset = PRESETS[one_of("environment", env, PRESETS)]
    name = one_of("learner", _take(rest, "--learner") or preset.default_learner, preset.learners)
    default = Command(Options(), preset.with_learner(name))
    generic: Any = Command
    presets = "; ".join(f"{key} ({value.summary})" for key, value in PRESETS.items())
    return env, parse(
        generic[preset.env_class(), type(default.experiment.learner)],
        default,
        rest,
        prog="python -m experiments.train [ENV] [--learner NAME]",
        description=f"Trains and tests a robust meta-learner. ENV: {presets}. "
        f"Learners: {', '.join(preset.learners)}. Defaults below are those of {env} and {name}.",
    )


def parse(cls: Any, default: Any, argv: Sequence[str], *, prog: str, description: str) -> Any:
    """A dataclass from flags, by tyro.

    Raises:
      UserError: a flag or a value is not valid.
      SystemExit: with code 0, after ``--help``.
    """
    _check_flags(argv, settings(default))
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return tyro.cli(cls, default=default, args=argv, prog=prog, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_condense(told.getvalue())) from None
    except ValueError as error:  # from a dataclass that checks itself
        raise UserError(str(error)) from error


def one_of(what: str, name: str, valid: Iterable[str]) -> str:
    """``name``, if it is valid.

    Raises:
      UserError: otherwise, with the nearest valid name and all of them.
    """
    valid = list(valid)
    if name in valid:
        return name
    raise UserError(f"unknown {what} {name!r}{_hint(name, valid)} valid: {', '.join(valid)}")


def _hint(name: str, valid: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f", did you mean {near[0]}?" if near else ";"


def _take(args: list[str], flag: str) -> str | None:
    """Removes ``flag VALUE`` or ``flag=VALUE`` from the arguments; the last one counts."""
    value = None
    for i in reversed(range(len(args))):
        if args[i] == flag:
            if i + 1 >= len(args):
                raise UserError(f"{flag} needs a name")
            found = args.pop(i + 1)
            args.pop(i)
        elif args[i].startswith(flag + "="):
            found = args.pop(i).split("=", 1)[1]
        else:
            continue
        value = value or found
    return value


def _check_flags(argv: Sequence[str], defaults: dict[str, Any]) -> None:
    """Raises a UserError for a flag that does not exist."""
    flags = {"--help"}
    for name, value in defaults.items():
        path, _, last = name.replace("_", "-").rpartition(".")
        lead = f"--{path}." if path else "--"
        flags |= {lead + last} | ({f"{lead}no-{last}"} if isinstance(value, bool) else set())
    for word in argv:
        flag = word.split("=", 1)[0].replace("_", "-")
        if word.startswith("--") and flag not in flags:
            raise UserError(f"unknown flag {flag}{_hint(flag, flags)} --help lists all")


def _condense(boxed: str) -> str:
    """The message of one of tyro's boxes, as one line."""
    title_apart = "╭" not in boxed  # in an ASCII box, which a terminal without Unicode gets
    blocks: list[list[str]] = [[]]
    for line in boxed.splitlines():
        text = line.strip("│| ")
        if len(text) > 4 and not text.strip("─-"):
            blocks.append([])
        elif text and not text.startswith(("╭", "╰", "+")):
            blocks[-1].append(text)
    message = blocks[1] if title_apart and len(blocks) > 1 else blocks[0]
    text = " ".join(message) or " ".join(boxed.split())
    if choice := _CHOICE.match(text):
        valid = [name.strip("'") for name in choice[3].split(", ")]
        return f"{choice[2]} {choice[1]!r} is unknown{_hint(choice[1], valid)} " + (
            f"valid: {', '.join(valid)}"
        )
    if stray := _STRAY.match(text):
        return f"{stray[1]} belongs to no flag; ENV comes first, all else by flags"
    return _WHERE.sub("", text)
