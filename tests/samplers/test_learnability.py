import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from roml_jax import families
from roml_jax.samplers import fixed, learnability
from roml_jax.types import UNTOLD

LINE = families.beta(0.0, 1.0)


def run(sampler, n, steps, returns, seed=0, extras=None):
    """The last state; tasks, which are new, and info of every step."""

    @jax.jit
    def scan(key):
        def step(state, key):
            key_draw, key_play, key_update = jax.random.split(key, 3)
            draw = sampler.sample(key_draw, state, n)
            told = returns(draw.tasks[:, 0], key_play)
            if extras:
                draw = draw._replace(extras=draw.extras | extras(told))
            new, info = sampler.update(key_update, state, draw, told)
            return new, (draw.tasks[:, 0], draw.is_reference, info)

        return jax.lax.scan(step, sampler.init(jax.random.key(7)), jax.random.split(key, steps))

    return jax.device_get(scan(jax.random.key(seed)))


def coin(z, key):
    """Return 1 with a probability that rises from 0 to 1 around 0.6, else -1."""
    rate = jax.nn.sigmoid((z - 0.6) * 40)
    return jnp.where(jax.random.uniform(key, z.shape) < rate, 1.0, -1.0)


@pytest.mark.parametrize("rate", [1.0, 0.25, 0.01])
def test_scores_are_what_is_expected_of_a_beta_distribution(rate):
    """Against SciPy's, for tasks of some visits that a success or a failure ended each."""
    sampler = learnability(LINE, threshold=0.0, capacity=8, min_fill=0.0, rate=rate, staleness=0.5)
    (state, _), (*_, info) = run(sampler, 3, 40, coin)
    v = np.minimum(state.visits, 1 / rate)
    s = v * state.mean
    want = [stats.beta(a, b).expect(lambda p: p * (1 - p)) for a, b in zip(s + 1, v - s + 1)]  # noqa: B905
    assert state.visits.max() > 3
    np.testing.assert_allclose(info["score"][-1], np.mean(want), rtol=1e-4)
    if rate == 0.01:  # means are then those of all visits
        np.testing.assert_allclose(s, np.round(s), atol=1e-4)
        assert (np.diff(want) <= 1e-5).all()  # the highest first


def test_draws_gather_where_half_of_the_visits_are_solved():
    sampler = learnability(LINE, threshold=0.0, capacity=32)
    for seed in range(2):
        _, (z, new, _) = run(sampler, 16, 300, coin, seed)
        known = z[150:][~new[150:]]
        assert (np.abs(known - 0.6) < 0.1).mean() > 0.55  # of 0.2
        assert abs(np.median(known) - 0.6) < 0.04
        np.testing.assert_allclose(new.mean(axis=1)[10:], 0.5)


def test_without_a_threshold_it_is_the_mean_of_new_tasks():
    """Returns are noise around the place, so that those at the mean are above it now and then."""
    sampler = learnability(LINE, capacity=32)
    noisy = lambda z, key: 1000 * (z + 0.1 * jax.random.normal(key, z.shape))  # noqa: E731
    _, (z, new, _) = run(sampler, 32, 200, noisy)
    known = z[100:][~new[100:]]
    assert (np.abs(known - 0.5) < 0.2).mean() > 0.8 and abs(known.mean() - 0.5) < 0.06


def test_outcomes_of_the_learner_stand_for_returns():
    """Returns say nothing; the share of four episodes that were solved is the success."""
    sampler = learnability(LINE, threshold=0.5, outcome="solved", capacity=8, min_fill=1.0)

    def extras(z):
        return {"solved": (z[:, None] > jnp.array([[0.2, 0.4, 0.6, 0.8]])).astype(jnp.int32)}

    (state, _), _ = run(sampler, 8, 30, lambda z, key: z, extras=extras)
    np.testing.assert_allclose(state.mean, np.floor(state.tasks[:, 0] * 5) / 4, atol=1e-5)
    assert (np.abs(state.mean - 0.5) <= 0.25).all()
    one = learnability(LINE, threshold=0.5, outcome="solved", capacity=8)
    (state, _), _ = run(one, 8, 3, lambda z, key: z, extras=lambda z: {"solved": z > 0.3})
    np.testing.assert_array_equal(state.mean, state.tasks[:, 0] > 0.3)
    for other, message in (({}, "adds no outcome 'solved'"), ({"solved": jnp.ones(3)}, r"\[n\]")):
        with pytest.raises(ValueError, match=message):
            run(sampler, 8, 1, lambda z, key: z, extras=lambda z, other=other: other or {"a": z})


def test_returns_that_are_not_finite_tell_nothing():
    def some(z, key):
        return jnp.where(z > 0.5, jnp.nan, z)

    for threshold in (None, 0.25):
        (state, _), _ = run(learnability(LINE, threshold=threshold, capacity=8), 8, 20, some)
        assert (state.tasks < 0.5).all() and np.isfinite(state.mean).all()
    with jax.debug_nans(True):
        _, (_, new, info) = run(learnability(LINE), 8, 3, lambda z, key: z + jnp.inf)
    assert new.all() and (info["score"] == UNTOLD).all() and not info["filled"].any()


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_seeds_may_be_mapped_and_doubles_taken(x64, promotion):
    sampler = learnability(LINE, capacity=4)

    def last(key):
        state = sampler.init(jax.random.key(0))
        draw = sampler.sample(key, state, 8)
        returns = draw.tasks[:, 0]
        if promotion == "standard":
            returns = returns.astype(jnp.float64)
        return sampler.update(jax.random.key(1), state, draw, returns)[0].buffer

    keys = jax.random.split(jax.random.key(1), 3)
    # One key is taken twice, to compare.
    with jax.numpy_dtype_promotion(promotion), jax.debug_key_reuse(False):
        both = jax.jit(jax.vmap(last))(keys)
        np.testing.assert_array_equal(both.tasks[2], jax.jit(last)(keys[2]).tasks)
    assert both.mean.dtype == jnp.float32 and len(np.unique(both.tasks)) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": np.inf}, "threshold=inf"),
        ({"replay_share": 1.0}, "replay_share=1.0"),
        ({"capacity": 0}, "capacity=0"),
        ({"min_fill": -1.0}, "min_fill=-1.0"),
        ({"staleness": 2.0}, "staleness=2.0"),
        ({"rate": 0.0}, "rate=0.0"),
    ],
)
def test_wrong_values(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        learnability(LINE, **settings)
    assert "\n" not in str(error.value)


def test_a_draw_of_another_sampler_is_refused():
    sampler = learnability(LINE)
    draw = fixed(LINE).sample(jax.random.key(0), (), 4)
    with pytest.raises(ValueError, match="buffer_slot"):
        sampler.update(jax.random.key(1), sampler.init(jax.random.key(2)), draw, jnp.ones(4))
