"""The test of a trained agent: one row per task and episode, and the numbers drawn from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import PyTree
from scipy import stats

from experiments.spec.build import Built
from experiments.spec.errors import UserError
from experiments.spec.experiment import Checkpoint
from experiments.spec.view import View
from experiments.training import checkpoints
from experiments.training.device import DrawTasks, agent, make_evaluate, saved_shape
from experiments.training.placement import all_tasks, replicated
from roml_jax import samplers
from roml_jax.evaluate import evaluation_key
from roml_jax.risk import cvar, cvar_two_sample
from roml_jax.types import Family


class Score(NamedTuple):
    """What a test says about one seed."""

    seed: int
    mean: float  # over tasks, of the mean return over episodes
    cvar: float  # mean of the ceil(alpha n) worst tasks
    shares: dict[str, float]  # of the outcomes, over tasks and episodes
    phi: dict[str, float]  # of the task sampler at the end of training, by component
    cvar_by_halves: float | None = None  # ``cvar_two_sample`` of several plays of each task


def make_test(
    built: Built, view: View | None, n: int, plays: int = 1, draw: DrawTasks | None = None
) -> Callable[[PyTree, int], pd.DataFrame]:
    """Compiles the test on n tasks.

    Args:
      built: the experiment.
      view: names the episodes; None keeps the environment's numbers.
      n: number of tasks.
      plays: how often each is played, with noise of its own; the first is the same for any.
      draw: the tasks, see ``other_tasks``; None for those of the original distribution.

    Returns:
      ``(params, seed) -> table``, where the seed decides tasks and noise, the same for
      all methods and learners. Columns: seed, task_index, a task_… for each component, episode,
      return, and those of the view; "play" where there are several.
    """
    mesh = all_tasks(built.mesh)
    where = replicated(mesh) if mesh else None
    compiled = jax.jit(make_evaluate(built, n, "test", mesh, draw), out_shardings=where)

    def one_play(params: PyTree, seed: int, play: int) -> pd.DataFrame:
        task_key, noise_key = jax.random.split(evaluation_key(seed, "test"))
        if play:  # the first has the noise of a test of one play
            noise_key = jax.random.fold_in(noise_key, play)
        result = jax.tree.map(np.asarray, compiled(params, task_key, noise_key))
        episodes = result.episode_returns.shape[0]
        info = view.columns(result.info) if view else result.info
        columns = {"seed": np.full(n * episodes, seed), "task_index": np.repeat(range(n), episodes)}
        for name, component in zip(built.env.family.names, result.tasks.T, strict=True):
            columns[f"task_{name}"] = np.repeat(component, episodes)
        columns["episode"] = np.tile(range(episodes), n)
        columns["return"] = result.episode_returns.T.ravel()
        return pd.DataFrame(columns | {name: value.T.ravel() for name, value in info.items()})

    def run(params: PyTree, seed: int) -> pd.DataFrame:
        tables = [one_play(params, seed, play) for play in range(plays)]
        if plays == 1:
            return tables[0]
        return pd.concat([table.assign(play=i) for i, table in enumerate(tables)])

    return run


def other_tasks(
    family: Family, task: Sequence[float] = (), phi: Sequence[float] = ()
) -> DrawTasks | None:
    """What a test can be of in place of the original distribution: one task, or another ``phi``.

    Args:
      family: the task distribution.
      task: all its components; none for no such task.
      phi: likewise.

    Returns:
      ``(key, n) -> tasks[n, D]``, or None if neither is given.

    Raises:
      UserError: both are given, or numbers are too few, too many or out of range.
    """
    if task and phi:
        raise UserError("--task is one task, and --phi a distribution of tasks: choose one of them")
    if phi:
        try:
            sampler = samplers.oracle(family, phi)
        except ValueError as error:
            raise UserError(str(error)) from error
        return lambda key, n: sampler.sample(key, (), n).tasks
    if not task:
        return None
    names = family.names
    if len(task) != len(names):
        told = ", ".join(names)
        raise UserError(f"--task takes {len(names)} numbers, for {told}; got {len(task)}")
    one = np.asarray(task, np.float32)
    return lambda key, n: jnp.tile(one, (n, 1))


def task_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a test that hold the components of its tasks, in their order."""
    return [name for name in map(str, table) if name[:5] == "task_" and name != "task_index"]


def task_returns(table: pd.DataFrame) -> np.ndarray:
    """``[n]``, the mean return of each task over its episodes, in all plays."""
    return table.groupby("task_index")["return"].mean().to_numpy(np.float32)


def by_play(table: pd.DataFrame) -> np.ndarray | None:
    """``[R, n]``, the mean return of each task in each play; None if there was but one."""
    if "play" not in table:
        return None
    returns = table.groupby(["play", "task_index"])["return"].mean()
    return returns.unstack("task_index").to_numpy(np.float32)


def score(table: pd.DataFrame, alpha: float, view: View | None, phi: dict[str, float]) -> Score:
    """The numbers of one seed."""
    returns, plays = task_returns(table), by_play(table)
    return Score(
        int(table["seed"].iloc[0]),
        float(returns.mean()),
        float(cvar(jnp.asarray(returns), alpha)),
        outcome_shares(table, view),
        phi,
        None if plays is None else float(cvar_two_sample(jnp.asarray(plays), alpha)),
    )


def outcome_shares(table: pd.DataFrame, view: View | None) -> dict[str, float]:
    """The share of each outcome among the episodes of a test; none if they have no outcomes."""
    if view is None or view.outcome is None:
        return {}
    shares = table[view.outcome].value_counts(normalize=True)
    return {str(name): float(share) for name, share in shares.items()}


def which_agent(checkpoint: Checkpoint) -> str | None:
    """What ``load_agent`` calls the choices of ``--checkpoint``."""
    return {"tested": None, "newest": "final"}.get(checkpoint, checkpoint)


def load_agent(path: Path, built: Built, which: str | None = None) -> tuple[PyTree, int]:
    """An agent of a run, from its checkpoints.

    Args:
      path: the run directory.
      built: its experiment.
      which: ``"final"`` for that of the newest checkpoint, ``"best-mean"`` or ``"best-cvar"``;
        None for that which the run tests.

    Returns:
      ``(parameters, state of the task sampler)``, and the step they are from.

    Raises:
      UserError: there is no checkpoint, or none that can be used.
    """
    which, shape = which or built.experiment.tested_agent(), saved_shape(built)
    if which == "final":
        state = checkpoints.restore(path, shape._replace(best={})).state
        return agent(built, state), int(state.step)
    best = checkpoints.restore(path, shape._replace(state=None)).best[which.removeprefix("best-")]
    return best.agent, int(best.step)


def final_phi(sampler: Any, built: Built) -> dict[str, float]:
    """Where the task sampler stands, by component.

    Args:
      sampler: its state.
      built: the experiment.
    """
    phi = np.asarray(built.phi(sampler)).tolist()
    return dict(zip(built.env.family.phi_names, phi, strict=True))


def mean_and_ci(values: Sequence[float] | np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Mean over seeds, and half the width of its confidence interval (Student's t)."""
    spread = float(stats.sem(values)) * float(stats.t.ppf((1 + level) / 2, len(values) - 1))
    return float(np.mean(values)), spread
