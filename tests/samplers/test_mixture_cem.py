import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from roml_jax import families, risk
from roml_jax.samplers import fixed, mixture_cem
from roml_jax.samplers._kernels import draw_kernels, kernel_log_density, kernel_width, resample
from roml_jax.types import UNTOLD

LINE = families.beta(0.0, 1.0)
DISK = families.disk(1.0)
log_density = jax.jit(
    lambda u, c, w, around: kernel_log_density(u, c, w, np.array(around)), static_argnums=3
)
widths = jax.jit(lambda u, w, around: kernel_width(u, w, np.array(around)), static_argnums=2)


ABSCISSAE = np.sort(  # of a million uniform points of the disk
    np.sqrt(np.random.default_rng(0).random(10**6))
    * np.cos(2 * np.pi * np.random.default_rng(1).random(10**6))
)


def points(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("width", [0.005, 0.1, 0.4])
@pytest.mark.parametrize("around", [False, True])
def test_the_density_integrates_to_one(width, around):
    grid = np.linspace(0, 1, 8001, dtype=np.float32)[:, None]
    for centre in (0.0, 0.03, 0.5, 1.0):
        k = np.exp(log_density(grid, jnp.full((1, 1), centre), jnp.array([width]), (around,)))
        assert abs(np.trapezoid(k, grid[:, 0]) - 1) < 1e-4
        if around:
            np.testing.assert_allclose(k[0], k[-1], rtol=1e-3, atol=1e-6)


def test_the_density_is_that_of_the_folded_normals():
    centres, width, units = points(5, 2), np.array([0.07, 0.4]), points(40, 2, seed=1)
    shifts = np.arange(-8, 9)
    want = np.zeros(40)
    for c in centres:
        wrapped = sum(stats.norm.pdf(units[:, 0], c[0] + s, width[0]) for s in shifts)
        mirrored = sum(
            stats.norm.pdf(units[:, 1], sign * c[1] + 2 * s, width[1])
            for s in shifts
            for sign in (-1, 1)
        )
        want += wrapped * mirrored / len(centres)
    got = log_density(units, centres, jnp.asarray(width, jnp.float32), (True, False))
    np.testing.assert_allclose(got, np.log(want), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("around", [False, True])
def test_draws_have_the_density(around):
    centres, width = jnp.array([[0.02], [0.6]]), jnp.array([0.1])
    x = draw_kernels(jax.random.key(0), centres, width, np.array([around]), 100_000)[:, 0]
    assert x.min() >= 0 and x.max() <= 1
    counts = np.histogram(x, 20, (0, 1))[0]
    grid = np.linspace(0, 1, 20_001, dtype=np.float32)
    k = np.exp(np.asarray(log_density(grid[:, None], centres, width, (around,)), np.float64))
    bins = np.diff(np.interp(np.linspace(0, 1, 21), grid[1:], np.cumsum((k[1:] + k[:-1]) / 2)))
    assert stats.chisquare(counts, bins / bins.sum() * counts.sum()).pvalue > 1e-3


def test_widths():
    one = np.ones(400, np.float32)
    x = points(400, 3)
    x[:, 1] = 0.9 + 0.1 * x[:, 1]  # one region
    x[:, 2] = np.where(points(400, seed=1) < 0.5, 0.05 * x[:, 2], 1 - 0.05 * x[:, 2])  # two
    got = widths(x, one, (False,) * 3)
    scott = 12**-0.5 * 400 ** (-1 / 6)  # two coordinates are not uniform
    np.testing.assert_allclose(got[0], 400 ** (-1 / 3), rtol=1e-5)
    np.testing.assert_allclose(got[1:], [0.1 * scott, 0.1 * scott], rtol=0.25)
    assert (got[1:] < 0.1 * scott).all()  # the densest quarter is the narrowest
    # On a circle, a region across the seam is one: 0.05 on either side of it.
    np.testing.assert_allclose(widths(x, one, (False, False, True))[2], 0.1 * scott, rtol=0.25)
    # Points without weight are not there; weights count by their effective number.
    more = np.concatenate([x, points(400, 3, seed=2)])
    np.testing.assert_allclose(widths(more, np.repeat([1, 0], 400) * 7.0, (False,) * 3), got, 1e-5)
    few = widths(x[:2], one[:2], (False,) * 3)
    np.testing.assert_allclose(few, 0.4)
    np.testing.assert_allclose(widths(x, 0 * one, (False,) * 3), 0.4)


def test_resampling_is_even():
    draw = jax.jit(resample, static_argnums=2)
    weights = jnp.array([0.0, 1.0, 0.0, 2.0, 5.0, 0.0])
    for seed in range(20):
        i = np.asarray(draw(jax.random.key(seed), weights, 16))
        np.testing.assert_array_equal(np.bincount(i, minlength=6), 2 * weights)
    assert (draw(jax.random.key(0), 0 * weights, 16) < 6).all()


def play(sampler, n, steps, returns, look=lambda draw: draw.tasks, seed=0):
    """The last state, and what is looked at and told at every step."""

    @jax.jit
    def run(key):
        def step(state, key):
            key_draw, key_returns, key_update = jax.random.split(key, 3)
            draw = sampler.sample(key_draw, state, n)
            scores = returns(draw.tasks, key_returns)
            state, info = sampler.update(key_update, state, draw, scores)
            return state, (look(draw), info)

        first, key = jax.random.split(key)
        return jax.lax.scan(step, sampler.init(first), jax.random.split(key, steps))

    state, (seen, info) = run(jax.random.key(seed))
    return state, np.asarray(seen), jax.device_get(info)


def tent(tasks, key):
    """Low at both ends of the line."""
    return -jnp.abs(tasks[:, 0] - 0.5)


def test_two_regions_are_held_with_few_tasks_a_step():
    _, tasks, info = play(mixture_cem(LINE, alpha=0.05), 16, 200, tent)
    x = tasks[60:].ravel()
    low, high = (x < 0.025).mean(), (x > 0.975).mean()
    assert low + high > 0.7  # of 0.81, that is 0.8 and what is there of the other fifth
    assert min(low, high) > 0.2
    np.testing.assert_allclose(info["q_alpha"][60:].mean(), -0.475, atol=0.003)
    assert (info["nu"][1:] == np.float32(0.2)).all() and info["nu"][0] == 1
    assert info["ess"][0] == 1 and (info["ess"][60:] < 0.5).all()


def test_a_region_across_the_seam_is_held():
    """A disk's second unit is its angle, with the seam where x is negative."""
    share = {}
    for circular in ((), (1,)):
        sampler = mixture_cem(DISK, alpha=0.05, circular=circular, kernels=32)
        state, z, _ = play(sampler, 64, 60, lambda z, key: z[:, 0])
        share[circular] = (z[20:, :, 0] < ABSCISSAE[50_000]).mean()
        assert np.abs((z[20:, :, 1] > 0).mean() - 0.5) < 0.05
    assert share[(1,)] > 0.7
    # Across the seam the narrow kernel goes on: no fold, no gap.
    assert float(state.width[1]) < 0.05


def test_ten_dimensions_of_which_one_matters():
    ten = families.beta([0.0] * 10, [1.0] * 10)
    sampler = mixture_cem(ten, alpha=0.05)
    state, z, info = play(sampler, 32, 100, lambda z, key: -z[:, 3])
    z = z[50:]
    assert (z[..., 3] > 0.95).mean() > 0.7
    others = np.delete(z.reshape(-1, 10), 3, axis=1)
    assert max(stats.kstest(x, "uniform").statistic for x in others.T) < 0.1
    assert info["ess"][50:].mean() > 0.15  # other coordinates cost nothing
    assert float(state.width[3]) < 0.02 and float(np.median(state.width)) == np.float32(0.4)


def test_weights_lead_back_to_the_original_distribution():
    """A million draws from a proposal far from uniform: moments of z under D, and the CVaR."""
    sampler = mixture_cem(DISK, alpha=0.1, kernels=8)
    state, _, _ = play(sampler, 64, 20, lambda z, key: z[:, 0])
    draw = jax.jit(sampler.sample, static_argnums=2)(jax.random.key(5), state, 1_000_000)
    w, z = np.asarray(draw.weights, np.float64), np.asarray(draw.tasks, np.float64)
    assert not draw.is_reference.any() and (z[:, 0] < -0.6).mean() > 0.5
    assert w.max() <= 1 / 0.2 + 1e-4
    np.testing.assert_allclose(w.mean(), 1, atol=0.005)
    np.testing.assert_allclose((w[:, None] * z).mean(axis=0), 0, atol=0.005)
    np.testing.assert_allclose((w[:, None] * z**2).mean(axis=0), 0.25, atol=0.005)
    told = risk.summarize(draw, draw.tasks[:, 0], 0.1)
    np.testing.assert_allclose(told["reference_cvar"], ABSCISSAE[:100_000].mean(), atol=0.005)


def test_few_draws_are_unbiased_too():
    """0.2 of 3 draws is no whole number of uniform ones."""
    sampler = mixture_cem(LINE, alpha=0.1, kernels=8)
    state, _, _ = play(sampler, 64, 20, lambda z, key: -z[:, 0])

    def weigh(key):
        draw = sampler.sample(key, state, 3)
        return jnp.stack([draw.weights.mean(), (draw.weights * draw.tasks[:, 0]).mean()])

    with jax.debug_key_reuse(False):
        seen = jax.jit(jax.vmap(weigh))(jax.random.split(jax.random.key(0), 100_000))
    np.testing.assert_allclose(np.asarray(seen, np.float64).mean(axis=0), [1, 0.5], atol=0.015)


def test_the_fixed_point_is_the_tail_blurred_by_a_kernel():
    """Returns that depend on the task alone; the kernels of many steps are one density."""
    sampler = mixture_cem(LINE, alpha=0.2, nu=0.3, decay=1.0)

    def low_in_the_middle(tasks, key):
        return jnp.abs(tasks[:, 0] - 0.5)

    state, tasks, _ = play(sampler, 64, 300, low_in_the_middle)
    x = np.sort(tasks[100:].ravel())
    width = float(state.width[0])
    grid = np.linspace(-1, 2, 3001)
    box = ((grid > 0.4) & (grid < 0.6)) / 0.2
    blurred = np.convolve(box, stats.norm.pdf(grid - 0.5, scale=width), "same") * 1e-3
    q = np.where((grid >= 0) & (grid <= 1), 0.3 + 0.7 * blurred, 0)
    want = np.interp(x, grid, np.cumsum(q) * 1e-3)
    assert np.abs(want - (np.arange(x.size) + 0.5) / x.size).max() < 0.02


@pytest.mark.parametrize("min_ess", [0.5, 0.9, 1.0])
def test_the_effective_sample_size_has_a_floor(min_ess):
    sampler = mixture_cem(LINE, alpha=0.05, min_ess=min_ess)
    _, _, info = play(sampler, 512, 12, tent)
    np.testing.assert_allclose(info["ess"][4:].mean(), min_ess, atol=0.06)
    assert (info["nu"] > 0.4).all()


def test_returns_that_are_not_finite_take_no_part():
    def returns(tasks, key):
        z = tasks[:, 0]
        z = jnp.where(z < 0.2, jnp.nan, jnp.where(z > 0.9, -jnp.inf, -z))
        return jnp.where((z > 0.2) & (z < 0.3), jnp.inf, z)

    state, tasks, _ = play(mixture_cem(LINE, alpha=0.1), 32, 60, returns)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert ((tasks[30:] > 0.75) & (tasks[30:] <= 0.91)).mean() > 0.6

    def nothing(tasks, key):
        return jnp.full(tasks.shape[0], jnp.inf)

    with jax.debug_nans(True):  # of its own, there is none
        state, _, info = play(mixture_cem(LINE, alpha=0.1), 8, 3, nothing)
    assert float(state.share) == 1 and not info["selected"].any() and (info["nu"] == 1).all()
    assert (info["q_alpha"] == UNTOLD).all() and (info["q_beta"] == UNTOLD).all()


def test_the_memory_is_a_ring():
    sampler = mixture_cem(LINE, alpha=0.5, memory=10, decay=0.5)
    state = sampler.init(jax.random.key(0))
    sample, update = jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)
    draws = []
    for i in range(3):
        draws.append(sample(jax.random.key(2 * i), state, 4))
        returns = -draws[-1].tasks[:, 0]
        state, _ = update(jax.random.key(2 * i + 1), state, draws[-1], returns)
    tasks = np.concatenate([d.tasks[:, 0] for d in draws])[-10:]
    faded = np.concatenate([d.weights / 2 ** (2 - i) for i, d in enumerate(draws)])[-10:]
    np.testing.assert_allclose(state.units[:, 0], tasks, atol=1e-5)
    np.testing.assert_array_equal(state.returns, -tasks)
    np.testing.assert_allclose(state.trust, faded, rtol=1e-6)
    draw = sample(jax.random.key(8), state, 16)  # more than are remembered
    state, _ = update(jax.random.key(9), state, draw, -draw.tasks[:, 0])
    np.testing.assert_array_equal(state.returns, -draw.tasks[-10:, 0])


def test_alpha_may_be_traced_and_doubles_are_taken(enable_x64):
    def last(alpha):
        sampler = mixture_cem(LINE, alpha=alpha)
        state = sampler.init(jax.random.key(0))
        draw = sampler.sample(jax.random.key(1), state, 64)
        return sampler.update(jax.random.key(2), state, draw, -draw.tasks[:, 0])[1]["selected"]

    known = [jax.jit(last, static_argnums=0)(a) for a in (0.1, 0.5)]
    np.testing.assert_array_equal(jax.jit(jax.vmap(last))(jnp.array([0.1, 0.5])), known)

    def as_double(tasks, key):
        assert tasks.dtype == jnp.float32
        return tasks[:, 0].astype(jnp.float64)

    with enable_x64(True):
        state, _, _ = play(mixture_cem(LINE, alpha=0.1), 8, 2, as_double)
    assert [x.dtype for x in state] == [jnp.float32] * 6
    with enable_x64(True), jax.numpy_dtype_promotion("strict"):
        sampler = mixture_cem(DISK, alpha=0.1, circular=(1,))
        state, _, _ = play(sampler, 8, 2, lambda z, key: z[:, 0])
    assert [x.dtype for x in state] == [jnp.float32] * 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"beta": 1.0}, "beta=1.0"),
        ({"nu": 0.0}, "nu=0.0"),
        ({"memory": 0}, "memory=0"),
        ({"kernels": 0}, "kernels=0"),
        ({"decay": 0.0}, "decay=0.0"),
        ({"min_ess": 1.5}, "min_ess=1.5"),
        ({"circular": (2,)}, "each in 0 … 1"),
        ({"family": LINE._replace(from_units=None)}, "no from_units"),
    ],
)
def test_wrong_values(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        mixture_cem(**({"family": DISK, "alpha": 0.1} | settings))
    assert "\n" not in str(error.value)


def test_a_draw_of_another_sampler_is_refused():
    sampler = mixture_cem(LINE, alpha=0.1)
    draw = fixed(LINE).sample(jax.random.key(0), (), 4)
    update = functools.partial(sampler.update, jax.random.key(1), sampler.init(jax.random.key(2)))
    with pytest.raises(ValueError, match="units"):
        update(draw, jnp.ones(4))
