import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from roml_jax import families

TINY = 1e-6  # eps at which the clip biases nothing that a test can see


def shifted(family, seed=0):
    """A ``phi`` of the family near, but not at, ``phi0``."""
    rng = np.random.default_rng(seed)
    phi = np.asarray(family.phi0) * rng.uniform(0.75, 1.25, family.phi0.shape)
    phi += (phi == 0) * rng.uniform(0.2, 0.4, family.phi0.shape)
    probs = np.array([name.startswith("p_") for name in family.phi_names])
    if probs.any():
        phi[probs] /= phi[probs].sum()
    return jnp.asarray(phi, jnp.float32)


FAMILIES = {
    "exponential": families.exponential(0.1),
    "beta": families.beta(0.0, 7.0, eps=TINY),
    "beta_box": families.beta([0.1, 0.0, 0.3], [5.0, 6.28, 3.0], eps=TINY, fit="ml"),
    "log2_beta": families.log2_beta(-1.0, 1.0, 3, eps=TINY),
    "disk": families.disk(5.0),
    "disk_unit": families.disk(5.0, angle="unit"),
    "circle": families.circle(),
    "circle_ml": families.circle(fit="ml"),
    "normal": families.normal([1.0, 2.0], [0.5, 1.5], min_std=0.2),
    "categorical": families.categorical([2.0, 1.0, 1.0], eps=0.0),
    "product": families.product(
        families.exponential(0.1, name="rain"),
        families.categorical([0.3, 0.7], name="map"),
        families.normal(0.0, 2.0, name="wind"),
    ),
}


def jitted(family):
    """The same family, with a program for each function in place of one for each operation."""
    functions = {name: jax.jit(getattr(family, name)) for name in ("log_prob", "fit", "project")}
    return family._replace(sample=jax.jit(family.sample, static_argnums=2), **functions)


PLAIN = dict(FAMILIES)
FAMILIES = {name: jitted(family) for name, family in PLAIN.items()}
every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())


@every_family
def test_contract(family, count_traces):
    dim, size, n = len(family.names), len(family.phi_names), 20_000
    assert family.phi0.shape == (size,) and family.phi0.dtype == np.float32
    assert isinstance(family.phi0, np.ndarray)
    sample, log_prob, fit = map(count_traces, (family.sample, family.log_prob, family.fit))
    phi, ones = shifted(family), jnp.ones(n)
    draw, density, refit = jax.jit(sample, static_argnums=2), jax.jit(log_prob), jax.jit(fit)

    tasks = draw(jax.random.key(0), phi, n)
    assert tasks.shape == (n, dim) and tasks.dtype == jnp.float32
    assert not jnp.array_equal(tasks, draw(jax.random.key(0), family.phi0, n))

    log_w = density(tasks, family.phi0) - density(tasks, phi)
    assert log_w.shape == (n,) and log_w.dtype == jnp.float32
    w = np.exp(log_w)
    assert w.std() > 0.05
    assert abs(w.mean() - 1) < 4 * w.std() / np.sqrt(n), "E_phi[w] is 1"

    fitted = refit(tasks, ones)
    assert fitted.shape == (size,) and fitted.dtype == jnp.float32
    np.testing.assert_allclose(fitted, phi, atol=0.03)
    # Weights are repetitions: a task of weight 2 counts twice.
    some = jnp.zeros(n).at[:2].set(jnp.array([2.0, 1.0]))
    repeated = tasks.at[2].set(tasks[0])
    np.testing.assert_allclose(
        refit(tasks, some), refit(repeated, jnp.zeros(n).at[:3].set(1.0)), rtol=2e-5
    )
    assert sample.count == log_prob.count == fit.count == 1


@pytest.mark.parametrize("family", PLAIN.values(), ids=PLAIN.keys())
def test_all_functions_take_phi0_as_it_is_and_return_jax_arrays(family):
    tasks = family.sample(jax.random.key(0), family.phi0, 3)
    results = (tasks, family.log_prob(tasks, family.phi0), family.project(family.phi0))
    for x in (*results, family.fit(tasks, jnp.ones(3))):
        assert isinstance(x, jax.Array) and x.dtype == np.float32
    jitted = jax.jit(family.sample, static_argnums=2)(jax.random.key(0), family.phi0, 3)
    np.testing.assert_allclose(tasks, jitted, rtol=1e-5)


@pytest.mark.parametrize("family", PLAIN.values(), ids=PLAIN.keys())
def test_units_become_tasks_of_the_original_distribution(family):
    """Every component has the distribution of draws: two samples, by Kolmogorov and Smirnov."""
    n, dim = 20_000, len(family.names)
    units = jax.random.uniform(jax.random.key(0), (n, dim))
    got = np.asarray(jax.jit(family.from_units)(units))
    drawn = np.asarray(jax.jit(family.sample, static_argnums=2)(jax.random.key(1), family.phi0, n))
    assert got.shape == (n, dim) and got.dtype == np.float32
    for j in range(dim):
        assert stats.ks_2samp(got[:, j], drawn[:, j]).pvalue > 1e-3
    corners = family.from_units(jnp.array([[0.0] * dim, [1.0] * dim, [0.5] * dim]))
    assert np.isfinite(corners).all()
    assert np.isfinite(family.log_prob(corners, family.phi0)).all()
    with pytest.raises(ValueError, match="units"):
        family.from_units(jnp.zeros((n, dim + 1)))


def test_a_product_with_a_family_without_a_map_has_none():
    plain = families.normal(0.0, 1.0, name="a")
    other = families.exponential(0.1, name="b")
    assert families.product(plain, other).from_units is not None
    assert families.product(plain, other._replace(from_units=None)).from_units is None


def far_from(family, n=40, scale=1.0, seed=0):
    """Any real numbers ``[n, P]``; the last rows are all negative, all zero and all large."""
    phi = scale * np.random.default_rng(seed).normal(size=(n, family.phi0.size))
    phi[-3:] = np.array([[-2.0], [0.0], [3.0]]) * scale
    return jnp.asarray(phi, jnp.float32)


@every_family
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_project_leads_any_phi_back_to_where_densities_follow_it(family, scale):
    project = jax.jit(jax.vmap(family.project))
    phi = project(far_from(family, scale=scale))
    np.testing.assert_allclose(project(phi), phi, rtol=1e-6, err_msg="it is idempotent")
    tasks = family.sample(jax.random.key(0), family.phi0, 200)
    mortal = family.phi_names[0].startswith("p_")  # with eps=0 a class may die out
    grad = jax.jit(jax.vmap(jax.jacrev(family.log_prob, argnums=1), in_axes=(None, 0)))
    log_prob = jax.jit(jax.vmap(family.log_prob, in_axes=(None, 0)))(tasks, phi)
    slopes = np.asarray(grad(tasks, phi))  # [n, tasks, P]
    assert not np.isnan(log_prob).any() and np.isfinite(log_prob).any(axis=1).all()
    if not mortal:
        assert np.isfinite(log_prob).all() and np.isfinite(slopes).all()
        assert (np.abs(slopes).max(axis=1) > 0).all(), "every component of phi has a slope"


@every_family
def test_project_keeps_valid_phi(family):
    rng = np.random.default_rng(1)
    tasks = family.sample(jax.random.key(1), shifted(family), 30)
    fits = [family.fit(tasks, jnp.asarray(rng.exponential(size=30), jnp.float32)) for _ in range(3)]
    worst = family.fit(tasks, jnp.zeros(30).at[0].set(1.0))
    for phi in (family.phi0, shifted(family), worst, *fits):
        np.testing.assert_allclose(family.project(phi), phi, rtol=1e-6)
    assert np.isnan(family.project(jnp.full(family.phi0.shape, jnp.nan))).any()


def test_projections():
    def onto(family, *phi):
        return np.asarray(family.project(jnp.asarray(phi, jnp.float32)))

    np.testing.assert_allclose(onto(families.exponential(0.1), -3.0), 1e-7, rtol=1e-6)
    box = families.beta([0.0, 0.0, 0.0], 1.0)
    np.testing.assert_allclose(onto(box, 1.05, -0.2, 0.3), [0.98, 0.02, 0.3], rtol=1e-6)
    wind = families.normal(0.0, 2.0)
    np.testing.assert_allclose(onto(wind, -7.0, -1.0), [-7.0, 0.02], rtol=1e-6)
    kinds = families.categorical([1, 1, 1], eps=0.01)
    least = 0.01 / 1.03
    for phi in ([5, -3, 0], [1, 0, 0], [1e6, -1e6, 0]):
        np.testing.assert_allclose(onto(kinds, *phi), [1 - 2 * least, least, least], rtol=1e-5)
    np.testing.assert_allclose(onto(kinds, -1, -2, 0), [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(onto(kinds, 1, 2, 5), [0.125, 0.25, 0.625], rtol=1e-6)


def test_gradient_steps_with_project_do_not_lose_phi():
    """The score of one extreme task drives phi beyond its edge, another one back."""
    family = families.beta(0.0, 1.0)
    step = jax.jit(lambda phi, z: family.project(phi + jax.grad(lambda p: density(z, p))(phi)))

    def density(z, phi):
        return family.log_prob(z[None, None], phi)[0]

    phi = jnp.asarray(family.phi0)
    for _ in range(3):
        phi = step(phi, jnp.array(1.0))
    np.testing.assert_allclose(phi, 0.98, rtol=1e-6)
    for _ in range(3):
        phi = step(phi, jnp.array(0.0))
    np.testing.assert_allclose(phi, 0.02, rtol=1e-5)


def test_functions_batch_over_phi():
    family = FAMILIES["normal"]
    phi = jnp.stack([family.phi0, shifted(family)])
    keys = jax.random.split(jax.random.key(0), 2)
    tasks = jax.vmap(family.sample, in_axes=(0, 0, None))(keys, phi, 5)
    log_prob = jax.vmap(family.log_prob)(tasks, phi)
    np.testing.assert_allclose(log_prob[1], family.log_prob(tasks[1], phi[1]), rtol=1e-5)


def test_densities_against_scipy():
    rng = np.random.default_rng(0)
    x = rng.exponential(0.2, 50)
    got = families.exponential(0.1).log_prob(jnp.asarray(x[:, None], jnp.float32), jnp.array([0.3]))
    np.testing.assert_allclose(got, stats.expon(scale=0.3).logpdf(x), rtol=1e-4)

    phi, u = np.array([0.3, 0.8]), rng.uniform(0.03, 0.97, (50, 2))
    want = stats.beta(2 * phi, 2 - 2 * phi).logpdf(u).sum(axis=1)
    box = families.beta([0.0, -1.0], [7.0, 3.0])
    tasks = jnp.asarray([0.0, -1.0] + np.array([7.0, 4.0]) * u, jnp.float32)
    np.testing.assert_allclose(box.log_prob(tasks, jnp.asarray(phi, jnp.float32)), want, atol=1e-4)
    tasks = jnp.asarray(2 ** (-0.5 + u), jnp.float32)
    got = families.log2_beta(-0.5, 0.5, 2).log_prob(tasks, jnp.asarray(phi, jnp.float32))
    np.testing.assert_allclose(got, want, atol=1e-4)

    normal, z = families.normal([0.0, 1.0], [1.0, 2.0]), rng.normal(size=(50, 2))
    got = normal.log_prob(jnp.asarray(z, jnp.float32), jnp.array([0.5, 1.0, 2.0, 0.3]))
    want = stats.norm([0.5, 1.0], [2.0, 0.3]).logpdf(z).sum(axis=1)
    np.testing.assert_allclose(got, want, rtol=1e-4)

    got = families.categorical([1, 1, 2]).log_prob(
        jnp.array([[2.0], [0.0]]), jnp.array([0.2, 0.3, 0.5])
    )
    np.testing.assert_allclose(got, np.log([0.5, 0.2]), rtol=1e-6)


@pytest.mark.parametrize(
    ("family", "low", "high", "unit_mean"),
    [
        (families.exponential(0.1), 0.0, np.inf, None),
        (families.beta(2.0, 7.0), 2.0, 7.0, lambda z: (z - 2) / 5),
        (families.log2_beta(-1, 1), 0.5, 2.0, lambda z: (np.log2(z) + 1) / 2),
    ],
)
def test_sample_ranges_and_the_meaning_of_phi(family, low, high, unit_mean):
    phi = jnp.array([0.7])
    z = np.asarray(jax.jit(family.sample, static_argnums=2)(jax.random.key(0), phi, 20_000))
    assert z.min() >= low and z.max() <= high
    mean = z.mean() if unit_mean is None else unit_mean(z).mean()
    np.testing.assert_allclose(mean, 0.7, atol=0.02)


@pytest.mark.parametrize("radial", ["area", "linear"])
def test_disk_samples_and_recovers_the_same_point(radial):
    disk = families.disk(5.0, radial=radial, angle="unit")
    phi = jnp.array([0.6, 0.8])
    z = np.asarray(jax.jit(disk.sample, static_argnums=2)(jax.random.key(0), phi, 20_000))
    rho = (np.hypot(*z.T) / 5) ** (2 if radial == "area" else 1)
    t = np.mod(np.arctan2(z[:, 1], z[:, 0]) / (2 * np.pi), 1)
    assert rho.max() <= 1 + 1e-6
    np.testing.assert_allclose([rho.mean(), t.mean()], phi, atol=0.01)
    # The fit finds the angle where it was sampled; the original code finds 0.43 for 0.8.
    np.testing.assert_allclose(disk.fit(jnp.asarray(z), jnp.ones(20_000)), phi, atol=0.01)
    inside = (rho > 1e-3) & (rho < 0.999) & (t > 1e-3) & (t < 0.999)
    want = stats.beta(1.2, 0.8).logpdf(rho) + stats.beta(1.6, 0.4).logpdf(t)
    got = jax.jit(disk.log_prob)(jnp.asarray(z), phi)
    np.testing.assert_allclose(np.asarray(got)[inside], want[inside], atol=2e-3)


def test_phi_is_clipped_and_the_density_is_not():
    family = families.beta(0.0, 1.0)  # eps 0.02
    u, phi = np.array([1e-4, 0.01, 0.5, 0.99]), jnp.array([0.9])
    got = jax.jit(family.log_prob)(jnp.asarray(u[:, None], jnp.float32), phi)
    np.testing.assert_allclose(got, stats.beta(1.8, 0.2).logpdf(u), atol=1e-4)
    assert family.fit(jnp.ones((3, 1)), jnp.ones(3)) == jnp.float32(0.98)
    assert family.clipped_log_prob is None


def test_the_original_codes_density_is_clipped_too():
    family = families.beta(0.0, 1.0, clip_density=True)
    phi = jnp.array([0.9])
    clipped = jax.jit(family.clipped_log_prob)
    at = clipped(jnp.array([[0.0], [0.02], [1.0], [0.98]]), phi)
    assert at[0] == at[1] and at[2] == at[3]
    np.testing.assert_allclose(at[1], stats.beta(1.8, 0.2).logpdf(0.02), rtol=1e-5)
    both = families.product(family, families.exponential(0.1, name="rain"))
    z, at = jnp.array([[0.01, 0.3]]), jnp.array([0.9, 0.2])
    want = clipped(z[:, :1], phi) + stats.expon(scale=0.2).logpdf(0.3)
    np.testing.assert_allclose(both.clipped_log_prob(z, at), want, rtol=1e-5)


EDGES = (0.02, 0.1, 0.5, 0.75, 0.9, 0.98)
LENGTHS = (0.3, 0.9, 0.96)
RANGES = {
    "beta": (families.beta(-3.0, 4.0), [[p] for p in EDGES]),
    "beta_far": (families.beta(1000.0, 1001.0), [[p] for p in EDGES]),
    "log2_beta": (families.log2_beta(), [[p] for p in EDGES]),
    "disk_unit": (families.disk(5.0, angle="unit"), [[0.5, p] for p in EDGES] + [[0.98, 0.02]]),
    "disk": (families.disk(2.0), [[0.9, p, -0.2] for p in LENGTHS] + [[0.02, 0.0, 0.96]]),
    "disk_linear": (families.disk(2.0, radial="linear"), [[p, 0.5, 0.5] for p in EDGES]),
    "circle": (families.circle(), [[p / 2, p * 0.75**0.5] for p in LENGTHS]),
    "exponential": (families.exponential(0.1), [[p] for p in (0.06, 0.1, 0.3, 10.0)]),
    "normal": (families.normal(1.0, 2.0), [[0.0, 1.6], [1.0, 20.0], [-4.0, 3.0]]),
    "categorical": (families.categorical([1, 2, 3], eps=0.01), [[0.01, 0.01, 0.98]]),
}


@pytest.mark.parametrize("n", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", RANGES)
def test_weights_average_one_over_the_whole_range_of_phi(name, n):
    """In the task's own coordinates; what is rare must not weigh too much."""
    family, phis = RANGES[name]

    @jax.jit
    def weights(key, phi):
        tasks = family.sample(key, phi, n)
        return jnp.exp(family.log_prob(tasks, family.phi0) - family.log_prob(tasks, phi))

    for phi in np.asarray(phis, np.float32):
        np.testing.assert_allclose(family.project(phi), phi, rtol=1e-5)
        w = np.asarray(weights(jax.random.key(0), phi), float)
        assert abs(w.mean() - 1) < 6 * w.std() / n**0.5 + 1e-3, (phi, w.mean(), w.std())
        assert w.std() < 200, (phi, w.std())


def test_circle_is_the_wrapped_cauchy_of_scipy():
    family = families.circle()
    phi = jnp.array([0.3, -0.4])  # length 1/2
    z = np.asarray(jax.jit(family.sample, static_argnums=2)(jax.random.key(0), phi, 50_000))[:, 0]
    own = stats.wrapcauchy(0.5)
    turned = np.mod(z - np.arctan2(-0.4, 0.3), 2 * np.pi)
    assert stats.kstest(turned, own.cdf).pvalue > 0.01
    got = jax.jit(family.log_prob)(jnp.asarray(z[:50, None]), phi)
    np.testing.assert_allclose(got, own.logpdf(turned[:50]) + np.log(2 * np.pi), atol=1e-5)
    np.testing.assert_allclose(family.log_prob(jnp.ones((3, 1)), family.phi0), 0, atol=1e-6)


def test_circle_maximum_likelihood_against_scipy():
    rng = np.random.default_rng(6)
    z, w = rng.vonmises(2.0, 3.0, 40), rng.exponential(size=40)  # not of the family
    family = families.circle(fit="ml")
    data = jnp.asarray(z[:, None], jnp.float32), jnp.asarray(w, jnp.float32)

    def loss(m):
        if m @ m >= 1:
            return np.inf
        square = (np.cos(z) - m[0]) ** 2 + (np.sin(z) - m[1]) ** 2
        return -(w * (np.log1p(-(m @ m)) - np.log(square))).sum()

    want = optimize.minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6}).x
    np.testing.assert_allclose(jax.jit(family.fit)(*data), want, atol=1e-3)
    mean = (w * np.exp(1j * z)).sum() / w.sum()
    moments = families.circle().fit(*data)
    np.testing.assert_allclose(moments, [mean.real, mean.imag], atol=1e-5)
    one = family.fit(jnp.array([[2.5]]), jnp.ones(1))  # a tail of one task
    np.testing.assert_allclose(one, 0.96 * np.array([np.cos(2.5), np.sin(2.5)]), rtol=1e-4)


@pytest.mark.parametrize("around", [0.0, 2.0, np.pi])
def test_a_disk_has_no_seam(around):
    family = families.disk(5.0)
    rng = np.random.default_rng(7)
    angle = around + rng.uniform(-0.15, 0.15, 200)
    goals = np.stack([4 * np.cos(angle), 4 * np.sin(angle)], axis=-1).astype(np.float32)
    phi = family.fit(jnp.asarray(goals), jnp.ones(200))
    np.testing.assert_allclose(
        phi[1:], np.array([np.cos(around), np.sin(around)]) * 0.996, atol=0.02
    )
    z = np.asarray(family.sample(jax.random.key(0), phi, 1000))
    off = np.abs(np.angle(np.exp(1j * (np.arctan2(z[:, 1], z[:, 0]) - around))))
    assert np.mean(off < 0.3) > 0.9


def test_beta_without_clip_stays_finite_at_the_ends():
    family = families.beta(0, 1, eps=0.0)
    likeliest = families.beta(0, 1, eps=0.0, fit="ml")
    ends = jnp.array([[0.0], [1.0]])
    sample, log_prob = jax.jit(family.sample, static_argnums=2), jax.jit(family.log_prob)
    for phi in (0.0, 0.1, 0.5, 1.0):
        assert jnp.isfinite(log_prob(ends, jnp.array([phi]))).all()
        z = sample(jax.random.key(0), jnp.array([phi]), 1000)
        assert ((z >= 0) & (z <= 1)).all()
        for fit in (family.fit, likeliest.fit):
            assert 0 < fit(jnp.full((3, 1), phi), jnp.ones(3))[0] < 1


@pytest.mark.parametrize("mean", [0.1, 0.5, 0.9])
def test_beta_maximum_likelihood_against_scipy(mean):
    rng = np.random.default_rng(4)
    u, w = rng.beta(3 * mean, 3 - 3 * mean, 40), rng.exponential(size=40)  # not of the family
    u = u.clip(1e-6, 1 - 1e-6)  # what float32 can tell from the ends
    data = jnp.asarray(u[:, None], jnp.float32), jnp.asarray(w, jnp.float32)

    def loss(p):
        return -(w * stats.beta(2 * p, 2 - 2 * p).logpdf(u)).sum()

    want = optimize.minimize_scalar(loss, bounds=(0.001, 0.999), method="bounded").x
    got = jax.jit(families.beta(0.0, 1.0, eps=0.001, fit="ml").fit)(*data)
    np.testing.assert_allclose(got[0], want, atol=2e-4)
    moments = families.beta(0.0, 1.0, eps=0.001).fit(*data)
    np.testing.assert_allclose(moments[0], (w * u).sum() / w.sum(), rtol=1e-5)
    assert abs(moments[0] - got[0]) > 1e-3


def test_closed_form_fits_maximise_the_likelihood():
    rng = np.random.default_rng(5)
    w = jnp.asarray(rng.exponential(size=30), jnp.float32)
    for name in ("exponential", "normal", "categorical"):
        family = FAMILIES[name]
        log_prob = jax.jit(family.log_prob)
        z = family.sample(jax.random.key(5), family.phi0, 30)
        best = family.fit(z, w)
        value = (w * log_prob(z, best)).sum()
        for seed in range(4):
            other = best * jnp.asarray(rng.uniform(0.9, 1.1, best.shape), jnp.float32)
            other = other / other.sum() if name == "categorical" else other
            assert (w * log_prob(z, other)).sum() < value + 1e-4, (name, seed)


def test_degenerate_tails_leave_a_distribution():
    one = jnp.ones(1)
    assert families.exponential(0.1).fit(jnp.zeros((1, 1)), one)[0] > 0
    np.testing.assert_allclose(
        families.normal(0.0, 2.0).fit(jnp.array([[3.0]]), one), [3.0, 0.02], rtol=1e-6
    )
    floored = families.categorical([1, 1, 1]).fit(jnp.array([[2.0]]), one)
    np.testing.assert_allclose(floored, np.array([0.01, 0.01, 1.0]) / 1.02, rtol=1e-5)
    exact = families.categorical([1, 1, 1], eps=0.0).fit(jnp.array([[2.0]]), one)
    np.testing.assert_array_equal(exact, [0, 0, 1])


def test_product_is_the_sum_of_its_parts():
    a, b = families.exponential(0.1, name="a"), families.normal([0.0, 1.0], 1.0, name="b")
    both = families.product(a, b)
    assert both.names == ("a", "b_0", "b_1")
    assert both.phi_names == ("mean_a", "mean_b_0", "mean_b_1", "std_b_0", "std_b_1")
    phi = jnp.array([0.2, 0.5, 0.5, 2.0, 1.0])
    z = both.sample(jax.random.key(0), phi, 8)
    np.testing.assert_allclose(
        both.log_prob(z, phi), a.log_prob(z[:, :1], phi[:1]) + b.log_prob(z[:, 1:], phi[1:])
    )
    w = jnp.arange(8.0)
    want = jnp.concatenate([a.fit(z[:, :1], w), b.fit(z[:, 1:], w)])
    np.testing.assert_array_equal(both.fit(z, w), want)
    for phi in far_from(both):
        want = jnp.concatenate([a.project(phi[:1]), b.project(phi[1:])])
        np.testing.assert_array_equal(both.project(phi), want)


def test_making_families_starts_no_device():
    """So that commands answer at once, and programs of many hosts can begin as JAX asks for."""
    code = """
import sys, envs
from jax._src import xla_bridge
points = envs.Point(), envs.Point(goals="half-circle")
bodies = envs.HalfCheetah(), envs.Ant(), envs.Humanoid("mujoco")
for env in (envs.KhazadDum(), envs.Sine(), *points, *bodies):
    env.family
assert not xla_bridge._backends, xla_bridge._backends
assert not {"mujoco", "warp"} & {name.split(".")[0] for name in sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_factories_work_inside_a_traced_function():
    @jax.jit
    def fn(key):
        family = families.product(families.beta([0, 0], 1.0), families.normal(0.0, 1.0, name="b"))
        return family.log_prob(jax.random.uniform(key, (3, 3)), family.phi0)

    assert fn(jax.random.key(0)).shape == (3,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: families.exponential(0.0), "mean=0.0"),
        (lambda: families.beta(1.0, 1.0), "low=1.0 must be below high=1.0"),
        (lambda: families.beta([0.0, 1.0], [1.0, 2.0, 3.0]), "one length"),
        (lambda: families.beta(0.0, float("inf")), "finite"),
        (lambda: families.beta(0.0, 1.0, eps=0.5), r"\[0, 0.5\)"),
        (lambda: families.beta([0, 0], 1.0, name=("a",)), "1 names"),
        (lambda: families.log2_beta(dim=0), "dim=0"),
        (lambda: families.disk(-1.0), "radius=-1.0"),
        (lambda: families.normal(0.0, 0.0), "std=0.0"),
        (lambda: families.normal(0.0, 1.0, min_std=0.0), "min_std=0.0"),
        (lambda: families.categorical([1.0]), "probs"),
        (lambda: families.categorical([1.0, 0.0]), "probs"),
        (lambda: families.categorical([1, 1], eps=0.5), r"\[0, 0.5\)"),
        (lambda: families.product(), "at least one"),
        (lambda: families.product(FAMILIES["beta"], FAMILIES["exponential"]), "unique"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_wrong_words():
    # Unchecked code reaches these; under the tests' type checker the annotation speaks first.
    with pytest.raises(Exception, match="fit"):
        families.beta(0.0, 1.0, fit="least squares")
    with pytest.raises(Exception, match="radial"):
        families.disk(1.0, radial="square")
