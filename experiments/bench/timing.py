"""What the benchmarks share: times, the device, and a table of rows."""

from __future__ import annotations

import csv
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def keep(file: Path, rows: list[dict[str, Any]]) -> None:
    """Writes all rows so far."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def best(run: Callable[[], Any]) -> float:
    """Least wall time in seconds of some runs, up to four or 20 s, after one to warm up."""
    import jax

    jax.block_until_ready(run())
    times: list[float] = []
    while len(times) < 4 and sum(times) < 20:
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return min(times)


def device_name(device: Any) -> str:
    """The device in words; of a CPU, the cores that this process may use."""
    if device.platform != "cpu":
        return str(device.device_kind)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()} CPU, {cores} cores"
