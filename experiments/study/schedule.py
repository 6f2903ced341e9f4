"""What trains together: methods as words, seeds in groups, and the memory that they may take."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from experiments import cli
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.experiment import settings
from experiments.spec.words import flag_words, one_of
from roml_jax.methods import METHODS

_FIXED_BYTES, _STATE_COPIES = 1.5 * 2**30, 1.3  # memory of a training: beside states, per state


def parse_spec(spec: str) -> tuple[str, list[str]]:
    """A method and the words of its flags.

    Args:
      spec: ``METHOD`` or ``METHOD:flag=value,flag=value``; a switch is ``flag=False``.

    Raises:
      UserError: it is neither, or the method does not exist.
    """
    valid = tuple(METHODS)
    method, colon, changes = spec.partition(":")
    one_of("method", method, valid)
    words: list[str] = []
    for change in changes.split(",") if colon else []:
        name, _, value = change.partition("=")
        if not name or not value or "/" in change or name.startswith("-"):
            raise UserError(
                f"{spec!r} is no method: write METHOD or METHOD:flag=value,flag=value, "
                f"roml:nu=0,soft_update=0 for instance; methods: {', '.join(valid)}"
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


def known_flags(env: str, learner: str, methods: Iterable[str] = METHODS) -> set[str]:
    """The flags that a training of one of some methods takes, of any by default."""
    return set().union(*(flags_for(env, learner, method) for method in methods))


def flags_for(env: str, learner: str, method: str) -> set[str]:
    """The flags that a training of a method takes."""
    return cli.flags_of(cli.Command(cli.Options(), PRESETS[env].choose(learner, method)))
