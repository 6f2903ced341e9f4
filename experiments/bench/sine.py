"""Time of a meta-iteration of MAML on sine regression, by method and by seeds side by side.

``python -m experiments.bench.sine`` runs the preset and prints a table: milliseconds of a whole
training step and of one seed in it, labelled examples per second over all seeds, seconds that the
10,000 steps of one seed come to, and compile time. ``--out FILE.csv`` keeps the rows. Logs,
validations and the test are not in these times.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jax

from experiments.bench.timing import keep, time_steps
from experiments.presets import PRESETS
from experiments.spec.build import build
from experiments.training.host import device_name

METHODS, SEEDS = ("baseline", "cvar-ml", "roml"), (1, 10, 30)
REPEATS = 100  # steps that are timed as one program


def main(argv: list[str] | None = None) -> None:
    """Runs the methods and numbers of seeds asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="seeds at once")
    parser.add_argument("--out", type=Path, help="CSV file for the rows")
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for method in args.methods:
        for seeds in args.seeds:
            rows.append(measure(method, seeds))
            if len(rows) == 1:
                print("  ".join(name.rjust(14) for name in rows[0]))
            print("  ".join(str(value).rjust(14) for value in rows[-1].values()), flush=True)
            if args.out:
                keep(args.out, rows)


def measure(method: Any, seeds: int) -> dict[str, Any]:
    """Times one method with some seeds side by side."""
    built = build(PRESETS["sine"].choose(method=method))
    state = jax.jit(jax.vmap(built.init))(jax.random.split(jax.random.key(0), seeds))
    step_s, compile_s, _ = time_steps(built.step, state, REPEATS)
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
    main()
