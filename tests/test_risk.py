import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from roml_jax import risk
from roml_jax.types import Draw

cvar = jax.jit(risk.cvar, static_argnames="alpha")
tail_mask = jax.jit(risk.tail_mask, static_argnames="alpha")
weighted_cvar = jax.jit(risk.weighted_cvar, static_argnames="alpha")


@pytest.mark.parametrize(
    ("n", "alpha", "size"),
    [
        (100, 0.07, 7),  # 0.07 * 100 = 7.000000000000001
        (100, 1 - 0.95, 5),  # 0.050000000000000044
        (100, 0.29, 29),  # 28.999999999999996
        (16, 0.05, 1),
        (128, 0.05, 7),
        (1000, 0.05, 50),
        (1_000_000, 0.07, 70_000),
        (3, 1.0, 3),
        (1, 1e-12, 1),
        (1, 1.0, 1),
    ],
)
def test_tail_size(n, alpha, size):
    assert risk.tail_size(n, alpha) == size


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.0001, float("nan")])
def test_alpha_out_of_range(alpha):
    calls = [
        lambda: risk.tail_size(10, alpha),
        lambda: risk.tail(alpha),
        lambda: cvar(jnp.ones(3), alpha),
        lambda: weighted_cvar(jnp.ones(3), jnp.ones(3), alpha),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"alpha=.*\(0, 1\]"):
            call()
    for n in (0, 2**31):
        with pytest.raises(ValueError, match=f"n={n} is a number of tasks"):
            risk.tail_size(n, 0.5)


@pytest.mark.parametrize("alpha", [0.01, 0.07, 0.3, 1.0])
@pytest.mark.parametrize("n", [1, 10, 101])
def test_cvar_and_mask_against_brute_force(n, alpha):
    returns = np.random.default_rng(n).normal(size=n).astype(np.float32)
    k = int(np.ceil(np.round(alpha * n, 9)))
    worst = np.sort(returns)[:k]
    mask = np.asarray(tail_mask(jnp.asarray(returns), alpha))
    assert mask.sum() == k
    np.testing.assert_array_equal(np.sort(returns[mask]), worst)
    np.testing.assert_allclose(cvar(jnp.asarray(returns), alpha), worst.mean(), rtol=1e-5)


def test_ties_go_to_the_lower_index():
    returns = jnp.array([2.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    assert tail_mask(returns, 0.5).tolist() == [False, True, True, True, False, False]
    assert tail_mask(jnp.zeros(4), 0.5).tolist() == [True, True, False, False]


def test_nan_is_in_the_tail_and_seen_in_cvar():
    returns = jnp.array([0.0, 5.0, jnp.nan, -jnp.inf])
    assert tail_mask(returns, 0.25).tolist() == [False, False, True, False]
    assert jnp.isnan(cvar(returns, 0.25))
    assert jnp.isnan(weighted_cvar(returns, jnp.ones(4), 0.25))
    assert cvar(returns[jnp.array([0, 1, 3])], 0.3) == -jnp.inf


@pytest.mark.parametrize("plays", [2, 3])
def test_two_samples_and_one_enclose_the_tail_of_normal_tasks(plays):
    n, noise, alpha = 200_000, 1.5, 0.05
    rng = np.random.default_rng(0)
    returns = rng.normal(size=n) + noise * rng.normal(size=(plays, n))
    tail = -stats.norm.pdf(stats.norm.ppf(alpha)) / alpha  # of the tasks without the noise
    halves = np.array([plays // 2, plays - plays // 2])
    two = (tail / np.sqrt(1 + noise**2 / halves)).mean()  # E[v | v + e in its tail]
    one = tail * np.sqrt(1 + noise**2 / plays)
    returns = jnp.asarray(returns, jnp.float32)
    np.testing.assert_allclose(risk.cvar_two_sample(returns, alpha), two, atol=0.04)
    np.testing.assert_allclose(risk.cvar(returns.mean(axis=0), alpha), one, atol=0.04)
    assert one < tail < two


def test_two_samples_without_noise_are_one():
    values = jnp.asarray(np.random.default_rng(1).normal(size=60), jnp.float32)
    for alpha in (0.05, 0.3, 1.0):
        twice = risk.cvar_two_sample(jnp.stack([values, values]), alpha)
        np.testing.assert_allclose(twice, risk.cvar(values, alpha), rtol=1e-6)


def test_weighted_cvar():
    returns, ones = jnp.array([3.0, 1.0, 4.0, 2.0]), jnp.ones(4)
    np.testing.assert_allclose(weighted_cvar(returns, ones, 0.5), 1.5)
    # Half of the weight 8 is 4: all of return 1 (weight 3), and 1 of the 2 of return 2.
    weights = jnp.array([1.0, 3.0, 2.0, 2.0])
    np.testing.assert_allclose(weighted_cvar(returns, weights, 0.5), (3 * 1 + 2) / 4)
    np.testing.assert_allclose(weighted_cvar(returns, weights, 1.0), 18 / 8)
    # Weights that are counts are repetitions.
    repeated = jnp.repeat(returns, weights.astype(int), total_repeat_length=8)
    np.testing.assert_allclose(weighted_cvar(returns, weights, 0.25), cvar(repeated, 0.25))
    assert weighted_cvar(returns.at[1].set(jnp.nan), weights.at[1].set(0.0), 0.1) == 2
    assert jnp.isnan(weighted_cvar(returns, jnp.zeros(4), 0.5))


def test_weighted_tail_mask_against_brute_force():
    rng = np.random.default_rng(0)
    for alpha in (0.01, 0.1, 0.3, 0.7, 1.0):
        x, w = rng.normal(size=23), rng.exponential(size=23) * (rng.uniform(size=23) > 0.2)
        got = risk.weighted_tail_mask(jnp.asarray(x), jnp.asarray(w), alpha)
        want = [w[i] > 0 and w[x < x[i]].sum() < alpha * w.sum() for i in range(23)]
        np.testing.assert_array_equal(got, want)
        assert w[np.asarray(got)].sum() >= alpha * w.sum() * (1 - 1e-6)
        if alpha < 1:  # without the task at the edge, it would be too little
            edge = np.argmax(np.where(want, x, -np.inf))
            assert w[np.asarray(got)].sum() - w[edge] < alpha * w.sum()


@pytest.mark.parametrize("n", [1, 20, 100, 3000])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.07, 0.3, 1 / 3, 0.95, 1.0])
def test_equal_weights_mark_the_tail(n, alpha):
    x = np.random.default_rng(1).integers(0, 9, n).astype(np.float32)  # with ties
    for weight in (1.0, 1e-30, 3e30):
        got = risk.weighted_tail_mask(jnp.asarray(x), jnp.full(n, weight), alpha)
        np.testing.assert_array_equal(got, risk.tail_mask(jnp.asarray(x), alpha))


def test_weighted_tail():
    tasks, reference = jnp.arange(6.0)[:, None], jnp.zeros(6, bool)
    draw = Draw(tasks, jnp.array([0.01, 0.5, 0.0, 2.0, 8.0, 1.0]), reference)
    returns = jnp.array([0.0, 1.0, -1.0, jnp.nan, 2.0, 3.0])
    everything = risk.weighted_tail(1.0)(draw, returns)
    np.testing.assert_array_equal(everything, draw.weights)
    clipped = risk.weighted_tail(1.0, max_weight=5.0)(draw, returns)
    np.testing.assert_allclose(clipped, [0.2, 0.5, 0, 2, 5, 1])
    # Unknown returns are the worst; 0.2 of 11.51 is used up by them and the next.
    some = risk.weighted_tail(0.2)(draw, returns)
    np.testing.assert_allclose(some, [0.01, 0.5, 0, 2, 0, 0])
    assert some.dtype == jnp.float32
    none = risk.weighted_tail(0.2)(draw._replace(weights=jnp.zeros(6)), returns)
    np.testing.assert_array_equal(none, np.zeros(6))
    for bad in (0.5, np.nan):
        with pytest.raises(ValueError, match="max_weight"):
            risk.weighted_tail(0.5, max_weight=bad)


def test_a_traced_level_marks_the_same():
    rng = np.random.default_rng(2)
    x, w = jnp.asarray(rng.normal(size=40)), jnp.asarray(rng.exponential(size=40))
    mark = jax.jit(risk.weighted_tail_mask)
    for alpha in (0.02, 0.25, 1.0):
        np.testing.assert_array_equal(mark(x, w, alpha), risk.weighted_tail_mask(x, w, alpha))
    assert mark(x, w, 0.0).sum() == 1 and mark(x, w, 2.0).all()  # clipped


def test_a_known_array_is_checked_while_tracing():
    x, good, bad = jnp.arange(20.0), jnp.float32(0.1), jnp.float32(1.5)
    for f in (risk.cvar, lambda x, a: risk.weighted_tail_mask(x, jnp.ones(20), a).sum()):
        np.testing.assert_allclose(jax.jit(lambda x, f=f: f(x, good))(x), f(x, 0.1))
        with pytest.raises(ValueError, match=r"alpha=1\.5"):
            jax.jit(lambda x, f=f: f(x, bad))(x)


def test_weighted_cvar_estimates_the_original_tail():
    # Draws of density 2z on (0, 1), here z > 0.01, with weights 1 / (2z) stand for the uniform.
    z = jnp.sqrt(jax.random.uniform(jax.random.key(0), (200_000,), minval=1e-4))
    want = 0.01 + 0.1 * 0.99
    np.testing.assert_allclose(weighted_cvar(z, 1 / (2 * z), 0.2), want, rtol=0.04)


def test_selections():
    returns = jnp.array([3.0, 1.0, 2.0])
    draw = Draw(jnp.zeros((3, 1)), jnp.ones(3), jnp.ones(3, bool))
    assert risk.everything()(draw, returns).tolist() == [1.0] * 3
    assert risk.tail(0.3)(draw, returns).tolist() == [0.0, 1.0, 0.0]
    assert risk.tail(1.0)(draw, returns).tolist() == [1.0] * 3


def test_jit_vmap_grad_and_dtypes(x64):
    for dtype in (jnp.float32, jnp.float64):
        returns = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)), dtype)
        mask = jax.jit(jax.vmap(lambda r: tail_mask(r, 0.25)))(returns)
        assert mask.dtype == bool and (mask.sum(axis=1) == 2).all()
        value = jax.vmap(lambda r: cvar(r, 0.25))(returns)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, jnp.where(mask, returns, 0).sum(axis=1) / 2, rtol=1e-5)
        grad = jax.grad(lambda r: cvar(r, 0.25))(returns[0])
        np.testing.assert_allclose(grad, mask[0] / 2)


# ------------------------------------------------------------------ a level that is swept


DECIMALS = [0.05, 0.07, 0.29, 0.001, 1e-6, 0.3, 1.0, 0.123456, *np.linspace(0.01, 1, 100).round(2)]


@pytest.mark.parametrize("n", [1, 3, 20, 100, 3008, 65_536, 5_000_000, 2**31 - 1])
def test_a_level_is_the_decimal_that_it_stands_for(n):
    """Against exact fractions, for numbers of Python, NumPy and JAX, known or traced."""
    decimals = [float(decimal) for decimal in DECIMALS]
    want = [max(1, math.ceil(Fraction(f"{decimal:.6f}") * n)) for decimal in decimals]
    traced = jax.jit(jax.vmap(lambda alpha: risk.tail_size(n, alpha)))(jnp.array(decimals))
    assert traced.tolist() == want and traced.dtype == jnp.int32
    for kind in (float, np.float64, np.float32, jnp.float32):
        assert [int(risk.tail_size(n, kind(decimal))) for decimal in decimals] == want


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_levels_of_coarse_dtypes(dtype):
    sizes = jax.jit(jax.vmap(lambda alpha: risk.tail_size(1000, alpha)))
    assert sizes(jnp.array([0.05, 0.07, 0.01, 0.25, 0.3, 1.0], dtype)).tolist() == [
        50, 70, 10, 250, 300, 1000,
    ]  # fmt: skip


def test_levels_that_are_no_short_decimals():
    """They count as what they are, to two steps of their dtype."""
    values = np.random.default_rng(0).random(300).astype(np.float32)
    for n in (3, 1000, 123_456_789):
        sizes = jax.jit(jax.vmap(lambda alpha, n=n: risk.tail_size(n, alpha)))(jnp.array(values))
        for value, size in zip(values, np.asarray(sizes), strict=True):
            near = (value * np.float32(1 + step) for step in (-2.4e-7, 2.4e-7))
            least, most = (math.ceil(Fraction(float(x)) * n) for x in near)
            assert least <= size <= most
    assert risk.tail_size(3, 1 / 3) == risk.tail_size(3, np.float32(1 / 3)) == 1
    assert jax.jit(lambda alpha: risk.tail_size(6, alpha))(2 / 3) == 4
    assert risk.tail_size(10, 0.1 + 0.2) == 3 and risk.tail_size(7, 1) == 7


def test_traced_levels_out_of_range_are_clipped():
    sizes = jax.jit(jax.vmap(lambda alpha: risk.tail_size(10, alpha)))(jnp.array([-1.0, 0.0, 1.5]))
    assert sizes.tolist() == [1, 1, 10]


def test_a_level_in_64_bits(x64):
    size = jax.jit(lambda alpha: risk.tail_size(2**31 - 1, alpha))
    assert size(jnp.array(0.07, jnp.float64)) == math.ceil(Fraction("0.07") * (2**31 - 1))
    assert size(jnp.array(1.0, jnp.float64)) == 2**31 - 1


def test_a_traced_level_gives_the_same_numbers():
    rng = np.random.default_rng(0)
    returns = jnp.asarray(rng.normal(size=60).round(1), jnp.float32)  # with ties
    weights = jnp.asarray(rng.uniform(size=60), jnp.float32)
    alphas = [0.01, 0.05, 0.1, 0.3, 0.5, 1.0]

    @jax.jit
    @jax.vmap
    def swept(alpha):
        mask = risk.tail_mask(returns, alpha)
        return mask, risk.cvar(returns, alpha), risk.weighted_cvar(returns, weights, alpha)

    masks, tails, weighted = swept(jnp.array(alphas))
    for i, alpha in enumerate(alphas):
        np.testing.assert_array_equal(masks[i], tail_mask(returns, alpha))
        np.testing.assert_allclose(tails[i], cvar(returns, alpha), rtol=1e-5)
        np.testing.assert_allclose(weighted[i], weighted_cvar(returns, weights, alpha), rtol=1e-5)
    nan = returns.at[7].set(jnp.nan)
    assert jnp.isnan(jax.jit(risk.cvar)(nan, 0.05)) and jax.jit(risk.tail_mask)(nan, 0.01)[7]


def test_an_array_is_a_level_like_any_other():
    assert risk.tail_size(20, jnp.array(0.05)) == 1  # 0.05 is 0.05000000074 in float32
    with pytest.raises(ValueError, match=r"alpha=2.0"):
        risk.tail(jnp.array(2.0))


def test_a_traced_level_under_strict_promotion():
    with jax.numpy_dtype_promotion("strict"):
        size = jax.jit(lambda alpha: risk.tail_size(20, alpha))(jnp.float32(0.05))
    assert size == 1
