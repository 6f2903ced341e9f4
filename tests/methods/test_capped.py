"""Return capping: what is capped, what the critic is told, and where it leads."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import families, methods
from roml_jax.learners import PolicyConfig, PPOConfig, ppo
from roml_jax.methods.capped import capped_rewards, with_cap
from roml_jax.rollout import Rollout, rollout_returns
from roml_jax.train import make_train
from roml_jax.types import Discrete, TimeStep
from tests.learners.small import make_learner
from tests.probes import Echo, Probe

ENV = Probe("arms", length=3, horizon=3, episodes=2)
POLICY = PolicyConfig(layers=(4,), obs_embedding=None, minibatches=2, epochs=1)
TASKS = jnp.array([[0.0], [1.0], [1.0], [0.0]])
ONES = jnp.ones(4)


def same(a, b):
    return jax.tree.all(jax.tree.map(jnp.array_equal, a, b))


@pytest.fixture(scope="module")
def plain():
    return ppo(ENV, PPOConfig(num_tasks=4, policy=POLICY))


@pytest.fixture(scope="module")
def capped(plain):
    made = with_cap(plain, 0.5, cap_step=0.25)
    jitted = {name: jax.jit(getattr(made, name)) for name in ("init", "collect", "update")}
    return made._replace(**jitted)


@pytest.mark.parametrize("cap", [-2.0, 0.7, 3.0])
def test_capped_rewards_add_up_to_capped_returns(cap):
    """Against a loop over steps and tasks in plain Python."""
    rng = np.random.default_rng(0)
    reward = rng.normal(size=(6, 5)).astype(np.float32)
    data = Rollout(jnp.zeros((2, 4, 5, 1)), *[None] * 9)  # all that is read: two episodes
    got = capped_rewards(jnp.asarray(reward), jnp.float32(cap), data)
    total = np.zeros(5)
    for t in range(6):
        before, total = np.minimum(total, 2 * cap), total + reward[t]
        np.testing.assert_allclose(got[t], np.minimum(total, 2 * cap) - before, atol=1e-6)
    returns = total / 2
    want = 2 * np.minimum(returns, cap) - 2 * min(0, cap)
    np.testing.assert_allclose(got.sum(axis=0), want, atol=1e-5)


def test_the_update_is_that_of_capped_rewards_and_a_critic_who_is_told(plain, capped):
    state, data, returns = capped.collect(jax.random.key(1), capped.init(jax.random.key(0)), TASKS)
    np.testing.assert_allclose(returns, rollout_returns(data.rollout))
    assert len({*returns.tolist()}) > 2
    new, metrics = capped.update(jax.random.key(2), state, data, ONES)
    # the population-corrected median of four is half way between the two in the middle
    cap = np.sort(returns)[1:3].mean()
    np.testing.assert_allclose([new.cap, metrics["cap"]], cap, rtol=1e-6)
    np.testing.assert_allclose(metrics["capped"], (np.asarray(returns) > cap).mean())

    earned = np.zeros((2, 4, 4))  # [K, H + 1, B]: of both episodes, before each step
    reward = np.asarray(data.rollout.reward)
    for k in range(2):
        for h in range(4):
            earned[k, h] = reward[: 3 * k + h].sum(axis=0) / 2
    # scaled by all that was seen, with the weight of the moments' start
    scale = np.sqrt(float(new.returns.var))
    np.testing.assert_allclose(scale, np.std(returns), rtol=1e-3)
    told = jnp.asarray((earned - cap) / scale, jnp.float32)[..., None]
    rewards = capped_rewards(data.rollout.reward, new.cap, data.rollout)
    by_hand = data.rollout._replace(reward=rewards, told=told)
    update = jax.jit(plain.informed(1).update)
    want, _ = update(jax.random.key(2), state.learner, by_hand, ONES)
    for a, b in zip(*map(jax.tree.leaves, (new.learner, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # The critic hears it, and the actor does not: it has no such input.
    deaf, _ = update(jax.random.key(2), state.learner, by_hand._replace(told=0 * told), ONES)
    assert not same(deaf.policy.params, want.policy.params)
    shapes = jax.tree.map(jnp.shape, state.learner.policy.params.network["params"])
    assert shapes["critic"]["Linear_0"]["kernel"] == (3, 4)
    assert shapes["actor"]["Linear_0"]["kernel"] == (2, 4)


def test_the_cap_follows_the_quantile_and_no_broken_return(capped):
    state, data, _ = capped.collect(jax.random.key(1), capped.init(jax.random.key(0)), TASKS)

    def move(state, returns):
        return capped.update(jax.random.key(2), state, data._replace(returns=returns), ONES)[0]

    nothing = jnp.full(4, jnp.nan)
    state = move(state, nothing)
    assert state.cap == 0 and state.returns.weight < 1
    state = move(state, jnp.array([2.0, jnp.nan, 2.0, 2.0]))
    np.testing.assert_allclose(state.cap, 2)  # starts at the first that is known
    np.testing.assert_allclose(state.returns.weight, 3, rtol=1e-3)
    state = move(state, jnp.array([4.0, 4.0, 4.0, -jnp.inf]))
    np.testing.assert_allclose(state.cap, 2.5)  # a quarter of the way
    assert move(state, nothing).cap == state.cap


def test_the_cap_has_a_floor(plain):
    floored = with_cap(plain, 0.5, cap_floor=4.0)
    state, data, returns = floored.collect(
        jax.random.key(1), floored.init(jax.random.key(0)), TASKS
    )
    assert returns.max() < 4
    assert jax.jit(floored.update)(jax.random.key(2), state, data, ONES)[0].cap == 4


@pytest.mark.parametrize("name", ["maml", "pearl"])
def test_a_learner_without_a_critic_of_rollouts_learns_below_the_cap_alone(name):
    learner = make_learner(name)
    capped = with_cap(learner, 0.5)
    state = capped.init(jax.random.key(0))
    state, data, returns = jax.jit(capped.collect)(jax.random.key(1), state, TASKS)
    new, metrics = jax.jit(capped.update)(jax.random.key(2), state, data, ONES)
    below = (returns <= new.cap).astype(jnp.float32)
    assert name == "pearl" or below.sum() == 2
    want, _ = jax.jit(learner.update)(jax.random.key(2), state.learner, data.rollout, below)
    for a, b in zip(*map(jax.tree.leaves, (new.learner, want)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    assert 0 <= metrics["capped"] <= 0.5


def test_a_rollout_that_does_not_tell_is_refused_in_one_line(plain):
    learner = plain.informed(1)
    state, data, _ = learner.collect(jax.random.key(1), learner.init(jax.random.key(0)), TASKS)
    with pytest.raises(ValueError, match=r"critic/Linear_0 takes 3 components; got") as error:
        learner.update(jax.random.key(2), state, data, ONES)
    assert "\n" not in str(error.value)


def test_the_cap_counts_returns_of_whole_meta_episodes():
    """Rewards of ``Echo`` are known: 100 id + step, over three episodes of four steps."""
    env = Echo()
    learner = ppo(env, PPOConfig(num_tasks=2, policy=POLICY))
    capped = with_cap(learner, 1.0)
    tasks = jnp.array([[0.0, 9.0], [1.0, 9.0]])  # returns 10 and 410
    _, data, returns = jax.jit(capped.collect)(
        jax.random.key(1), capped.init(jax.random.key(0)), tasks
    )
    np.testing.assert_allclose(returns, [10, 410])
    got = np.asarray(capped_rewards(data.rollout.reward, jnp.float32(200), data.rollout))
    np.testing.assert_allclose(got.sum(axis=0), [30, 600])
    # 410 a episode: the cap of 3 * 200 is reached in the second, with its second step.
    np.testing.assert_allclose(got[:, 1], [101, 102, 103, 104, 101, 89, 0, 0, 0, 0, 0, 0])


@dataclass(frozen=True)
class Bet:
    """One step: 0.5 for action 0; for action 1, 1 in nine tasks of ten, and -1 in the tenth."""

    horizon: int = 1
    episodes: int = 1
    observation_size: int = 1
    action_space: Discrete = Discrete(2)  # noqa: RUF009

    @property
    def family(self):
        return families.categorical([0.9, 0.1], name="bad")

    def reset(self, key, task):
        del key, task
        return jnp.zeros(()), jnp.zeros(1)

    def step(self, key, state, action, task):
        del key
        reward = jnp.where(action == 0, 0.5, 1.0 - 2.0 * task[0])
        return state, TimeStep(jnp.zeros(1), reward, jnp.ones((), bool), {})


@pytest.mark.parametrize(("name", "best"), [("baseline", 1), ("capped", 0), ("cvar-ml", 0)])
def test_it_prefers_what_is_safe(name, best):
    """Mean 0.8 and CVaR -1 of the bet, 0.5 without; min(R, 0.5) has 0.35 and 0.5."""
    env = Bet()
    kind = methods.METHODS[name]
    config = kind.config(alpha=0.1)
    policy = PolicyConfig(
        layers=(4,), obs_embedding=None, minibatches=1, learning_rate=0.02, entropy_coef=0.0
    )
    learner = kind.wrap(ppo(env, PPOConfig(num_tasks=64, policy=policy)), config)
    init, step = make_train(learner, kind.make(env.family, config, 120))

    @jax.jit
    def run(key):
        return jax.lax.scan(lambda state, _: step(state), init(key), None, length=120)

    _, metrics = run(jax.random.key(0))
    got = metrics["return_mean"][-20:].mean()
    np.testing.assert_allclose(got, [0.5, 0.8][best], atol=0.05)
    if name == "capped":
        np.testing.assert_allclose(metrics["cap"][-20:], 0.5, atol=0.02)
        assert metrics["capped"][-20:].mean() < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"cap_step": 0.0}, "cap_step=0.0"),
        ({"cap_step": 1.5}, "cap_step=1.5"),
    ],
)
def test_wrong_values(plain, change, message):
    settings = {"alpha": 0.5} | change
    for make in (methods.CappedConfig, lambda **config: with_cap(plain, **config)):
        with pytest.raises(ValueError, match=message) as error:
            make(**settings)
        assert "\n" not in str(error.value)
