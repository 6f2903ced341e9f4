"""Words of the command line: what they stand for, and what is said of those that are wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.spec.errors import UserError

# gs://bucket/runs, also where a Path has taken one of its slashes away.
_ADDRESS = re.compile(r"^(file:|[a-zA-Z][a-zA-Z0-9+.-]+:/)")
LAST_SEED = 2**32 - 1  # the next one is 0 again to a key


def check_seed(flag: str, seed: int | None) -> None:
    """Raises a UserError unless a seed is one, or None."""
    if seed is not None and not 0 <= seed <= LAST_SEED:
        raise UserError(f"{flag} is a number from 0 to {LAST_SEED}; got {seed}")


def place(flag: str, path: str | Path) -> Path:
    """A folder or file of this machine, with ``~`` for one's home.

    Raises:
      UserError: it is an address of another machine's, or nobody's home.
    """
    text = str(path)
    if _ADDRESS.match(text):
        raise UserError(f"{flag} is a path of this machine: mount {text} first, or copy it later")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{flag} {text}: {error}") from error


def file_to_write(flag: str, path: str | Path | None) -> Path | None:
    """``place`` of a file that is to be written, or None.

    Raises:
      UserError: it is a folder, or ``place`` refuses it.
    """
    found = None if path is None else place(flag, path)
    if found is not None and found.is_dir():
        raise UserError(f"{flag} names a file; {found} is a folder")
    return found


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


def check_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """The seeds, if there are some, each stands once, and JAX tells them all apart.

    Raises:
      UserError: otherwise.
    """
    if not seeds or min(seeds) < 0 or max(seeds) > LAST_SEED or len(set(seeds)) < len(seeds):
        told = " ".join(map(str, seeds)) or "none"
        raise UserError(f"--seeds are one or more different numbers, 0 to {LAST_SEED}; got {told}")
    return seeds


def check_alphas(alphas: tuple[float, ...]) -> tuple[float, ...]:
    """The levels of a sweep, if each is one and stands once.

    Raises:
      UserError: otherwise.
    """
    names = [f"{alpha:g}" for alpha in alphas]  # of folders, so they must differ
    if len(set(names)) < len(names) or not all(0 < alpha <= 1 for alpha in alphas):
        told = " ".join(names)
        raise UserError(f"--alphas are different fractions of worst tasks, in (0, 1]; got {told}")
    return alphas


def phi_column(name: str) -> str:
    """The column of a component of ``phi``: families over units say phi_mass, others mean_rain."""
    return f"phi_{name.removeprefix('phi_')}"


_SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
_SIZE = re.compile(r"([0-9.eE+_-]+)\s*([kMGB]?)")


def whole_number(text: str) -> int:
    """An integer, also as ``8e6``, ``8_000_000`` or ``8M``.

    Raises:
      ValueError: it is none.
    """
    parts = _SIZE.fullmatch(text.strip().replace("K", "k"))
    value = float(parts[1]) * _SIZES[parts[2]] if parts else float(text)
    if not value.is_integer():
        raise ValueError(f"{text} is not a whole number")
    return int(value)


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


def one_of(what: str, name: str, valid: Iterable[str]) -> str:
    """``name``, if it is valid.

    Raises:
      UserError: otherwise, with the nearest valid name and all of them.
    """
    valid = list(valid)
    if name in valid:
        return name
    raise UserError(f"unknown {what} {name!r}{hint(name, valid)} valid: {', '.join(valid)}")


def split_row(word: str) -> tuple[str | None, str]:
    """The word of a row of a comparison, ``[LEARNER/]METHOD[:flag=value,…]``, in two.

    Returns:
      Its learner, None for the usual one of the environment, and all that stands behind it.
    """
    method, colon, changes = word.partition(":")
    learner, slash, method = method.rpartition("/")
    return learner if slash else None, method + colon + changes


def join_row(learner: str, method: str, usual: str | None) -> str:
    """The word of a row.

    Args:
      learner: its learner.
      method: METHOD[:flag=value,…].
      usual: the learner that goes without saying.
    """
    return method if learner == usual else f"{learner}/{method}"


def hint(name: str, valid: Iterable[str]) -> str:
    """``, did you mean …?`` if a valid name is near, else a semicolon."""
    whole: dict[str, set[str]] = {}  # learning-rate of --policy.learning-rate, and all of it
    short: dict[str, set[str]] = {}  # lr of it
    for word in valid:
        plain = _plain(word)
        last = plain.rpartition(".")[2]
        for form in (plain, last):
            whole.setdefault(form, set()).add(word)
        short.setdefault("".join(part[:1] for part in last.split("-")), set()).add(word)
    asked = _plain(name)
    lead, _, last = asked.rpartition(".")
    brief = {word for word in short.get(last, ()) if _plain(word).startswith(lead)}
    near = difflib.get_close_matches(asked, whole, n=1, cutoff=0.5)
    found = whole.get(asked) or brief or (whole[near[0]] if near else set())
    return f", did you mean {' or '.join(sorted(found))}?" if found else ";"


def _plain(word: str) -> str:
    """A word as one thinks of it: RoML and --cvar_ml are roml and cvar-ml."""
    return word.lower().lstrip("-").replace("_", "-")


def flag_words(name: str, value: Any) -> list[str]:
    """A setting as words of the command line.

    Args:
      name: as in ``settings``, ``policy.learning_rate`` for instance.
      value: a bool becomes ``--flag`` or ``--no-flag``, a tuple several words.
    """
    path, _, last = name.replace("_", "-").rpartition(".")
    lead = f"--{path}." if path else "--"
    if isinstance(value, bool):
        return [lead + ("" if value else "no-") + last]
    return [lead + last, *map(str, value if isinstance(value, tuple) else (value,))]
