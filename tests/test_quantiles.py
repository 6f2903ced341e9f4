import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.quantiles import weighted_quantile

quantile = jax.jit(weighted_quantile, static_argnames="population")


def reference(x, q, weights=None, population=False):
    """NumPy restatement of the mid-point weighted quantile, in float64."""
    x = np.asarray(x, np.float64)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, np.float64)
    x, w = x[w > 0], w[w > 0]
    n = len(x)
    if n == 1:
        return x[0]
    if population:
        q = np.clip(q * (n + 1) / (n - 1) - 1 / (n - 1), 0, 1)
    order = np.argsort(x, kind="stable")
    x, w = x[order], w[order]
    c = np.cumsum(w) - w / 2
    return np.interp(q, (c - c[0]) / (c[-1] - c[0]), x)


def test_worked_example():
    x, w = jnp.array([3.0, 1.0, 4.0, 2.0]), jnp.array([2.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(quantile(x, 0.5, w), 1 + 5 / 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("n", "alpha", "corrected"),
    [(128, 0.05, 0.042913), (128, 0.01, 0.0022835), (512, 0.05, 0.048239), (200, 0.05, 0.045477)],
)
def test_population_correction(n, alpha, corrected):
    x = jnp.linspace(0.0, 1.0, n)  # the quantile at level p is p itself
    np.testing.assert_allclose(quantile(x, alpha, population=True), corrected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("population", [False, True])
@pytest.mark.parametrize("n", [1, 2, 17, 200])
def test_against_numpy(n, population):
    rng = np.random.default_rng(n)
    for case in range(20):
        x = rng.normal(size=n)
        if case % 3 == 0:
            x = np.round(x)  # ties
        w = rng.exponential(size=n) * (rng.random(n) < 0.7)
        w[rng.integers(n)] = 1.0
        q = rng.random()
        x32, w32 = jnp.asarray(x, jnp.float32), jnp.asarray(w, jnp.float32)
        got = quantile(x32, q, w32, population=population)
        np.testing.assert_allclose(got, reference(x32, q, w32, population), atol=5e-5)


def test_equal_weights_give_the_usual_quantile():
    x = np.random.default_rng(0).normal(size=37).astype(np.float32)
    for q in (0.0, 0.05, 0.5, 1.0):
        np.testing.assert_allclose(
            quantile(jnp.asarray(x), q), np.quantile(x, q), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_extremes_are_exact_where_a_float32_sum_is_not(scale):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(size=5000), jnp.float32)
    w = jnp.asarray(scale * rng.exponential(size=5000) ** 3, jnp.float32)
    order = jnp.argsort(x)  # both ends vanish beside the sum
    w = w.at[order[:3]].set(1e-6 * scale).at[order[-3:]].set(1e-6 * scale)
    for population in (False, True):
        assert quantile(x, 0, w, population=population) == x.min()
        assert quantile(x, 1, w, population=population) == x.max()


@pytest.mark.parametrize("bad", [-1e9, 1e9, np.inf, np.nan])
def test_samples_of_weight_zero_do_not_count(bad):
    x, w = jnp.array([3.0, 1.0, 2.0, 5.0]), jnp.array([1.0, 2.0, 1.0, 0.5])
    padded = jnp.concatenate([jnp.array([bad]), x, jnp.array([bad])])
    weights = jnp.concatenate([jnp.zeros(1), w, jnp.zeros(1)])
    for q in (0.0, 0.2, 0.7, 1.0):
        for population in (False, True):
            want = quantile(x, q, w, population=population)
            got = quantile(padded, q, weights, population=population)
            np.testing.assert_allclose(got, want, rtol=1e-6)


def test_ties_give_exactly_the_tied_value():
    x = jnp.full(128, 0.1)
    w = jax.random.exponential(jax.random.key(0), (128,))
    for q in np.linspace(0, 1, 11):
        assert quantile(x, float(q), w) == x[0]


@pytest.mark.parametrize("q", [0, 0.3, 1])
def test_one_sample(q):
    assert quantile(jnp.array([2.5]), q) == 2.5
    assert quantile(jnp.array([2.5]), q, jnp.array([1e-3]), population=True) == 2.5
    assert quantile(jnp.array([9.0, 2.5]), q, jnp.array([0.0, 2.0])) == 2.5


def test_nan_where_there_is_no_answer():
    x = jnp.array([1.0, 2.0])
    assert jnp.isnan(quantile(x, 0.5, jnp.zeros(2)))
    assert jnp.isnan(quantile(x.at[0].set(jnp.nan), 0.0))
    assert jnp.isnan(quantile(x, 0.5, jnp.array([1.0, jnp.nan])))


def test_float64(x64):
    rng = np.random.default_rng(2)
    x, w = rng.normal(size=50), rng.exponential(size=50)
    got = quantile(jnp.asarray(x), 0.05, jnp.asarray(w), population=True)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, reference(x, 0.05, w, True), rtol=1e-12)
    assert quantile(jnp.asarray(x, jnp.float32), 0.5).dtype == jnp.float32


def test_gradient_is_that_of_the_interpolation():
    x, w = jnp.array([4.0, 1.0, 3.0, 2.0, 9.0]), jnp.array([1.0, 1.0, 2.0, 1.0, 0.0])
    # Level 0.5 lies at 2 of c = 0, 1, 2.5, 4: two thirds of the way from 2 to 3.
    grad = jax.grad(lambda x: quantile(x, 0.5, w))(x)
    np.testing.assert_allclose(grad, [0, 0, 2 / 3, 1 / 3, 0], atol=1e-6)
    for q in (0.0, 1.0):
        for x in (jnp.ones(4), jnp.array([1.0, 2.0, 2.0, jnp.nan])):
            weights = jnp.array([1.0, 1.0, 1.0, 0.0])
            grad = jax.grad(lambda x, q=q, w=weights: quantile(x, q, w))(x)
            np.testing.assert_allclose(grad.sum(), 1.0, rtol=1e-6)


def test_without_jit():
    assert weighted_quantile(jnp.array([3.0, 1.0]), 0.5) == 2.0


def test_vmap_and_one_trace(count_traces):
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(6, 20)), jnp.float32)
    w = jnp.asarray(rng.exponential(size=(6, 20)), jnp.float32)
    q = jnp.linspace(0.0, 1.0, 6)
    traced = count_traces(lambda x, q, w: weighted_quantile(x, q, w, population=True))
    fn = jax.jit(jax.vmap(traced))
    got, _ = fn(x, q, w), fn(x + 1, 1 - q, w)
    assert traced.count == 1
    want = [reference(*row, True) for row in zip(x, q, w, strict=True)]
    np.testing.assert_allclose(got, want, atol=1e-5)
