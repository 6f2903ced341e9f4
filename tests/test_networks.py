"""Initial weights, the GRU and the decoders against NumPy restatements."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from roml_jax.decoders import TaskDecoder, TransitionDecoder
from roml_jax.encoder import BeliefEncoder, gru_gates, gru_scan
from roml_jax.networks import MLP, ActorCritic, Linear, hidden_init, orthogonal

GAIN = 5 / 3


def init(module, *args):
    return jax.jit(module.init)(jax.random.key(0), *args)


def flat(params):
    """``{"actor/Linear_0/kernel": …}`` as NumPy arrays."""
    return {k: np.asarray(v) for k, v in flatten_dict(params["params"], sep="/").items()}


def is_uniform(x, bound):
    """Fills ``±bound`` and has a uniform's variance, within 5 standard errors."""
    x = np.asarray(x).ravel() / bound
    assert np.abs(x).max() <= 1 and np.abs(x).max() > 1 - 20 / x.size
    assert abs(x.mean()) < 5 / np.sqrt(3 * x.size)
    assert abs(np.mean(x**2) - 1 / 3) < 5 * np.sqrt((1 / 5 - 1 / 9) / x.size)


# ------------------------------------------------------------------ initial weights


def test_default_layers_are_uniform_in_kernel_and_bias():
    params = flat(init(Linear(500), jnp.zeros((1, 16))))
    is_uniform(params["kernel"], 1 / 4)
    is_uniform(params["bias"], 1 / 4)
    kernel, bias = params["kernel"], params["bias"]
    x = np.random.default_rng(0).normal(size=(3, 2, 16)).astype(np.float32)
    y = Linear(500).apply({"params": {"kernel": kernel, "bias": bias}}, jnp.asarray(x))
    np.testing.assert_allclose(y, x @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("initialization", ["normc", "orthogonal"])
@pytest.mark.parametrize("discrete", [True, False])
def test_actor_critic_starts_as_in_the_original_code(discrete, initialization):
    network = ActorCritic(40, discrete, (48, 32), initialization=initialization, obs_embedding=64)
    p = flat(init(network, jnp.zeros((1, 9)), jnp.zeros((1, 4))))
    for stack in ("actor", "critic"):
        for i, (fan_in, size) in enumerate([(128, 48), (48, 32)]):
            kernel = p[f"{stack}/Linear_{i}/kernel"]
            assert kernel.shape == (fan_in, size)
            assert (p[f"{stack}/Linear_{i}/bias"] == 0).all()
            np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), GAIN, rtol=1e-5)
            gram = kernel.T @ kernel / GAIN**2 - np.eye(size)
            assert (np.abs(gram).max() < 1e-5) == (initialization == "orthogonal")
    for name, fan_in in [("embed_obs", 9), ("embed_belief", 4)]:
        assert p[f"{name}/Linear_0/kernel"].shape == (fan_in, 64)
        is_uniform(p[f"{name}/Linear_0/kernel"], fan_in**-0.5)
        is_uniform(p[f"{name}/Linear_0/bias"], fan_in**-0.5)
    is_uniform(p["critic_head/kernel"], 32**-0.5)
    assert 0 < abs(p["critic_head/bias"][0]) <= 32**-0.5
    head = p["actor_head/kernel"]
    assert (p["actor_head/bias"] == 0).all() and ("log_std" in p) is not discrete
    if discrete:  # 32 rows of 40 outputs
        np.testing.assert_allclose(head @ head.T, 1e-4 * np.eye(32), atol=1e-8)
    else:
        np.testing.assert_allclose(np.linalg.norm(head, axis=0), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(p["log_std"], np.zeros(40))


def test_uniform_and_unknown_initialization():
    network = ActorCritic(2, True, (64,), initialization="uniform", obs_embedding=None)
    p = flat(init(network, jnp.zeros((1, 100)), jnp.zeros((1, 0))))
    is_uniform(p["actor/Linear_0/kernel"], 1 / 10)
    is_uniform(p["actor/Linear_0/bias"], 1 / 10)
    with pytest.raises(ValueError, match="normc, orthogonal, uniform; got 'xavier'"):
        inspect.unwrap(hidden_init)("xavier")


def test_encoder_starts_with_stacked_orthogonal_maps():
    encoder = BeliefEncoder(16, 8, 16, 8, latent_size=3)
    zeros = jnp.zeros((1, 1))
    p = flat(init(encoder, zeros[..., None], zeros, jnp.zeros((1, 1, 25)), zeros == 0))
    # The framework of the original code stores [3 E, in]; its columns are orthonormal.
    for name, rows in (("input_map", 32), ("recurrent_map", 16)):
        kernel = p[f"{name}/kernel"]
        assert kernel.shape == (rows, 48)
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(rows), atol=1e-5)
        one_gate = kernel[:, :16]
        assert np.abs(one_gate.T @ one_gate - np.eye(16)).max() > 0.1
        assert (p[f"{name}/bias"] == 0).all()
    is_uniform(p["embed_obs/Linear_0/kernel"], 1 / 5)
    is_uniform(p["embed_obs/Linear_0/bias"], 1 / 5)
    is_uniform(p["heads/kernel"], 1 / 4)
    assert len(np.unique(p["heads/kernel"][0])) == 6  # mean and log-variance drawn apart


# ------------------------------------------------------------------ actor and critic


@pytest.mark.parametrize("embedded", [True, False])
def test_actor_critic_is_its_formula(embedded):
    size = 5 if embedded else None
    network = ActorCritic(2, False, (4, 3), obs_embedding=size, latent_embedding=size, init_std=0.5)
    rng = np.random.default_rng(0)
    obs, belief = (rng.normal(size=(6, n)).astype(np.float32) for n in (3, 2))
    params = init(network, jnp.asarray(obs), jnp.asarray(belief))
    p = flat(params)

    def layer(x, name):
        return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def mlp(x, name, layers):
        for i in range(layers):
            x = np.tanh(layer(x, f"{name}/Linear_{i}"))
        return x

    both = (obs, belief)
    if embedded:
        both = mlp(obs, "embed_obs", 1), mlp(belief, "embed_belief", 1)
    features = np.concatenate(both, axis=-1)  # observation first
    output, value = jax.jit(network.apply)(params, jnp.asarray(obs), jnp.asarray(belief))
    want = layer(mlp(features, "actor", 2), "actor_head")
    np.testing.assert_allclose(output.location, want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(output.std, np.full((6, 2), 0.5), rtol=1e-6)
    want = layer(mlp(features, "critic", 2), "critic_head")[:, 0]
    np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)
    alone = network.apply(params, jnp.asarray(obs), jnp.asarray(belief), method="value")
    np.testing.assert_allclose(alone, value, rtol=1e-5, atol=1e-6)


def test_actor_and_critic_share_the_embeddings_and_nothing_else():
    network = ActorCritic(2, False, (4,), obs_embedding=5, latent_embedding=5)
    obs, belief = jnp.ones((1, 3)), jnp.ones((1, 2))
    params = init(network, obs, belief)

    def touched(method, pick):
        loss = lambda w: pick(network.apply(w, obs, belief, method=method))  # noqa: E731
        grads = jax.jit(jax.grad(loss))(params)
        return {k.split("/")[0] for k, g in flat(grads).items() if np.abs(g).max() > 0}

    actor = touched("policy", lambda out: out.location.sum() + out.std.sum())
    critic = touched("value", lambda v: v.sum())
    embeddings = {"embed_obs", "embed_belief"}
    assert actor == embeddings | {"actor", "actor_head", "log_std"}
    assert critic == embeddings | {"critic", "critic_head"}


def test_the_deviation_has_a_floor():
    network = ActorCritic(1, False, (2,), init_std=1e-9)
    params = init(network, jnp.zeros((1, 1)), jnp.zeros((1, 0)))
    out = network.apply(params, jnp.zeros((1, 1)), jnp.zeros((1, 0)), method="policy")
    np.testing.assert_allclose(out.std, [[1e-6]], rtol=1e-6)


# ------------------------------------------------------------------ the GRU


def numpy_gru(hidden, x, w_in, b_in, w_h, b_h):
    """The formula of the reference, gate by gate."""
    sigmoid = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    e = hidden.shape[-1]
    r, z, n = (slice(i * e, (i + 1) * e) for i in range(3))
    reset = sigmoid(x @ w_in[:, r] + b_in[r] + hidden @ w_h[:, r] + b_h[r])
    update = sigmoid(x @ w_in[:, z] + b_in[z] + hidden @ w_h[:, z] + b_h[z])
    new = np.tanh(x @ w_in[:, n] + b_in[n] + reset * (hidden @ w_h[:, n] + b_h[n]))
    return (1 - update) * new + update * hidden


def test_gru_gates_are_the_formula():
    rng = np.random.default_rng(0)
    e, i, b = 4, 3, 5
    hidden, x = rng.normal(size=(b, e)), rng.normal(size=(b, i))
    w_in, b_in = rng.normal(size=(i, 3 * e)), rng.normal(size=3 * e)
    w_h, b_h = rng.normal(size=(e, 3 * e)), rng.normal(size=3 * e)
    got = gru_gates(*(jnp.asarray(v) for v in (x @ w_in + b_in, hidden @ w_h + b_h, hidden)))
    want = numpy_gru(hidden, x, w_in, b_in, w_h, b_h)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def plain_gru_scan(inputs, kernel, bias, valid, cut):
    """The same by automatic differentiation; a cut is a stopped gradient."""

    def step(hidden, xs):
        inputs_t, valid_t, cut_t = xs
        hidden = jnp.where(cut_t, jax.lax.stop_gradient(hidden), hidden)
        recurrent = hidden @ kernel + bias[None]
        new = gru_gates(inputs_t, recurrent, hidden)
        hidden = jnp.where(valid_t[:, None], new, hidden)
        return hidden, hidden

    start = jnp.zeros((inputs.shape[1], kernel.shape[0]))
    return jax.lax.scan(step, start, (inputs, valid, cut))[1]


@pytest.mark.parametrize("cut", [(), (3,), (1, 4, 5)])
@pytest.mark.parametrize("padded", [False, True])
def test_gru_scan_and_its_derivative(padded, cut):
    rng = np.random.default_rng(1)
    t, b, e = 7, 3, 4
    floats = [
        jnp.asarray(rng.normal(size=s), jnp.float32)
        for s in ((t, b, 3 * e), (e, 3 * e), (3 * e,), (t, b, e))
    ]
    *args, out_grad = floats
    valid = jnp.asarray(rng.random((t, b)) < 0.6) if padded else jnp.ones((t, b), bool)
    flags = valid, jnp.zeros(t, bool).at[jnp.asarray(cut, jnp.int32)].set(True)

    @jax.jit
    def both(args, flags):
        results = []
        for fn in (gru_scan, plain_gru_scan):
            hidden, pullback = jax.vjp(lambda *a, fn=fn: fn(*a, *flags), *args)
            results.append((hidden, pullback(out_grad)))
        return results

    custom, plain = both(args, flags)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), custom, plain)


def test_gru_scan_under_vmap():
    rng = np.random.default_rng(2)
    args = [jnp.asarray(rng.normal(size=(2, *s)), jnp.float32) for s in ((5, 3, 6), (2, 6), (6,))]
    valid, cut = jnp.ones((5, 3), bool), jnp.arange(5) == 2

    def loss(fn, *a):
        return jnp.sum(fn(*a, valid, cut) ** 2)

    grads = [
        jax.jit(jax.vmap(jax.grad(loss, (1, 2, 3)), (None, 0, 0, 0)), static_argnums=0)(fn, *args)
        for fn in (gru_scan, plain_gru_scan)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *grads)


# ------------------------------------------------------------------ the encoder


def encoder_case(**kwargs):
    rng = np.random.default_rng(3)
    t, b = 6, 3
    encoder = BeliefEncoder(4, 3, 5, 2, latent_size=2, **kwargs)
    action, obs = (jnp.asarray(rng.normal(size=(t, b, n)), jnp.float32) for n in (2, 3))
    reward = jnp.asarray(rng.normal(size=(t, b)), jnp.float32)
    valid = jnp.ones((t, b), bool).at[3:, 1].set(False)
    params = init(encoder, action, reward, obs, valid)
    return encoder, params, (action, reward, obs, valid)


@pytest.mark.parametrize("layers", [{}, {"layers_before": (5,), "layers_after": (3, 4)}])
def test_step_by_step_is_the_whole_sequence(layers):
    encoder, params, data = encoder_case(**layers)
    whole = jax.jit(encoder.apply)(params, *data)
    step = jax.jit(lambda *a: encoder.apply(params, *a, method="step"))
    belief = jax.jit(lambda h: encoder.apply(params, h, method="belief"))
    hidden = jnp.zeros((3, 4))
    for t in range(7):
        for a, b in zip(belief(hidden), whole, strict=True):
            np.testing.assert_allclose(a, b[t], rtol=1e-5, atol=1e-6)
        if t < 6:
            action, reward, obs, valid = (x[t] for x in data)
            hidden = jnp.where(valid[:, None], step(hidden, action, reward, obs), hidden)
    assert not np.allclose(whole.mean[2], whole.mean[3])
    np.testing.assert_array_equal(whole.mean[4:, 1], whole.mean[3:6, 1])  # padding


def test_encoder_against_numpy():
    encoder, params, (action, reward, obs, valid) = encoder_case()
    p = flat(params)
    layer = lambda x, name: x @ p[f"{name}/kernel"] + p[f"{name}/bias"]  # noqa: E731
    relu = lambda x: np.maximum(x, 0)  # noqa: E731
    hidden = np.zeros((3, 4))
    beliefs = [layer(hidden, "heads")]
    for t in range(6):
        embedded = [
            relu(layer(np.asarray(action[t]), "embed_action/Linear_0")),
            relu(layer(np.asarray(obs[t]), "embed_obs/Linear_0")),
            relu(layer(np.asarray(reward[t])[:, None], "embed_reward/Linear_0")),
        ]
        x = np.concatenate(embedded, axis=1)  # in the order action, state, reward
        maps = [
            p[f"{name}_map/{kind}"]
            for name in ("input", "recurrent")
            for kind in ("kernel", "bias")
        ]
        new = numpy_gru(hidden, x, *maps)
        hidden = np.where(np.asarray(valid[t])[:, None], new, hidden)
        beliefs.append(layer(hidden, "heads"))
    got = jax.jit(encoder.apply)(params, action, reward, obs, valid)
    np.testing.assert_allclose(got.vector(), np.stack(beliefs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.mean, np.stack(beliefs)[..., :2], rtol=1e-4, atol=1e-5)
    # The prior is the heads' bias: learned, and the same for all tasks.
    np.testing.assert_array_equal(got.vector()[0], np.tile(p["heads/bias"], (3, 1)))


def test_truncation_stops_gradients_at_its_multiples():
    encoder, params, (action, reward, obs, valid) = encoder_case()

    def last_mean(reward, truncation):
        out = encoder.apply(params, action, reward, obs, valid, truncation, method="sequence")
        return out.mean[:, 0].sum(axis=-1)

    def reach(truncation):
        jac = jax.jit(jax.jacobian(last_mean), static_argnums=1)(reward, truncation)
        return np.abs(jac[..., 0]) > 0  # [posterior, reward] of task 0

    full = np.tri(7, 6, -1, dtype=bool)  # posterior t knows rewards 0 … t - 1
    np.testing.assert_array_equal(reach(None), full)
    chunk = np.arange(6) // 2
    posterior_chunk = (np.arange(7) - 1) // 2
    np.testing.assert_array_equal(reach(2), full & (posterior_chunk[:, None] == chunk))
    np.testing.assert_array_equal(reach(10), full)
    values = [jax.jit(last_mean, static_argnums=1)(reward, n) for n in (2, None)]
    np.testing.assert_array_equal(*values)


# ------------------------------------------------------------------ decoders


@pytest.mark.parametrize("use_next_obs", [True, False])
def test_split_first_layer_is_one_layer_of_the_concatenation(use_next_obs):
    decoder = TransitionDecoder(2, (6, 4), 3, 5, use_next_obs, latent_size=2)
    rng = np.random.default_rng(4)
    latent, obs, action, after = (
        jnp.asarray(rng.normal(size=(7, n)), jnp.float32) for n in (2, 3, 1, 3)
    )
    params = init(decoder, latent, obs, action, after)
    p = flat(params)

    def embed(x, name):
        y = np.asarray(x) @ p[f"{name}/Linear_0/kernel"] + p[f"{name}/Linear_0/bias"]
        return np.maximum(y, 0)

    parts = [embed(after, "embed_obs")] if use_next_obs else []
    parts = [latent, *parts, embed(action, "embed_action"), embed(obs, "embed_obs")]
    x = np.concatenate(parts, axis=1)
    kernel = np.concatenate([p["latent_kernel"], p["step_kernel"]])
    x = np.maximum(x @ kernel + p["first_bias"], 0)
    x = np.maximum(x @ p["rest/Linear_0/kernel"] + p["rest/Linear_0/bias"], 0)
    want = x @ p["head/kernel"] + p["head/bias"]
    got = decoder.apply(params, latent, obs, action, after)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    bound = kernel.shape[0] ** -0.5  # one fan-in for both parts and the bias
    assert np.abs(kernel).max() <= bound and np.abs(p["first_bias"]).max() <= bound
    assert np.abs(kernel).max() > 0.9 * bound
    changed = decoder.apply(params, latent, obs, action, after + 1)
    assert np.allclose(changed, got) is not use_next_obs


def test_mlp_and_task_decoder():
    x = jnp.ones((2, 3, 4))
    mlp = MLP((), nn.relu)
    np.testing.assert_array_equal(mlp.apply(init(mlp, x), x), x)
    decoder = TaskDecoder(2, (8,))
    params = init(decoder, x)
    p = flat(params)
    h = np.maximum(np.asarray(x) @ p["MLP_0/Linear_0/kernel"] + p["MLP_0/Linear_0/bias"], 0)
    want = h @ p["Linear_0/kernel"] + p["Linear_0/bias"]
    np.testing.assert_allclose(decoder.apply(params, x), want, rtol=1e-5, atol=1e-6)


def test_orthogonal_matrices_of_several_seeds_are_made_one_by_one():
    """Batched QR decompositions can deadlock each other on few cores."""
    init = lambda key: orthogonal(2.0)(key, (3, 12))  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 4)
    with jax.debug_key_reuse(False):  # a false alarm: vmap of a scan over keys
        text = jax.jit(jax.vmap(init)).lower(keys).as_text()
        together = jax.vmap(init)(keys)
    calls = [line for line in text.splitlines() if "lapack" in line]
    assert calls
    assert not any("tensor<4x" in line for line in calls)
    for key, matrix in zip(keys, together, strict=True):
        np.testing.assert_allclose(matrix, init(key), rtol=1e-6)
        np.testing.assert_allclose(matrix @ matrix.T, 4 * np.eye(3), atol=1e-5)
