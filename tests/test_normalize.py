"""Running moments against NumPy over all the data, reward scaling against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.normalize import (
    Moments,
    batch_moments,
    init_moments,
    merge_moments,
    normalize,
    normalize_rewards,
)

merge = jax.jit(merge_moments)
scale_rewards = jax.jit(normalize_rewards, static_argnames=("discount", "clip"))


def merged(batches, shape):
    moments = init_moments(shape)
    for x in batches:
        moments = merge(moments, batch_moments(jnp.asarray(x)))
    return moments


def weighted_numpy(batches, shape):
    """Moments of the data and of two virtual samples at -1 and 1 of total weight 1e-4."""
    x = np.concatenate([*batches, np.ones((1, *shape)), -np.ones((1, *shape))])
    w = np.full(len(x), 1.0)
    w[-2:] = 0.5e-4
    mean = np.average(x, axis=0, weights=w)
    return mean, np.average((x - mean) ** 2, axis=0, weights=w), w.sum()


@pytest.mark.parametrize("sizes", [(1,), (5, 1, 9), (64, 128)])
def test_merging_is_the_moments_of_all_data(sizes):
    rng = np.random.default_rng(0)
    batches = [rng.normal(3, 2, size=(n, 3)).astype(np.float32) for n in sizes]
    got = merged(batches, (3,))
    for a, b in zip(got[:3], weighted_numpy(batches, (3,)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5)


def test_unbiased_merge_is_the_rule_of_the_original_code():
    rng = np.random.default_rng(1)
    batches = [rng.normal(size=(n, 2)).astype(np.float32) for n in (4, 7)]
    mean, var, n, got = np.zeros(2), np.ones(2), 1e-4, init_moments((2,))
    for x in batches:
        m = len(x)
        delta = x.mean(0) - mean
        m2 = var * n + x.var(0, ddof=1) * m + delta**2 * n * m / (n + m)
        mean, var, n = mean + delta * m / (n + m), m2 / (n + m), n + m
        got = merge(got, batch_moments(jnp.asarray(x), unbiased=True))
    for a, b in zip(got[:3], (mean, var, n), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 4, 5000])
def test_nothing_drifts_by_the_size_of_batches(size):
    """A feature far from zero, many times over: moments are those of the data, not of sums."""
    x = np.random.default_rng(1).normal(1000, 1, size=(20_000, 1)).astype(np.float32)

    def take_in(moments, batch):
        return merge_moments(moments, batch_moments(batch)), None

    batches = jnp.asarray(x.reshape(-1, size, 1))
    got, _ = jax.jit(lambda m: jax.lax.scan(take_in, m, batches))(init_moments((1,)))
    mean, var, weight = weighted_numpy([x.astype(float)], (1,))
    np.testing.assert_allclose(got.mean, mean, atol=2e-4)
    np.testing.assert_allclose(got.var, var, rtol=2e-3)
    np.testing.assert_allclose(got.weight, weight)


@pytest.mark.parametrize(("mean", "std"), [(10.0, 0.1), (1000.0, 1.0), (-3.0, 2.0), (0.0, 1e-3)])
@pytest.mark.parametrize("size", [100, 20_000])
def test_ten_billion_samples_in_float32(mean, std, size):
    """The moments of all of them, within a thousandth of the deviation, from either size."""
    steps = 300_000
    repeats = 1e10 / steps / size  # each batch stands for as many

    def take_in(moments, key):
        noise = jax.random.normal(key, (2,)) / np.sqrt(size)
        var = std**2 * (1 - 1 / size) * (1 + noise[1])
        batch = Moments(mean + std * noise[:1], var[None], jnp.float32(size * repeats))
        return merge_moments(moments, batch), (noise[0], noise[1])

    keys = jax.random.split(jax.random.key(0), steps)
    got, noise = jax.jit(lambda m: jax.lax.scan(take_in, m, keys))(init_moments((1,)))
    shift, spread = (np.asarray(x, float).mean() for x in noise)
    np.testing.assert_allclose((got.mean - mean) / std, shift, atol=1e-3)
    wanted = (1 - 1 / size) * (1 + spread) + np.var(np.asarray(noise[0], float))
    np.testing.assert_allclose(got.var / std**2, wanted, rtol=1e-3)
    np.testing.assert_allclose(got.weight, 1e10, rtol=1e-6)


def test_samples_that_do_not_count_leave_no_trace():
    x = np.random.default_rng(5).normal(size=(6, 2)).astype(np.float32)
    counted = np.array([1, 0, 1, 1, 0, 1], bool)
    holes = np.where(counted[:, None], x, np.nan)
    got = batch_moments(jnp.asarray(holes), jnp.asarray(counted))
    np.testing.assert_allclose(got.mean, x[counted].mean(0), rtol=1e-6)
    np.testing.assert_allclose(got.var, x[counted].var(0), rtol=1e-6)
    start = init_moments((2,))
    none = batch_moments(jnp.asarray(holes), jnp.zeros(6, bool))
    jax.tree.map(np.testing.assert_array_equal, merge(start, none), start)


@pytest.mark.parametrize("unbiased", [False, True])
def test_one_sample_has_moments(unbiased):
    one = batch_moments(jnp.array([[3.0, -4.0]]), unbiased=unbiased)
    got = merge(init_moments((2,)), one)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(got))


def test_merge_is_associative():
    rng = np.random.default_rng(2)
    a, b, c = (batch_moments(jnp.asarray(rng.normal(size=n))) for n in (3, 8, 5))
    left = merge(merge(a, b), c)
    right = merge(a, merge(b, c))
    for x, y in zip(left[:3], right[:3], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_state_keeps_its_type_so_that_nothing_is_traced_twice():
    moments = init_moments((2,))
    new = merge_moments(moments, batch_moments(jnp.ones((3, 2))))
    for a, b in zip(jax.tree.leaves(moments), jax.tree.leaves(new), strict=True):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)


def test_normalize_neither_clips_nor_loses_constant_features():
    moments = Moments(jnp.array([1.0, 0.0]), jnp.array([4.0, 0.0]), jnp.array(10.0))
    x = jnp.array([[[101.0, 1.0]]])
    np.testing.assert_allclose(normalize(x, moments), [[[50.0, 1e4]]], rtol=1e-5)
    np.testing.assert_allclose(normalize(x[0, 0], moments), [50.0, 1e4], rtol=1e-5)
    assert normalize(jnp.zeros((2, 0)), init_moments((0,))).shape == (2, 0)


def loop_over_steps(moments, rewards, meta_end, discount, clip):
    """The original code's wrapper, one environment step at a time; a first step is no last one."""
    mean, var, count = (float(x) for x in moments[:3])
    g = np.zeros(rewards.shape[1])
    out = np.zeros_like(rewards)
    for t, r in enumerate(rewards):
        first = t == 0 or meta_end[t - 1]
        g = r if first else np.zeros_like(r) if meta_end[t] else discount * g + r
        m, delta = len(g), g.mean() - mean
        m2 = var * count + g.var() * m + delta**2 * count * m / (count + m)
        mean, var, count = mean + delta * m / (count + m), m2 / (count + m), count + m
        out[t] = np.clip(r / np.sqrt(var + 1e-8), -clip, clip)
    return (mean, var, count), out


@pytest.mark.parametrize(("steps", "ends"), [(1, [-1]), (7, [-1, 2]), (7, [0, 1, 5, -1])])
@pytest.mark.parametrize("fresh", [True, False])
def test_rewards_against_a_loop(fresh, steps, ends):
    rng = np.random.default_rng(3)
    moments = init_moments() if fresh else Moments(*map(jnp.float32, (2.0, 9.0, 50.0)))
    rewards = rng.normal(1, 5, size=(steps, 3))
    meta_end = np.zeros(steps, bool)
    meta_end[ends] = True  # some meta-episodes are a single step
    got, scaled = scale_rewards(
        moments, jnp.asarray(rewards, jnp.float32), jnp.asarray(meta_end), discount=0.9
    )
    want, out = loop_over_steps(moments, rewards, meta_end, 0.9, 10.0)
    np.testing.assert_allclose(scaled, out, rtol=1e-4, atol=1e-5)
    for a, b in zip(got[:3], want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rewards_are_clipped_on_both_sides():
    # At the meta-episode's end the sum is zero before it is merged, so the very first
    # step with equal sums has next to no variance.
    rewards, end = jnp.array([[1.0, 1.0], [5.0, -5.0]]), jnp.array([False, True])
    moments = init_moments()._replace(var=jnp.float32(0))
    _, scaled = scale_rewards(moments, rewards, end, discount=0.9)
    np.testing.assert_allclose(scaled[1], [9.99, -10], atol=0.1)
    np.testing.assert_array_equal(jnp.abs(scaled).max(), 10)
    _, scaled = scale_rewards(moments, rewards, end, discount=0.9, clip=3.0)
    np.testing.assert_array_equal(scaled[1], [3.0, -3.0])


def test_the_reward_of_a_bandit_is_scaled_by_its_deviation():
    rewards = 3 + 2 * jax.random.normal(jax.random.key(0), (1, 4000))
    _, scaled = scale_rewards(init_moments(), rewards, jnp.ones(1, bool), discount=0.9)
    np.testing.assert_allclose(jnp.std(scaled), 1, rtol=1e-3)
    np.testing.assert_allclose(jnp.corrcoef(scaled[0], rewards[0])[0, 1], 1, rtol=1e-3)


def test_long_sums_stay_accurate_under_jit():
    """400 steps, discount near one: the parallel scan loses no digits that matter."""
    rng = np.random.default_rng(4)
    rewards = rng.normal(2, 1, size=(400, 2))
    meta_end = np.arange(400) == 399
    got, scaled = scale_rewards(
        init_moments(), jnp.asarray(rewards, jnp.float32), jnp.asarray(meta_end), discount=0.999
    )
    want, out = loop_over_steps(init_moments(), rewards, meta_end, 0.999, 10.0)
    np.testing.assert_allclose(scaled, out, rtol=1e-3)
    np.testing.assert_allclose(got.var, want[1], rtol=1e-3)
