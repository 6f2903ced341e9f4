"""The point: its rules by NumPy, its best return by search and by dynamic programming."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import Point
from envs.point import GOALS, PointState
from roml_jax import methods
from roml_jax.evaluate import evaluate
from roml_jax.learners import PolicyConfig, RL2Config, rl2
from roml_jax.learners.memory import RecurrentConfig
from roml_jax.references import still_agent
from roml_jax.train import make_train

DISK, ARC = Point(), Point(goals="half-circle")
ENVS = pytest.mark.parametrize("env", [DISK, ARC], ids=GOALS)


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


def tasks_of(env, n, seed=0):
    return env.family.sample(jax.random.key(seed), env.family.phi0, n)


def goal_of(env, task):
    """The goal by NumPy."""
    if env.goals == "disk":
        return np.asarray(task, float)
    return env.radius * np.array([math.cos(task[0]), math.sin(task[0])])


def reward_of(env, distance):
    """The reward by NumPy."""
    sparse = np.where(distance <= env.goal_radius, 1 - distance, 0.0)
    return -distance if env.goals == "disk" else sparse


def play(env, task, actions):
    """Rewards and info of an episode, its actions ``[H, 2]`` given."""

    def step(state, action):
        state, out = env.step(jax.random.key(0), state, action, task)
        return state, out

    return jax.lax.scan(step, env.reset(jax.random.key(0), task)[0], actions)[1]


# --- rules -----------------------------------------------------------------------------


@ENVS
def test_rules(env):
    env = dataclasses.replace(env, radius=1.5, step_size=0.3, goal_radius=0.5, horizon=12)
    tasks, rng = tasks_of(env, 20), np.random.default_rng(0)
    goals = np.stack([goal_of(env, task) for task in np.asarray(tasks)])
    drift = goals / np.abs(goals).max(axis=1, keepdims=True)  # some episodes end at the goal
    actions = (rng.normal(0, 1.5, (20, 12, 2)) + drift[:, None]).astype(np.float32)
    out = jax.vmap(lambda task, plan: play(env, task, plan))(tasks, jnp.asarray(actions))
    xy = np.cumsum(0.3 * np.clip(actions, -1, 1), axis=1)
    distance = np.linalg.norm(xy - goals[:, None], axis=2)
    assert abs(distance - 0.5).min() > 1e-5  # no step is on the edge
    np.testing.assert_allclose(out.obs, xy, atol=1e-5)
    np.testing.assert_allclose(out.reward, reward_of(env, distance), atol=1e-5)
    np.testing.assert_allclose(out.info["distance"], distance, atol=1e-5)
    np.testing.assert_array_equal(out.info["reached"], distance <= 0.5)
    assert out.info["reached"].any() and not out.terminated.any()


@ENVS
def test_episodes_start_at_the_origin_and_do_not_tell_the_goal(env):
    state, obs = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 5), tasks_of(env, 5))
    assert (obs == 0).all() and (state.xy == 0).all() and obs.shape == (5, 2)


def test_a_sparse_reward_is_worth_more_the_nearer():
    task = jnp.array([0.0])
    for x, reward, reached in ((0.75, 0.0, 0), (0.9, 0.9, 1), (1.0, 1.0, 1), (1.15, 0.85, 1)):
        _, out = ARC.step(jax.random.key(0), PointState(jnp.array([x, 0.0])), jnp.zeros(2), task)
        np.testing.assert_allclose(out.reward, reward, atol=1e-6)
        assert out.info["reached"] == reached


# --- tasks -----------------------------------------------------------------------------


def test_goals_lie_uniformly():
    stats = pytest.importorskip("scipy.stats")
    disk = np.asarray(tasks_of(dataclasses.replace(DISK, radius=2.0), 4000))
    assert stats.kstest((np.linalg.norm(disk, axis=1) / 2) ** 2, "uniform").pvalue > 1e-3
    turns = np.arctan2(*disk.T) / (2 * math.pi) + 0.5
    assert stats.kstest(turns, "uniform").pvalue > 1e-3
    angles = np.asarray(tasks_of(ARC, 4000))[:, 0]
    assert stats.kstest(angles / math.pi, "uniform").pvalue > 1e-3
    goals = np.asarray(jax.vmap(dataclasses.replace(ARC, radius=2.0).goal)(tasks_of(ARC, 4000)))
    np.testing.assert_allclose(np.linalg.norm(goals, axis=1), 2.0, rtol=1e-6)
    assert (goals[:, 1] >= 0).all()


def test_names_of_tasks():
    assert DISK.family.names == ("x", "y") and ARC.family.names == ("angle",)
    assert DISK.family is Point().family  # made once


# --- the best return -------------------------------------------------------------------


@ENVS
def test_the_greedy_agent_attains_the_best_return(env):
    env = dataclasses.replace(env, step_size=0.07, horizon=17)

    def greedy(task):
        def step(state, _):
            action = (env.goal(task) - state.xy) / env.step_size
            state, out = env.step(jax.random.key(0), state, action, task)
            return state, out.reward

        return jax.lax.scan(step, env.reset(jax.random.key(0), task)[0], length=17)[1].sum()

    tasks = tasks_of(env, 500)
    best = jax.vmap(env.best_return)(tasks)
    np.testing.assert_allclose(jax.vmap(greedy)(tasks), best, atol=2e-5)
    assert np.std(best) > 0.1


@ENVS
def test_no_sequence_of_whole_or_half_moves_is_better(env):
    """None of all of them; where the goal is one such move away, one attains the bound."""
    env = dataclasses.replace(env, radius=0.75, step_size=0.25, horizon=3, goal_radius=0.3)
    moves = np.array(list(itertools.product((-1, -0.5, 0, 0.5, 1), repeat=2)), np.float32)
    plans = jnp.asarray(moves[np.array(list(itertools.product(range(25), repeat=3)))])
    score = jax.jit(jax.vmap(lambda task, plan: play(env, task, plan).reward.sum(), (None, 0)))
    tasks = tasks_of(env, 8)
    for task in tasks:
        assert score(task, plans).max() <= env.best_return(task) + 1e-6
    # At the goal after one step along x; nothing is lost after that.
    task = jnp.array([0.25, 0.125]) if env.goals == "disk" else jnp.array([0.0])
    np.testing.assert_allclose(score(task, plans).max(), env.best_return(task), atol=1e-6)


@ENVS
def test_no_random_policy_is_better(env):
    """Not even one that is drawn towards the goal, with every degree of noise."""
    task_key, key = jax.random.split(jax.random.key(3))
    tasks = env.family.sample(task_key, env.family.phi0, 2000)
    goals = jax.vmap(env.goal)(tasks)
    noise = jnp.geomspace(0.01, 3.0, 2000)[:, None, None]
    pull = goals / jnp.abs(goals).max(axis=1, keepdims=True)
    actions = pull[:, None] + noise * jax.random.normal(key, (2000, env.horizon, 2))
    got = jax.vmap(lambda task, plan: play(env, task, plan).reward.sum())(tasks, actions)
    gap = jax.vmap(env.best_return)(tasks) - got
    assert gap.min() >= -1e-5 and gap.max() > 5


def dynamic_programming(env, goal, cells):
    """The best return on the places of a grid of ``cells`` to a move, backwards from the end."""
    side = 2 * env.horizon * cells + 1
    axis = env.step_size / cells * (np.arange(side) - side // 2)
    pay = reward_of(env, np.hypot(axis[:, None] - goal[0], axis[None] - goal[1]))
    value = np.zeros((side, side))
    for _ in range(env.horizon):
        near = np.pad(pay + value, cells, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(near, (2 * cells + 1, 2 * cells + 1))
        value = windows.max(axis=(2, 3))
    return value[side // 2, side // 2]


@ENVS
def test_dynamic_programming_finds_the_best_return(env):
    env = dataclasses.replace(env, horizon=8, radius=0.55)
    for task in tasks_of(env, 4):
        goal = goal_of(env, np.asarray(task))
        best, found = env.best_return(task), dynamic_programming(env, goal, 5)
        # A place of the grid is at most 0.02 / √2 from where the greedy agent is.
        assert best - 8 * 0.0145 <= found <= best + 1e-5


def test_best_returns_by_hand():
    # Diagonal: |g| - t / 10 in both components. 4 + 3 + 2 + 1 tenths, times √2.
    np.testing.assert_allclose(DISK.best_return(jnp.array([0.5, -0.5])), -math.sqrt(2), rtol=1e-6)
    # Along an axis: 0.2 away after 8 of 20 steps, then 0.1, then at the goal.
    task = jnp.array([math.pi / 2 + 1e-3])
    np.testing.assert_allclose(ARC.best_return(task), 0.8 + 0.9 + 11, rtol=1e-3)


# --- settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"radius": 0.0}, "radius must be positive; got 0.0"),
        ({"step_size": -0.1}, "step_size must be positive; got -0.1"),
        ({"goal_radius": 0.0}, r"goal_radius=0.0 is .* choose it in \(0, 1\]"),
        ({"goal_radius": 1.5}, r"goal_radius=1.5 is .* choose it in \(0, 1\]"),
        ({"horizon": 0}, "horizon must be at least 1; got 0"),
        ({"episodes": 0}, "episodes must be at least 1; got 0"),
    ],
)
def test_wrong_settings(wrong, line):
    with pytest.raises(ValueError, match=line):
        Point(**wrong)


def test_wrong_goals():
    # Unchecked code reaches these; under the tests' type checker the annotation may speak first.
    with pytest.raises(Exception, match="goals"):
        Point(goals="square")


# --- a learner -------------------------------------------------------------------------


@pytest.mark.slow
def test_a_learner_closes_most_of_the_gap():
    """By its second episode it has found out where the goal is, and goes there."""
    env = Point(radius=0.8, step_size=0.3, horizon=5)
    policy = PolicyConfig(
        layers=(32,),
        obs_embedding=None,
        latent_embedding=None,
        init_std=0.5,
        normalize_latent=False,
        discount=0.9,
        entropy_coef=0.0,
        learning_rate=3e-3,
        epochs=4,
        minibatches=8,
        clip=0.2,
    )
    memory = RecurrentConfig(hidden_size=32, latent_size=16)
    learner = rl2(env, RL2Config(64, policy=policy, memory=memory))
    init, step = make_train(learner, methods.baseline(env.family))

    @jax.jit
    def train(key):
        return jax.lax.scan(lambda state, _: step(state), init(key), None, length=200)[0]

    params = learner.params(train(jax.random.key(0)).learner)
    tasks, play_key = tasks_of(env, 1000, seed=1), jax.random.key(2)
    got = evaluate(play_key, env, learner.agent, params, tasks)
    still = evaluate(jax.random.key(3), env, still_agent(env.action_space), (), tasks)
    best = jax.vmap(env.best_return)(tasks)
    assert (best[None] >= got.episode_returns).all()
    assert best.mean() - got.episode_returns[-1].mean() < 0.35 * (best - still.returns).mean()
