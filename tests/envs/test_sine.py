"""Sine regression: labels by NumPy, tasks by SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from envs.sine import PERIOD, TASK_NAMES, Sine
from roml_jax.types import TaskData, TaskEnv

ENV = Sine()
LOW, HIGH = np.array([0.1, 0.0, 0.3]), np.array([5.0, 2 * np.pi, 3.0])


def test_it_is_supervised_data_and_no_environment():
    assert isinstance(ENV, TaskData) and not isinstance(ENV, TaskEnv)


@pytest.mark.parametrize("task", [(5.0, 0.0, 3.0), (0.1, 2 * np.pi, 0.3), (2.0, 1.0, 1.5)])
def test_labels(task):
    x, y = jax.jit(ENV.sample_batch, static_argnums=2)(jax.random.key(0), jnp.array(task), 1000)
    assert x.shape == y.shape == (1000,) and x.dtype == y.dtype == jnp.float32
    amplitude, phase, frequency = task
    want = amplitude * np.sin(frequency * np.asarray(x, float) + phase)
    np.testing.assert_allclose(y, want, atol=1e-5)
    assert x.min() >= 0 and x.max() < PERIOD
    assert stats.kstest(np.asarray(x) / (2 * np.pi), "uniform").pvalue > 1e-3


def test_keys_decide_the_examples():
    sample = jax.jit(ENV.sample_batch, static_argnums=2)
    task = jnp.array([1.0, 0.0, 1.0])
    one, again, other = (sample(jax.random.key(seed), task, 8)[0] for seed in (0, 0, 1))
    assert (one == again).all() and not (one == other).any()


def test_original_tasks_are_uniform_in_the_box():
    family = ENV.family
    tasks = np.asarray(family.sample(jax.random.key(1), family.phi0, 4000))
    assert family.names == TASK_NAMES and tasks.shape == (4000, 3)
    for unit in ((tasks - LOW) / (HIGH - LOW)).T:
        assert stats.kstest(unit, "uniform").pvalue > 1e-3
    np.testing.assert_allclose(np.corrcoef(tasks.T), np.eye(3), atol=0.06)


def test_phi_is_the_mean_of_each_component():
    family = ENV.family
    phi = jnp.array([0.9, 0.5, 0.6])
    tasks = np.asarray(family.sample(jax.random.key(2), phi, 4000))
    np.testing.assert_allclose(((tasks - LOW) / (HIGH - LOW)).mean(0), phi, atol=0.03)
    log_ratio = family.clipped_log_prob(jnp.asarray(tasks), phi) - family.clipped_log_prob(
        jnp.asarray(tasks), family.phi0
    )
    units = np.clip((tasks - LOW) / (HIGH - LOW), 0.001, 0.999)
    want = sum(
        stats.beta.logpdf(unit, 2 * p, 2 - 2 * p)
        for unit, p in zip(units.T, np.asarray(phi, float), strict=True)
    )
    np.testing.assert_allclose(log_ratio, want, rtol=2e-3, atol=2e-3)
    # A fit to the corner stops at eps from it.
    corner = jnp.asarray(np.array([HIGH, LOW]), jnp.float32)
    fitted = family.fit(corner, jnp.array([1.0, 0.0]))
    np.testing.assert_allclose(fitted, 0.999, rtol=1e-5)


def test_wrong_ranges():
    with pytest.raises(ValueError, match="must be below"):
        _ = Sine(amplitude=(5.0, 0.1)).family
    with pytest.raises(ValueError, match=r"eps=0\.7"):
        _ = Sine(eps=0.7).family
