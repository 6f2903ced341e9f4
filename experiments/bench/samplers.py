"""What task samplers come to on returns that are known: no learner, no environment.

``python -m experiments.bench.samplers`` plays every sampler on six landscapes of returns and prints
a table: "hard", the share of draws that are truly among the worst ``alpha`` of the original
distribution, in the tenth step and in the last tenth of all; "both", twice the share of that half
of them which is drawn less often, as large as "hard" where all of the tail is covered; "half_at",
how many tasks it takes until the share is half of what draws from the tail of the returns have;
errors of the mean and of the CVaR that the weights give for the original distribution, over the
second half of the steps, as ``risk.summarize`` reports them; and the time of a step of one seed.
``--out FILE.csv`` keeps the rows.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import timing
from experiments.spec.errors import UserError
from experiments.spec.words import one_of
from experiments.training.host import device_name
from roml_jax import families, risk, samplers
from roml_jax.types import Family, TaskSampler

BATCH = 128  # of the CEM that has one
NOISE = 0.3  # largest deviation of a noisy return
WINDOW = 256  # tasks that the share of the hard ones is told from, for all seeds


@dataclasses.dataclass(frozen=True)
class Options:
    """What to play.

    Attributes:
      samplers: each of these.
      spaces: landscapes over these: a line (four), a disk (one), ten dimensions (one).
      tasks: of a step.
      steps: of a run.
      seeds: runs, side by side.
      alpha: fraction of worst tasks that is aimed at.
      out: CSV file for the rows.
    """

    samplers: tuple[str, ...] = ("mixture-cem", "cem", "cem-128", "naive", "fixed")
    spaces: tuple[str, ...] = ("line", "disk", "ten")
    tasks: tuple[int, ...] = (16, 128)
    steps: int = 100
    seeds: int = 3
    alpha: float = 0.05
    out: Path | None = None


class Entry(NamedTuple):
    """A sampler of the table."""

    make: Callable[[Family, float, tuple[int, ...]], TaskSampler]  # family, alpha, circular
    most: int | None = None  # tasks of a step


SAMPLERS = {
    "fixed": Entry(lambda family, alpha, circular: samplers.fixed(family)),
    "cem": Entry(lambda family, alpha, circular: samplers.cem(family, alpha=alpha)),
    "cem-128": Entry(
        lambda family, alpha, circular: samplers.cem(
            family, alpha=alpha, batch=BATCH, soft_update=0.5
        ),
        most=BATCH,
    ),
    "naive": Entry(lambda family, alpha, circular: samplers.naive(family, alpha=alpha)),
    "learnability": Entry(lambda family, alpha, circular: samplers.learnability(family)),
    "dro": Entry(
        lambda family, alpha, circular: samplers.dro(
            family, alpha=alpha, dims=(2, 3) if len(family.names) > 3 else ()
        )
    ),
    "replay": Entry(lambda family, alpha, circular: samplers.replay(family)),
    "mixture-cem": Entry(
        lambda family, alpha, circular: samplers.mixture_cem(family, alpha=alpha, circular=circular)
    ),
}


class Landscape(NamedTuple):
    """Returns in closed form, for one alpha. Time goes from 0 to 1 in a run."""

    score: Callable[[Any, Any], Any]  # (tasks[n, D], time) -> [n], mean returns of tasks
    side: Callable[[Any, Any], Any]  # (tasks[n, D], time) -> bool[n], in which half of the tail
    edge: float  # the alpha-quantile of the scores
    mean: Callable[[Any], Any]  # time -> mean over the original distribution
    cvar: float  # of the returns, with their noise
    noise: float = 0.0  # returns deviate uniformly by up to this
    best: float = 1.0  # share of hard tasks among the worst alpha of the returns


def _way(now: Any) -> Any:
    """Where the tail is that moves."""
    return 0.9 - 0.8 * now


class Space(NamedTuple):
    """A task distribution, and landscapes over it."""

    family: Family
    landscapes: dict[str, Landscape]
    circular: tuple[int, ...] = ()


def spaces(alpha: float) -> dict[str, Space]:
    """All landscapes, by what they are over."""
    one = Landscape(
        lambda z, now: -z[:, 0],
        lambda z, now: z[:, 0] > 1 - alpha / 2,
        edge=alpha - 1,
        mean=lambda now: -0.5,
        cvar=alpha / 2 - 1,
    )
    two = Landscape(
        lambda z, now: -jnp.abs(z[:, 0] - 0.5),
        lambda z, now: z[:, 0] > 0.5,
        edge=alpha / 2 - 0.5,
        mean=lambda now: -0.25,
        cvar=alpha / 4 - 0.5,
    )
    # From the lowest noisy return up, their density grows in proportion to the way, which is
    # this long at the quantile.
    way = math.sqrt(4 * NOISE * alpha)
    noisy = one._replace(
        noise=NOISE, cvar=2 / 3 * way - 1 - NOISE, best=(2 * way * alpha - alpha**2) / way**2
    )
    moving = Landscape(
        lambda z, now: jnp.abs(z[:, 0] - _way(now)),
        lambda z, now: z[:, 0] > _way(now),
        edge=alpha / 2,
        mean=lambda now: (_way(now) ** 2 + (1 - _way(now)) ** 2) / 2,
        cvar=alpha / 4,
    )
    seam = Landscape(
        lambda z, now: -jnp.cos(jnp.arctan2(z[:, 1], z[:, 0])),
        lambda z, now: z[:, 1] > 0,
        edge=-math.cos(math.pi * alpha),
        mean=lambda now: 0.0,
        cvar=-math.sin(math.pi * alpha) / (math.pi * alpha),
    )
    ridge = one._replace(score=lambda z, now: -z[:, 3], side=lambda z, now: z[:, 3] > 1 - alpha / 2)
    line = {"one tail": one, "two tails": two, "noisy": noisy, "moving": moving}
    return {
        "line": Space(families.beta(0.0, 1.0), line),
        "disk": Space(families.disk(1.0, angle="unit"), {"seam": seam}, circular=(1,)),
        "ten": Space(families.beta([0.0] * 10, [1.0] * 10), {"ridge": ridge}),
    }


def main(argv: Sequence[str]) -> int:
    """Plays the samplers asked for.

    Raises:
      UserError: an option is not valid.
    """
    options = timing.parse(Options(), argv, "experiments.bench.samplers", __doc__)
    if not 0 < options.alpha <= 0.1:
        raise UserError(f"--alpha must be in (0, 0.1]; got {options.alpha}")
    places = spaces(options.alpha)
    names = [one_of("sampler", name, SAMPLERS) for name in options.samplers]
    chosen = [places[one_of("space", name, places)] for name in options.spaces]
    table = timing.Table(options.out)
    for space in chosen:
        for tasks in options.tasks:
            for name in names:
                most = SAMPLERS[name].most
                if most is None or tasks <= most:
                    for row in measure(name, space, tasks, options):
                        table.add(row)
    return 0


def measure(name: str, space: Space, tasks: int, options: Options) -> list[dict[str, Any]]:
    """Rows of one sampler for all landscapes over a space, which are one program."""
    sampler = SAMPLERS[name].make(space.family, options.alpha, space.circular)
    seeds = jax.random.split(jax.random.key(0), options.seeds)
    kinds = jnp.arange(len(space.landscapes))

    def run(kinds: Any, seeds: Any) -> Any:
        def one(kind: Any, seed: Any) -> Any:
            return play(sampler, space, kind, seed, tasks, options)

        return jax.vmap(lambda kind: jax.vmap(lambda seed: one(kind, seed))(seeds))(kinds)

    compiled = jax.jit(run).lower(kinds, seeds).compile()
    start = time.perf_counter()
    told = {name: np.asarray(x, np.float64) for name, x in compiled(kinds, seeds).items()}
    step_s = (time.perf_counter() - start) / options.steps / kinds.size / options.seeds
    rows = []
    for i, (title, landscape) in enumerate(space.landscapes.items()):
        row = {"landscape": title, "tasks": tasks, "sampler": name}
        row |= _summary({name: x[i] for name, x in told.items()}, landscape, tasks)
        row |= {"step_ms": round(step_s * 1e3, 3), "device": device_name(jax.devices()[0])}
        rows.append(row | {"jax": jax.__version__})
    return rows


def play(
    sampler: TaskSampler, space: Space, kind: Any, key: Any, tasks: int, options: Options
) -> dict[str, Any]:
    """One run: shares of hard tasks and errors of the estimates, ``[steps]`` each."""
    scapes = list(space.landscapes.values())
    edge, cvar, noise = (
        jnp.array([getattr(x, name) for x in scapes])[kind] for name in ("edge", "cvar", "noise")
    )

    def step(state: Any, inputs: tuple[Any, Any]) -> tuple[Any, Any]:
        key, now = inputs
        key_draw, key_noise, key_update = jax.random.split(key, 3)
        draw = sampler.sample(key_draw, state, tasks)
        score = jnp.stack([x.score(draw.tasks, now) for x in scapes])[kind]
        side = jnp.stack([x.side(draw.tasks, now) for x in scapes])[kind]
        mean = jnp.stack([jnp.asarray(x.mean(now), jnp.float32) for x in scapes])[kind]
        returns = score + noise * jax.random.uniform(key_noise, (tasks,), minval=-1.0)
        state, _ = sampler.update(key_update, state, draw, returns)
        told, hard = risk.summarize(draw, returns, options.alpha), score <= edge
        return state, {
            "above": (hard & side).mean(),
            "below": (hard & ~side).mean(),
            "mean": told["reference_mean"] - mean,
            "cvar": told["reference_cvar"] - cvar,
        }

    first, key = jax.random.split(key)
    inputs = jax.random.split(key, options.steps), jnp.linspace(0.0, 1.0, options.steps)
    return jax.lax.scan(step, sampler.init(first), inputs)[1]


def _summary(told: dict[str, np.ndarray], landscape: Landscape, tasks: int) -> dict[str, Any]:
    """What the runs of all seeds come to, from what ``play`` gives, ``[seeds, steps]``."""
    hard = told["above"] + told["below"]
    steps = hard.shape[1]
    late, half = slice(-max(steps // 10, 1), None), slice(steps // 2, None)
    halves = np.stack([told["above"], told["below"]])[..., late].mean(axis=-1)
    summary: dict[str, Any] = {
        "hard_10": _round(hard[:, :10][:, -1].mean(), 2),
        "hard": _round(hard[:, late].mean(), 2),
        "both": _round(2 * halves.min(axis=0).mean(), 2),
        "half_at": _tasks_to_half(hard, landscape.best / 2, tasks),
    }
    for name in ("mean", "cvar"):
        error = told[name][:, half]
        summary[f"{name}_bias"] = _round(error.mean(), 3)
        summary[f"{name}_rmse"] = _round(np.sqrt(np.mean(error**2)), 3)
    return summary


def _tasks_to_half(hard: np.ndarray, goal: float, tasks: int) -> int | str:
    """Tasks of a run until the share of hard ones, of all seeds, reaches a goal; or "never"."""
    seeds, steps = hard.shape
    width = min(max(math.ceil(WINDOW / tasks / seeds), 1), steps)
    smooth = np.convolve(hard.mean(axis=0), np.ones(width) / width, "valid")
    reached = np.flatnonzero(smooth >= goal)
    return int(reached[0] + width) * tasks if reached.size else "never"


def _round(value: float, places: int) -> float | str:
    """A number for the table; a dash for what is not told."""
    return round(float(value), places) if math.isfinite(value) else "-"


if __name__ == "__main__":
    timing.run(main)
