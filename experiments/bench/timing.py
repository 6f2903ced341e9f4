"""What the benchmarks share: times, the device, and a table of rows."""

from __future__ import annotations

import csv
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
