"""Facts about this machine: one answer for all who ask."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import jax


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device_name(device: jax.Device | None = None) -> str:
    """A device in words, the first by default; of a CPU, the cores that this process may use."""
    device = jax.devices()[0] if device is None else device
    if device.platform != "cpu":
        return str(device.device_kind)
    return f"{platform.machine()} CPU, {cores()} cores"


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that training can have on the device, or None if nobody says.

    Args:
      root: of the file system, for tests.
    """
    device = jax.local_devices()[0]
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
    for line in told.read_text(encoding="utf-8").splitlines() if told.is_file() else []:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base, limit, use, reclaimable = kinds[1 if controllers else 2]
        for folder in (Path(place), *Path(place).parents):
            here = root / base / folder.relative_to("/")
            if (here / limit).is_file() and (
                most := (here / limit).read_text(encoding="utf-8").strip()
            ) != "max":
                used = int((here / use).read_text(encoding="utf-8"))
                spare = _fields(here / "memory.stat").get(reclaimable, 0)
                rooms.append(max(0, int(most) - used + spare))
    return rooms


def _fields(file: Path) -> dict[str, int]:
    """``name value`` and ``name: value kB`` of each line."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    pairs = [line.replace(":", " ").split() for line in lines]
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1 and words[1].isdigit()}


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip()
