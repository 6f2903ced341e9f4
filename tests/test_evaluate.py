"""Evaluation is a rollout with fixed parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.evaluate import evaluate, evaluation_key, sample_tasks
from roml_jax.types import Boundary
from tests.probes import Echo, Probe, scripted_agent

TASKS = jnp.array([[1.0, 99.0], [2.0, 2.0], [3.0, 99.0]])


def test_returns_and_information_by_task():
    result = jax.jit(lambda key, tasks: evaluate(key, Echo(), scripted_agent(5), 0.0, tasks))(
        jax.random.key(0), TASKS
    )
    np.testing.assert_array_equal(result.episode_returns, [[410, 403, 1210]] * 3)
    np.testing.assert_array_equal(result.returns, [410, 403, 1210])
    np.testing.assert_array_equal(result.info["step"], [[4, 2, 4]] * 3)
    np.testing.assert_array_equal(result.tasks, TASKS)


class Noisy:
    """An agent whose reward tells whether it sampled."""

    agent = scripted_agent(2)._replace(
        init_carry=lambda n: (),
        act=lambda params, carry, obs, key, deterministic: (
            jnp.full(obs.shape[0], int(deterministic), jnp.int32),
            (),
        ),
        observe=lambda params, carry, transition: carry,
        env_action=lambda action: action,
    )


def test_deterministic_unless_told_otherwise():
    env = Probe("arms", length=2, horizon=3)
    tasks = jnp.array([[0.0], [1.0]])
    greedy = evaluate(jax.random.key(0), env, Noisy.agent, (), tasks)
    np.testing.assert_array_equal(greedy.returns, [0, 2])
    agent = Noisy.agent._replace(boundary=Boundary("start", done_flag=True))
    sampled = evaluate(jax.random.key(0), env, agent, (), tasks, deterministic=False)
    np.testing.assert_array_equal(sampled.returns, [2, 0])


def test_tasks_come_from_the_original_distribution():
    tasks = np.asarray(sample_tasks(jax.random.key(0), Probe("arms"), 2000))
    assert tasks.shape == (2000, 1) and abs(tasks.mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)


def test_evaluation_keys_are_apart():
    keys = [evaluation_key(seed, purpose) for seed in range(20) for purpose in
            ("validation", "test")]  # fmt: skip
    keys += [jax.random.key(seed) for seed in range(20)]
    data = {tuple(np.asarray(jax.random.key_data(key)).tolist()) for key in keys}
    assert len(data) == 60
    assert evaluation_key(3, "test") == evaluation_key(3, "test")
    with pytest.raises(ValueError, match="purpose is one of validation, test; got 'train'"):
        evaluation_key(0, "train")
