"""From command-line arguments to dataclasses, with errors of one line."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import io
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal

import tyro

from experiments.presets import DEFAULT_ENV, PRESETS
from experiments.spec import help, program
from experiments.spec.errors import UserError
from experiments.spec.experiment import E, Experiment, L, M, kinds, settings
from experiments.spec.spelling import in_our_words
from experiments.spec.terminal import steady
from experiments.spec.words import Seeds, hint, one_of, place
from roml_jax.methods import METHODS

_REQUIREMENT = re.compile(r"([\w-]+).*; extra == ['\"](\w+)['\"]")  # a package, an extra
# What tyro says, and what of it is of use.
_CHOICE = re.compile(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*?),?\)")
_STRAY = re.compile(r"Unrecognized options: (.*)")
_PARSE = re.compile(r"(.*): Could not find valid parse for arguments")
_WHERE = re.compile(r"Error parsing (experiment\.)?(learner\.)?")


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
      devices: that the training lies over, a number or all: seeds first, then the tasks of each,
        which are dealt in as many groups.
      mesh: which of them, seeds=2,tasks=4 for instance; None for what comes out even.
      coordinator: HOST:PORT of the first of several processes that train as one, on machines of
        their own perhaps; auto where SLURM, Open MPI or a TPU pod says it, and the two numbers.
      process_id: which of them this is, from 0 on.
      num_processes: how many they are.
      compile_cache: folder of compiled programs, which the next start of the same training takes
        from there; auto for one in the user's cache folder, none for none.
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
    devices: int | Literal["all"] = 1
    mesh: str | None = None
    coordinator: str | None = None
    process_id: int | None = None
    num_processes: int | None = None
    compile_cache: str = "auto"

    def __post_init__(self) -> None:
        """Finds the folder."""
        object.__setattr__(self, "out", str(place("--out", self.out)))
        if self.compile_cache not in ("auto", "none"):
            folder = place("--compile-cache", self.compile_cache)
            object.__setattr__(self, "compile_cache", str(folder))


@dataclasses.dataclass(frozen=True)
class Command(Generic[E, L, M]):
    """All that ``experiments.train`` can be told, beside the names of ENV, learner and method."""

    options: Annotated[Options, tyro.conf.arg(name="")]
    experiment: Annotated[Experiment[E, L, M], tyro.conf.arg(name="")]


def run(main: Callable[[Sequence[str]], int], argv: Sequence[str] | None = None) -> int:
    """Calls ``main`` and turns what the user can put right into one line and exit code 2.

    Nothing that it prints can fail, whoever reads it.
    """
    with steady():
        return _run(main, sys.argv[1:] if argv is None else argv)


def _run(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    try:
        return main(argv)
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        message = f"this {needs(error)}"
    except OSError as error:
        message = f"cannot use {error.filename}: {error.strerror}" if error.filename else str(error)
    print("error:", " ".join(message.split()), file=sys.stderr)
    return 2


def needs(error: ModuleNotFoundError) -> str:
    """``needs mujoco: pip install …``, of what could not be imported and an extra brings.

    Raises:
      ModuleNotFoundError: the same, if no extra does.
    """
    missing = (error.name or "").split(".")[0].replace("_", "-").lower()
    missing = {"pil": "pillow"}.get(missing, missing)
    found = [_REQUIREMENT.match(line) for line in importlib.metadata.requires("roml-jax") or ()]
    pairs = [(one[1].lower(), one[2]) for one in found if one]
    extras = [extra for name, extra in pairs if name == missing]
    if not extras:
        raise error
    sizes = Counter(extra for _, extra in pairs)
    extra = min(extras, key=lambda extra: (sizes[extra], extra))
    install = f"pip install 'roml-jax[{extra}]', in a checkout pip install -e '.[{extra}]'"
    return f"needs {error.name}: {install}"


def parse_train(argv: Sequence[str]) -> tuple[str, Command]:
    """The name of the preset, and everything else.

    Args:
      argv: ``[ENV] [--learner NAME] [--method NAME] [any setting of the preset]``.

    Raises:
      UserError: a name, a flag or a value is not valid.
      SystemExit: with code 0, after ``--help``, or ``--help-all``.
    """
    rest = list(argv)
    env = rest.pop(0) if rest and not rest[0].startswith("-") else DEFAULT_ENV
    preset = PRESETS[one_of("environment", env, PRESETS)]
    learners = preset.learner_names()
    learner = one_of("learner", _take(rest, "--learner") or preset.default_learner, learners)
    method = one_of("method", _take(rest, "--method") or preset.default_method, METHODS)
    default = Command(Options(), preset.choose(learner, method))
    if {"-h", "--help"} & {*rest}:
        names = {"env": env, "learner": learner, "method": method}
        print(_help(default, names, preset.learner_names()))
        raise SystemExit(0)
    rest = ["--help" if word == "--help-all" else word for word in rest]
    _check_method_flags(rest, default, method)
    generic: Any = Command
    kinds = (type(default.experiment.learner), type(default.experiment.method))
    return env, parse(
        generic[preset.env_class(), *kinds],
        default,
        rest,
        prog=f"{program.command('train')} [ENV] [--learner NAME] [--method NAME]",
        description="Trains and tests a robust meta-learner. --list says what can be chosen. "
        f"Defaults below are those of {env}, {learner} and {method}.",
    )


def _help(default: Command, names: dict[str, str], learners: list[str]) -> str:
    """What ``--help`` says: how to choose, and the settings of what is chosen that matter most."""
    usage = program.command("train")
    rows = {"ENV": PRESETS, "--learner": learners, "--method": METHODS}
    lines = [
        f"usage: {usage} [ENV] [--learner NAME] [--method NAME] [settings]",
        "",
        "Trains and tests a robust meta-learner; the same command goes on after a stop.",
        "",
        *(help.row(f"  {name}", ", ".join(told), 13) for name, told in rows.items()),
        help.row("  --list", "says what each of these is", 13),
        "",
        help.common(default, names, f"More by {usage} {names['env']} --help-all"),
    ]
    return "\n".join(lines)


def flag_of(name: str) -> str:
    """The flag of a setting: ``policy.learning_rate`` becomes ``--policy.learning-rate``."""
    path, _, last = name.replace("_", "-").rpartition(".")
    return f"--{path}.{last}" if path else f"--{last}"


def flags_of(config: Any) -> set[str]:
    """All flags of a dataclass, ``--no-…`` among them."""
    flags: set[str] = set()
    for name, value in settings(config).items():
        flag = flag_of(name)
        flags.add(flag)
        if isinstance(value, bool):
            lead, _, last = flag.rpartition("." if "." in name else "--")
            flags.add(f"{lead}.no-{last}" if "." in name else f"--no-{last}")
    return flags


def given_flags(argv: Sequence[str]) -> list[str]:
    """The flags among words, as ``flags_of`` spells them."""
    return [w.split("=", 1)[0].replace("_", "-") for w in argv if w.startswith("--")]


def _check_method_flags(argv: Sequence[str], command: Command, method: str) -> None:
    """Raises a UserError for a flag of another method."""
    own = flags_of(command)
    for flag in given_flags(argv):
        others = [name for name, kind in METHODS.items() if flag in flags_of(kind.config())]
        if others and flag not in own:
            raise UserError(f"{flag} is a setting of {', '.join(others)}, not of {method}")


def parse(cls: Any, default: Any, argv: Sequence[str], *, prog: str, description: str) -> Any:
    """A dataclass from flags, by tyro.

    Raises:
      UserError: a flag or a value is not valid.
      SystemExit: with code 0, after ``--help``.
    """
    argv = in_our_words(argv, {flag_of(name): kind for name, kind in kinds(default).items()})
    _check_flags(argv, default)
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


def parse_about(
    command: str,
    cls: Any,
    asked: tuple[str, str, str],
    argv: Sequence[str],
    description: str | None,
) -> Any:
    """``parse`` of a command whose first word says what it is about.

    Args:
      command: its name.
      cls: the dataclass of its options, with a field for the first word.
      asked: what that word is, how it is called in usages, and which words are valid.
      argv: arguments.
      description: for ``--help``.

    Raises:
      UserError: the first word is missing, or as ``parse``.
    """
    noun, name, told = asked
    wants_help = any(word in ("-h", "--help") for word in argv)
    if not wants_help and (not argv or argv[0][:1] == "-"):
        raise UserError(f"say which {noun} first: {program.command(command)} {name} ({told})")
    default = cls(**{name.lower(): tyro.MISSING})
    return parse(cls, default, argv, prog=program.command(command), description=description or "")


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


def _check_flags(argv: Sequence[str], default: Any) -> None:
    """Raises a UserError for a flag that does not exist."""
    flags = {"--help"} | flags_of(default)
    for flag in given_flags(argv):
        if flag not in flags:
            raise UserError(f"unknown flag {flag}{hint(flag, flags)} --help lists all")


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
        return f"{choice[2]} {choice[1]!r} is unknown{hint(choice[1], valid)} " + (
            f"valid: {', '.join(valid)}"
        )
    if stray := _STRAY.match(text):
        if stray[1].lower() in ("true", "false"):
            return f"{stray[1]} is no value of a flag: write --FLAG or --no-FLAG"
        return f"{stray[1]} belongs to no flag; ENV comes first, all else by flags"
    text = _WHERE.sub("", text)
    if parse := _PARSE.match(text):
        return f"{parse[1]} has no such value: numbers stand apart, 64 32 for instance"
    return text
