"""Theorem 1 and Proposition 1 of the paper, on a problem with known gradients.

A task is a place z ~ U(0, 1); the policy aims with a ~ N(theta, 1); the return is
-(a - z)^2, whose mean over the policy is V_z = -(theta - z)^2 - 1. At theta = 0.3 the worst
30 % of the tasks are those with z > 0.7.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, optimize, stats

from roml_jax import risk

THETA, ALPHA, TAIL = 0.3, 0.3, 0.7
GRADIENT = 2 * (0.85 - THETA)  # of -E[(theta - z)^2 | z > 0.7]
N, BATCHES = 1000, 1000


def trajectory_cvar(theta):
    """Mean and edge of the worst ALPHA of the returns over tasks and actions."""

    def density(d):  # of d = a - z
        return stats.norm.cdf(d + 1 - theta) - stats.norm.cdf(d - theta)

    def both_ends(f, c):
        return sum(integrate.quad(f, *ends, epsabs=1e-12)[0] for ends in ((-20, -c), (c, 20)))

    edge = optimize.brentq(lambda c: both_ends(density, c) - ALPHA, 0.1, 5, xtol=1e-12)
    return -both_ends(lambda d: d**2 * density(d), edge) / ALPHA, -(edge**2)


def policy(key, z):
    """Returns and scores ``d log pi / d theta`` of one action per task."""
    noise = jax.random.normal(key, z.shape)
    return -((THETA + noise - z) ** 2), noise


def value(theta, z):
    return -((theta - z) ** 2) - 1


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def estimate(key, baselines):
    """Eq. (8) over tasks and Eq. (5) over trajectories, for every baseline, from N draws."""
    key_task, key_policy = jax.random.split(key)
    z = jax.random.uniform(key_task, (N,))
    returns, score = policy(key_policy, z)
    gains = (returns[None] - baselines[:, None]) * score[None]
    masks = risk.tail_mask(value(THETA, z), ALPHA), risk.tail_mask(returns, ALPHA)
    return [jnp.where(mask[None], gains, 0).sum(axis=1) / (ALPHA * N) for mask in masks]


def z_score(samples, want):
    """How many standard errors the mean of samples is away from ``want``, per column."""
    samples = np.asarray(samples, np.float64)
    return (samples.mean(axis=0) - want) / (samples.std(axis=0) / np.sqrt(len(samples)))


@pytest.fixture(scope="module")
def estimates():
    _, q = trajectory_cvar(THETA)
    baselines = jnp.array([q, 0.0, -8.0, 2.0])
    return estimate(jax.random.split(jax.random.key(0), BATCHES), baselines)


def test_the_gradient_of_the_tail_over_tasks():
    z = (jnp.arange(10_000) + 0.5) / 10_000
    got = jax.grad(lambda theta: risk.cvar(value(theta, z), ALPHA))(THETA)
    np.testing.assert_allclose(got, GRADIENT, rtol=1e-4)
    assert risk.tail_mask(value(THETA, z), ALPHA).nonzero()[0].min() == 7000


def test_theorem_1_any_baseline_is_unbiased_over_tasks(estimates):
    over_tasks, _ = estimates
    assert (np.abs(z_score(over_tasks, GRADIENT)) < 4).all()
    # The bound is tight enough to tell the gradient of the mean, 0.4, apart.
    assert (np.abs(z_score(over_tasks, 2 * (0.5 - THETA))) > 20).all()


def test_over_trajectories_only_the_quantile_is_an_unbiased_baseline(estimates):
    _, over_trajectories = estimates
    step = 1e-3
    ends = [trajectory_cvar(THETA + s)[0] for s in (-step, step)]
    scores = np.abs(z_score(over_trajectories, (ends[1] - ends[0]) / (2 * step)))
    assert scores[0] < 4
    assert (scores[1:] > 20).all()


def test_proposition_1_sampling_the_tail_divides_the_variance():
    tasks, baseline = 20, -1.5

    @jax.jit
    @jax.vmap
    def estimates(key):
        key_task, key_original, key_tail = jax.random.split(key, 3)
        u = jax.random.uniform(key_task, (tasks,))
        result = []
        for k, z in ((key_original, u), (key_tail, TAIL + (1 - TAIL) * u)):
            returns, score = policy(k, z)
            tail = value(THETA, z) <= value(THETA, TAIL)
            result.append(jnp.where(tail, (returns - baseline) * score, 0).sum() / (ALPHA * tasks))
        return result

    original, tail = estimates(jax.random.split(jax.random.key(1), 40_000))
    assert abs(z_score(original, GRADIENT)) < 4
    assert abs(z_score(ALPHA * tail, GRADIENT)) < 4
    ratio = (ALPHA * tail).var() / original.var()
    assert ratio <= ALPHA * 1.02
    # Equality up to (E - m^2) / (E - alpha m^2), with E the second moment of one task's gain.
    second = tasks * (ALPHA * tail).var() + GRADIENT**2
    want = ALPHA * (second - GRADIENT**2) / (second - ALPHA * GRADIENT**2)
    np.testing.assert_allclose(ratio, want, rtol=0.03)
