"""Frames per second of RoML on Khazad-Dum, and what they are spent on.

``python -m experiments.bench.khazad_dum`` runs the preset with more tasks per step and more
seeds, each size in a process of its own, and prints a table: frames/s of whole training
steps over all seeds, the time of a step and of its parts, compile time, and the peak of the
process's memory. ``--out FILE.csv`` keeps the rows.

The parts are compiled and timed apart, so they need not add up to the step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.bench import timing
from experiments.training.host import device_name

ORIGINAL_FRAMES_PER_S = 1500.0  # the original PyTorch code on two CPU cores, one seed


@dataclasses.dataclass(frozen=True)
class Options:
    """What to time.

    Attributes:
      tasks: tasks per step.
      seeds: seeds at once.
      memory_gib: skip what needs more.
      out: CSV file for the rows.
      one: tasks and seeds of a single measurement, in this process, for a row as JSON.
    """

    tasks: tuple[int, ...] = (32, 128, 1024, 4096)
    seeds: tuple[int, ...] = (1, 4, 16)
    memory_gib: float = dataclasses.field(default_factory=lambda: _memory_gib())
    out: Path | None = None
    one: tuple[int, int] | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the sizes asked for, one process each.

    Raises:
      UserError: an option is not valid.
    """
    options = timing.parse(Options(), argv, "experiments.bench.khazad_dum", __doc__)
    if options.one:
        print(json.dumps(measure(*options.one)))
        return 0
    table = timing.Table(options.out)
    for tasks in options.tasks:
        for seeds in options.seeds:
            row = _in_a_process(tasks, seeds, options.memory_gib)
            if row is not None:
                table.add(row)
    return 0


def measure(tasks: int, seeds: int) -> dict[str, Any]:
    """Times one size; call it in a fresh process, since memory peaks are per process."""
    import jax
    import jax.numpy as jnp

    from experiments.presets import PRESETS
    from roml_jax.learners.memory import belief
    from roml_jax.learners.policy import policy
    from roml_jax.learners.varibad import varibad
    from roml_jax.methods import roml
    from roml_jax.rollout import rollout
    from roml_jax.train import make_train

    preset = PRESETS["khazad-dum"]
    env = preset.experiment.env
    config = dataclasses.replace(preset.learners["varibad"], num_tasks=tasks)
    learner = varibad(env, config)
    settings = dataclasses.asdict(preset.methods["roml"])
    if settings["batch"] % tasks:  # a step is more than a batch
        settings["batch"] = None
    init, step = make_train(learner, roml(env.family, **settings))
    memory = belief(env, config.belief, config.boundary, tasks)
    actor = policy(env, config.policy, config.boundary.observation_size(env), memory.size)

    keys = jax.random.split(jax.random.key(0), seeds)
    repeats = max(1, min(10, 400 // max(1, tasks * seeds // 32)))
    state = jax.jit(jax.vmap(init))(keys)

    step_s, compile_s, state = timing.time_steps(step, state, repeats)
    peak_gib = _peak_gib(jax.devices()[0])  # of training, before the parts are timed

    def collect(key: Any, learner_state: Any) -> Any:
        task_key, key = jax.random.split(key)
        drawn = env.family.sample(task_key, env.family.phi0, tasks)
        params = learner.params(learner_state)
        agent: Any = learner.agent
        return rollout(key, env, agent, params, drawn)

    def improve_policy(key: Any, learner_state: Any, data: Any) -> Any:
        seen = jnp.concatenate([data.extras, data.extras[-1:]])
        return actor.improve(key, learner_state.policy, data, seen, jnp.ones(tasks))

    def improve_belief(key: Any, learner_state: Any) -> Any:
        return memory.improve(key, learner_state.memory)

    def in_a_loop(part: Callable[..., Any], *args: Any) -> float:
        """Seconds of a part, inside a loop as in training: no buffer is allocated anew."""

        def once(key: Any, args: Any) -> Any:
            out = jax.vmap(part)(jax.random.split(key, seeds), *args)
            return jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32)), out)

        run = jax.jit(lambda keys, args: jax.lax.map(lambda key: once(key, args), keys))
        repeated = jax.random.split(jax.random.key(1), repeats)
        return timing.best(lambda: run(repeated, args)) / repeats

    data = jax.jit(jax.vmap(collect))(keys, state.learner)
    parts = {
        "collect_ms": in_a_loop(collect, state.learner),
        "policy_ms": in_a_loop(improve_policy, state.learner, data),
        "belief_ms": in_a_loop(improve_belief, state.learner),
    }
    frames_per_s = seeds * learner.frames_per_step / step_s
    return {
        "tasks": tasks,
        "seeds": seeds,
        "frames_per_s": round(frames_per_s),
        "times_original": round(frames_per_s / ORIGINAL_FRAMES_PER_S, 1),
        "step_ms": round(step_s * 1e3, 2),
        **{name: round(seconds * 1e3, 2) for name, seconds in parts.items()},
        "compile_s": round(compile_s, 1),
        "peak_gib": round(peak_gib, 2),
        "device": device_name(jax.devices()[0]),
        "jax": jax.__version__,
    }


def _in_a_process(tasks: int, seeds: int, memory_gib: float) -> dict[str, Any] | None:
    """One row, or None with the reason printed."""
    needed = seeds * (0.6 + tasks * 7e-4)
    if needed > memory_gib:
        print(f"{tasks:>6}{seeds:>6}   skipped: needs about {needed:.0f} GiB")
        return None
    command = [
        sys.executable,
        "-m",
        "experiments.bench.khazad_dum",
        "--one",
        str(tasks),
        str(seeds),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        last = result.stderr.strip().splitlines()[-1:] or ["killed"]
        print(f"{tasks:>6}{seeds:>6}   failed: {last[0][:120]}")
        return None
    return json.loads(result.stdout.strip().splitlines()[-1])


def _memory_gib() -> float:
    return 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _peak_gib(device: Any) -> float:
    stats = device.memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    timing.run(main)
