"""The soft actor-critic against integrals, enumeration and a restatement in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import distributions
from roml_jax.learners.sac import SACConfig, Transitions, soft_actor_critic
from roml_jax.types import Box, Discrete

OBS, A, L, N = 3, 2, 2, 6
RNG = np.random.default_rng(0)


def test_tanh_density_integrates_to_one_and_holds_at_saturation():
    for mean, std in ((0.3, 0.5), (-2.0, 1.5), (10.0, 0.3)):
        u = np.linspace(mean - 8 * std, mean + 8 * std, 40_001)
        # The density of a = tanh(u), integrated over a = tanh(u): da = (1 - a^2) du, in float64.
        log_jacobian = 2 * (np.log(2) - np.logaddexp(u, -u))
        normal = -0.5 * ((u - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
        many = jnp.full((2000, 1), mean), jnp.full((2000, 1), std)
        samples, log_prob = distributions.sample_tanh_normal(jax.random.key(0), *many)
        assert np.isfinite(log_prob).all()
        if mean < 5:  # where the action can be inverted
            back = np.arctanh(np.asarray(samples[:, 0], np.float64))
            want = np.interp(back, u, normal - log_jacobian)
            np.testing.assert_allclose(log_prob, want, atol=0.02)
        total = np.trapezoid(np.exp(normal - log_jacobian) * np.exp(log_jacobian), u)
        np.testing.assert_allclose(total, 1, rtol=1e-6)
    # At 10 the action is 1 but for rounding; the log-density is that of u all the same.
    assert (samples > 1 - 1e-6).all()
    entropy = 0.5 * np.log(2 * np.pi * np.e * 0.3**2) + np.trapezoid(
        np.exp(normal) * log_jacobian, u
    )
    np.testing.assert_allclose(-log_prob.mean(), entropy, atol=0.05)


def forward(params, *inputs):
    """A network in NumPy, double precision."""
    layers = params["params"]
    x = np.concatenate(inputs, axis=-1)
    hidden = layers["MLP_0"]
    for name in sorted(hidden):
        x = np.maximum(x @ hidden[name]["kernel"] + hidden[name]["bias"], 0)
    last = layers["Linear_0"]
    return x @ last["kernel"] + last["bias"]


def twin(critics, i):
    return jax.tree.map(lambda x: x[i], critics)


class Restated:
    """All losses of one step, as functions of parameters in double precision."""

    def __init__(self, config, discrete, batch, latent, noise):
        self.config, self.discrete, self.batch = config, discrete, batch
        self.latent, self.noise = latent, noise

    def soft(self, policy, critics, temperature, obs, noise):
        c = self.config
        if self.discrete:
            logits = forward(policy, obs, self.latent)
            log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            lower = np.minimum(*(forward(twin(critics, i), obs, self.latent) for i in range(2)))
            probs = np.exp(log_probs)
            return (probs * (lower - temperature * log_probs)).sum(-1), 0.0
        mean, log_std = np.split(forward(policy, obs, self.latent), 2, axis=-1)
        log_std = np.clip(log_std, -20, 2)
        u = mean + np.exp(log_std) * noise
        a = np.tanh(u)
        log_prob = (-0.5 * noise**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
        log_prob -= (2 * (np.log(2) - np.logaddexp(u, -u))).sum(-1)
        lower = np.minimum(
            *(forward(twin(critics, i), obs, a, self.latent)[:, 0] for i in range(2))
        )
        penalty = c.mean_penalty * (mean**2).mean(-1) + c.std_penalty * (log_std**2).mean(-1)
        return lower - temperature * log_prob, penalty

    def critic(self, critics, next_value, weight):
        b, c = self.batch, self.config
        y = c.reward_scale * b.reward + c.discount * np.where(b.terminated, 0, next_value)
        total = 0.0
        for i in range(2):
            if self.discrete:
                q = forward(twin(critics, i), b.obs, self.latent)[np.arange(N), b.action]
            else:
                q = forward(twin(critics, i), b.obs, b.action, self.latent)[:, 0]
            total += (weight * (q - y) ** 2).sum() / weight.sum()
        return total

    def policy(self, policy, critics, temperature, weight):
        soft, penalty = self.soft(policy, critics, temperature, self.batch.obs, self.noise)
        return (weight * (penalty - soft)).sum() / weight.sum()

    def value(self, value, target, weight):
        error = (forward(value, self.batch.obs, self.latent)[:, 0] - target) ** 2
        return (weight * error).sum() / weight.sum()


def check_first_step(loss, before, after, rate, grad_floor=1e-4):
    """Adam's first step is the rate against the gradient's sign: by finite differences."""
    leaves, tree = jax.tree.flatten(before)
    checked = 0
    for at, leaf in enumerate(leaves):
        for _ in range(4):
            index = tuple(int(RNG.integers(n)) for n in leaf.shape)

            def moved(step, at=at, index=index):
                changed = [np.array(x) for x in leaves]
                changed[at][index] += step
                return loss(jax.tree.unflatten(tree, changed))

            grad = (moved(1e-5) - moved(-1e-5)) / 2e-5
            change = jax.tree.leaves(after)[at][index] - leaf[index]
            if abs(grad) > grad_floor:
                np.testing.assert_allclose(change, -rate * np.sign(grad), rtol=0.02)
                checked += 1
    assert checked >= 5


def as_double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


@pytest.mark.parametrize("critic", ["value", "targets"])
@pytest.mark.parametrize("discrete", [False, True], ids=["box", "discrete"])
def test_one_update_against_numpy(discrete, critic):
    config = SACConfig(
        layers=(5, 4), critic=critic, temperature=0.3, reward_scale=2.0, learning_rate=1e-3,
        mean_penalty=0.1, std_penalty=0.2, target_rate=0.25,
    )  # fmt: skip
    sac = soft_actor_critic(Discrete(A) if discrete else Box(A), OBS, L, config)
    state = sac.init(jax.random.key(0))
    # Last layers start near zero, where all that follows would be alike: make them larger.
    state = jax.tree.map(lambda x: 20 * x if x.ndim and jnp.abs(x).max() < 0.01 else x, state)
    state = state._replace(targets=jax.tree.map(lambda x: 1.5 * x, state.targets))
    action = RNG.integers(0, A, N).astype(np.int32) if discrete else RNG.uniform(-1, 1, (N, A))
    batch = Transitions(
        RNG.normal(size=(N, OBS)), action, RNG.normal(size=N), RNG.normal(size=(N, OBS)),
        RNG.uniform(size=N) < 0.3,
    )  # fmt: skip
    latent, weight = RNG.normal(size=(N, L)), RNG.uniform(0.2, 2.0, N)
    given = jax.tree.map(jnp.asarray, (batch, latent, weight))

    def noise_of(key):  # of the policy's draws at a key
        zero, one = jnp.zeros((N, A)), jnp.ones((N, A))
        drawn = distributions.diagonal_normal(zero, one).sample(seed=key)
        return np.asarray(drawn, np.float64)

    restated = Restated(config, discrete, batch, latent, noise_of(jax.random.key(1)))
    p, targets = as_double(state.params), as_double(state.targets)
    if critic == "value":
        next_value = forward(targets, batch.next_obs, latent)[:, 0]
    else:
        next_value = restated.soft(
            p.policy, targets, 0.3, batch.next_obs, noise_of(jax.random.key(2))
        )[0]
    got = sac.next_value(jax.random.key(2), state, given[0].next_obs, given[1])
    np.testing.assert_allclose(got, next_value, rtol=1e-4, atol=1e-5)

    loss, grads = jax.value_and_grad(sac.critic_loss)(
        state.params.critics, *given[:2], got, given[2]
    )
    np.testing.assert_allclose(loss, restated.critic(p.critics, next_value, weight), rtol=1e-4)
    new = sac.descend_critics(grads, state)
    check_first_step(
        lambda c: restated.critic(c, next_value, weight),
        p.critics,
        as_double(new.params.critics),
        1e-3,
    )

    last, metrics = sac.improve(jax.random.key(1), new, *given)
    q = as_double(new.params.critics)
    want = restated.policy(p.policy, q, 0.3, weight)
    np.testing.assert_allclose(metrics["policy_loss"], want, rtol=1e-4)
    check_first_step(
        lambda w: restated.policy(w, q, 0.3, weight), p.policy, as_double(last.params.policy), 1e-3
    )
    newest = last.params.critics
    if critic == "value":
        soft = restated.soft(p.policy, q, 0.3, batch.obs, restated.noise)[0]
        np.testing.assert_allclose(
            metrics["value_loss"], restated.value(p.value, soft, weight), rtol=1e-4
        )
        check_first_step(
            lambda v: restated.value(v, soft, weight), p.value, as_double(last.params.value), 1e-3
        )
        newest = last.params.value
    # Polyak: a quarter of the newest parameters.
    for got, old, new_ in zip(
        jax.tree.leaves(last.targets), jax.tree.leaves(state.targets), jax.tree.leaves(newest),
        strict=True,
    ):  # fmt: skip
        np.testing.assert_allclose(got, 0.75 * old + 0.25 * new_, rtol=1e-5, atol=1e-7)
    assert last.params.log_temperature == state.params.log_temperature


def test_no_gradient_reaches_the_latent_but_through_the_critics():
    sac = soft_actor_critic(Box(A), OBS, L, SACConfig(layers=(4,)))
    state = sac.init(jax.random.key(0))
    batch = Transitions(
        *(jnp.ones(s) for s in ((N, OBS), (N, A), (N,), (N, OBS))), jnp.zeros(N, bool)
    )

    def policy(latent):
        return sac.improve(jax.random.key(1), state, batch, latent, jnp.ones(N))[1]["policy_loss"]

    def critic(latent):
        return sac.critic_loss(state.params.critics, batch, latent, jnp.zeros(N), jnp.ones(N))

    assert (jax.grad(policy)(jnp.ones((N, L))) == 0).all()
    assert (jax.grad(critic)(jnp.ones((N, L))) != 0).any()


@pytest.mark.parametrize("actions", [Box(A), Discrete(4)], ids=["box", "discrete"])
def test_a_learned_temperature_leads_to_the_target_entropy(actions):
    """All actions are worth the same: the entropy that pays is whatever is asked for."""
    target = 0.9 if isinstance(actions, Discrete) else -1.0
    config = SACConfig(
        layers=(16,), temperature=None, target_entropy=target, discount=0.0, learning_rate=3e-3,
        mean_penalty=0.0, std_penalty=0.0,
    )  # fmt: skip
    sac = soft_actor_critic(actions, OBS, L, config)
    obs, latent = jnp.ones((32, OBS)), jnp.ones((32, L))

    def step(state, key):
        act_key, key = jax.random.split(key)
        action = sac.act(state.params.policy, obs, latent, act_key, False)
        first = action == 0 if isinstance(actions, Discrete) else action[:, 0] > 0
        batch = Transitions(obs, action, first.astype(jnp.float32), obs, jnp.ones(32, bool))
        grads = jax.grad(sac.critic_loss)(
            state.params.critics, batch, latent, jnp.zeros(32), jnp.ones(32)
        )
        state, metrics = sac.improve(
            key, sac.descend_critics(grads, state), batch, latent, jnp.ones(32)
        )
        return state, metrics

    run = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(jax.random.key(1), 3000)))
    _, metrics = run(sac.init(jax.random.key(0)))
    np.testing.assert_allclose(metrics["entropy"][-300:].mean(), target, atol=0.15)
    assert metrics["temperature"][0] != metrics["temperature"][-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"discount": 1.5}, "discount=1.5"),
        ({"target_rate": 0.0}, "target_rate=0.0"),
        ({"layers": (0,)}, "layers must be at least 1"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
        ({"mean_penalty": -1.0}, "mean_penalty must be at least 0"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        SACConfig(**changes)
