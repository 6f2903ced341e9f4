"""The contract of every memory, and what the recurrent one recalls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.learners import memory as memories
from roml_jax.learners.memory import BeliefConfig, RecurrentConfig, belief, blank, recurrent
from roml_jax.learners.on_policy import on_policy, to_trajectories
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.rollout import rollout
from roml_jax.types import Boundary
from tests.probes import Echo, Probe

ENV, BOUNDARY = Echo(), Boundary()
TASKS = jnp.array([[0.01, 99.0], [0.02, 2.0], [0.03, 4.0]])  # never, early, with the limit
B, T = len(TASKS), ENV.episodes * ENV.horizon
SMALL = {"action_embedding": 2, "obs_embedding": 3, "reward_embedding": 2, "hidden_size": 4}
RECURRENT = RecurrentConfig(latent_size=3, **(SMALL | {"reward_embedding": 8}))
BELIEF = BeliefConfig(
    latent_size=2, decoder_layers=(4,), batch_size=3, buffer_size=6, elbo_terms=2, **SMALL
)
MEMORIES = {
    "blank": lambda: blank(),
    "belief": lambda: belief(ENV, BELIEF, BOUNDARY, num_tasks=B),
    "recurrent": lambda: recurrent(ENV, RECURRENT, BOUNDARY),
}
POLICY = PolicyConfig(layers=(4,), obs_embedding=3, latent_embedding=None, minibatches=1, epochs=1)


def played(memory):
    """A rollout of an agent with the memory, and the parameters of the memory."""
    learner = on_policy(ENV, memory, POLICY, num_tasks=B)
    state = jax.jit(learner.init)(jax.random.key(0))
    data = jax.jit(lambda s: rollout(jax.random.key(1), ENV, learner.agent, s, TASKS))(
        learner.params(state)
    )
    return learner, state, data


def describe(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False)), tree)


def test_every_memory_is_tested():
    config = {name for name in memories.__all__ if name.islower()}
    assert config == MEMORIES.keys()


@pytest.mark.parametrize("name", MEMORIES)
def test_contract(name):
    memory = MEMORIES[name]()
    learner, state, data = played(memory)
    params = memory.params(state.memory)
    carry = memory.init_carry(B)
    assert all(len(leaf) == B for leaf in jax.tree.leaves(carry))
    assert describe(carry) == describe(data.carry)
    seen = memory.read(params, carry)
    assert seen.shape == (B, memory.size) and data.extras.shape == (T, B, memory.size)
    np.testing.assert_allclose(data.extras[0], seen, rtol=1e-5, atol=1e-6)
    # Nothing is taken in once the episode of task 1 is over, after two of its four steps.
    np.testing.assert_array_equal(data.extras[2:5, 1], jnp.tile(data.extras[2, 1], (3, 1)))
    if memory.size:
        assert (jnp.abs(data.extras[5] - data.extras[4]).max(axis=-1) > 1e-6).all()
    stored = jax.jit(memory.store)(state.memory, to_trajectories(ENV, learner.agent, data))
    new, metrics = jax.jit(memory.improve)(jax.random.key(2), stored)
    assert describe(state.memory) == describe(stored) == describe(new)
    assert all(value.shape == () for value in metrics.values())


# ------------------------------------------------------------------ recurrent


@pytest.fixture(scope="module")
def remembered():
    memory = recurrent(ENV, RECURRENT, BOUNDARY)
    learner, state, data = played(memory)
    return memory, state, data, to_trajectories(ENV, learner.agent, data)


def test_recall_is_what_was_read_step_by_step(remembered):
    memory, state, data, trajectories = remembered
    recalled = jax.jit(memory.recall)(state.memory, trajectories)
    assert recalled.shape == (T, B, 3)
    np.testing.assert_allclose(recalled, data.extras, rtol=1e-5, atol=1e-6)


def test_gradients_cross_the_ends_of_episodes(remembered):
    """What is recalled in the last episode depends on rewards of the first."""
    memory, state, _, trajectories = remembered

    def last(reward):
        return memory.recall(state.memory, trajectories._replace(reward=reward))[-1].sum()

    slope = jax.grad(last)(trajectories.reward)
    assert (jnp.abs(slope[0, : ENV.horizon]) > 0).all()
    assert (slope[:, -1] == 0).all()  # the reward of the step that it is recalled for
    assert (slope[1, 2:4] == 0).all()  # padding
    # A finite difference, where the GRU is smooth.
    step = jnp.zeros_like(trajectories.reward).at[0, 3].set(0.3)
    difference = (last(trajectories.reward + step) - last(trajectories.reward - step)) / 0.6
    np.testing.assert_allclose(slope[0, 3], difference, rtol=0.05)


def test_truncation_stops_gradients_and_changes_no_number(remembered):
    memory, state, data, trajectories = remembered
    short = recurrent(ENV, dataclasses.replace(RECURRENT, truncation=2), BOUNDARY)
    np.testing.assert_allclose(
        short.recall(state.memory, trajectories), data.extras, rtol=1e-5, atol=1e-6
    )

    def grads(one):
        return jax.grad(lambda params: jnp.square(one.recall(params, trajectories)).sum())(
            state.memory
        )

    differ = jax.tree.map(lambda a, b: jnp.abs(a - b).max() > 1e-6, grads(memory), grads(short))
    assert jax.tree.reduce(jnp.logical_or, differ)


def test_minibatches_are_whole_tasks():
    """A task that does not count changes nothing, whatever the others share with it."""
    env = Probe("arms", length=3, horizon=3, episodes=2)
    config = dataclasses.replace(POLICY, minibatches=2, normalize_obs=False)
    config = dataclasses.replace(config, normalize_latent=False, normalize_reward=False)
    memory = recurrent(env, RECURRENT, BOUNDARY)
    learner = on_policy(env, memory, config, num_tasks=4)
    state = learner.init(jax.random.key(0))
    _, data, _ = learner.collect(jax.random.key(1), state, jnp.array([[0.0], [1.0], [0.0], [1.0]]))
    weights = jnp.array([1.0, 0.0, 1.0, 0.0])
    update = jax.jit(learner.update)
    new, _ = update(jax.random.key(2), state, data, weights)
    other = data._replace(
        reward=jnp.where(weights[None] > 0, data.reward, 7.0),
        obs=jnp.where(weights[None, None, :, None] > 0, data.obs, -3.0),
    )
    same, _ = update(jax.random.key(2), state, other, weights)
    for got, want in zip(jax.tree.leaves(same.memory), jax.tree.leaves(new.memory), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), new.memory, state.memory)
    assert jax.tree.reduce(jnp.maximum, moved) > 1e-5  # the policy's loss trains it
    with pytest.raises(ValueError, match=r"divide the 4 tasks .* one of 1, 2, 4; got 3"):
        on_policy(env, memory, dataclasses.replace(config, minibatches=3), num_tasks=4)
