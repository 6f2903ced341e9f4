from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import families, risk, samplers
from roml_jax.samplers import (
    Draw,
    adversary,
    cem,
    designer,
    dro,
    fixed,
    learnability,
    mix,
    mixture_cem,
    naive,
    oracle,
    replay,
)
from roml_jax.types import UNTOLD

FAMILIES = {
    "exponential": families.exponential(0.1),
    "product": families.product(families.categorical([0.5, 0.5]), families.normal(0, 1)),
}
SAMPLERS = {
    "fixed": fixed,
    "cem": lambda family: cem(family, alpha=0.25, nu=0.25),
    "cem_batch": lambda family: cem(family, alpha=0.25, nu=0.25, batch=32, soft_update=0.5),
    "mix": lambda family: mix(cem(family, alpha=0.25, batch=24), fixed(family), 0.25),
    "mixture_cem": lambda family: mixture_cem(family, alpha=0.25, memory=24, kernels=8),
    "naive": lambda family: naive(family, alpha=0.25, pool=20),
    "naive_all": lambda family: naive(family, alpha=0.25, pool=20, repeat="all"),
    "adversary": lambda family: adversary(family, nu=0.25),
    "designer": lambda family: designer(family, layers=(4,), noise=3, epochs=2),
    "learnability": lambda family: learnability(family, capacity=24, min_fill=0.25),
    "dro": lambda family: dro(family, alpha=0.25, bins=9),
    "replay": lambda family: replay(family, capacity=24, min_fill=0.25),
    "replay_regret": lambda family: replay(family, score="regret", capacity=8, replay_share=0.9),
    "oracle": lambda family: oracle(family, family.phi0, nu=0.25),
}
N = 16


def test_every_sampler_is_tested():
    files = Path(samplers.__file__).parent.glob("[!_]*.py")
    stems = {file.stem for file in files}
    assert stems <= {*SAMPLERS}
    assert all(any(name.startswith(stem) for stem in stems) for name in SAMPLERS)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_contract(make, family, count_traces):
    sampler = make(family)
    sample, update = count_traces(sampler.sample), count_traces(sampler.update)

    @jax.jit
    def step(key, state):
        key_sample, key_update = jax.random.split(key)
        draw = sample(key_sample, state, N)
        returns = -draw.tasks.sum(axis=1)
        return draw, sampler.phi(state), update(key_update, state, draw, returns)

    state = sampler.init(jax.random.key(0))
    for leaf in jax.tree.leaves(state):
        assert isinstance(leaf, jax.Array) and leaf.size > 0 and not leaf.weak_type
    told = None
    for i in range(4):
        out = step(jax.random.key(i), state)
        spec = jax.tree.map(lambda x: (x.shape, x.dtype), (state, out[2]))
        assert spec[0] == spec[1][0]
        assert told is None or spec[1][1] == told  # info has one structure
        told = spec[1][1]
        state = out[2][0]
        draw, phi, (_, info) = jax.device_get(out)  # NumPy compiles nothing
        assert isinstance(draw, Draw)
        assert draw.tasks.shape == (N, len(family.names)) and draw.tasks.dtype == jnp.float32
        assert draw.weights.shape == draw.is_reference.shape == (N,)
        assert draw.weights.dtype == jnp.float32 and draw.is_reference.dtype == bool
        assert (draw.weights >= 0).all() and (draw.weights[draw.is_reference] == 1).all()
        assert all(x.shape[0] == N and np.isfinite(x).all() for x in draw.extras.values())
        assert phi.shape == family.phi0.shape and phi.dtype == jnp.float32
        assert not {"phi", "return_mean", "reference_mean"} & info.keys()  # the step's to tell
    assert sample.count == update.count == 1
    # One key gives one draw, another key another.
    again, other = (step(jax.random.key(i), state)[0].tasks for i in (3, 4))
    assert jnp.array_equal(again, step(jax.random.key(3), state)[0].tasks)
    assert not jnp.array_equal(again, other)


def test_fixed_draws_from_the_original_distribution():
    family = FAMILIES["exponential"]
    sampler = fixed(family)
    state = sampler.init(jax.random.key(0))
    draw = sampler.sample(jax.random.key(0), state, 16)
    assert draw.is_reference.all() and (draw.weights == 1).all()
    np.testing.assert_array_equal(draw.tasks, family.sample(jax.random.key(0), family.phi0, 16))
    assert sampler.update(jax.random.key(1), state, draw, -draw.tasks[:, 0]) == ((), {})
    np.testing.assert_array_equal(sampler.phi(state), family.phi0)


def run_naive(sampler, n, steps, score):
    """Last state, draws of some steps, and what these say of the two distributions."""
    sample, update = jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)
    state, draws, told = sampler.init(jax.random.key(0)), [], []
    for i in range(steps):
        draw = sample(jax.random.key(2 * i), state, n)
        returns = score(draw.tasks[:, 0])
        state, info = update(jax.random.key(2 * i + 1), state, draw, returns)
        assert info == {}
        draws.append(np.asarray(draw.tasks[:, 0]))
        told.append(risk.summarize(draw, returns, 0.15))
    return state, draws, told


def test_naive_repeats_the_worst_of_its_first_tasks():
    # A pool of 20 from steps of 8: the third step gives its first 4 tasks.
    sampler = naive(FAMILIES["exponential"], alpha=0.15, pool=20)
    state, draws, told = run_naive(sampler, 8, 30, lambda z: -z)
    pool = np.concatenate(draws[:3])[:20]
    np.testing.assert_array_equal(state.tasks[:, 0], pool)
    np.testing.assert_array_equal(state.returns, -pool)
    assert state.count == 20
    assert len(np.unique(np.concatenate(draws[:3]))) == 24
    worst, later = np.sort(pool)[-3:], np.concatenate(draws[3:])
    values, counts = np.unique(later, return_counts=True)
    np.testing.assert_array_equal(values, worst)
    assert counts.min() > 0.2 * later.size  # a third each
    np.testing.assert_allclose(told[2]["reference_mean"], -draws[2].mean(), rtol=1e-5)
    assert told[3]["reference_mean"] == told[3]["reference_cvar"] == UNTOLD
    np.testing.assert_allclose(told[3]["sample_mean"], -draws[3].mean(), rtol=1e-5)


@pytest.mark.parametrize(("pool", "n"), [(8, 8), (1, 8), (16, 8)])
def test_naive_pools_of_other_sizes(pool, n):
    sampler = naive(FAMILIES["exponential"], alpha=0.01, pool=pool)
    state, draws, _ = run_naive(sampler, n, 4, lambda z: -z)
    first = np.concatenate(draws)[:pool]
    assert state.count == pool
    assert (draws[3] == first.max()).all()


def test_naive_as_in_the_original_code_repeats_the_whole_pool():
    sampler = naive(FAMILIES["exponential"], alpha=0.15, pool=16, repeat="all")
    state, draws, _ = run_naive(sampler, 8, 60, lambda z: -z)
    values, counts = np.unique(np.concatenate(draws[2:]), return_counts=True)
    np.testing.assert_array_equal(values, np.sort(state.tasks[:, 0]))
    assert counts.min() > 0.4 * counts.mean()
    with pytest.raises(Exception, match="repeat"):
        naive(FAMILIES["exponential"], alpha=0.15, repeat="none")


def test_naive_does_not_remember_nan():
    sampler = naive(FAMILIES["exponential"], alpha=0.25, pool=8)
    _, draws, _ = run_naive(sampler, 8, 3, lambda z: jnp.where(z > 0.1, jnp.nan, -z))
    assert (draws[0] > 0.1).any()
    known = np.sort(draws[0][draws[0] <= 0.1])[-2:]
    assert np.isin(draws[1], known).all()


def test_oracle_draws_from_the_given_phi():
    family = families.normal(0.0, 1.0)
    sampler = oracle(family, [1.0, 1.0], nu=0.2)
    state = sampler.init(jax.random.key(0))
    draw = jax.jit(sampler.sample, static_argnums=2)(jax.random.key(0), state, 20_000)
    z, reference = np.asarray(draw.tasks[:, 0]), np.asarray(draw.is_reference)
    assert reference.sum() == 4000 and state == ()
    assert abs(z[reference].mean()) < 0.1 and abs(z[~reference].mean() - 1) < 0.05
    want = np.where(reference, 1, np.exp(-(z**2) / 2 + (z - 1) ** 2 / 2))
    np.testing.assert_allclose(draw.weights, want, rtol=1e-3)
    np.testing.assert_array_equal(sampler.phi(state), [1.0, 1.0])
    told = risk.summarize(draw, -draw.tasks[:, 0], 0.1)
    np.testing.assert_allclose(told["reference_mean"], 0.0, atol=0.1)
    np.testing.assert_allclose(told["reference_cvar"], -1.755, atol=0.1)  # normal tail mean


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: naive(f, alpha=2.0), "alpha=2.0"),
        (lambda f: naive(f, alpha=0.1, pool=0, repeat="all"), "n=0"),
        (lambda f: naive(f, alpha=0.1, pool=0), "n=0"),
        (lambda f: oracle(f, [0.1], nu=1.0), "nu=1.0"),
        (lambda f: oracle(f, [0.1, 0.2]), "give 1 numbers, for mean_task"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make(FAMILIES["exponential"])
    assert "\n" not in str(error.value)
