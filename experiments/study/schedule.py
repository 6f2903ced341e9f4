"""What trains together: rows as words, seeds in groups, and the memory that they may take."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.experiment import settings
from experiments.spec.words import flag_words, join_row, one_of, split_row
from roml_jax.methods import METHODS

_FIXED_BYTES, _STATE_COPIES = 1.5 * 2**30, 1.3  # memory of a training: beside states, per state


def row_words(env: str, methods: Sequence[str], learners: Sequence[str]) -> tuple[str, ...]:
    """The words of all rows: each method below each learner, then those that name their own.

    Args:
      env: name of the preset.
      methods: ``[LEARNER/]METHOD[:flag=value,…]``.
      learners: of the methods that name none; none for the preset's usual one.

    Returns:
      Words in which the usual learner goes without saying.

    Raises:
      UserError: a learner cannot learn here, or a row stands there twice or not at all.
    """
    for flag, words in (("--methods", methods), ("--learners", learners)):
        if len(set(words)) < len(words) or not (words or flag == "--learners"):
            told = " ".join(words) or "none"
            raise UserError(f"{flag} are one or more different {flag[2:]}; got {told}")
    pairs = [split_row(word) for word in methods]
    free = [method for learner, method in pairs if learner is None]
    if learners and not free:
        raise UserError("--learners are below methods that name none, and each of --methods does")
    usual, valid = PRESETS[env].default_learner, PRESETS[env].learner_names()
    chosen = [(learner, method) for learner in learners or (usual,) for method in free]
    chosen += [(learner, method) for learner, method in pairs if learner is not None]
    rows = [join_row(one_of("learner", name, valid), method, usual) for name, method in chosen]
    if twice := [row for row in rows if rows.count(row) > 1]:
        raise UserError(f"--methods and --learners name {twice[0]} twice")
    return tuple(rows)


def parse_spec(spec: str) -> tuple[str, list[str]]:
    """The method of a row and the words of its flags.

    Args:
      spec: ``[LEARNER/]METHOD`` or ``[LEARNER/]METHOD:flag=value,flag=value``; a switch is
        ``flag=False``.

    Raises:
      UserError: it is neither, or the method does not exist.
    """
    valid = tuple(METHODS)
    method, colon, changes = split_row(spec)[1].partition(":")
    one_of("method", method, valid)
    words: list[str] = []
    for change in changes.split(",") if colon else []:
        name, _, value = change.partition("=")
        if not name or not value or "/" in change or name.startswith("-"):
            raise UserError(
                f"{spec!r} is no method: write [LEARNER/]METHOD or [LEARNER/]METHOD:flag=value,…, "
                f"roml:nu=0,soft_update=0 or ppo/roml for instance; methods: {', '.join(valid)}"
            )
        if name.replace("-", "_") in ("method", "learner", *settings(cli.Options())):
            raise UserError(f"{spec!r}: {name} is a flag of the whole comparison, see --help")
        switch = {"True": True, "False": False}
        words += flag_words(name, switch.get(value, value))
    return method, words


def side_by_side(
    steps: dict[int, int | None], most: int
) -> list[tuple[tuple[int, ...], int | None]]:
    """Seeds in groups that can train together: all of a group stand at the same step.

    Args:
      steps: where each seed stands; None for not begun.
      most: seeds of a group, at least 1.

    Returns:
      Seeds and step of each group, those that are furthest first. Groups of one step are as
      few as possible, and as equal in size as possible.
    """
    groups: list[tuple[tuple[int, ...], int | None]] = []
    order = sorted(set(steps.values()), key=lambda step: -1 if step is None else step)
    for step in reversed(order):
        seeds = [seed for seed, at in steps.items() if at == step]
        for part in np.array_split(np.array(seeds), -(-len(seeds) // most)):
            groups.append((tuple(part.tolist()), step))
    return groups


def seeds_at_once(state_bytes: int, free: int | None, asked: int | None) -> int:
    """How many seeds may train side by side, at least 1.

    Args:
      state_bytes: memory of the state of one seed.
      free: bytes; None if that is unknown.
      asked: most seeds wanted; None for any number.
    """
    if free is None:
        return asked or 1
    room = max(1, int((free - _FIXED_BYTES) // (_STATE_COPIES * state_bytes)))
    return min(room, asked or room)


def memory_of(state_bytes: int, seeds: int) -> int:
    """Bytes that a training takes with seeds side by side."""
    return int(_FIXED_BYTES + _STATE_COPIES * state_bytes * seeds)


def all_flags(env: str) -> set[str]:
    """The flags that a training of some learner and method takes."""
    return flags_of(env, itertools.product(PRESETS[env].learner_names(), METHODS))


def flags_of(env: str, pairs: Iterable[tuple[str | None, str]]) -> set[str]:
    """The flags that a training of one of some learners and methods takes."""
    flags: set[str] = set()
    for learner, method in pairs:
        with contextlib.suppress(ValueError):  # settings of one name: these two go not together
            command = cli.Command(cli.Options(), PRESETS[env].choose(learner, method))
            flags |= cli.flags_of(command)
    return flags
