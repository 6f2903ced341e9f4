"""Time of a meta-iteration of MAML on sine regression, by method and by seeds side by side.

``python -m experiments.bench.sine`` runs the preset and prints a table: milliseconds of a whole
training step and of one seed in it, labelled examples per second over all seeds, seconds that the
10,000 steps of one seed come to, and compile time. ``--out FILE.csv`` keeps the rows. Logs,
validations and the test are not in these times.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.bench import timing
from experiments.presets import PRESETS
from experiments.spec.build import build
from experiments.spec.words import one_of
from experiments.training.host import device_name
from roml_jax.methods import METHODS


@dataclasses.dataclass(frozen=True)
class Options:
    """What to time.

    Attributes:
      methods: each of these.
      seeds: seeds at once.
      repeats: steps that are timed as one program.
      out: CSV file for the rows.
    """

    methods: tuple[str, ...] = ("baseline", "cvar-ml", "roml")
    seeds: tuple[int, ...] = (1, 10, 30)
    repeats: int = 100
    out: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the methods and numbers of seeds asked for.

    Raises:
      UserError: an option is not valid.
    """
    options = timing.parse(Options(), argv, "experiments.bench.sine", __doc__)
    methods = [one_of("method", name, METHODS) for name in options.methods]
    table = timing.Table(options.out)
    for method in methods:
        for seeds in options.seeds:
            table.add(measure(method, seeds, options.repeats))
    return 0


def measure(method: str, seeds: int, repeats: int) -> dict[str, Any]:
    """Times one method with some seeds side by side."""
    built = build(PRESETS["sine"].choose(method=method))
    state = jax.jit(jax.vmap(built.init))(jax.random.split(jax.random.key(0), seeds))
    step_s, compile_s, _ = timing.time_steps(built.step, state, repeats)
    return {
        "method": method,
        "seeds": seeds,
        "step_ms": round(step_s * 1e3, 2),
        "seed_ms": round(step_s * 1e3 / seeds, 3),
        "examples_per_s": round(seeds * built.learner.frames_per_step / step_s),
        "seed_run_s": round(step_s * built.total_steps / seeds, 1),
        "compile_s": round(compile_s, 1),
        "device": device_name(jax.devices()[0]),
        "jax": jax.__version__,
    }


if __name__ == "__main__":
    timing.run(main)
