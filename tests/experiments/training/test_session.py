"""Seeds side by side: each has its own agent, also where a learner has several in its state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.spec.build import build
from experiments.training.device import Session, agent
from experiments.training.runs import Run
from tests.experiments.scenarios.test_devices import PPO

SEEDS = (3, 4, 5)


@pytest.mark.parametrize("method", ["baseline", "paired"])
def test_agents_of_seeds_side_by_side_are_those_of_each_alone(method, tmp_path):
    """PAIRED has two learners in its state, of which the first is the agent."""
    words = [word for i, word in enumerate(PPO) if "--batch" not in (word, PPO[i - 1])]
    env, command = cli.parse_train([*words, "--method", method])
    runs = [Run(env, command.experiment, seed) for seed in SEEDS]
    with jax.debug_key_reuse(False):  # which does not see that rivals split the key they share
        built = build(command.experiment)
        states = [jax.jit(built.init)(jax.random.key(seed)) for seed in SEEDS]
    session = Session(built, runs, [run.path(tmp_path) for run in runs])
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *states)
    found = session.agents(stacked)
    for i, state in enumerate(states):
        parts = session.one(found, i), agent(built, state)
        for x, want in zip(*map(jax.tree.leaves, parts), strict=True):
            if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                np.testing.assert_array_equal(x, want)
    assert not np.array_equal(*(jax.tree.leaves(session.one(found, i))[3] for i in (1, 2)))
