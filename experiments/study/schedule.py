"""What trains together: methods as words, seeds in groups, and the memory that they may take."""

from __future__ import annotations

import typing
from pathlib import Path

import jax
import numpy as np

from experiments import cli
from experiments.spec.experiment import MethodName, UserError, settings
from experiments.study import results

_FIXED_BYTES, _STATE_COPIES = 1.5 * 2**30, 1.3  # memory of a training: beside states, per state


def parse_spec(spec: str) -> tuple[str, list[str]]:
    """A method and the words of its flags.

    Args:
      spec: ``METHOD`` or ``METHOD:flag=value,flag=value``; a switch is ``flag=False``.

    Raises:
      UserError: it is neither, or the method does not exist.
    """
    valid = typing.get_args(MethodName)
    method, colon, changes = spec.partition(":")
    cli.one_of("method", method, valid)
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
        words += results.flag_words(name, switch.get(value, value))
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


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that training can have on the device, or None if nobody says.

    Args:
      root: of the file system, for tests.
    """
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        limit = stats.get("bytes_limit")
        return limit - stats.get("bytes_in_use", 0) if limit else None
    fields = _fields(root / "proc/meminfo")
    rooms = [1024 * fields["MemAvailable"]] if "MemAvailable" in fields else []
    return min([*rooms, *_container_memory(root)], default=None)


def _container_memory(root: Path) -> list[int]:
    """Bytes left within each limit on the memory of this process's control groups."""
    kinds = {  # by version: folder, limit, use, and what of that can be taken back
        2: ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        1: (
            "sys/fs/cgroup/memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    }
    rooms = []
    told = root / "proc/self/cgroup"
    for line in told.read_text().splitlines() if told.is_file() else []:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, limit, use, reclaimable = kinds[1 if controllers else 2]
        for folder in (Path(place), *Path(place).parents):
            here = root / base / folder.relative_to("/")
            if (here / limit).is_file() and (most := (here / limit).read_text().strip()) != "max":
                used = int((here / use).read_text())
                spare = _fields(here / "memory.stat").get(reclaimable, 0)
                rooms.append(max(0, int(most) - used + spare))
    return rooms


def _fields(file: Path) -> dict[str, int]:
    """``name value`` and ``name: value kB`` of each line."""
    lines = file.read_text().splitlines() if file.is_file() else []
    pairs = [line.replace(":", " ").split() for line in lines]
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1 and words[1].isdigit()}
