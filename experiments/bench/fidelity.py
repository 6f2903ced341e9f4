"""What the choices about a changed body are worth in return, as a Markdown table.

``python -m experiments.bench.fidelity`` plays one episode on each of some hundred tasks with
each choice of ``derived`` and with ``legacy_inertia``: the same tasks, starts and actions, so
that only the physics differs. It prints the return with ``derived="raw"``, its mean and
standard deviation over tasks, and the mean of every other choice's difference from it with its
standard error. ``--out FILE.csv`` keeps the rows.

Actions do not depend on what happens, since a policy would have been trained on one of the
choices: ``gait`` moves every joint in a sine of full range, with a frequency of 0.5 to 2.5 Hz
per task and a phase per task and joint, and ``noise`` draws them uniformly at every step.
``--runs RUN ...`` tests trained agents instead, which meet every choice but their own for the
first time, and adds what happens to the CVaR.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs import Ant, HalfCheetah, Humanoid
from experiments.bench import timing
from experiments.spec.build import build
from experiments.spec.words import one_of
from experiments.training.agents import load_agent, make_test, task_returns
from experiments.training.retest import find_runs
from experiments.training.runs import read_config
from roml_jax.risk import cvar

BODIES: dict[str, Any] = {"half-cheetah": HalfCheetah, "ant": Ant, "humanoid": Humanoid}
VARIATIONS = ("mass", "body")
CHOICES: dict[str, dict[str, Any]] = {
    "raw": {},
    "consistent": {"derived": "consistent"},
    "original": {"derived": "original"},
    "legacy_inertia": {"legacy_inertia": True},
}
ACTIONS = ("gait", "noise")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to play.

    Attributes:
      bodies: those that are compared.
      actions: how they move.
      tasks: of each comparison.
      seed: of tasks, starts and actions.
      runs: folders of runs whose agents are tested instead.
      out: CSV file for the rows.
    """

    bodies: tuple[str, ...] = tuple(BODIES)
    actions: tuple[str, ...] = ACTIONS
    tasks: int = 500
    seed: int = 0
    runs: tuple[Path, ...] = ()
    out: Path | None = None


def main(argv: Sequence[str]) -> int:
    """Measures the bodies asked for.

    Raises:
      UserError: an option is not valid.
    """
    options = timing.parse(Options(), argv, "experiments.bench.fidelity", __doc__)
    bodies = [one_of("body", name, BODIES) for name in options.bodies]
    actions = [one_of("action", name, ACTIONS) for name in options.actions]
    sizes: list[Any] = [
        partial(measure, body, variation, kind, options.tasks, options.seed)
        for body, variation, kind in itertools.product(bodies, VARIATIONS, actions)
    ]
    if options.runs:
        paths = [path for folder in options.runs for path in find_runs(folder)]
        sizes = [partial(measure_agent, path, options.tasks) for path in paths]
    names = [name for name in CHOICES if name != "raw"]
    print("| tasks | actions | raw |", *(f"{name} - raw |" for name in names))
    print("|---|---|---|", *("---|" for _ in names), sep="")
    table = timing.Table(options.out)
    for size in sizes:
        table.keep(size())
        _print(table.rows[-1], names)
    return 0


def measure(body: str, variation: str, actions: str, tasks: int, seed: int) -> dict[str, Any]:
    """Plays all choices on the same tasks, starts and actions."""
    env = BODIES[body](physics="mujoco", variation=variation)
    task_key, action_key, episode_key = jax.random.split(jax.random.key(seed), 3)
    drawn = env.family.sample(task_key, env.family.phi0, tasks)
    action = make_actions(action_key, env, actions, tasks)
    returns = {
        name: episode_returns(episode_key, dataclasses.replace(env, **choice), drawn, action)
        for name, choice in CHOICES.items()
    }
    return {"body": body, "variation": variation, "actions": actions} | _differences(returns)


def measure_agent(path: Path, tasks: int) -> dict[str, Any]:
    """Tests a run's agent under all choices, on the same tasks."""
    run = read_config(path)
    returns = {}
    for name, choice in CHOICES.items():
        env = dataclasses.replace(run.experiment.env, physics="mujoco", **choice)
        built = build(dataclasses.replace(run.experiment, env=env))
        (params, _), _ = load_agent(path, built)
        returns[name] = task_returns(make_test(built, None, tasks)(params, run.evaluation_seed))
    tails = {name: float(cvar(jnp.asarray(r), run.experiment.alpha)) for name, r in returns.items()}
    row = {"body": built.env.body, "variation": built.env.variation}
    row |= {"actions": f"{run.experiment.method_name}, seed {run.seed}"} | _differences(returns)
    row |= {"raw_cvar": tails["raw"]}
    return row | {f"{n}_cvar": tails[n] - tails["raw"] for n in CHOICES if n != "raw"}


def _differences(returns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean differences from the default over the same tasks, with standard errors."""
    raw = returns["raw"]
    row = {"tasks": len(raw), "raw": raw.mean(), "raw_std": raw.std(ddof=1)}
    for name in CHOICES:
        if name != "raw":
            difference = returns[name] - raw
            error = difference.std(ddof=1) / np.sqrt(len(raw))
            row |= {name: difference.mean(), f"{name}_stderr": error}
    return row


def make_actions(key: Any, env: Any, kind: str, tasks: int) -> jax.Array:
    """Actions ``[H, tasks, A]`` that reach the bounds of the action space."""
    frequency_key, other_key = jax.random.split(key)
    space = env.action_space
    if kind == "noise":
        shape = (env.horizon, tasks, space.size)
        return jax.random.uniform(other_key, shape, minval=space.low, maxval=space.high)
    frequency = jax.random.uniform(frequency_key, (1, tasks, 1), minval=0.5, maxval=2.5)
    phase = jax.random.uniform(other_key, (1, tasks, space.size), maxval=2 * jnp.pi)
    seconds = env.dt * jnp.arange(env.horizon)[:, None, None]
    return space.high * jnp.sin(2 * jnp.pi * frequency * seconds + phase)


def episode_returns(key: Any, env: Any, tasks: jax.Array, action: jax.Array) -> np.ndarray:
    """Undiscounted return of one episode on each task, float64 ``[tasks]``."""
    keys = jax.random.split(key, len(tasks))

    def episode(keys: Any, tasks: jax.Array, action: jax.Array) -> jax.Array:
        state, _ = jax.vmap(env.reset)(keys, tasks)
        alive = jnp.ones(len(tasks), bool)

        def step(loop: Any, action: jax.Array) -> Any:
            state, alive = loop
            state, out = jax.vmap(env.step)(keys, state, action, tasks)  # which uses no key
            return (state, alive & ~out.terminated), jnp.where(alive, out.reward, 0.0)

        return jax.lax.scan(step, (state, alive), action)[1]

    reward = jax.jit(episode)(keys, tasks, action)
    return np.asarray(reward, np.float64).sum(axis=0)


def _print(row: dict[str, Any], names: list[str]) -> None:
    cells = [f"{row['body']} {row['variation']}", row["actions"]]
    cells += [f"{row['raw']:.1f} (sd {row['raw_std']:.1f})"]
    cells += [f"{row[name]:+.2f} ± {row[name + '_stderr']:.2f}" for name in names]
    if "raw_cvar" in row:
        tails = [f"{row['raw_cvar']:.1f}", *(f"{row[name + '_cvar']:+.2f}" for name in names)]
        ends = zip(cells[2:], tails, strict=True)
        cells[2:] = [f"{cell}, CVaR {tail}" for cell, tail in ends]
    print("|", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    timing.run(main)
