import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import families, methods, risk

FAMILY = families.exponential(0.1)
METHODS = {
    "baseline": methods.baseline(FAMILY, 0.25),
    "cvar_ml": methods.cvar_ml(FAMILY, 0.25),
    "capped": methods.capped(FAMILY, 0.25),
    "roml": methods.roml(FAMILY, 0.25, nu=0.0, batch=32, soft_update=0.5),
    "naive": methods.naive(FAMILY, 0.25, pool=16),
    "oracle": methods.oracle(FAMILY, 0.25, [0.3]),
    "cesor": methods.cesor(FAMILY, 0.25, soft_risk=0.0, nu=0.0, batch=32)(jnp.int32(0)),
    "paired": methods.paired(FAMILY, 0.25),
    "learnability": methods.learnability(FAMILY, 0.25, threshold=-0.2, capacity=16),
    "dro": methods.dro(FAMILY, 0.25, bins=16),
    "replay": methods.replay(FAMILY, 0.25, capacity=32, temperature=0.5),
    "replay_robust": methods.replay(FAMILY, 0.25, robust=True, capacity=32, temperature=0.5),
    "mixture_cem": methods.mixture_cem(FAMILY, 0.25, memory=64, kernels=16),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_training_loop_runs(name):
    sampler, weigh, alpha = METHODS[name]

    @jax.jit
    def run(key):
        def step(state, key):
            key_sample, key_update = jax.random.split(key)
            draw = sampler.sample(key_sample, state, 16)
            returns = -draw.tasks[:, 0]
            state, info = sampler.update(key_update, state, draw, returns)
            told = info | {"phi": sampler.phi(state)} | risk.summarize(draw, returns, alpha)
            return state, (told, weigh(draw, returns), returns)

        first, key = jax.random.split(key)
        return jax.lax.scan(step, sampler.init(first), jax.random.split(key, 40))[1]

    info, mask, returns = run(jax.random.key(0))
    hardness = -returns[20:].mean()
    if name == "cesor":
        assert ((mask > 0).sum(axis=1) < 16).all()
    elif name == "cvar_ml":
        assert (mask.sum(axis=1) == 4).all()
        np.testing.assert_array_equal(mask[0], risk.tail_mask(returns[0], 0.25))
    elif name == "replay_robust":
        np.testing.assert_array_equal(mask.sum(axis=1), info["replayed"])
        assert (mask[:1] == 0).all() and (mask[5:].sum(axis=1) == 8).all()
    else:
        assert (mask == 1).all()
    if name in ("baseline", "cvar_ml", "capped"):
        np.testing.assert_allclose(hardness, 0.1, atol=0.03)
        np.testing.assert_array_equal(info["phi"], jnp.full((40, 1), 0.1))
    elif name == "naive":
        np.testing.assert_allclose(-hardness, risk.cvar(returns[0], 0.25), rtol=0.1)
    elif name == "learnability":  # nothing is learnable, where all is as it was
        np.testing.assert_allclose(hardness, 0.1, atol=0.04)
    else:
        assert hardness > 0.14


def test_roml_passes_its_arguments_on():
    keep = methods.roml(FAMILY, 0.05, nu=0.5, batch=8, soft_update=0.25, strict=False)
    state = keep.sampler.init(jax.random.key(0))
    assert state.pending.plan.sum() == 4
    draw = jax.jit(keep.sampler.sample, static_argnums=2)(jax.random.key(0), state, 8)
    new, info = jax.jit(keep.sampler.update)(jax.random.key(1), state, draw, jnp.ones(8))
    assert info["selected"] == 8  # ties included
    fitted = FAMILY.fit(draw.tasks, draw.weights)
    np.testing.assert_allclose(new.phi, 0.25 * 0.1 + 0.75 * fitted, rtol=1e-5)
    other = methods.roml(FAMILY, 0.05, beta=0.5, quantile="plain", batch=8)
    _, info = jax.jit(other.sampler.update)(jax.random.key(1), state, draw, jnp.arange(8.0))
    assert info["selected"] == 4 and info["q_beta"] == 3.5


def test_wrong_values():
    for make in (methods.baseline, methods.cvar_ml, methods.roml, methods.naive):
        with pytest.raises(ValueError, match=r"alpha=0\.0"):
            make(FAMILY, 0.0)
    with pytest.raises(ValueError, match=r"beta=2\.0"):
        methods.roml(FAMILY, 0.1, beta=2.0)
    with pytest.raises(ValueError, match="phi"):
        methods.oracle(FAMILY, 0.1, [0.1, 0.2])


@pytest.mark.parametrize("name", ["baseline", "cvar_ml", "roml", "naive", "oracle"])
def test_alpha_can_be_swept_in_one_program(name):
    extra = {"naive": {"pool": 16}, "oracle": {"phi": [0.3]}, "roml": {"batch": 32, "nu": 0.0}}

    def run(alpha):
        sampler, weigh, _ = getattr(methods, name)(FAMILY, alpha, **extra.get(name, {}))

        def step(state, key):
            key_sample, key_update = jax.random.split(key)
            draw = sampler.sample(key_sample, state, 16)
            returns = -draw.tasks[:, 0]
            state, _info = sampler.update(key_update, state, draw, returns)
            cvar = risk.summarize(draw, returns, alpha)["reference_cvar"]
            return state, (sampler.phi(state), weigh(draw, returns).sum(), cvar)

        first, key = jax.random.split(jax.random.key(0))
        return jax.lax.scan(step, sampler.init(first), jax.random.split(key, 8))[1]

    alphas = [0.05, 0.25, 1.0]
    with jax.debug_key_reuse(False):  # wrongly finds a reuse in a scan over keys under vmap
        swept = jax.jit(jax.vmap(run))(jnp.array(alphas))
    for i, alpha in enumerate(alphas):
        alone = jax.jit(lambda alpha=alpha: run(alpha))()
        for ours, theirs in zip(swept, alone, strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-4, atol=1e-6)


def test_the_level_of_cesor_falls():
    at = methods.cesor(FAMILY, 0.1, steps=100, soft_risk=0.6)
    returns, key = jnp.arange(200.0), jax.random.key(0)
    draw = methods.baseline(FAMILY).sampler.sample(key, (), 200)  # weights of 1
    counts = [int((at(jnp.int32(i)).weigh(draw, returns) > 0).sum()) for i in range(0, 101, 10)]
    assert counts == [200, 170, 140, 110, 80, 50, 20, 20, 20, 20, 20]
    assert all(at(jnp.int32(i)).alpha == 0.1 for i in (0, 100))
    assert (
        methods.cesor(FAMILY, 0.1, steps=9, select=False)(jnp.int32(8)).weigh(draw, returns) == 1
    ).all()
    plain = methods.cesor(FAMILY, 0.1, steps=100, soft_risk=0.0)
    assert (plain(jnp.int32(0)).weigh(draw, returns) > 0).sum() == 20


def test_the_level_of_soft_cvar_ml_falls_to_what_cvar_ml_has():
    kind = methods.METHODS["cvar-ml"]
    returns, key = jnp.arange(20.0), jax.random.key(0)
    at = kind.make(FAMILY, kind.config(0.05, soft_risk=0.5), 100)
    draw = at(jnp.int32(0)).sampler.sample(key, (), 20)
    weigh = jax.jit(lambda step: at(step).weigh(draw, returns))
    masks = np.stack([weigh(jnp.int32(step)) for step in (0, 10, 25, 40, 50, 99)])
    assert masks.sum(axis=1).tolist() == [20, 17, 11, 5, 1, 1]  # one of 20, not two
    assert (np.diff(masks, axis=1) <= 0).all()  # the worst
    plain = kind.make(FAMILY, kind.config(0.05), 100)
    np.testing.assert_array_equal(plain.weigh(draw, returns), masks[-1])
    assert kind.paced(kind.config(0.05, soft_risk=0.5)) and not kind.paced(kind.config(0.05))


def test_weights_of_cesor_lead_back_to_the_original_distribution():
    """Exponential tasks of mean 0.1, drawn with mean 0.25 and some of 0.1: both have mean 0.1."""
    made = methods.cesor(FAMILY, 0.05, steps=10, select=False, nu=0.25)(jnp.int32(0))
    state = made.sampler.init(jax.random.key(0))._replace(phi=jnp.array([0.25]))
    draw = made.sampler.sample(jax.random.key(1), state, 200_000)
    z = np.asarray(draw.tasks[:, 0], np.float64)
    w = np.asarray(made.weigh(draw, -draw.tasks[:, 0]), np.float64)
    assert z.mean() > 0.2
    np.testing.assert_allclose(
        [w.mean(), (w * z).mean(), (w * z**2).mean()], [1, 0.1, 0.02], rtol=0.02
    )
    # The tail of the selection: -R over its threshold has the mean of an exponential's tail.
    tail = methods.cesor(FAMILY, 0.05, steps=10, soft_risk=0.0)(jnp.int32(0)).weigh
    w = np.asarray(tail(draw, -draw.tasks[:, 0]), np.float64)
    np.testing.assert_allclose(w.sum() / len(w), 0.05, rtol=0.05)
    np.testing.assert_allclose((w * z).sum() / w.sum(), 0.1 * (1 + np.log(20)), rtol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.cesor(FAMILY, 0.1, soft_risk=1.5), "soft_risk=1.5"),
        (lambda: methods.cesor(FAMILY, 0.1, steps=-1), "steps=-1"),
        (lambda: methods.cesor(FAMILY, 0.0), "alpha=0.0"),
        (lambda: methods.soft_cvar_ml(FAMILY, 0.1, steps=9, soft_risk=-1.0), "soft_risk=-1.0"),
        (lambda: methods.soft_cvar_ml(FAMILY, 0.0, steps=9, soft_risk=0.5), "alpha=0.0"),
        (lambda: methods.CVaRMLConfig(soft_risk=2.0), "soft_risk=2.0"),
        (lambda: methods.capped(FAMILY, 0.0), "alpha=0.0"),
        (lambda: methods.cesor(FAMILY, 0.1, max_weight=0.5), "max_weight=0.5"),
        (lambda: methods.cesor(FAMILY, 0.1, nu=1.0), "nu=1.0"),
        (lambda: methods.paired(FAMILY, 2.0), "alpha=2.0"),
        (lambda: methods.PAIREDConfig(alpha=2.0), "alpha=2.0"),
    ],
)
def test_wrong_values_of_the_others(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_both_adversaries_of_paired():
    kind = methods.METHODS["paired"]
    moving = kind.make(FAMILY, kind.config(nu=0.5), 1)
    state = moving.sampler.init(jax.random.key(0))
    assert moving.sampler.sample(jax.random.key(1), state, 8).is_reference.sum() == 4
    network = kind.make(FAMILY, kind.config(adversary="network", noise=5), 1)
    state = network.sampler.init(jax.random.key(0))
    draw = network.sampler.sample(jax.random.key(1), state, 8)
    assert draw.extras["designer_noise"].shape == (8, 5)
