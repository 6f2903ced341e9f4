"""Every term of the ELBO against loops, and sub-sampling against its expectation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from roml_jax.encoder import Belief
from roml_jax.learners.memory import elbo as elbo_module
from roml_jax.learners.memory.base import Trajectory
from roml_jax.learners.memory.belief import belief_trainer, make_optimizer
from roml_jax.learners.memory.elbo import (
    BeliefConfig,
    elbo_loss,
    kl_to_previous,
    make_model,
    sample_latent,
)
from roml_jax.rollout import next_obs, seen_obs

K, H, B, O, A, D = 2, 3, 3, 2, 1, 2  # noqa: E741
T = K * H
SMALL = BeliefConfig(
    latent_size=2,
    hidden_size=3,
    action_embedding=2,
    obs_embedding=3,
    reward_embedding=2,
    decoder_layers=(4, 3),
    elbo_terms=None,
    decode_terms=None,
    truncation=None,
    batch_size=B,
)
ALL_DECODERS = dict(decode_obs=True, decode_task=True, obs_coef=0.5, task_coef=2.0)


def make_batch(seed=0, padded=True):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    valid = jnp.ones((B, T), bool)
    if padded:
        valid = valid.at[1, 2].set(False).at[2, H + 1 :].set(False)
    return Trajectory(
        obs=normal(B, K, H + 1, O),
        action=normal(B, T, A),
        reward=normal(B, T) * valid,
        valid=valid,
        task=normal(B, D),
    )


@functools.cache
def setup(**changes):
    config = dataclasses.replace(SMALL, **changes)
    model = make_model(config, O, D)
    state = jax.jit(belief_trainer(model, config, O, A).init)(jax.random.key(1))
    return config, model, state


def with_heads(params, **changes):
    """Parameters with the bias and kernel of the log-variance's head set."""
    heads = params["encoder"]["params"]["heads"]
    new = {
        "kernel": heads["kernel"].at[:, 2:].set(changes.get("kernel", 0.0)),
        "bias": heads["bias"].at[2:].set(changes["bias"]),
    }
    encoder = {"params": params["encoder"]["params"] | {"heads": new}}
    return params | {"encoder": encoder}


# ------------------------------------------------------------------ latent and KL


def test_sampled_latents_have_the_deviation_that_the_variance_says():
    mean, var = jnp.array([1.0, -2.0]), jnp.array([0.25, 9.0])
    n = 40_000
    belief = Belief(jnp.tile(mean, (n, 1)), jnp.tile(jnp.log(var), (n, 1)))
    x = np.asarray(sample_latent(jax.random.key(0), belief))
    std = np.sqrt(var)
    np.testing.assert_array_less(np.abs(x.mean(0) - mean), 5 * std / np.sqrt(n))
    np.testing.assert_array_less(np.abs(x.var(0) / var - 1), 5 * np.sqrt(2 / n))


def numpy_kl(mean, logvar):
    """Each posterior against the one before, term by term, the first against N(0, I)."""
    out = np.zeros(mean.shape[:2])
    for t in range(mean.shape[0]):
        for b in range(mean.shape[1]):
            for i in range(mean.shape[2]):
                m, v = mean[t, b, i], np.exp(logvar[t, b, i])
                m0, v0 = (0.0, 1.0) if t == 0 else (mean[t - 1, b, i], np.exp(logvar[t - 1, b, i]))
                out[t, b] += 0.5 * (np.log(v0 / v) + (v + (m - m0) ** 2) / v0 - 1)
    return out


def test_kl_of_each_posterior_to_the_one_before():
    rng = np.random.default_rng(0)
    mean, logvar = rng.normal(size=(2, 5, 3, 2))
    belief = Belief(jnp.asarray(mean), jnp.asarray(logvar))
    got = jax.jit(kl_to_previous)(belief)
    np.testing.assert_allclose(got, numpy_kl(mean, logvar), rtol=1e-4, atol=1e-5)
    same = Belief(jnp.zeros((4, 1, 2)), jnp.zeros((4, 1, 2)))
    np.testing.assert_array_equal(kl_to_previous(same), 0)


def test_kl_sends_gradients_to_both_posteriors():
    rng = np.random.default_rng(1)
    mean, logvar = (jnp.asarray(x) for x in rng.normal(size=(2, 3, 1, 1)))
    grads = jax.grad(lambda b: kl_to_previous(b)[2, 0])(Belief(mean, logvar))
    m, v = np.asarray(mean)[:, 0, 0], np.exp(np.asarray(logvar)[:, 0, 0])
    d = m[2] - m[1]
    np.testing.assert_allclose(grads.mean[:, 0, 0], [0, -d / v[1], d / v[1]], rtol=1e-4)
    want = [0, 0.5 * (1 - (v[2] + d**2) / v[1]), 0.5 * (v[2] / v[1] - 1)]
    np.testing.assert_allclose(grads.logvar[:, 0, 0], want, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ the loss


def encoder_posteriors(model, params, batch):
    after = jax.vmap(next_obs)(batch.obs)
    data = [jnp.swapaxes(x, 0, 1) for x in (batch.action, batch.reward, after, batch.valid)]
    return jax.jit(model.encoder.apply)(params["encoder"], *data)


def brute_force(model, params, key, batch):
    """Errors ``[B]`` of each decoder and KL ``[B]`` over all pairs of posterior and step."""
    belief = encoder_posteriors(model, params, batch)
    latent_key, *_ = jax.random.split(key, 3)
    latent = np.asarray(sample_latent(latent_key, belief))  # [T + 1, B, L]
    obs = np.asarray(jax.vmap(seen_obs)(batch.obs))
    after = np.asarray(jax.vmap(next_obs)(batch.obs))
    batch = jax.tree.map(np.asarray, batch)
    errors = {name: np.zeros(B) for name in model.decoders}
    rows = [(b, t, s) for b in range(B) for t in range(T + 1) for s in range(T)]
    b, t, s = (np.array(x) for x in zip(*rows, strict=True))
    inputs = [jnp.asarray(x) for x in (latent[t, b], obs[b, s], batch.action[b, s], after[b, s])]
    targets = {"reward": batch.reward[..., None], "obs": after}
    for name in errors:
        if name == "task":
            predicted = model.decoders[name].apply(params[name], jnp.asarray(latent))
            for i in range(B):
                errors[name][i] = np.sum((np.asarray(predicted)[:, i] - batch.task[i]) ** 2)
            continue
        predicted = np.asarray(jax.jit(model.decoders[name].apply)(params[name], *inputs))
        for row, (i, _, step) in enumerate(rows):
            if batch.valid[i, step]:
                errors[name][i] += np.sum((predicted[row] - targets[name][i, step]) ** 2)
    kl = numpy_kl(np.asarray(belief.mean), np.asarray(belief.logvar)).sum(axis=0)
    return errors, kl


def test_all_terms_against_brute_force():
    config, model, state = setup(**ALL_DECODERS)
    config = dataclasses.replace(config, reward_coef=1.5)
    batch = make_batch()

    @jax.jit
    def both(params, batch):
        configs = [dataclasses.replace(config, kl_over_batch=kind) for kind in ("sum", "mean")]
        return [elbo_loss(params, model, c, jax.random.key(3), batch) for c in configs]

    (summed, metrics), (averaged, _) = both(state.params, batch)
    errors, kl = brute_force(model, state.params, jax.random.key(3), batch)
    for name, error in errors.items():
        np.testing.assert_allclose(metrics[f"{name}_error"], error.mean(), rtol=1e-4)
    np.testing.assert_allclose(metrics["kl"], kl.mean(), rtol=1e-4)
    # Reconstruction is averaged over the batch; the KL summed, unless told otherwise.
    want = sum({"reward": 1.5, "obs": 0.5, "task": 2.0}[n] * e.mean() for n, e in errors.items())
    np.testing.assert_allclose(summed, want + 0.1 * kl.sum(), rtol=1e-4)
    np.testing.assert_allclose(averaged, want + 0.1 * kl.mean(), rtol=1e-4)
    assert metrics["elbo_loss"] == summed

    counted = np.arange(len(kl)) != 1  # one that does not count is not there
    summed, metrics = jax.jit(
        lambda p: elbo_loss(p, model, config, jax.random.key(3), batch, 1.0 * jnp.asarray(counted))
    )(state.params)
    np.testing.assert_allclose(metrics["kl"], kl[counted].mean(), rtol=1e-4)
    want = sum(
        {"reward": 1.5, "obs": 0.5, "task": 2.0}[n] * e[counted].mean() for n, e in errors.items()
    )
    np.testing.assert_allclose(summed, want + 0.1 * kl[counted].sum(), rtol=1e-4)


@pytest.mark.parametrize("terms", [None, 5])
def test_blocks_of_terms_add_up(monkeypatch, terms):
    """Blocks of two terms and a rest; values and derivatives are those of all terms at once."""
    config, model, state = setup(decode_obs=True)
    config = dataclasses.replace(config, elbo_terms=terms, decode_terms=terms)
    batch = make_batch()
    count, steps = terms or batch.reward.shape[1] + 1, terms or batch.reward.shape[1]
    assert count % 2 == 1

    def gradients():
        loss = jax.value_and_grad(
            lambda p: elbo_loss(p, model, config, jax.random.key(3), batch)[0]
        )
        return jax.jit(loss)(state.params), str(jax.make_jaxpr(loss)(state.params))

    monkeypatch.setattr(elbo_module, "_PAIRS", 10**9)
    want, whole = gradients()
    monkeypatch.setattr(elbo_module, "_PAIRS", 2 * len(batch.reward) * steps)
    got, blocks = gradients()
    assert "remat" in blocks and "remat" not in whole
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)


def test_padding_is_neither_decoded_nor_believed():
    config, model, state = setup()
    batch = make_batch()
    loss = jax.jit(lambda b: elbo_loss(state.params, model, config, jax.random.key(3), b)[0])
    changed = batch._replace(
        reward=jnp.where(batch.valid, batch.reward, 9.0),
        action=jnp.where(batch.valid[..., None], batch.action, 9.0),
    )
    np.testing.assert_allclose(loss(changed), loss(batch), rtol=1e-6)


def test_drawn_terms_are_an_unbiased_fraction_with_independent_draws():
    """Mean and variance of the parts over many draws, with the latents' noise turned off."""
    e, d = 3, 2
    full_config, model, state = setup()
    config = dataclasses.replace(full_config, elbo_terms=e, decode_terms=d)
    batch = make_batch()
    params = with_heads(state.params, bias=-40.0)  # a deviation of 2e-9
    errors, kl = brute_force(model, params, jax.random.key(0), batch)
    n = 6000
    with jax.debug_key_reuse(False):
        metrics = jax.jit(jax.vmap(lambda key: elbo_loss(params, model, config, key, batch)[1]))(
            jax.random.split(jax.random.key(5), n)
        )
    for name, want in (
        ("reward_error", errors["reward"].mean() * e * d / ((T + 1) * T)),
        ("kl", kl.mean() * e / (T + 1)),
    ):
        x = np.asarray(metrics[name])
        assert abs(x.mean() - want) < 5 * x.std() / np.sqrt(n), name
    # The variance of a mean over B of sums of e independent draws, one set per trajectory.
    belief = encoder_posteriors(model, params, batch)
    each = numpy_kl(np.asarray(belief.mean), np.asarray(belief.logvar))
    want = e * each.var(axis=0).sum() / B**2
    np.testing.assert_allclose(np.var(metrics["kl"]), want, rtol=0.15)


def test_rescaled_terms_are_all_terms_in_expectation():
    """Loss, divergence and gradient; and more terms have less variance."""
    full, model, state = setup(decode_obs=True, decode_task=True)
    full = dataclasses.replace(full, elbo_terms=None, decode_terms=None, kl_weight=0.0)
    batch, n = make_batch(), 4000
    params = with_heads(state.params, bias=-40.0)  # so that latents have no noise

    def loss(params, config, key):
        value, metrics = elbo_loss(params, model, config, key, batch)
        return value, metrics["kl"]

    def differentiate(config):
        return jax.value_and_grad(lambda p, key: loss(p, config, key), has_aux=True)

    want, gradient = jax.jit(differentiate(full))(params, jax.random.key(0))
    spreads = []
    for terms in (2, 4):
        config = dataclasses.replace(full, elbo_terms=terms, decode_terms=terms, rescale_terms=True)
        with jax.debug_key_reuse(False):
            keys = jax.random.split(jax.random.key(terms), n)
            got, gradients = jax.jit(jax.vmap(differentiate(config), (None, 0)))(params, keys)
        for x, whole in zip(got, want, strict=True):
            assert abs(x.mean() - whole) < 5 * x.std() / np.sqrt(n)
        spreads.append(float(jnp.var(got[0])))
        for x, whole in zip(jax.tree.leaves(gradients), jax.tree.leaves(gradient), strict=True):
            error = jnp.abs(x.mean(axis=0) - whole)
            assert (error < 6 * x.std(axis=0) / np.sqrt(n) + 1e-4 * jnp.abs(whole) + 1e-6).all()
    assert spreads[1] < 0.7 * spreads[0]


def test_steps_are_drawn_anew_for_every_posterior():
    """With a decoder that ignores the latent, errors are e * d independent draws of a step."""
    e, d, n = 4, 3, 6000
    config, model, state = setup()
    config = dataclasses.replace(config, elbo_terms=e, decode_terms=d)
    batch = make_batch()
    params = jax.tree.map(jnp.zeros_like, state.params)  # predicts 0: the error is r²
    with jax.debug_key_reuse(False):
        errors = jax.jit(
            jax.vmap(lambda key: elbo_loss(params, model, config, key, batch)[1]["reward_error"])
        )(jax.random.split(jax.random.key(6), n))
    squares = np.asarray(batch.reward) ** 2  # padding has reward 0
    want = e * d * squares.mean(axis=1).mean()
    errors = np.asarray(errors)
    assert abs(errors.mean() - want) < 5 * errors.std() / np.sqrt(n)
    want = e * d * squares.var(axis=1).sum() / B**2
    np.testing.assert_allclose(errors.var(), want, rtol=0.15)


def test_truncation_changes_gradients_and_not_the_loss():
    config, model, state = setup()
    batch = make_batch()

    def value_and_grad(truncation):
        cut = dataclasses.replace(config, truncation=truncation)
        return jax.jit(
            jax.value_and_grad(lambda p: elbo_loss(p, model, cut, jax.random.key(3), batch)[0])
        )(state.params)

    (full, grads), (cut, cut_grads) = value_and_grad(None), value_and_grad(2)
    np.testing.assert_allclose(full, cut, rtol=1e-6)
    same = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-4)), grads, cut_grads)
    assert all(jax.tree.leaves(same["reward"]))
    assert not same["encoder"]["params"]["recurrent_map"]["kernel"]


# ------------------------------------------------------------------ the update


def test_gradients_are_clipped_apart():
    config, model, state = setup(**ALL_DECODERS)
    config = dataclasses.replace(config, encoder_max_grad_norm=2.0, decoder_max_grad_norm=0.5)
    optimizer = make_optimizer(config, model)
    sizes = {"encoder": 30.0, "reward": 20.0, "obs": 0.3, "task": 10.0}

    def scaled(name):
        tree = jax.tree.map(jnp.ones_like, state.params[name])
        return jax.tree.map(lambda x: x * sizes[name] / optax.tree.norm(tree), tree)

    grads = {name: scaled(name) for name in state.params}
    _, opt_state = jax.jit(optimizer.update)(grads, state.opt_state, state.params)
    mean = optax.tree_utils.tree_get(opt_state, "mu")  # (1 - 0.9) times the clipped gradient
    got = {name: 10 * float(optax.tree.norm(mean[name])) for name in sizes}
    want = {"encoder": 2.0, "reward": 0.5, "obs": 0.3, "task": 0.5}
    assert got == pytest.approx(want, rel=1e-4)


def test_every_decoder_learns():
    config, model, state = setup(**ALL_DECODERS)
    config = dataclasses.replace(
        config, kl_weight=1e-3, learning_rate=3e-2, elbo_terms=8, decode_terms=8
    )  # parameters stay as they are
    batch, trainer = make_batch(padded=False), belief_trainer(model, config, O, A)

    @jax.jit
    def run(state, key):
        def step(state, key):
            return trainer.improve(key, state, batch)

        return jax.lax.scan(step, state, jax.random.split(key, 600))[1]

    metrics = run(state, jax.random.key(0))
    for name in ("reward", "obs", "task"):
        errors = np.asarray(metrics[f"{name}_error"])
        assert errors[-50:].mean() < 0.6 * errors[:20].mean(), name


def test_modules_that_are_off_have_no_parameters():
    assert set(setup()[2].params) == {"encoder", "reward"}
    only_task = dataclasses.replace(SMALL, decode_reward=False, decode_task=True)
    assert set(make_model(only_task, O, D).decoders) == {"task"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decode_reward": False}, "at least one of decode_reward, decode_obs, decode_task"),
        ({"latent_size": 0}, "latent_size must be at least 1; got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"decoder_layers": ()}, "decoder_layers needs"),
    ],
)
def test_wrong_values(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)
