import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from roml_jax import families, risk
from roml_jax.samplers import DROState, dro, fixed
from roml_jax.samplers.dro import estimate, project
from roml_jax.types import UNTOLD

LINE = families.beta(0.0, 1.0)
SQUARE = families.beta([0.0, 0.0], [1.0, 1.0])
TEN = families.beta([0.0] * 10, [1.0] * 10)


def simplex(n, seed, sharpness=2.0):
    x = np.exp(sharpness * np.random.default_rng(seed).normal(size=n))
    return (x / x.sum()).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.01, 0.2, 0.35, 0.9, 1.0])
def test_the_projection_is_the_root(alpha):
    """``min(bound, c q)`` with the c that makes it sum to 1, found by bisection."""
    for seed in range(5):
        q, bound = simplex(20, seed).astype(np.float64), 1 / (alpha * 20)

        def excess(c, q=q, bound=bound):
            return np.minimum(bound, c * q).sum() - 1

        want = np.minimum(bound, q * optimize.brentq(excess, 0.5, 1e7)) if alpha < 1 else 1 / 20
        got = np.asarray(jax.jit(project)(jnp.asarray(q, jnp.float32), alpha))
        np.testing.assert_allclose(got, np.broadcast_to(want, 20), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got.sum(), 1, rtol=1e-6)
    even = jnp.full(20, 0.05)
    np.testing.assert_allclose(project(even, alpha), even, rtol=1e-5)  # ties


def state(q, loss, visits):
    return DROState(jnp.asarray(q), jnp.asarray(loss, jnp.float32), jnp.asarray(visits, jnp.int32))


def run(sampler, n, steps, returns, seed=0):
    """The last state; tasks, weights, estimates and info of every step."""

    @jax.jit
    def scan(key):
        def step(state, key):
            key_draw, key_noise, key_update = jax.random.split(key, 3)
            draw = sampler.sample(key_draw, state, n)
            told = returns(draw.tasks, key_noise)
            new, info = sampler.update(key_update, state, draw, told)
            return new, (draw.tasks, draw.weights, risk.summarize(draw, told, 0.1), info)

        return jax.lax.scan(step, sampler.init(jax.random.key(7)), jax.random.split(key, steps))

    return jax.device_get(scan(jax.random.key(seed)))


def test_the_weights_end_at_those_of_the_dual_form_of_the_cvar():
    """With returns of the cell alone: by a linear programme, and by the CVaR itself."""
    losses = np.random.default_rng(0).permutation(10).astype(np.float32)
    sampler = dro(LINE, alpha=0.25, bins=10, decay=0.0, eta=0.3)

    def returns(tasks, key):
        return -jnp.asarray(losses)[jnp.minimum((tasks[:, 0] * 10).astype(jnp.int32), 9)]

    last, (_, _, told, info) = run(sampler, 32, 300, returns)
    best = optimize.linprog(-losses, A_eq=np.ones((1, 10)), b_eq=[1], bounds=(0, 0.4))
    np.testing.assert_allclose(last.q, best.x, atol=1e-4)  # two cells in full, and half of one
    cvar = risk.weighted_cvar(-jnp.asarray(losses), jnp.ones(10), 0.25)
    np.testing.assert_allclose(info["cell_return"][-1], cvar, rtol=1e-3)
    np.testing.assert_allclose(last.loss, losses, rtol=1e-5)
    np.testing.assert_allclose(told["reference_mean"][100:].mean(), -4.5, atol=0.1)


def test_losses_are_estimated_without_bias():
    """Over many steps of four draws, from uneven weights and wrong running means."""
    q, visits = simplex(6, 1, 1.0), np.array([3, 0, 2, 1, 0, 5])
    now = state(q, visits * np.array([1.0, 0, -2, 5, 0, 0.5]), visits)
    sampler, true = dro(LINE, alpha=0.3, bins=6), jnp.arange(6.0)

    def one(key):
        key_draw, key_noise = jax.random.split(key)
        cell = sampler.sample(key_draw, now, 4).extras["dro_cell"]
        losses = true[cell] + jax.random.normal(key_noise, (4,))
        return estimate(now, 0.2, cell, losses, jnp.ones(4, bool))

    got = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40_000)))
    error = got.std(axis=0) / 200
    assert (np.abs(got.mean(axis=0) - true) < 4 * error).all() and error.max() < 0.1


@pytest.mark.parametrize(("family", "dims"), [(SQUARE, ()), (TEN, (7, 2))])
def test_draws_have_the_density_and_weights_lead_back(family, dims):
    sampler = dro(family, alpha=0.1, bins=11, nu=0.3, dims=dims)  # three by three
    q, (a, b) = simplex(9, 2, 1.0), dims or (0, 1)
    now = state(q, np.zeros(9), np.zeros(9))
    draw = jax.jit(sampler.sample, static_argnums=2)(jax.random.key(0), now, 200_000)
    z, w = np.asarray(draw.tasks, np.float64), np.asarray(draw.weights, np.float64)
    cell = 3 * np.floor(3 * z[:, a]).astype(int) + np.floor(3 * z[:, b]).astype(int)
    np.testing.assert_array_equal(cell, draw.extras["dro_cell"])
    density = 0.3 + 0.7 * 9 * q
    np.testing.assert_allclose(np.bincount(cell) / len(cell), density / 9, atol=2e-3)
    np.testing.assert_allclose(w, 1 / density[cell], rtol=1e-5)
    np.testing.assert_allclose(w.mean(), 1, atol=0.01)
    for x in (z[:, a], z[:, b], z[:, 0]):
        np.testing.assert_allclose([(w * x).mean(), (w * x**2).mean()], [1 / 2, 1 / 3], atol=0.01)
    inside = z[cell == 4][:, [a, b]] * 3 - 1  # uniform in a cell
    np.testing.assert_allclose(inside.mean(axis=0), 0.5, atol=0.01)
    assert not draw.is_reference.any() and w.max() <= 1 / 0.3


def test_draws_gather_at_both_ends_with_few_noisy_tasks_a_step():
    def returns(tasks, key):
        noise = 0.05 * jax.random.normal(key, tasks.shape[:1])
        return -jnp.abs(tasks[:, 0] - 0.5) + noise

    _, (z, w, told, info) = run(dro(LINE, alpha=0.1, bins=32), 16, 200, returns)
    z = z[80:, :, 0]
    low, high = (z < 0.0625).mean(), (z > 0.9375).mean()
    assert low + high > 0.6 and min(low, high) > 0.2
    np.testing.assert_allclose(w[80:].mean(), 1, atol=0.05)
    np.testing.assert_allclose(told["reference_mean"][80:].mean(), -0.25, atol=0.02)
    assert info["ess"][0] == pytest.approx(1) and info["ess"][80:].mean() < 0.6


def test_weights_follow_a_tail_that_moves():
    """The tail jumps from one end to the other: with decay the weights come after."""
    sampler = dro(LINE, alpha=0.1, bins=10, eta=0.2)
    step, sample = jax.jit(sampler.update), jax.jit(sampler.sample, static_argnums=2)
    now, where = sampler.init(jax.random.key(0)), []
    for i in range(120):
        draw = sample(jax.random.key(2 * i), now, 16)
        z = draw.tasks[:, 0] if i >= 60 else 1 - draw.tasks[:, 0]
        now, _ = step(jax.random.key(2 * i + 1), now, draw, -z)
        where.append(int(np.argmax(now.q)))
    assert where[59] == 0 and where[-1] == 9 and float(now.q[9]) > 0.8


def test_returns_that_are_not_finite_take_no_part():
    def some(tasks, key):
        return jnp.where(tasks[:, 0] > 0.5, jnp.nan, -tasks[:, 0])

    last, _ = run(dro(LINE, alpha=0.1, bins=10), 16, 100, some)
    assert all(np.isfinite(x).all() for x in last) and (last.visits[5:] == 0).all()
    assert np.argmax(last.q) == 4
    with jax.debug_nans(True):  # of its own, there is none
        for alpha in (0.1, 1.0):
            sampler = dro(LINE, alpha=alpha, bins=10)
            last, (*_, info) = run(sampler, 8, 3, lambda z, key: z[:, 0] + jnp.inf)
            np.testing.assert_allclose(last.q, 0.1, rtol=1e-6)
            assert (info["cell_return"] == UNTOLD).all()


def test_alpha_may_be_traced_seeds_may_be_mapped_and_doubles_taken(enable_x64):
    def last(alpha, key):
        sampler = dro(LINE, alpha=alpha, bins=10)
        now = sampler.init(jax.random.key(0))
        draw = sampler.sample(key, now, 64)
        return sampler.update(jax.random.key(2), now, draw, -draw.tasks[:, 0])[0].q

    keys = jax.random.split(jax.random.key(1), 2)
    known = [jax.jit(last, static_argnums=0)(a, key) for a, key in zip((0.1, 0.9), keys)]  # noqa: B905
    both = jax.jit(jax.vmap(last))(jnp.array([0.1, 0.9]), keys)
    np.testing.assert_allclose(both, known, rtol=1e-4)
    assert both[1].max() < 0.1111 < both[0].max()
    with enable_x64(True), jax.numpy_dtype_promotion("strict"):
        end, _ = run(dro(SQUARE, alpha=0.1), 8, 2, lambda z, key: z[:, 0])
    assert [x.dtype for x in end] == [jnp.float32, jnp.float32, jnp.int32]
    with enable_x64(True):
        end, _ = run(dro(LINE, alpha=0.1), 8, 2, lambda z, key: z[:, 0].astype(jnp.float64))
    assert [x.dtype for x in end] == [jnp.float32, jnp.float32, jnp.int32]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"eta": 0.0}, "eta=0.0"),
        ({"nu": 0.0}, "nu=0.0"),
        ({"decay": 1.5}, "decay=1.5"),
        ({"bins": 3}, "bins=3 is less than two parts of each of 2"),
        ({"dims": (2,)}, "different ones in 0 … 1"),
        ({"dims": (0, 0)}, "different ones"),
        ({"family": TEN}, "10 coordinates are too many"),
        ({"family": LINE._replace(from_units=None)}, "no from_units"),
    ],
)
def test_wrong_values(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        dro(**({"family": SQUARE, "alpha": 0.1} | settings))
    assert "\n" not in str(error.value)


def test_a_draw_of_another_sampler_is_refused():
    sampler = dro(LINE, alpha=0.1)
    draw = fixed(LINE).sample(jax.random.key(0), (), 4)
    with pytest.raises(ValueError, match="dro_cell"):
        sampler.update(jax.random.key(1), sampler.init(jax.random.key(2)), draw, jnp.ones(4))
