import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import families, methods, risk

FAMILY = families.exponential(0.1)
METHODS = {
    "baseline": methods.baseline(FAMILY, 0.25),
    "cvar_ml": methods.cvar_ml(FAMILY, 0.25),
    "roml": methods.roml(FAMILY, 0.25, nu=0.0, batch=32, soft_update=0.5),
    "naive": methods.naive(FAMILY, 0.25, pool=16),
    "oracle": methods.oracle(FAMILY, 0.25, [0.3]),
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
    if name == "cvar_ml":
        assert (mask.sum(axis=1) == 4).all()
        np.testing.assert_array_equal(mask[0], risk.tail_mask(returns[0], 0.25))
    else:
        assert (mask == 1).all()
    if name in ("baseline", "cvar_ml"):
        np.testing.assert_allclose(hardness, 0.1, atol=0.03)
        np.testing.assert_array_equal(info["phi"], jnp.full((40, 1), 0.1))
    elif name == "naive":
        np.testing.assert_allclose(-hardness, risk.cvar(returns[0], 0.25), rtol=0.1)
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
