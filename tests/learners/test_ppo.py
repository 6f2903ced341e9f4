"""PPO's parts by hand, and its whole update against a plain restatement."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from roml_jax.learners.policy import policy
from roml_jax.learners.policy_parts import PolicyConfig, make_network, make_optimizer
from roml_jax.learners.policy_update import minibatch_indices
from roml_jax.learners.ppo import PPOConfig, ppo
from roml_jax.losses import normalize_advantages, policy_loss, value_loss, weighted_mean
from roml_jax.networks import PolicyOutput
from roml_jax.normalize import Moments
from roml_jax.rollout import Rollout, next_obs, seen_obs
from roml_jax.types import Boundary
from tests.probes import Echo, Probe

ONES = jnp.ones(4)

# ------------------------------------------------------------------ losses by hand


def test_policy_loss_of_hand_worked_samples():
    ratio = jnp.array([1.5, 1.5, 0.5, 0.5])
    advantage = jnp.array([2.0, -2.0, 2.0, -2.0])
    # clip 0.1: min(3, 2.2), min(-3, -2.2), min(1, 1.8), min(-1, -1.8)
    each = np.array([2.2, -3.0, 1.0, -1.8])
    args = jnp.log(ratio) - 3, -3 * ONES, advantage
    np.testing.assert_allclose(policy_loss(*args, ONES, 0.1), -each.mean(), rtol=1e-5)
    weight = jnp.array([1.0, 0.0, 1.0, 0.0])
    np.testing.assert_allclose(policy_loss(*args, weight, 0.1), -1.6, rtol=1e-5)
    # Only samples that are not beyond the clip on the good side push the policy.
    grads = jax.grad(lambda x: policy_loss(x, *args[1:], ONES, 0.1))(args[0])
    np.testing.assert_allclose(grads, [0, 3 / 4, -1 / 4, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("clip", "huber", "want"),
    [
        # values 0.5, 3, 0, 0; old 0, 0, 0, 1; targets 0.5, 0, 0, 0
        (None, False, [0.0, 9.0, 0.0, 0.0]),
        (None, True, [0.0, 2.5, 0.0, 0.0]),
        # clipped by 0.25: values 0.25, 0.25, 0, 0.75
        (0.25, False, [0.0625, 9.0, 0.0, 0.5625]),
        (0.25, True, [0.03125, 2.5, 0.0, 0.28125]),
    ],
)
def test_value_loss_of_hand_worked_samples(clip, huber, want):
    values, old = jnp.array([0.5, 3.0, 0.0, 0.0]), jnp.array([0.0, 0.0, 0.0, 1.0])
    targets = jnp.array([0.5, 0.0, 0.0, 0.0])
    got = value_loss(values, old, targets, ONES, clip=clip, huber=huber)
    np.testing.assert_allclose(got, np.mean(want) / 2, rtol=1e-6)
    weight = jnp.array([0.0, 1.0, 0.0, 1.0])
    got = value_loss(values, old, targets, weight, clip=clip, huber=huber)
    np.testing.assert_allclose(got, np.mean(np.array(want)[[1, 3]]) / 2, rtol=1e-6)


def test_weighted_mean():
    x = jnp.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(weighted_mean(x, jnp.array([1.0, 1.0, 0.0])), 1.5)
    assert weighted_mean(x, jnp.zeros(3)) == 0
    np.testing.assert_allclose(weighted_mean(x, jnp.array([1e-12, 3e-12, 0.0])), 1.75)


def test_advantages_are_normalised_over_the_samples_that_count():
    rng = np.random.default_rng(0)
    a, weight = rng.normal(2, 3, size=50).astype(np.float32), rng.random(50) < 0.5
    got = normalize_advantages(jnp.asarray(a), jnp.asarray(weight, jnp.float32))
    want = (a - a[weight].mean()) / (a[weight].std(ddof=1) + 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # Weights of any size, by the formula of NumPy.
    weight = rng.exponential(size=50).astype(np.float32)
    deviation = np.sqrt(np.cov(a, aweights=weight))
    want = (a - np.average(a, weights=weight)) / (deviation + 1e-5)
    for scale in (1e-4, 1.0, 1e4):
        got = normalize_advantages(jnp.asarray(a), jnp.asarray(scale * weight))
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    # Equal advantages, one sample and none give zero instead of NaN.
    for weight in (jnp.ones(3), jnp.array([1.0, 0.0, 0.0])):
        np.testing.assert_array_equal(normalize_advantages(jnp.full(3, 7.0), weight), 0)
    assert jnp.isfinite(normalize_advantages(jnp.full(3, 7.0), jnp.zeros(3))).all()


# ------------------------------------------------------------------ minibatches


@pytest.mark.parametrize("counting", [1.0, 0.5, 1 / 3])
def test_minibatches_are_partitions_with_an_even_share_of_what_counts(counting):
    n, epochs, parts = 60, 3, 5
    weight = (np.arange(n) % round(1 / counting) == 0).astype(np.float32)
    index = np.asarray(minibatch_indices(jax.random.key(0), jnp.asarray(weight), epochs, parts))
    assert index.shape == (epochs * parts, n // parts)
    for epoch in index.reshape(epochs, n):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(n))
    per_part = weight[index].sum(axis=1)
    assert per_part.max() - per_part.min() <= 1
    assert len({tuple(np.sort(part)) for part in index}) == epochs * parts  # shuffled anew


def test_minibatches_are_uniform():
    with jax.debug_key_reuse(False):
        index = jax.jit(jax.vmap(lambda k: minibatch_indices(k, jnp.ones(4), 1, 2)))(
            jax.random.split(jax.random.key(0), 3000)
        )
    first = np.sort(np.asarray(index[:, 0]), axis=1) @ [4, 1]
    _, counts = np.unique(first, return_counts=True)  # 6 pairs, 5 degrees of freedom
    assert len(counts) == 6 and ((counts - 500) ** 2 / 500).sum() < 5 + 5 * np.sqrt(10)


# ------------------------------------------------------------------ the optimiser


def test_learning_rate_falls_with_policy_updates():
    config = PolicyConfig(
        learning_rate=0.1, anneal_updates=4, epochs=2, minibatches=3, max_grad_norm=1e3
    )
    optimizer = make_optimizer(config)
    params = jnp.zeros(())
    state, rates = optimizer.init(params), []
    for _ in range(5 * 6):  # a constant gradient makes Adam move by the learning rate
        update, state = optimizer.update(jnp.ones(()), state, params)
        rates.append(-float(update))
    want = 0.1 * np.maximum(1 - np.repeat(np.arange(5), 6) / 4, 0)
    np.testing.assert_allclose(rates, want, rtol=1e-4, atol=1e-9)


def test_gradient_norm_is_clipped_over_all_parameters():
    config = PolicyConfig(max_grad_norm=0.5)
    optimizer = make_optimizer(config)
    params = {"a": jnp.zeros(2), "b": jnp.zeros(())}
    for scale, norm in ((1.0, 0.5), (0.01, 0.13)):
        grads = {"a": scale * jnp.array([3.0, 4.0]), "b": scale * jnp.array(12.0)}
        _, state = optimizer.update(grads, optimizer.init(params), params)
        mean = optax.tree_utils.tree_get(state, "mu")  # (1 - 0.9) times the gradient
        np.testing.assert_allclose(mean["a"], 0.1 * norm / 13 * np.array([3, 4]), rtol=1e-5)
        np.testing.assert_allclose(mean["b"], 0.1 * norm / 13 * 12, rtol=1e-5)


# ------------------------------------------------------------------ the update

K, H, B, O, M = 2, 4, 6, 3, 2  # noqa: E741
T = K * H
SMALL = PolicyConfig(
    layers=(5,), obs_embedding=4, latent_embedding=3, epochs=2, minibatches=2, adam_eps=1e-2
)
CONFIGS = {
    "original": dataclasses.replace(SMALL, unselected="constant_advantage"),
    "drop": dataclasses.replace(SMALL, time_limit="bootstrap", entropy_coef=0.1, clip=0.05),
    "plain": dataclasses.replace(
        SMALL,
        time_limit="continue",
        normalize_obs=False,
        normalize_latent=False,
        normalize_reward=False,
        clip_value=False,
        huber_value=False,
        minibatches=4,
    ),
}


def make_case(discrete, seed=0, terminations=True):
    """A random rollout of B tasks with beliefs; the first task's episode 0 ends at step 1."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    terminated = np.zeros((T, B), bool)
    valid = np.ones((T, B), bool)
    reward = 3 * normal(T, B)
    if terminations:
        terminated[[1, H + 2], [0, 1]] = True
        valid[2:H, 0] = valid[H + 3 :, 1] = False
        reward *= valid
    action = rng.integers(0, 2, size=(T, B)).astype(np.int32) if discrete else normal(T, B, 2)
    data = Rollout(
        obs=1 + 2 * normal(K, H + 1, B, O),
        action=action,
        reward=reward,
        terminated=terminated,
        valid=valid,
        extras=(),
        info={},
        tasks=normal(B, 1),
        carry=(),
        start_unseen=np.arange(K) > 0,
    )
    return jax.tree.map(jnp.asarray, data), jnp.asarray(normal(T + 1, B, M))


def make_update(config, discrete):
    env = Probe("match") if discrete else Echo()
    network, actor = make_network(env, config), policy(env, config, O, M)
    state = actor.init(jax.random.key(1))
    # Moments that have seen something, so that old and new ones matter.
    moments = Moments(jnp.full(O, 0.5), jnp.full(O, 4.0), jnp.float32(20.0))
    params = state.params._replace(obs_moments=moments)
    state = state._replace(
        params=params, reward_moments=Moments(*map(jnp.float32, (1.0, 9.0, 30.0)))
    )

    def update(data, belief, mask, key=0):
        weights = jnp.asarray(mask, jnp.float32)
        new, _, metrics = actor.improve(jax.random.key(key), state, data, belief, weights)
        return new, metrics

    return network, state, update


def merge(moments, x):
    """The rule of section 1.4 in NumPy."""
    mean, var, n = (np.asarray(v, np.float64) for v in moments[:3])
    m, delta = len(x), x.mean(0) - mean
    m2 = var * n + x.var(0, ddof=1) * m + delta**2 * n * m / (n + m)
    return mean + delta * m / (n + m), m2 / (n + m)


def scaled_rewards(moments, rewards, discount):
    """The original code's reward wrapper over one meta-episode."""
    mean, var, n = (float(v) for v in moments[:3])
    g, out = np.zeros(rewards.shape[1]), np.zeros(rewards.shape)
    for t, r in enumerate(rewards):
        g = discount * g + r if t < len(rewards) - 1 else np.zeros_like(g)
        m, delta = len(g), g.mean() - mean
        m2 = var * n + g.var() * m + delta**2 * n * m / (n + m)
        mean, var, n = mean + delta * m / (n + m), m2 / (n + m), n + m
        out[t] = np.clip(r / np.sqrt(var + 1e-8), -10, 10)
    return out


def restated_update(config, network, state, data, belief, mask, key, discrete):
    """One training step as sections 1.7, 1.9 and 1.10 tell it, with loops over (t, b)."""
    obs, after = np.asarray(seen_obs(data.obs)), np.asarray(next_obs(data.obs))
    belief = np.asarray(belief)

    def scale(x, moments, on):
        mean, var = moments
        return (x - mean) / np.sqrt(var + 1e-8) if on else x

    def network_inputs(obs, belief, obs_moments, belief_moments):
        obs = scale(obs, obs_moments, config.normalize_obs)
        belief = scale(belief, belief_moments, config.normalize_latent)
        return jnp.asarray(obs, jnp.float32), jnp.asarray(belief, jnp.float32)

    apply = jax.jit(network.apply)
    old = [tuple(map(np.asarray, m[:2])) for m in state.params[1:]]
    values = np.asarray(apply(state.params.network, *network_inputs(obs, belief[:-1], *old))[1])
    next_values = np.asarray(
        apply(state.params.network, *network_inputs(after, belief[1:], *old))[1]
    )
    rewards = np.asarray(data.reward)
    if config.normalize_reward:
        rewards = scaled_rewards(state.reward_moments, rewards, config.discount)
    valid, terminated = np.asarray(data.valid), np.asarray(data.terminated)
    advantages = np.zeros((T, B))
    for b in range(B):
        trace = 0.0
        for t in reversed(range(T)):
            limit = (t + 1) % H == 0
            follow = next_values[t, b]
            if config.time_limit == "continue":
                follow = 0.0 if t == T - 1 else values[t + 1, b]
                limit = t == T - 1
            if terminated[t, b]:
                follow, limit = 0.0, True
            if limit:
                trace = 0.0
            delta = rewards[t, b] + config.discount * follow - values[t, b]
            trace = delta + config.discount * config.gae_lambda * trace
            if config.time_limit == "ignore" and (t + 1) % H == 0:
                trace = 0.0
            advantages[t, b] = trace
    weight = valid * 1.0
    if config.unselected == "drop":
        weight *= mask
    else:  # b = 0 in the whole column: A = 0 and R = V_old
        advantages[:, ~mask] = 0.0
    targets = advantages + values
    count = advantages[weight > 0]
    normalized = (advantages - count.mean()) / (count.std(ddof=1) + 1e-5)
    new = [
        merge(state.params.obs_moments, obs.reshape(-1, O)),
        merge(state.params.belief_moments, belief[:-1].reshape(-1, M)),
    ]
    inputs = network_inputs(obs, belief[:-1], *new)
    action = np.asarray(data.action)

    def log_prob(out, action):
        if discrete:
            logits = out.location - jax.nn.logsumexp(out.location, axis=-1, keepdims=True)
            return jnp.take_along_axis(logits, action[..., None], axis=-1)[..., 0]
        z = (action - out.location) / out.std
        return jnp.sum(-0.5 * z**2 - jnp.log(out.std) - 0.5 * np.log(2 * np.pi), axis=-1)

    def entropy(out):
        if discrete:
            logits = out.location - jax.nn.logsumexp(out.location, axis=-1, keepdims=True)
            return -jnp.sum(jnp.exp(logits) * logits, axis=-1)
        return jnp.sum(jnp.log(out.std) + 0.5 * np.log(2 * np.pi * np.e), axis=-1)

    old_log_prob = log_prob(apply(state.params.network, *inputs)[0], action)
    arrays = (*inputs, action, old_log_prob, values, normalized, targets, weight)
    flat = [jnp.asarray(np.asarray(x).reshape(T * B, *np.shape(x)[2:])) for x in arrays]
    flat = [x if x.dtype == jnp.int32 else x.astype(jnp.float32) for x in flat]

    @jax.jit
    def loss(weights, batch):
        obs, belief, action, old_log_prob, old_value, advantage, target, weight = batch
        out, value = network.apply(weights, obs, belief)
        mean = lambda x: jnp.sum(x * weight) / jnp.sum(weight)  # noqa: E731
        rho = jnp.exp(log_prob(out, action) - old_log_prob)
        clipped = jnp.clip(rho, 1 - config.clip, 1 + config.clip)
        policy = -mean(jnp.minimum(rho * advantage, clipped * advantage))

        def error(d):
            if not config.huber_value:
                return d**2
            return jnp.where(jnp.abs(d) < 1, 0.5 * d**2, jnp.abs(d) - 0.5)

        critic = error(value - target)
        if config.clip_value:
            near = old_value + jnp.clip(value - old_value, -config.clip, config.clip)
            critic = jnp.maximum(critic, error(near - target))
        critic, bonus = 0.5 * mean(critic), mean(entropy(out))
        total = policy + config.value_coef * critic - config.entropy_coef * bonus
        return total, {"policy_loss": policy, "value_loss": critic, "entropy": bonus}

    optimizer = optax.adam(config.learning_rate, eps=config.adam_eps)
    weights, all_metrics = state.params.network, []
    opt_state = optimizer.init(weights)
    for index in minibatch_indices(key, flat[-1], config.epochs, config.minibatches):
        grads, metrics = jax.jit(jax.grad(loss, has_aux=True))(weights, [x[index] for x in flat])
        norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda g: g * jnp.minimum(1, config.max_grad_norm / norm), grads)  # noqa: B023
        updates, opt_state = optimizer.update(grads, opt_state)
        weights = optax.apply_updates(weights, updates)
        all_metrics.append(metrics)
    metrics = jax.tree.map(lambda *x: np.mean(x), *all_metrics)
    return weights, metrics, new


def assert_same(a, b, rtol=2e-3, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


MASK = np.array([True, True, False, True, False, False])


@pytest.mark.parametrize(
    ("name", "discrete"), [("original", True), ("drop", False), ("plain", True)]
)
def test_update_is_the_restatement(name, discrete):
    config = CONFIGS[name]
    network, state, update = make_update(config, discrete)
    data, belief = make_case(discrete)
    new, metrics = jax.jit(update)(data, belief, MASK)
    weights, want_metrics, moments = restated_update(
        config, network, state, data, belief, MASK, jax.random.key(0), discrete
    )
    old = state.params.network
    moved = jax.tree.map(lambda a, b: a - b, new.params.network, old)
    assert optax.tree.norm(moved) > 1e-4
    assert_same(moved, jax.tree.map(lambda a, b: a - b, weights, old), atol=1e-6)
    ended = np.asarray(data.terminated).reshape(data.episodes, data.horizon, -1).any(axis=1)
    want_metrics["terminated"] = ended.mean()
    assert_same(metrics, want_metrics, rtol=1e-4, atol=1e-5)
    for got, want in zip(new.params[1:], moments, strict=True):
        assert_same(got[:2], want, rtol=1e-4)
    assert new.params.obs_moments.weight == 20 + T * B


def garbage(data, belief):
    """The rollout with everything of the unselected tasks replaced."""
    other, other_belief = make_case(discrete=False, seed=7, terminations=False)

    def pick(axis, a, b):
        return jnp.where(MASK.reshape((-1,) + (1,) * (a.ndim - axis - 1)), a, 5 * b)

    data = data._replace(
        action=pick(1, data.action, other.action),
        reward=pick(1, data.reward, other.reward),
        obs=pick(2, data.obs, other.obs),
    )
    return data, pick(1, belief, other_belief)


@pytest.mark.parametrize("unselected", ["drop", "constant_advantage"])
def test_what_the_mask_leaves_out(unselected):
    """Dropped tasks cannot move the policy; constant advantages can."""
    off = dict(normalize_obs=False, normalize_latent=False, normalize_reward=False)
    config = dataclasses.replace(SMALL, unselected=unselected, **off)
    _, state, update = make_update(config, discrete=False)
    update = jax.jit(update)
    data, belief = make_case(discrete=False)
    got = update(data, belief, MASK)
    other = update(*garbage(data, belief), MASK)
    old = state.params.network
    difference = optax.tree.norm(
        jax.tree.map(lambda a, b: a - b, got[0].params.network, other[0].params.network)
    )
    moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, got[0].params.network, old))
    if unselected == "drop":
        assert difference < 1e-4 * moved
        assert_same(got[1], other[1], rtol=1e-5)
    else:
        assert difference > 0.1 * moved
    # Statistics take in all tasks, in either mode.
    assert not np.allclose(got[0].params.obs_moments.mean, other[0].params.obs_moments.mean)


def test_tasks_count_by_their_weights():
    config = dataclasses.replace(SMALL, unselected="drop", minibatches=1)
    _, state, update = make_update(config, discrete=True)
    update, (data, belief) = jax.jit(update), make_case(discrete=True)

    def moved(weights):
        new, _ = update(data, belief, np.float32(weights))
        return jax.tree.map(lambda a, b: a - b, new.params.network, state.params.network)

    def apart(a, b):
        return float(optax.tree.norm(jax.tree.map(jnp.subtract, a, b)) / optax.tree.norm(b))

    equal, some = moved(np.ones(B)), moved(MASK)
    assert apart(moved(np.full(B, 0.25)), equal) < 1e-3  # their common size does not matter
    assert apart(moved(np.where(MASK, 1.0, 1e-5)), some) < 1e-3  # next to nothing is nothing
    halfway = moved(np.where(MASK, 1.0, 0.3))
    assert apart(halfway, equal) > 0.01 and apart(halfway, some) > 0.01


def test_nothing_selected_moves_nothing():
    config = dataclasses.replace(SMALL, unselected="drop")
    _, state, update = make_update(config, discrete=True)
    data, belief = make_case(discrete=True)
    new, metrics = jax.jit(update)(data, belief, np.zeros(B, bool))
    assert_same(new.params.network, state.params.network, rtol=0, atol=0)
    assert all(np.isfinite(v) for v in metrics.values())


# ------------------------------------------------------------------ the agent and the learner


def small(env_kind="match", **kwargs):
    policy = dataclasses.replace(SMALL, **kwargs.pop("policy", {}))
    return Probe(env_kind), PPOConfig(num_tasks=4, policy=policy, **kwargs)


@pytest.mark.parametrize("kind", ["match", "follow"])
def test_sampled_and_most_likely_actions(kind):
    env, config = small(kind)
    learner = ppo(env, config)
    params = learner.params(learner.init(jax.random.key(0)))
    network = make_network(env, config.policy)
    bias = jnp.array([0.0, 1.0]) if kind == "match" else jnp.array([0.7])
    head = params.policy.network["params"]["actor_head"]
    head["bias"] = bias
    n = 4000
    obs = jnp.ones((n, 2))
    out = network.apply(
        params.policy.network, obs * 1.0 / jnp.sqrt(1 + 1e-8), jnp.zeros((n, 0)), method="policy"
    )
    act = jax.jit(learner.agent.act, static_argnums=4)
    greedy, _ = act(params, jnp.zeros(n), obs, jax.random.key(1), True)
    sample, extras = act(params, jnp.zeros(n), obs, jax.random.key(1), False)
    assert extras.shape == (n, 0)
    if kind == "match":
        assert (greedy == 1).all() and sample.dtype == jnp.int32
        p = jax.nn.softmax(out.location[0])[1]
        assert abs(sample.mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
    else:
        np.testing.assert_allclose(greedy, out.location, rtol=1e-5)
        assert abs(sample.mean() - greedy[0, 0]) < 5 / np.sqrt(n)
        assert abs(sample.std() - 1) < 5 / np.sqrt(2 * n)
    assert isinstance(out, PolicyOutput)


def test_squash_stores_the_action_before_it():
    config = PPOConfig(2, policy=dataclasses.replace(SMALL, squash=True))
    learner = ppo(Echo(), config)
    tasks = jnp.array([[1.0, 99.0], [2.0, 99.0]])
    state = learner.init(jax.random.key(0))
    _, data, returns = jax.jit(learner.collect)(jax.random.key(1), state, tasks)
    assert jnp.abs(data.action).max() > 1
    echo = next_obs(data.obs)[..., 3]
    np.testing.assert_allclose(echo, jnp.tanh(data.action[..., 0]), rtol=1e-6)
    np.testing.assert_array_equal(returns, [410, 810])
    with pytest.raises(ValueError, match="continuous"):
        ppo(Probe("match"), config)


def test_warmup_keeps_the_policy():
    env, config = small(warmup_frames=17)  # 8 frames a step: the third is the first
    learner = ppo(env, config)
    assert learner.frames_per_step == 8 and learner.num_tasks == 4
    state = learner.init(jax.random.key(0))
    collect, update = jax.jit(learner.collect), jax.jit(learner.update)
    for i in range(3):
        before, keys = state.policy, jax.random.split(jax.random.key(i))
        state, data, _ = collect(keys[0], state, jnp.zeros((4, 1)))
        state, _ = update(keys[1], state, data, jnp.ones(4))
        same = jax.tree.map(jnp.array_equal, before.params.network, state.policy.params.network)
        assert all(jax.tree.leaves(same)) == (i < 2)
        assert state.frames == 8 * (i + 1)
        # The environment's wrapper scales rewards from the first step on (section 1.4).
        assert state.policy.reward_moments.weight > 8 * (i + 1)


def test_wrong_values():
    env = Probe("match")
    with pytest.raises(ValueError, match=r"one of 1, 2, 4, 8; got 3"):
        ppo(env, PPOConfig(4, policy=dataclasses.replace(SMALL, minibatches=3)))
    with pytest.raises(ValueError, match="num_tasks must be at least 1; got 0"):
        ppo(env, PPOConfig(0))
    for name, value in [("epochs", 0), ("discount", 1.5), ("clip", 0.0), ("gae_lambda", -0.1)]:
        with pytest.raises(ValueError, match=rf"{name}( must be at|={value} is|.* positive)"):
            dataclasses.replace(SMALL, **{name: value})
    assert ppo(env, PPOConfig(4, 0, Boundary("start", False), SMALL)).num_tasks == 4
