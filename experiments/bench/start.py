"""Seconds until a command says something: imports, and ``--help`` of every command.

``python -m experiments.bench.start`` runs each in a process of its own, several times, and prints
the least and the median. ``--out FILE.csv`` keeps the rows.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.bench import timing

COMMANDS = ("train", "evaluate", "compare", "figures", "render")
STARTS = {
    "import roml_jax, envs, experiments.presets": [
        *("-c", "import roml_jax, envs, experiments.presets")
    ],
    **{f"{name} --help": ["-m", f"experiments.{name}", "--help"] for name in COMMANDS},
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How often.

    Attributes:
      repeats: processes for each.
      out: CSV file for the rows.
    """

    repeats: int = 5
    out: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Starts everything.

    Raises:
      UserError: an option is not valid.
    """
    options = timing.parse(Options(), argv, "experiments.bench.start", __doc__)
    table = timing.Table(options.out)
    for name, arguments in STARTS.items():
        seconds = [_seconds(arguments) for _ in range(options.repeats)]
        least, median = round(min(seconds), 2), round(statistics.median(seconds), 2)
        table.add({"start": name, "least_s": least, "median_s": median})
    return 0


def _seconds(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    timing.run(main)
