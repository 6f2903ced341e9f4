"""Learners on problems whose optimum is known (``tests/probes.py``)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import methods
from roml_jax.evaluate import evaluate
from roml_jax.learners.memory import BeliefConfig, RecurrentConfig
from roml_jax.learners.policy_parts import PolicyConfig, make_network, policy_inputs
from roml_jax.learners.ppo import PPOConfig, ppo
from roml_jax.learners.rl2 import RL2Config, rl2
from roml_jax.learners.varibad import VariBADConfig, varibad
from roml_jax.rollout import rollout
from roml_jax.train import make_train
from roml_jax.types import Boundary
from tests.probes import Probe

BOUNDARY = Boundary("start")  # the start is what these problems are about


def policy(**changes):
    settings = dict(
        layers=(16,),
        obs_embedding=None,
        latent_embedding=None,
        normalize_reward=False,
        learning_rate=1e-2,
        epochs=4,
        minibatches=1,
        clip=0.2,
        value_coef=1.0,
        clip_value=False,
    )
    return PolicyConfig(**(settings | changes))


def train(learner, env, steps, seed=0):
    """The state of the learner, and the mean return of every step."""
    init, step = make_train(learner, methods.baseline(env.family))

    @jax.jit
    def run(key):
        return jax.lax.scan(lambda state, _: step(state), init(key), None, length=steps)

    state, metrics = run(jax.random.key(seed))
    return state.learner, metrics["return_mean"]


def values(env, config, state, obs):
    """Values of observations, with the done flag 0 appended."""
    obs = jnp.concatenate([obs, jnp.zeros((len(obs), 1))], axis=1)
    network, params = make_network(env, config.policy), state.policy.params
    inputs = policy_inputs(params, config.policy, obs, jnp.zeros((len(obs), 0)))
    return network.apply(params.network, *inputs, method="value")


def test_value_of_a_constant_reward():
    env, config = Probe("constant"), PPOConfig(16, 0, BOUNDARY, policy(clip_value=True))
    state, _ = train(ppo(env, config), env, 60)
    np.testing.assert_allclose(values(env, config, state, jnp.zeros((1, 1))), 1.0, atol=0.05)


def test_value_of_two_observations():
    env, config = Probe("two"), PPOConfig(16, 0, BOUNDARY, policy())
    state, _ = train(ppo(env, config), env, 80)
    got = values(env, config, state, jnp.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(got, [-1, 1], atol=0.1)


@pytest.mark.parametrize("time_limit", ["ignore", "continue"])
def test_value_of_a_late_reward_is_discounted(time_limit):
    gamma = 0.7
    env = Probe("last", length=4, horizon=5)
    config = PPOConfig(
        16, 0, BOUNDARY, policy(discount=gamma, gae_lambda=0.8, time_limit=time_limit)
    )
    state, _ = train(ppo(env, config), env, 100)
    got = values(env, config, state, jnp.eye(5)[:4])
    np.testing.assert_allclose(got, gamma ** np.arange(3, -1, -1), atol=0.07)


@pytest.mark.parametrize("time_limit", ["ignore", "bootstrap"])
def test_reward_of_a_terminating_last_step_counts(time_limit):
    """The episode's own end at the very last step is no time limit."""
    env = Probe("constant", length=1, horizon=1)
    config = PPOConfig(16, 0, BOUNDARY, policy(time_limit=time_limit))
    state, _ = train(ppo(env, config), env, 60)
    np.testing.assert_allclose(values(env, config, state, jnp.zeros((1, 1))), 1.0, atol=0.05)


def test_choice_by_observation():
    env, config = Probe("match"), PPOConfig(32, 0, BOUNDARY, policy())
    learner = ppo(env, config)
    state, returns = train(learner, env, 60)
    assert returns[-10:].mean() > 0.9  # while sampling; 0.5 at random
    result = evaluate(
        jax.random.key(9), env, learner.agent, learner.params(state), jnp.zeros((64, 1))
    )
    assert result.returns.min() == 1


def test_real_action_follows_the_observation():
    env = Probe("follow")
    config = PPOConfig(64, 0, BOUNDARY, policy(entropy_coef=0.0))
    learner = ppo(env, config)
    state, _ = train(learner, env, 150)
    result = evaluate(
        jax.random.key(9), env, learner.agent, learner.params(state), jnp.zeros((64, 1))
    )
    assert result.returns.mean() > -0.05  # 0 at best, -1 for the best constant


ARMS = Probe("arms", length=4, horizon=5, episodes=2)


def arm_scores(learner, state):
    """Greedy mean reward ``[2 episodes, 4 steps]`` of both arms."""
    tasks = jnp.tile(jnp.array([[0.0], [1.0]]), (8, 1))
    data = rollout(
        jax.random.key(9), ARMS, learner.agent, learner.params(state), tasks,
        deterministic=True,
    )  # fmt: skip
    return data.reward.reshape(2, 5, 16)[:, :4].mean(axis=-1)


def test_an_arm_without_memory_is_a_coin_toss():
    learner = ppo(ARMS, PPOConfig(16, 0, BOUNDARY, policy()))
    state, returns = train(learner, ARMS, 60)
    assert abs(returns[-20:].mean() - 2) < 0.3
    np.testing.assert_array_equal(arm_scores(learner, state), 0.5)


def make_varibad():
    belief = BeliefConfig(
        latent_size=2,
        hidden_size=16,
        action_embedding=4,
        obs_embedding=4,
        reward_embedding=4,
        decoder_layers=(16,),
        elbo_terms=None,
        decode_terms=None,
        truncation=None,
        learning_rate=1e-2,
        batch_size=16,
        buffer_size=256,
        updates=3,
    )
    return varibad(ARMS, VariBADConfig(16, 0, BOUNDARY, policy(latent_embedding=16), belief))


def make_rl2():
    memory = RecurrentConfig(
        hidden_size=16, latent_size=16, action_embedding=4, obs_embedding=4, reward_embedding=4
    )
    return rl2(ARMS, RL2Config(16, 0, BOUNDARY, policy(), memory))


@pytest.mark.parametrize(
    ("make", "steps"), [(make_varibad, 150), (make_rl2, 400)], ids=["varibad", "rl2"]
)
def test_an_arm_is_inferred_from_its_reward(make, steps):
    """The right arm must be played after one step, in the second episode from its first."""
    learner = make()
    state, returns = train(learner, ARMS, steps)
    scores = arm_scores(learner, state)
    np.testing.assert_array_equal(scores[0, 0], 0.5)  # nothing is known yet
    assert (scores.ravel()[1:] > 0.95).all()
    assert returns[-20:].mean() > 3.3  # of at most 3.75, while sampling
