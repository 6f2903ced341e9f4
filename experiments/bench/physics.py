"""Control steps per second of the physics engines, beside MuJoCo C alone, and of training.

``python -m experiments.bench.physics`` steps HalfCheetah, Ant and Humanoid with tasks of
different mass under random controls, in every engine that is installed, and prints a table.
The column "of C" is the speed as a part of that of bare MuJoCo C: the same models, states and
threads, in a loop in Python without JAX, measured in turns with the engine.
``--training`` times whole training steps instead, of half-cheetah-mass or of ``--presets``.
``--out FILE.csv`` keeps the rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench import timing
from experiments.spec.words import one_of
from experiments.training.host import device_name

BODIES, ENGINES = ("half-cheetah", "ant", "humanoid"), ("mujoco", "mjx", "warp")
SETTLE, SECONDS, TURNS = 100, 2.0, 3  # control steps before, seconds of a measurement, repeats
FRAMES = 128_000  # of one seed in a measurement of training, or two steps


@dataclasses.dataclass(frozen=True)
class Options:
    """What to time.

    Attributes:
      bodies: those that are stepped.
      engines: those that step them; none for all that are installed, or for the usual one of
        training.
      tasks: worlds at once.
      training: time training steps instead.
      presets: of training.
      seeds: of training, side by side.
      out: CSV file for the rows.
    """

    bodies: tuple[str, ...] = BODIES
    engines: tuple[str, ...] = ()
    tasks: tuple[int, ...] = (16, 128, 1024)
    training: bool = False
    presets: tuple[str, ...] = ("half-cheetah-mass",)
    seeds: tuple[int, ...] = (1, 4)
    out: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Runs the sizes asked for.

    Raises:
      UserError: an option is not valid.
    """
    from experiments.domains.mujoco.presets import presets

    options = timing.parse(Options(), argv, "experiments.bench.physics", __doc__)
    engines = [one_of("engine", name, ENGINES) for name in options.engines]
    bodies = [one_of("body", name, BODIES) for name in options.bodies]
    names = [one_of("preset", name, presets()) for name in options.presets]
    table = timing.Table(options.out)
    if options.training:
        for preset, engine in itertools.product(names, engines or ["auto"]):
            for seeds in options.seeds:
                table.add(measure_training(preset, engine, seeds))
    else:
        for body, engine in itertools.product(bodies, engines or _installed()):
            for tasks in options.tasks:
                table.add(measure(body, engine, tasks))
    return 0


def measure(body: str, engine: str, tasks: int) -> dict[str, Any]:
    """Control steps/s of one engine, and of bare MuJoCo C in turns with it."""
    import jax

    from experiments.presets import PRESETS

    env = dataclasses.replace(PRESETS[f"{body}-mass"].experiment.env, physics=engine)
    task_key, reset_key = jax.random.split(jax.random.key(0))
    drawn = env.family.sample(task_key, env.family.phi0, tasks)
    keys = jax.random.split(reset_key, tasks)
    state = jax.jit(jax.vmap(env.reset))(keys, drawn)[0]

    start = time.perf_counter()
    roll = _make_roll(env, drawn)
    state = jax.block_until_ready(roll(jax.random.key(1), state, SETTLE))
    compile_s = time.perf_counter() - start  # and the steps to settle

    bare = _make_bare(env, state)
    count = max(1, int(SECONDS * _speed(partial(roll, jax.random.key(2), state), 5)))
    bare_count = max(1, int(SECONDS * _speed(bare, 5)))
    speeds, bare_speeds = [], []
    for turn in range(TURNS):
        speeds.append(_speed(partial(roll, jax.random.key(turn), state), count))
        bare_speeds.append(_speed(bare, bare_count))
    speed, bare_speed = tasks * max(speeds), tasks * max(bare_speeds)
    return {
        "body": body,
        "engine": engine,
        "tasks": tasks,
        "steps_per_s": round(speed),
        "bare_c_per_s": round(bare_speed),
        "of_c": round(speed / bare_speed, 2),
        "first_call_s": round(compile_s, 1),
        "device": device_name(jax.devices()[0]),
        "jax": jax.__version__,
    }


def measure_training(preset: str, engine: str, seeds: int) -> dict[str, Any]:
    """Frames/s of whole training steps under RoML."""
    import jax

    from experiments.presets import PRESETS
    from experiments.spec.build import build

    experiment = PRESETS[preset].experiment
    env = dataclasses.replace(experiment.env, physics=engine)
    built = build(dataclasses.replace(experiment, env=env))
    state = jax.jit(jax.vmap(built.init))(jax.random.split(jax.random.key(0), seeds))
    repeats = max(2, FRAMES // built.learner.frames_per_step)
    step_s, compile_s, _ = timing.time_steps(built.step, state, repeats)
    return {
        "preset": preset,
        "engine": built.env.engine,
        "tasks": built.learner.num_tasks,
        "seeds": seeds,
        "frames_per_s": round(seeds * built.learner.frames_per_step / step_s),
        "step_ms": round(1e3 * step_s, 1),
        "compile_s": round(compile_s, 1),
        "device": device_name(jax.devices()[0]),
        "jax": jax.__version__,
    }


def _make_roll(env: Any, tasks: Any) -> Callable[[Any, Any, int], Any]:
    """``(key, state, n) -> state`` after n control steps with random controls."""
    import jax

    num_tasks, space = len(tasks), env.action_space

    @jax.jit
    def roll(key: Any, state: Any, n: Any) -> Any:
        def step(i: Any, state: Any) -> Any:
            action_key, step_key = jax.random.split(jax.random.fold_in(key, i))
            shape, bounds = (num_tasks, space.size), (space.low, space.high)
            action = jax.random.uniform(action_key, shape, float, *bounds)
            keys = jax.random.split(step_key, num_tasks)
            return jax.vmap(env.step)(keys, state, action, tasks)[0]

        return jax.lax.fori_loop(0, n, step, state)

    return roll


def _make_bare(env: Any, state: Any) -> Callable[[int], None]:
    """``n -> None``: n control steps of MuJoCo's own batch, on models with the same fields."""
    from envs.mujoco.body_env import FRAME_SKIP
    from envs.mujoco.host import make_batch

    num_tasks, space = len(state.steps), env.action_space
    batch = make_batch(env.mj_model, num_tasks)
    for name, values in state.model.items():
        batch.expand(name)[:] = values
    batch.bind("qpos")[:], batch.bind("qvel")[:] = state.physics.qpos, state.physics.qvel
    control = batch.bind("ctrl")
    rng = np.random.default_rng(0)

    def run(n: int) -> None:
        for _ in range(n):
            control[:] = rng.uniform(space.low, space.high, control.shape)
            batch.step(nstep=FRAME_SKIP)

    return run


def _speed(run: Callable[[int], Any], n: int) -> float:
    """Steps per second of ``run(n)``."""
    import jax

    start = time.perf_counter()
    jax.block_until_ready(run(n))
    return n / (time.perf_counter() - start)


def _installed() -> list[str]:
    return ["mujoco", "mjx", *["warp"] * (find_spec("warp") is not None)]


if __name__ == "__main__":
    timing.run(main)
