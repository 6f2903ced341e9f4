"""Layout and boundaries of meta-episodes, checked with an environment that writes them down."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.rollout import (
    boundary_flags,
    next_obs,
    rollout,
    rollout_episode_returns,
    rollout_returns,
    seen_obs,
)
from roml_jax.types import Agent, Boundary
from tests.probes import Echo, scripted_agent

ENV = Echo()  # K = 3 episodes of H = 4 steps
K, H = ENV.episodes, ENV.horizon
T = K * H
NEVER = 99.0  # no termination
START, STEP, ID, ACTION, FLAG = range(5)  # components of an observation


def run(lengths, boundary=Boundary(), deterministic=True, key=0, params=0.5):
    tasks = jnp.stack([jnp.arange(1.0, 1.0 + len(lengths)), jnp.asarray(lengths)], axis=1)
    agent = scripted_agent(boundary.observation_size(ENV))._replace(boundary=boundary)
    fn = jax.jit(
        lambda key, tasks: rollout(key, ENV, agent, params, tasks, deterministic=deterministic)
    )
    return jax.tree.map(np.asarray, fn(jax.random.key(key), tasks))


def before(data):
    return np.asarray(seen_obs(jnp.asarray(data.obs)))


def after(data):
    return np.asarray(next_obs(jnp.asarray(data.obs)))


@pytest.fixture(scope="module")
def plain():
    """Three tasks without termination, boundary "terminal" with the flag."""
    return run([NEVER] * 3)


def test_axes_and_order(plain):
    assert (plain.episodes, plain.horizon) == (K, H)
    assert plain.obs.shape == (K, H + 1, 3, 5) and plain.action.shape == (T, 3, 2)
    # The agent counts its steps: 0 … T - 1 in time-major order, on every task.
    np.testing.assert_array_equal(plain.extras["count"], np.arange(T)[:, None] + np.zeros(3))
    np.testing.assert_array_equal(plain.action[..., 0], plain.extras["count"] + 0.5)
    # Steps 1 … H of every episode, on every task; the start is only seen in the first.
    np.testing.assert_array_equal(
        plain.obs[:, 1:, :, STEP], np.tile(np.arange(1, H + 1)[None, :, None], (K, 1, 3))
    )
    # Observation after step t holds the action of step t, as the environment received it.
    np.testing.assert_array_equal(after(plain)[..., ACTION], 10 * plain.action[..., 0])
    np.testing.assert_array_equal(plain.obs[..., ID], np.broadcast_to([1, 2, 3], (K, H + 1, 3)))
    steps = np.tile(np.arange(1, H + 1), K)
    np.testing.assert_array_equal(plain.reward, 100 * np.arange(1, 4)[None] + steps[:, None])
    assert plain.valid.all() and not plain.terminated.any()
    # Every episode of every task has a start of its own.
    starts = plain.obs[:, 1:, :, START]
    assert (starts == starts[:, :1]).all() and len(np.unique(starts)) == 9


def test_what_the_agent_sees(plain):
    np.testing.assert_array_equal(plain.extras["obs"], before(plain))
    last = plain.extras["last"]  # what it was told before step t
    np.testing.assert_array_equal(last.next_obs[1:], after(plain)[:-1])
    np.testing.assert_array_equal(last.action[1:], 10 * plain.action[:-1])
    np.testing.assert_array_equal(last.reward[1:], plain.reward[:-1])
    assert last.valid[1:].all() and not last.valid[0].any()  # blank at the start
    np.testing.assert_array_equal(plain.carry.count, [T] * 3)
    np.testing.assert_array_equal(plain.carry.last.next_obs, after(plain)[-1])


def test_boundary_terminal(plain):
    """Section 1.8: a terminal observation with flag 1 is acted upon, the start never seen."""
    flag = np.zeros((K, H + 1))
    flag[:, H] = 1
    flag[1:, 0] = 1
    np.testing.assert_array_equal(plain.obs[..., FLAG], np.broadcast_to(flag[..., None], (3, 5, 3)))
    np.testing.assert_array_equal(plain.obs[1:, 0], plain.obs[:-1, H])
    np.testing.assert_array_equal(plain.obs[0, 0, :, STEP], 0)
    np.testing.assert_array_equal(plain.obs[0, 0, :, START], plain.obs[0, 1, :, START])
    np.testing.assert_array_equal(plain.obs[1:, 0, :, STEP], H)


def test_boundary_start():
    data = run([NEVER, 2.0], Boundary("start"))
    flag = np.zeros((K, H + 1))
    flag[:, H] = 1
    np.testing.assert_array_equal(data.obs[:, :, 0, FLAG], flag)
    np.testing.assert_array_equal(data.obs[:, 0, :, STEP], 0)
    np.testing.assert_array_equal(data.obs[:, 0, :, START], data.obs[:, 1, :, START])
    np.testing.assert_array_equal(data.obs[:, 0, 1, FLAG], 0)  # after a termination as well
    # The agent was told of the terminal observation, and acts on the new start.
    told, sees = data.extras["last"].next_obs, data.extras["obs"]
    np.testing.assert_array_equal(told[H, 0, [STEP, FLAG]], [H, 1])
    np.testing.assert_array_equal(sees[H, 0, [STEP, FLAG]], [0, 0])
    np.testing.assert_array_equal(data.extras["count"][:, 0], np.arange(T))


@pytest.mark.parametrize("observation", ["terminal", "start"])
def test_without_flag(observation):
    with_flag = run([NEVER, 2.0], Boundary(observation))
    data = run([NEVER, 2.0], Boundary(observation, done_flag=False))
    assert Boundary(observation, done_flag=False).observation_size(ENV) == 4
    np.testing.assert_array_equal(data.obs, with_flag.obs[..., :4])
    np.testing.assert_array_equal(data.action, with_flag.action)


def test_early_termination():
    data = run([2.0, NEVER, 4.0, 1.0])  # the third with the very last step
    first = np.arange(H)
    valid = np.tile(np.stack([first < 2, first < 9, first < 4, first < 1], axis=1), (K, 1))
    np.testing.assert_array_equal(data.valid, valid)
    ends = np.tile(np.stack([first == 1, first == 9, first == 3, first == 0], axis=1), (K, 1))
    np.testing.assert_array_equal(data.terminated, ends)
    rewards = 100.0 * np.arange(1, 5)[None] + np.tile(np.arange(1, H + 1), K)[:, None]
    np.testing.assert_array_equal(data.reward, np.where(valid, rewards, 0))
    # The terminal observation stands still, flag 1 with it.
    np.testing.assert_array_equal(data.obs[:, 1:, 0, STEP], [[1, 2, 2, 2]] * K)
    np.testing.assert_array_equal(data.obs[:, 1:, 0, FLAG], [[0, 1, 1, 1]] * K)
    np.testing.assert_array_equal(data.obs[:, 2:4, 0], data.obs[:, 3:5, 0])
    np.testing.assert_array_equal(data.obs[:, 1:, 2, FLAG], [[0, 0, 0, 1]] * K)
    np.testing.assert_array_equal(data.obs[:, 1:, 3, FLAG], 1)
    # Boundary "terminal": the frozen observation starts the next episode.
    np.testing.assert_array_equal(data.obs[1:, 0], data.obs[:-1, H])
    # The agent is told which transitions count, and keeps its memory over episodes.
    counts = np.cumsum(valid, axis=0) - valid
    np.testing.assert_array_equal(data.extras["count"], counts)
    np.testing.assert_array_equal(data.extras["last"].valid[1:], valid[:-1])
    np.testing.assert_array_equal(data.extras["last"].reward[1:], data.reward[:-1])
    # Information is that of the episode's real last step.
    np.testing.assert_array_equal(data.info["step"], [[2, 4, 4, 1]] * K)
    np.testing.assert_array_equal(data.info["id"], [[1, 2, 3, 4]] * K)


def test_returns(plain):
    plain, short = (jax.tree.map(jnp.asarray, data) for data in (plain, run([2.0])))
    np.testing.assert_array_equal(rollout_returns(plain), [410, 810, 1210])
    np.testing.assert_array_equal(rollout_episode_returns(plain), [[410, 810, 1210]] * K)
    np.testing.assert_array_equal(rollout_returns(short), [203])


def test_a_new_call_starts_with_a_blank_memory(plain):
    again = run([NEVER] * 3)
    jax.tree.map(np.testing.assert_array_equal, plain, again)  # same key: the same
    other = run([NEVER] * 3, key=1)
    np.testing.assert_array_equal(other.extras["count"], plain.extras["count"])
    assert not np.isin(other.obs[..., START], plain.obs[..., START]).any()


def test_only_sampling_uses_noise(plain):
    assert (plain.action[..., 1] == 0).all()
    noise = run([NEVER] * 3, deterministic=False).action[..., 1]
    assert len(np.unique(noise)) == 3 * T  # of its own for every step and task


def test_tasks_do_not_mix():
    together = run([2.0, NEVER, 3.0])
    for b, length in enumerate([2.0, NEVER, 3.0]):
        alone = run([length])
        for name in ("action", "valid", "terminated"):
            np.testing.assert_array_equal(getattr(together, name)[:, b], getattr(alone, name)[:, 0])
        known = [STEP, ACTION, FLAG]  # starts are drawn anew, ids count from 1
        np.testing.assert_array_equal(together.obs[:, :, b, known], alone.obs[:, :, 0, known])
        per_step = together.reward[:, b] - 100 * b * together.valid[:, b]
        np.testing.assert_array_equal(per_step, alone.reward[:, 0])


def test_boundary_flags():
    truncated, meta_end = boundary_flags(2, 3)
    np.testing.assert_array_equal(truncated, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(meta_end, [0, 0, 0, 0, 0, 1])


def test_seen_and_next_observations():
    obs = jnp.arange(2 * 3 * 4).reshape(2, 3, 4).astype(jnp.float32)  # K = 2, H = 2, rest 4
    np.testing.assert_array_equal(seen_obs(obs)[:, 0], [0, 4, 12, 16])
    np.testing.assert_array_equal(next_obs(obs)[:, 0], [4, 8, 16, 20])


def test_unknown_boundary_names_the_choices():
    with pytest.raises(ValueError, match="terminal, start; got 'reset'"):
        boundary = object.__new__(Boundary)
        object.__setattr__(boundary, "observation", "reset")
        inspect.unwrap(Boundary.__post_init__)(boundary)


# ------------------------------------------------------------------ begin, and paths


def test_an_agent_begins_every_episode():
    """Before its first action, with a key of its own, and the first episode included."""
    seen = []

    def begin(params, carry, obs, key):
        seen.append(params)
        return {
            "guess": jnp.broadcast_to(jax.random.uniform(key), (2,)),
            "count": carry["count"] + 1,
        }

    agent = Agent(
        init_carry=lambda n: {"guess": jnp.zeros(n), "count": jnp.zeros(n)},
        act=lambda params, carry, obs, key, deterministic: (
            jnp.stack([carry["guess"], carry["count"]], axis=1),
            (),
        ),
        observe=lambda params, carry, transition: carry,
        env_action=lambda action: action,
        begin=begin,
    )
    tasks = jnp.array([[1.0, NEVER], [2.0, 1.0]])
    data = jax.jit(lambda key: rollout(key, ENV, agent, 0.5, tasks))(jax.random.key(0))
    guess, count = np.moveaxis(np.asarray(data.action).reshape(K, H, 2, 2), -1, 0)
    assert (count == np.arange(1.0, K + 1)[:, None, None]).all()
    assert (guess == guess[:, :1, :1]).all() and len(np.unique(guess)) == K
    assert seen == [0.5]  # traced once


def test_paths_have_starts_of_their_own():
    for boundary in (Boundary("terminal"), Boundary("start")):
        data = run([NEVER, 2.0], boundary)
        path, obs = np.asarray(data.path_obs), data.obs
        np.testing.assert_array_equal(path[:, 1:], obs[:, 1:])
        np.testing.assert_array_equal(path[0, 0], obs[0, 0])
        later = obs[1:, 1] if boundary.observation == "terminal" else obs[1:, 0]
        np.testing.assert_array_equal(path[1:, 0], later)
        assert len(np.unique(path[..., START])) == K * 2  # no number of another episode
