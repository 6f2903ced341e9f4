"""The test of a trained agent: one row per task and episode, and the numbers drawn from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import PyTree
from scipy import stats

from experiments.config import Built, Experiment
from experiments.device import make_evaluate
from experiments.views import Info, View
from roml_jax.evaluate import evaluation_key
from roml_jax.risk import cvar
from roml_jax.rollout import rollout


class Score(NamedTuple):
    """What a test says about one seed."""

    seed: int
    mean: float  # over tasks, of the mean return over episodes
    cvar: float  # mean of the ceil(alpha n) worst tasks
    shares: dict[str, float]  # of the outcomes, over tasks and episodes
    phi: dict[str, float]  # of the task sampler at the end of training, by component


def make_test(built: Built, view: View | None, n: int) -> Callable[[PyTree, int], pd.DataFrame]:
    """Compiles the test on n tasks.

    Args:
      built: the experiment.
      view: names the episodes; None keeps the environment's numbers.
      n: number of tasks.

    Returns:
      ``(params, seed) -> table``, where the seed decides tasks and noise, the same for
      all methods and learners. Columns: seed, task_index, task_0, …, episode, return, and
      those of the view.
    """
    compiled = jax.jit(make_evaluate(built, n))

    def run(params: PyTree, seed: int) -> pd.DataFrame:
        result = jax.tree.map(np.asarray, compiled(params, evaluation_key(seed, "test")))
        episodes = result.episode_returns.shape[0]
        info = view.columns(result.info) if view else result.info
        columns = {"seed": np.full(n * episodes, seed), "task_index": np.repeat(range(n), episodes)}
        for i, component in enumerate(result.tasks.T):
            columns[f"task_{i}"] = np.repeat(component, episodes)
        columns["episode"] = np.tile(range(episodes), n)
        columns["return"] = result.episode_returns.T.ravel()
        return pd.DataFrame(columns | {name: value.T.ravel() for name, value in info.items()})

    return run


def play(params: PyTree, seed: int, built: Built, view: View) -> tuple[np.ndarray, Info]:
    """Plays sample episodes of a trained agent on the view's tasks.

    Args:
      params: of the agent.
      seed: of the run, which decides the noise.
      built: the experiment.
      view: its n tasks.

    Returns:
      ``obs[K, H+1, n, O]`` and ``info[K, n]`` of a rollout without sampled actions.
    """
    agent, boundary = built.learner.agent, built.boundary

    @jax.jit
    def run(params: PyTree, tasks: jax.Array) -> tuple:
        key = jax.random.fold_in(evaluation_key(seed, "test"), 1)
        data = rollout(key, built.env, agent, params, tasks, deterministic=True, boundary=boundary)
        return data.obs, data.info

    return jax.tree.map(np.asarray, run(params, jnp.asarray(view.tasks)))


def task_returns(table: pd.DataFrame) -> np.ndarray:
    """``[n]``, the mean return of each task over its episodes."""
    return table.groupby("task_index")["return"].mean().to_numpy(np.float32)


def score(table: pd.DataFrame, alpha: float, view: View | None, phi: dict[str, float]) -> Score:
    """The numbers of one seed."""
    returns = task_returns(table)
    outcomes = table[view.outcome].value_counts(normalize=True) if view else pd.Series(dtype=float)
    return Score(
        int(table["seed"].iloc[0]),
        float(returns.mean()),
        float(cvar(jnp.asarray(returns), alpha)),
        {str(name): float(share) for name, share in outcomes.items()},
        phi,
    )


def final_phi(sampler: Any, experiment: Experiment) -> dict[str, float]:
    """Where the task sampler stands, by component.

    Args:
      sampler: its state; only that of the cross-entropy method holds a ``phi``.
      experiment: the settings.
    """
    family, oracle = experiment.env.family, experiment.method.name == "oracle"
    phi = getattr(sampler, "phi", experiment.method.phi if oracle else family.phi0)
    return dict(zip(family.phi_names, np.asarray(phi).tolist(), strict=True))


def mean_and_ci(values: list[float]) -> tuple[float, float]:
    """Mean over seeds, and half the width of its 95 % confidence interval (Student's t)."""
    spread = float(stats.sem(values)) * float(stats.t.ppf(0.975, len(values) - 1))
    return float(np.mean(values)), spread
