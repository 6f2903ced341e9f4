import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from roml_jax import families, risk
from roml_jax.samplers import Draw, cem, importance_weights, select_tail
from roml_jax.types import UNTOLD

EXPONENTIAL = families.exponential(0.1)


def jitted(sampler, n):
    """The sampler with both functions compiled, for n tasks a step."""
    sample = jax.jit(sampler.sample, static_argnums=2)
    return (
        sampler.init(jax.random.key(0)),
        lambda key, state: sample(key, state, n),
        jax.jit(sampler.update),
    )


def np_quantile(x, q, w, population=False):
    """NumPy restatement of the mid-point weighted quantile."""
    n, order = len(x), np.argsort(x)
    if population:
        q = np.clip(q * (n + 1) / (n - 1) - 1 / (n - 1), 0, 1)
    c = np.cumsum(w[order]) - w[order] / 2
    return np.interp(q, (c - c[0]) / (c[-1] - c[0]), x[order])


select = jax.jit(select_tail, static_argnames=("alpha", "beta", "strict", "quantile"))


@pytest.mark.parametrize(("n", "beta", "count"), [(128, 0.2, 26), (512, 0.2, 103), (128, 0.05, 7)])
def test_number_selected_without_ties(n, beta, count):
    returns = jax.random.permutation(jax.random.key(0), jnp.arange(float(n)))
    mask, q_alpha, q_beta = select(jax.random.key(1), returns, jnp.ones(n), alpha=0.01, beta=beta)
    assert mask.sum() == count and (np.asarray(returns)[np.asarray(mask)] < count).all()
    assert q_alpha < q_beta
    np.testing.assert_allclose(q_beta, np.quantile(returns, beta), rtol=1e-6)


@pytest.mark.parametrize(("beta", "count"), [(0.05, 6), (0.2, 25)])
def test_all_equal_returns_fill_up_at_random(beta, count):
    returns, ones = jnp.full(128, 0.1), jnp.ones(128)
    options = {"alpha": 0.05, "beta": beta}
    masks = [select(jax.random.key(i), returns, ones, **options)[0] for i in range(2)]
    assert masks[0].sum() == masks[1].sum() == count
    assert not jnp.array_equal(*masks)
    assert select(jax.random.key(0), returns, ones, strict=False, **options)[0].all()


def test_ties_only_make_up_for_what_is_missing():
    # Of 20 returns 2 are low, 10 tie; floor(0.3 * 20) = 6 are wanted.
    returns = jnp.array([1.0] * 10 + [0.0] * 2 + [2.0] * 8)
    counts = np.zeros(20)
    keys = jax.random.split(jax.random.key(0), 200)
    draws = jax.vmap(lambda k: select(k, returns, jnp.ones(20), alpha=0.05, beta=0.3)[0])(keys)
    for mask in np.asarray(draws):
        assert mask.sum() == 6 and mask[10:12].all() and not mask[12:].any()
        counts += mask
    assert counts[:10].min() > 50 and counts[:10].max() < 115  # 80 each on average


def test_many_returns_below_the_reference_quantile_are_all_selected():
    # Easy tasks stand for much weight: the alpha-quantile under D is above the batch's.
    returns = jnp.arange(100.0)
    weights = jnp.where(returns < 80, 0.01, 5.0)
    mask, q_alpha, q_beta = select(jax.random.key(0), returns, weights, alpha=0.05, beta=0.2)
    np.testing.assert_allclose(
        q_alpha, np_quantile(np.arange(100.0), 0.05, np.asarray(weights), True), rtol=1e-5
    )
    assert q_beta < q_alpha and mask.sum() == np.ceil(q_alpha) > 70
    plain = select(jax.random.key(0), returns, weights, alpha=0.05, beta=0.2, quantile="plain")
    np.testing.assert_allclose(
        plain[1], np_quantile(np.arange(100.0), 0.05, np.asarray(weights)), rtol=1e-5
    )


def test_returns_that_are_nan_take_no_part():
    rng = np.random.default_rng(0)
    returns, weights = rng.normal(size=40), rng.exponential(size=40)
    bad = np.full(4, np.nan)
    options = {"alpha": 0.05, "beta": 0.2}
    want = select(
        jax.random.key(0),
        returns=jnp.asarray(returns, jnp.float32),
        weights=jnp.asarray(weights, jnp.float32),
        **options,
    )
    got = select(
        jax.random.key(0),
        returns=jnp.asarray(np.append(returns, bad), jnp.float32),
        weights=jnp.asarray(np.append(weights, np.ones(4)), jnp.float32),
        **options,
    )
    np.testing.assert_array_equal(got[0][:40], want[0])
    assert not got[0][40:].any()
    np.testing.assert_allclose(got[1:], want[1:], rtol=1e-6)
    none, _, _ = select(jax.random.key(0), jnp.full(3, jnp.nan), jnp.ones(3), **options)
    assert not none.any()


def test_importance_weights():
    tasks = EXPONENTIAL.sample(jax.random.key(0), jnp.array([0.3]), 20)
    z = np.asarray(tasks[:, 0], np.float64)
    want = stats.expon(scale=0.1).pdf(z) / stats.expon(scale=0.3).pdf(z)
    got = importance_weights(EXPONENTIAL, tasks, jnp.array([0.3]))
    np.testing.assert_allclose(got, want, rtol=1e-4)


def difficulty(i, z):
    """Returns of iteration i: lower for larger tasks, with noise that is the same for all."""
    noise = np.random.default_rng(i).normal(size=len(z))
    return (-z + 0.05 * noise * z.std()).astype(np.float32)


def np_algorithm_2(phi, z, is_reference, returns, alpha, beta, density, fit):
    """Lines 10-16 of Alg. 2, one iteration; the quantile estimator is the package's."""
    w = np.where(is_reference, 1.0, density(z, None) / density(z, phi))
    q = max(np_quantile(returns, alpha, w), np.quantile(returns, beta))
    return fit(z, w * (returns <= q))


def beta_argmax(z, w):
    """The maximiser of line 16 for ``Beta(2 phi, 2 - 2 phi)``, by search."""
    u = np.clip(z, 1e-6, 1 - 1e-6)

    def loss(p):
        return -(w * stats.beta(2 * p, 2 - 2 * p).logpdf(u)).sum()

    return optimize.minimize_scalar(loss, bounds=(0.02, 0.98), method="bounded").x


PROBLEMS = {
    "exponential": (
        EXPONENTIAL,
        lambda z, phi: stats.expon(scale=0.1 if phi is None else phi).pdf(z),
        lambda z, w: (w * z).sum() / w.sum(),
    ),
    "beta": (
        families.beta(0.0, 1.0, fit="ml"),
        lambda z, phi: (
            1.0 if phi is None else stats.beta(2 * phi, 2 - 2 * phi).pdf(z.clip(1e-6, 1 - 1e-6))
        ),
        beta_argmax,
    ),
}


@pytest.mark.parametrize(
    ("name", "nu"), [("exponential", 0.0), ("exponential", 0.2), ("beta", 0.2)]
)
def test_algorithm_2_side_by_side(name, nu):
    family, density, fit = PROBLEMS[name]
    sampler = cem(family, alpha=0.05, beta=0.2, nu=nu, strict=False, quantile="plain")
    state, sample, update = jitted(sampler, 100)
    phi = float(family.phi0[0])
    for i in range(25):
        draw = sample(jax.random.key(2 * i), state)
        assert np.asarray(draw.is_reference).sum() == int(nu * 100)
        z = np.asarray(draw.tasks[:, 0], np.float64)
        returns = difficulty(i, z)
        phi = np_algorithm_2(
            phi, z, np.asarray(draw.is_reference), returns, 0.05, 0.2, density, fit
        )
        state, info = update(jax.random.key(2 * i + 1), state, draw, jnp.asarray(returns))
        np.testing.assert_allclose(state.phi, [phi], rtol=2e-3, err_msg=f"iteration {i}")
        phi = float(state.phi[0])  # the same next draws for both
        assert info["updated"]
    assert phi > 1.6 * float(family.phi0[0])


def test_algorithm_3_side_by_side_and_with_a_known_level():
    # The level q = -inf: alpha so small that the reference quantile is the lowest return.
    sampler = cem(EXPONENTIAL, alpha=1e-30, beta=0.3, nu=0.0, strict=False, quantile="plain")
    state, sample, update = jitted(sampler, 200)
    phi, path = 0.1, []
    for i in range(6):
        draw = sample(jax.random.key(2 * i), state)
        z = np.asarray(draw.tasks[:, 0], np.float64)
        w = np.exp(-z / 0.1 + z / phi) * phi / 0.1
        chosen = w * (-z <= max(-np.inf, np.quantile(-z, 0.3)))
        phi = (chosen * z).sum() / chosen.sum()
        state, _ = update(jax.random.key(2 * i + 1), state, draw, -draw.tasks[:, 0])
        np.testing.assert_allclose(state.phi, [phi], rtol=1e-3)
        phi = float(state.phi[0])
        path.append(phi)
    assert path[-1] > 0.6  # without a level to stop at, the tail is chased ever further

    # With q = q_alpha(D), Alg. 3 settles at the mean of the true tail, 0.1 (1 + log 20).
    rng, phi, levels = np.random.default_rng(0), 0.1, []
    for i in range(60):
        z = rng.exponential(phi, 1000)
        w = np.exp(-z / 0.1 + z / phi) * phi / 0.1
        chosen = w * (-z <= max(-0.1 * np.log(20), np.quantile(-z, 0.2)))
        phi = (chosen * z).sum() / chosen.sum()
        levels.append(phi if i >= 20 else np.nan)
    np.testing.assert_allclose(np.nanmean(levels), 0.1 * (1 + np.log(20)), rtol=0.02)


def test_settles_at_the_true_tail():
    sampler = cem(EXPONENTIAL, alpha=0.05, beta=0.2, nu=0.2, soft_update=0.5)

    @jax.jit
    def run(key):
        def step(state, key):
            key_sample, key_update = jax.random.split(key)
            draw = sampler.sample(key_sample, state, 1000)
            returns = -draw.tasks[:, 0]
            state, info = sampler.update(key_update, state, draw, returns)
            return state, info | risk.summarize(draw, returns, 0.05) | {"phi": state.phi}

        first, key = jax.random.split(key)
        return jax.lax.scan(step, sampler.init(first), jax.random.split(key, 80))

    _, info = run(jax.random.key(0))
    tail_mean = 0.1 * (1 + np.log(20))  # of an exponential beyond its 95 % quantile
    late = {name: np.asarray(x)[20:].mean(axis=0) for name, x in info.items()}
    np.testing.assert_allclose(late["phi"], [tail_mean], rtol=0.03)
    np.testing.assert_allclose(late["q_alpha"], -0.1 * np.log(20), rtol=0.03)
    np.testing.assert_allclose(late["reference_mean"], -0.1, rtol=0.03)
    np.testing.assert_allclose(late["reference_cvar"], -tail_mean, rtol=0.03)
    np.testing.assert_allclose(late["sample_mean"], -tail_mean, rtol=0.03)
    assert info["updated"].all()


def test_original_code_side_by_side():
    """Batch 128 over four steps of 32, with ties impossible: the published settings."""
    alpha, beta, soft = 0.05, 0.2, 0.5
    sampler = cem(EXPONENTIAL, alpha=alpha, beta=beta, nu=0.2, batch=128, soft_update=soft)
    state, sample, update = jitted(sampler, 32)
    for i in range(12):
        phi, plan = float(state.phi[0]), np.asarray(state.pending.plan)
        assert plan.sum() == 25
        z, w, returns = np.zeros(0), np.zeros(0), np.zeros(0)
        for j in range(4):
            seed = 4 * i + j
            draw = sample(jax.random.key(2 * seed), state)
            np.testing.assert_array_equal(draw.is_reference, plan[32 * j : 32 * (j + 1)])
            assert (np.asarray(draw.weights)[np.asarray(draw.is_reference)] == 1).all()
            new_z = np.asarray(draw.tasks[:, 0], np.float64)
            new_w = stats.expon(scale=0.1).pdf(new_z) / stats.expon(scale=phi).pdf(new_z)
            new_w = np.where(draw.is_reference, 1.0, new_w)
            score = difficulty(seed, new_z)
            z, w = np.append(z, new_z), np.append(w, new_w)
            returns = np.append(returns, score)
            state, info = update(jax.random.key(2 * seed + 1), state, draw, jnp.asarray(score))
            assert info["updated"] == (j == 3) and state.pending.count == 32 * (j + 1) % 128
            if j < 3:
                assert float(state.phi[0]) == phi

        q_alpha = np_quantile(returns, alpha, w, population=True)
        q_beta = np.quantile(returns, beta)
        chosen = returns < max(q_alpha, q_beta)
        want = soft * phi + (1 - soft) * (w * z)[chosen].sum() / w[chosen].sum()
        np.testing.assert_allclose(state.phi, [want], rtol=1e-4)
        np.testing.assert_allclose([info["q_alpha"], info["q_beta"]], [q_alpha, q_beta], rtol=1e-3)
        assert info["selected"] == chosen.sum() >= 26
        assert not np.array_equal(state.pending.plan, plan)


def test_steps_that_complete_no_batch_say_nothing_of_it():
    state, sample, update = jitted(cem(EXPONENTIAL, alpha=0.1, batch=16), 8)
    seen = []
    for i in range(4):
        draw = sample(jax.random.key(2 * i), state)
        state, info = update(jax.random.key(2 * i + 1), state, draw, -draw.tasks[:, 0])
        seen.append((int(info["selected"]), float(info["q_beta"])))
    for selected, quantile in seen[::2]:
        assert selected == 0 and quantile == UNTOLD
    for selected, quantile in seen[1::2]:
        assert selected >= 3 and np.isfinite(quantile)
    assert seen[1] != seen[3]


@pytest.mark.parametrize(("batch", "nu", "count"), [(128, 0.2, 25), (100, 0.29, 29), (7, 0.0, 0)])
def test_first_plan_is_spread_evenly(batch, nu, count):
    plan = np.asarray(
        cem(EXPONENTIAL, alpha=0.1, nu=nu, batch=batch).init(jax.random.key(0)).pending.plan
    )
    assert plan.sum() == count
    if count:
        assert np.diff(np.flatnonzero(plan)).max() <= np.ceil(batch / count)


def test_without_a_batch_reference_positions_change_every_step():
    state, sample, _ = jitted(cem(EXPONENTIAL, alpha=0.1, nu=0.25), 16)
    plans = [sample(jax.random.key(i), state).is_reference for i in range(2)]
    assert plans[0].sum() == plans[1].sum() == 4
    assert not jnp.array_equal(*plans)


def test_reference_draws_come_from_the_original_distribution():
    family = families.normal(0.0, 1.0)
    state, sample, _ = jitted(cem(family, alpha=0.1, nu=0.5), 2000)
    draw = sample(jax.random.key(0), state._replace(phi=jnp.array([50.0, 1.0])))
    z = np.asarray(draw.tasks[:, 0])
    reference = np.asarray(draw.is_reference)
    assert abs(z[reference].mean()) < 0.15 and abs(z[~reference].mean() - 50) < 0.15
    assert abs(z[reference].std() - 1) < 0.1 and abs(z[~reference].std() - 1) < 0.1


@pytest.mark.parametrize("batch", [None, 8])
def test_phi_is_kept_where_there_is_nothing_to_fit(batch):
    sampler = cem(EXPONENTIAL, alpha=0.1, beta=0.1, nu=0.0, batch=batch, soft_update=0.5)
    state, sample, update = jitted(sampler, 8)
    draw = sample(jax.random.key(0), state)
    equal, nans = jnp.ones(8), jnp.full(8, jnp.nan)  # floor(0.1 * 8) = 0 ties are wanted
    for i, returns in enumerate((equal, nans)):
        new, info = update(jax.random.key(i), state, draw, returns)
        assert new.phi == state.phi and not info["updated"]
        assert new.pending is None or new.pending.count == 0
    # A fit that is not finite is not used either.
    broken = draw._replace(tasks=draw.tasks.at[:].set(jnp.inf))
    new, info = update(jax.random.key(2), state, broken, -jnp.arange(8.0))
    assert new.phi == state.phi and not info["updated"] and info["selected"] > 0


def test_state_keeps_its_structure_and_traces_once(count_traces, x64):
    for batch in (None, 16):
        sampler = cem(EXPONENTIAL, alpha=0.1, batch=batch)
        sample, update = count_traces(sampler.sample), count_traces(sampler.update)
        draw_fn, update_fn = jax.jit(sample, static_argnums=2), jax.jit(update)
        state = sampler.init(jax.random.key(0))
        for i in range(4):
            draw = draw_fn(jax.random.key(2 * i), state, 8)
            returns = -draw.tasks[:, 0]
            new, _ = update_fn(jax.random.key(2 * i + 1), state, draw, returns)
            assert jax.tree.structure(new) == jax.tree.structure(state)
            for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True):
                assert a.shape == b.shape and a.dtype == b.dtype and not a.weak_type
            state = new
        assert sample.count == update.count == 1
        assert state.phi.dtype == jnp.float32
        # Returns in double precision are welcome.
        jax.jit(sampler.update)(jax.random.key(9), state, draw, returns.astype(jnp.float64))


def test_seeds_run_side_by_side():
    sampler = cem(EXPONENTIAL, alpha=0.1, batch=16)

    def run(key):
        # The key is carried: vmap of a scan over keys trips the key-reuse checker by mistake.
        def step(carry, _):
            key, state = carry
            key, key_sample, key_update = jax.random.split(key, 3)
            draw = sampler.sample(key_sample, state, 8)
            state, info = sampler.update(key_update, state, draw, -draw.tasks[:, 0])
            return (key, state), info

        return jax.lax.scan(step, (key, sampler.init(jax.random.key(0))), length=6)[0][1].phi

    together = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 3))
    alone = jax.jit(run)(jax.random.split(jax.random.key(0), 3)[1])
    np.testing.assert_allclose(together[1], alone, rtol=1e-5)
    assert len(set(together[:, 0].tolist())) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, r"alpha=0.0 .*\(0, 1\]"),
        ({"alpha": 1.5}, r"alpha=1.5"),
        ({"beta": 0.0}, r"beta=0.0 .*\(0, 1\)"),
        ({"beta": 1.0}, r"beta=1.0"),
        ({"nu": 1.0}, r"nu=1.0 .*\[0, 1\)"),
        ({"nu": -0.1}, r"nu=-0.1"),
        ({"soft_update": 1.0}, r"soft_update=1.0 .*\[0, 1\)"),
        ({"batch": 0}, r"batch=0"),
    ],
)
def test_wrong_values(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        cem(EXPONENTIAL, **{"alpha": 0.05, **changes})
    assert "\n" not in str(error.value)


def test_steps_must_fill_the_batch():
    sampler = cem(EXPONENTIAL, alpha=0.05, batch=12)
    state = sampler.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"n=5 .* batch=12: one of \[1, 2, 3, 4, 6, 12\]"):
        sampler.sample(jax.random.key(0), state, 5)
    with pytest.raises(ValueError, match=r"n=24 .*batch=None"):
        sampler.sample(jax.random.key(0), state, 24)
    draw = Draw(jnp.ones((5, 1)), jnp.ones(5), jnp.zeros(5, bool))
    with pytest.raises(ValueError, match="n=5 "):
        sampler.update(jax.random.key(0), state, draw, jnp.ones(5))


@pytest.mark.parametrize(("alpha", "phi"), [(0.05, 0.975), (0.1, 0.95), (0.2, 0.9)])
def test_beta_tasks_end_where_the_tail_of_alpha_is(alpha, phi):
    """A monotone landscape at the default eps: the tail is the upper end, its mean known."""
    family = families.beta(0.0, 1.0)
    sampler = cem(family, alpha=alpha, beta=0.02, quantile="plain", strict=False, soft_update=0.5)

    def step(carry, key):
        state = carry
        keys = jax.random.split(key)
        draw = sampler.sample(keys[0], state, 2000)
        returns = -draw.tasks[:, 0]
        state, info = sampler.update(keys[1], state, draw, returns)
        told = risk.summarize(draw, returns, alpha)
        return state, (state.phi[0], info["q_alpha"], told["reference_mean"])

    start = sampler.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 60)
    with jax.debug_key_reuse(False):
        _, seen = jax.jit(lambda state: jax.lax.scan(step, state, keys))(start)
    got = np.median([np.asarray(x)[20:] for x in seen], axis=1)
    np.testing.assert_allclose(got[0], phi, atol=0.01)
    np.testing.assert_allclose(got[1], alpha - 1, atol=0.02)  # the quantile under D_phi0
    np.testing.assert_allclose(got[2], -0.5, atol=0.05)


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("worst", [1, 3, 6, 9, 20])
def test_minus_infinity_is_the_worst_return_of_all(worst, strict):
    """Whether fewer or more than the tail; NaN takes no part, and infinity is the best."""
    returns = (
        jnp.arange(20.0).at[:worst].set(-jnp.inf).at[-1:].set(jnp.inf if worst < 20 else -jnp.inf)
    )
    returns = jnp.concatenate([returns, jnp.full(4, jnp.nan)])
    select = jax.jit(functools.partial(select_tail, alpha=0.05, beta=0.25, strict=strict))
    mask, q_alpha, q_beta = select(jax.random.key(0), returns, jnp.ones(24))
    low = jnp.where(jnp.isfinite(returns), returns, jnp.where(returns > 0, 1e3, -1e3))
    low = low.at[-4:].set(jnp.nan)
    expected, *_ = select(jax.random.key(0), low, jnp.ones(24))
    np.testing.assert_array_equal(mask, expected)
    assert mask.sum() >= 4 and not mask[-4:].any()
    assert not jnp.isnan(q_alpha) and not jnp.isnan(q_beta) and q_alpha < 7


def test_phi_moves_towards_tasks_of_minus_infinity():
    """Not away from them: the tasks that break the agent are the hard ones."""
    family = EXPONENTIAL
    sampler = cem(family, alpha=0.05, beta=0.2, nu=0.0, batch=None, soft_update=0.0)
    state = sampler.init(jax.random.key(0))
    for i in range(5):
        draw = sampler.sample(jax.random.key(i), state, 256)
        hard = jnp.quantile(draw.tasks[:, 0], 0.9)
        returns = jnp.where(draw.tasks[:, 0] > hard, -jnp.inf, -draw.tasks[:, 0])
        state, _ = sampler.update(jax.random.key(i), state, draw, returns)
    assert jnp.isfinite(state.phi).all() and state.phi[0] > 0.2
