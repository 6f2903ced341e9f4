"""Agents that have learned nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.references import random_agent, still_agent
from roml_jax.types import Box, Discrete


def actions(agent, n, deterministic=True):
    act, extras = agent.act(
        None, agent.init_carry(n), jnp.ones((n, 3)), jax.random.key(0), deterministic
    )
    assert extras == ()
    return np.asarray(agent.env_action(act))


def test_an_agent_that_is_still():
    np.testing.assert_array_equal(actions(still_agent(Box(2, -1.0, 4.0)), 3), np.full((3, 2), 1.5))
    found = actions(still_agent(Discrete(4)), 3)
    assert found.dtype == np.int32 and not found.any()


@pytest.mark.parametrize("deterministic", [True, False])
def test_random_actions_are_uniform(deterministic):
    found = actions(random_agent(Box(2, -1.0, 4.0)), 20_000, deterministic)
    assert found.shape == (20_000, 2) and found.min() >= -1 and found.max() < 4
    np.testing.assert_allclose(found.mean(axis=0), 1.5, atol=0.05)
    np.testing.assert_allclose(found.var(axis=0), 25 / 12, rtol=0.03)
    assert abs(np.corrcoef(found.T)[0, 1]) < 0.03
    counts = np.bincount(actions(random_agent(Discrete(4)), 20_000, deterministic), minlength=4)
    assert counts.shape == (4,) and abs(counts / 20_000 - 0.25).max() < 0.015
