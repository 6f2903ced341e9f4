"""What the benchmarks share: options, times, and a table of rows."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from experiments import cli
from experiments.spec.errors import UserError
from experiments.training.runs import write_whole

O = TypeVar("O")  # noqa: E741


def parse(default: O, argv: Sequence[str], module: str, doc: str) -> O:
    """The options of a benchmark from its arguments, see ``cli.parse``.

    Raises:
      UserError: a flag or a value is not valid, or a number is less than 1.
    """
    options = cli.parse(
        type(default), default, argv, prog=f"python -m {module}", description=doc.splitlines()[0]
    )
    for name, value in vars(options).items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(type(number) is int and number < 1 for number in numbers) and name != "seed":
            told = " ".join(map(str, numbers))
            raise UserError(f"{cli.flag_of(name)} must be at least 1; got {told}")
    return options


def run(main: Callable[[Sequence[str]], int]) -> None:
    """Ends the process with what a benchmark comes to."""
    sys.exit(cli.run(main))


class Table:
    """Rows that are printed, and kept in a file, as soon as each is known.

    Attributes:
      file: CSV file for the rows, written whole or not at all; None keeps none.
      rows: those so far, all with the same names.
    """

    def __init__(self, file: Path | None) -> None:
        """Prints nothing yet."""
        self.file = file
        self.rows: list[dict[str, Any]] = []
        self._widths: list[int] = []

    def add(self, row: dict[str, Any]) -> None:
        """One more row; the first one also prints the names."""
        cells = [f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()]
        if not self.rows:
            self._widths = [max(map(len, pair)) + 2 for pair in zip(row, cells, strict=True)]
            self._print(list(row))
        self._print(cells)
        self.keep(row)

    def keep(self, row: dict[str, Any]) -> None:
        """One more row of the file alone."""
        self.rows.append(row)
        if self.file is not None:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.file, text.getvalue())

    def _print(self, cells: Sequence[str]) -> None:
        columns = zip(cells, self._widths, strict=True)
        print("".join(cell.rjust(width) for cell, width in columns), flush=True)


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


def time_steps(step: Callable[[Any], Any], state: Any, repeats: int) -> tuple[float, float, Any]:
    """Times training steps of several seeds, compiled as one program.

    Args:
      step: ``state -> (state, metrics)`` of one seed.
      state: of all seeds; it is used up.
      repeats: steps of the program.

    Returns:
      Seconds of a step, seconds of the compilation, and the state after it all.
    """
    import jax

    def run_steps(state: Any) -> Any:
        return jax.lax.fori_loop(0, repeats, lambda _, s: jax.vmap(step)(s)[0], state)

    start = time.perf_counter()
    compiled = jax.jit(run_steps, donate_argnums=0).lower(state).compile()
    compile_s = time.perf_counter() - start

    def advance() -> Any:
        nonlocal state
        state = compiled(state)
        return state.step

    return best(advance) / repeats, compile_s, state
