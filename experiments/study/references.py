"""What is reached without learning: rows of every table, for a method that is below them is none.

They are tested as the methods are: on the same tasks, seed by seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pandas as pd

from experiments.presets import PRESETS
from experiments.spec.build import Built, build
from experiments.spec.experiment import Experiment, to_dict
from experiments.spec.paradigms import SUPERVISED, paradigm_of
from experiments.training import agents, runs
from roml_jax.references import random_agent, still_agent
from roml_jax.types import Predictor

STILL, RANDOM = "still", "random"
REFERENCES = (STILL, RANDOM)  # as methods in the tables


def label(reference: str, env: str) -> str:
    """The name of a reference for people."""
    preset = PRESETS.get(env)
    if preset and paradigm_of(preset.experiment.env) is SUPERVISED:
        return {STILL: "predicts 0", RANDOM: "untrained"}[reference]
    return {STILL: "no action", RANDOM: "random actions"}[reference]


def play(
    env: str, experiment: Experiment, seeds: list[int], kept: Path | None = None
) -> list[tuple[str, int, pd.DataFrame]]:
    """The test tables of both references.

    Args:
      env: name of the preset.
      experiment: any that is tested on the tasks in question.
      seeds: of the test tasks.
      kept: folder of tables that need not be played again; None for none.

    Returns:
      Reference, seed and table, by reference; of a supervised learner, the references are
      a network of zeros, and one of the first parameters, adapted like any other.
    """
    built, view = build(experiment), PRESETS[env].view_of(experiment.env)
    told = json.dumps([env, to_dict(experiment.env), experiment.test_tasks], default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    found = []
    for name in REFERENCES:
        run = None
        for seed in dict.fromkeys(seeds):
            file = kept and kept / f"{name}-seed-{seed}-{digest}.csv"
            if file and file.is_file():
                found.append((name, seed, pd.read_csv(file)))
                continue
            reference = _reference(name, built)
            run = run or agents.make_test(reference, view, experiment.test_tasks)
            table = run(_params(name, built, seed), seed)
            if file:
                with contextlib.suppress(OSError):  # it can be played again
                    file.parent.mkdir(parents=True, exist_ok=True)
                    runs.write_whole(file, table.to_csv(index=False))
            found.append((name, seed, table))
    return found


def _reference(name: str, built: Built) -> Built:
    """The experiment with a reference in the place of its agent."""
    if isinstance(built.agent, Predictor):
        still = built.agent._replace(steps=0, test_steps=0)
        agent: Any = still if name == STILL else built.agent
    else:
        make = {STILL: still_agent, RANDOM: random_agent}[name]
        agent = make(built.env.action_space)
    return built._replace(learner=built.learner._replace(agent=agent))


def _params(name: str, built: Built, seed: int) -> Any:
    """The parameters of a reference: none but for those of a network."""
    if not isinstance(built.agent, Predictor):
        return ()
    params = built.learner.params(built.init(jax.random.key(seed)).learner)
    return jax.tree.map(jnp.zeros_like, params) if name == STILL else params
