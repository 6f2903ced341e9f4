"""Khazad-Dum against a plain-Python restatement of its rules."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import KhazadDum
from envs.khazad_dum import (
    ABYSS,
    BRIDGE,
    FREE,
    PATH_NAMES,
    WALL,
    KhazadDumState,
    cell_kind,
    path_label,
)
from roml_jax.types import Discrete

LEFT, RIGHT, DOWN, UP = range(4)
ENV = KhazadDum()

# Rows from y = 8 at the top down to y = 0; one character per x.
MAP = [
    "###########",
    "#.G.......#",
    "#.........#",
    "#~.~~~~...#",
    "#~.~~~~...#",
    "#~.~~~~...#",
    "#.........#",
    "#.........#",
    "###########",
]


@pytest.fixture(autouse=True)
def _strict():
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


# --- the oracle: one step, statement by statement, in Python floats --------------------


def character(x, y):
    """The map at a position; Python's round() takes ties to even, too."""
    return MAP[8 - round(y)][round(x)]


class Oracle:
    """The original rules as a stateful game with string labels."""

    def __init__(self, x, y, *, goal=False, fell=False, label="stay"):
        self.x, self.y, self.goal, self.fell, self.label = x, y, goal, fell, label

    def step(self, action, tau, noise):
        noisy = not (self.goal or self.fell) and tau > 0 and 2.5 < self.y < 5.5 and self.x < 3.0
        was_goal, was_fallen = self.goal, self.fell
        if not (was_goal or was_fallen):
            x, y = self.x, self.y
            if action == 0:
                x -= 1
            elif action == 1:
                x += 1
            elif action == 2:
                y -= 1
            elif action == 3:
                y += 1
            if noisy:
                x += tau * noise[0]
                y += tau * noise[1]
            x = min(max(x, 0.0), 10.0)
            y = min(max(y, 0.0), 8.0)
            if character(x, y) != "#":
                self.x, self.y = x, y

        if was_goal:
            reward = 0.0
        elif was_fallen:
            reward = -1.0
        else:
            reward = max(-(abs(self.x - 2) + abs(self.y - 7)) / 5, -1.0)
            if noisy:
                reward -= 3 * tau
            if (round(self.x), round(self.y)) == (2, 7):
                reward += 5
                self.goal = True
            if character(self.x, self.y) == "~":
                self.fell = True

        if 2.5 < self.y < 5.5:
            if 1.5 < self.x < 2.5:
                self.label = "short"
            elif 6.5 < self.x < 9.5:
                self.label = "long"
        return reward / 32

    @property
    def full_label(self):
        return self.label + ("_done" if self.goal else "_fall" if self.fell else "")


def bilinear(x, y):
    grid = np.zeros((11, 9))
    i, j = math.floor(x), math.floor(y)
    u, v = x - i, y - j
    grid[i, j] = (1 - u) * (1 - v)
    grid[i + 1, j] = u * (1 - v)
    grid[i, j + 1] = (1 - u) * v
    grid[i + 1, j + 1] = u * v
    return np.array([grid[x, y] for x in range(11) for y in range(9)])


# --- helpers ---------------------------------------------------------------------------


def state(x, y, status=0, path=0):
    return KhazadDumState(jnp.array([x, y], jnp.float32), jnp.int32(status), jnp.int32(path))


@jax.jit
def _transition(state, action, task, noise):
    return ENV.transition(state, action, task, noise)


def move(s, action, tau=0.0, noise=(0.0, 0.0)):
    """One transition; returns the state and the reward times 32."""
    task, noise = jnp.array([tau], jnp.float32), jnp.array(noise, jnp.float32)
    s, reward = _transition(s, jnp.int32(action), task, noise)
    return s, float(reward) * 32


def compare(xy, status, path, action, tau, noise):
    """Asserts that a batch of transitions equals the oracle's; returns the oracle's labels."""
    states = KhazadDumState(jnp.array(xy), jnp.array(status), jnp.array(path))
    batched = jax.jit(jax.vmap(ENV.transition))
    after, reward = batched(states, jnp.array(action), jnp.array(tau)[:, None], jnp.array(noise))
    after, reward = jax.tree.map(np.asarray, (after, reward))
    labels = []
    for n in range(len(xy)):
        game = Oracle(
            float(xy[n, 0]),
            float(xy[n, 1]),
            goal=status[n] == 1,
            fell=status[n] == -1,
            label=PATH_NAMES[path[n]],
        )
        expected = game.step(action[n], float(tau[n]), noise[n].astype(float))
        case = f"case {n}: {xy[n]} {status[n]} {action[n]} {tau[n]} {noise[n]}"
        np.testing.assert_allclose(after.xy[n], (game.x, game.y), atol=2e-6, err_msg=case)
        np.testing.assert_allclose(reward[n], expected, atol=1e-6, err_msg=case)
        label = path_label(after.path[n], after.status[n])
        assert label == game.full_label, case
        labels.append(label)
    return labels


# --- against the oracle ----------------------------------------------------------------


def test_random_transitions_agree_with_the_oracle():
    rng = np.random.default_rng(0)
    count = 6000
    # Half of the positions anywhere a running episode can be, half on the short bridge.
    xy = rng.uniform((0.5, 0.5), (9.5, 7.5), (count, 2))
    xy[::2] = rng.uniform((1.5, 2.4), (2.5, 5.6), (count // 2, 2))
    xy = xy.astype(np.float32)
    status = np.array([-1 if character(x, y) == "~" else 0 for x, y in xy], np.int32)
    status[[character(x, y) == "G" for x, y in xy]] = 1
    tau = np.where(rng.random(count) < 0.15, 0.0, rng.exponential(0.4, count))
    tau = np.where(rng.random(count) < 0.03, -0.3, tau).astype(np.float32)
    labels = compare(
        xy,
        status,
        rng.integers(0, 3, count, np.int32),
        rng.integers(0, 4, count, np.int32),
        tau,
        rng.standard_normal((count, 2)).astype(np.float32),
    )
    assert set(labels) == {a + b for a in PATH_NAMES for b in ("", "_done", "_fall")}


def test_every_boundary_position_agrees_with_the_oracle():
    """Multiples of 1/2 hit every tie of the rounding and every strict inequality."""
    xs, ys = np.arange(0.5, 9.51, 0.5), np.arange(0.5, 7.51, 0.5)
    cases = list(itertools.product(xs, ys, range(4), (0.0, 0.5), (-1.0, 0.0, 1.0)))
    xy = np.array([c[:2] for c in cases], np.float32)
    # Whatever the status of such a position would be, the rules of a running episode apply.
    zeros = np.zeros(len(cases), np.int32)
    action = np.array([c[2] for c in cases], np.int32)
    tau = np.array([c[3] for c in cases], np.float32)
    noise = np.array([(c[4], -c[4]) for c in cases], np.float32)
    compare(xy, zeros, zeros, action, tau, noise)


@pytest.mark.parametrize("tau", [0.0, 0.1, 0.6])
def test_whole_episodes_agree_with_the_oracle(tau):
    """Positions, rewards and labels along episodes of a bridge-seeking random policy."""
    episodes, horizon = 150, ENV.horizon
    rng = np.random.default_rng(1)
    action = rng.choice(4, (horizon, episodes), p=[0.2, 0.2, 0.1, 0.5]).astype(np.int32)
    noise = rng.standard_normal((horizon, episodes, 2)).astype(np.float32)
    task = jnp.full((episodes, 1), tau)
    start, _ = jax.vmap(ENV.reset)(jax.random.split(jax.random.key(0), episodes), task)

    def body(s, x):
        s, reward = jax.vmap(ENV.transition)(s, x[0], task, x[1])
        return s, (s, reward)

    inputs = (jnp.array(action), jnp.array(noise))
    _, (states, reward) = jax.lax.scan(body, start, inputs)
    states, reward = jax.tree.map(np.asarray, (states, reward))
    for n in range(episodes):
        game = Oracle(*(float(v) for v in start.xy[n]))
        for t in range(horizon):
            expected = game.step(action[t, n], float(np.float32(tau)), noise[t, n].astype(float))
            np.testing.assert_allclose(reward[t, n], expected, atol=2e-6)
            np.testing.assert_allclose(states.xy[t, n], (game.x, game.y), atol=1e-5)
            assert path_label(states.path[t, n], states.status[t, n]) == game.full_label
    x, y = states.xy[..., 0], states.xy[..., 1]
    assert x.min() >= 0.5 and x.max() < 9.5 and y.min() >= 0.5 and y.max() < 7.5


# --- the map and the worked examples ---------------------------------------------------


def test_map_is_the_picture():
    cells = jnp.array([(x, y) for y in range(8, -1, -1) for x in range(11)], jnp.float32)
    kinds = np.asarray(jax.vmap(cell_kind)(cells)).reshape(9, 11)
    picture = [[c.replace("G", ".") for c in row] for row in MAP]
    for row in range(9):
        for x in range(11):
            y = 8 - row
            bridge = 3 <= y <= 5 and x in (2, 7, 8, 9)
            expected = {"#": WALL, "~": ABYSS, ".": BRIDGE if bridge else FREE}
            assert kinds[row, x] == expected[picture[row][x]], (x, y)


@pytest.mark.parametrize(
    ("start", "action", "tau", "reward", "status"),
    [
        ((2, 6), UP, 0.0, 5.0, 1),  # reaches (2, 7) exactly
        ((2.4, 5.6), UP, 0.0, 4.84, 1),  # reaches (2.4, 6.6)
        ((2, 4), RIGHT, 0.0, -0.8, -1),  # falls at (3, 4)
        ((2, 3), UP, 0.5, -2.1, 0),  # stands on (2, 4) after a noisy step
        ((2, 2), UP, 0.5, -0.8, 0),  # the step onto the bridge is clean
        ((2, 5), UP, 0.5, -1.7, 0),  # the step off the bridge is noisy
        ((8, 3), UP, 0.5, -1.0, 0),  # the long bridge is covered; the cost is capped
        ((1, 7), LEFT, 0.0, -0.2, 0),  # refused by the wall
    ],
)
def test_worked_examples(start, action, tau, reward, status):
    after, actual = move(state(*start), action, tau)
    assert actual == pytest.approx(reward, abs=1e-5)
    assert int(after.status) == status


def test_nothing_happens_after_the_goal():
    s, _ = move(state(2, 6), UP)
    for action in range(4):
        after, reward = move(s, action, tau=1.0, noise=(1.0, -1.0))
        assert reward == 0
        assert jax.tree.all(jax.tree.map(jnp.array_equal, after, s))


def test_every_step_after_a_fall_costs_one():
    s, _ = move(state(2, 4), LEFT)
    for action in range(4):
        after, reward = move(s, action, tau=1.0, noise=(1.0, -1.0))
        assert reward == -1
        assert jax.tree.all(jax.tree.map(jnp.array_equal, after, s))


def test_no_rain_no_noise_no_damage():
    for tau in (0.0, -0.5):
        after, reward = move(state(2, 3), UP, tau, noise=(1.0, 1.0))
        np.testing.assert_array_equal(after.xy, (2, 4))
        assert reward == pytest.approx(-0.6, abs=1e-6)


def test_the_latest_bridge_names_the_path():
    s, _ = move(state(2, 2), UP)
    assert path_label(s.path, s.status) == "short"
    s, _ = move(s, DOWN)
    assert path_label(s.path, s.status) == "short"
    for action in [RIGHT] * 5 + [UP]:
        s, _ = move(s, action)
    assert path_label(s.path, s.status) == "long"
    for action in [UP] * 4 + [LEFT] * 5:
        s, _ = move(s, action)
    assert path_label(s.path, s.status) == "long_done"


def test_path_labels():
    assert path_label(0, 0) == "stay"
    assert path_label(0, -1) == "stay_fall"
    assert path_label(np.int32(1), jnp.int32(-1)) == "short_fall"
    assert path_label(jnp.int32(2), np.int32(1)) == "long_done"


# --- the start, and its stuck point ----------------------------------------------------


def test_starts_are_uniform_over_their_square():
    keys = jax.random.split(jax.random.key(3), 20_000)
    states, obs = jax.vmap(ENV.reset)(keys, jnp.full((20_000, 1), 0.1))
    xy = np.asarray(states.xy)
    assert xy.min() >= 0.5 and xy.max() < 2.5
    np.testing.assert_allclose(xy.mean(0), 1.5, atol=0.02)
    np.testing.assert_allclose(xy.var(0), 4 / 12, atol=0.01)
    assert abs(np.corrcoef(xy.T)[0, 1]) < 0.03
    assert not states.status.any() and not states.path.any()
    assert obs.shape == (20_000, 99)


def test_the_corner_of_the_start_square_is_stuck():
    """(0.5, 0.5) rounds to the wall cell (0, 0), and every move from it to another wall."""
    for action in range(4):
        after, reward = move(state(0.5, 0.5), action, tau=1.0, noise=(1.0, 1.0))
        np.testing.assert_array_equal(after.xy, (0.5, 0.5))
        assert reward == -1


@pytest.mark.parametrize(("start", "way_out"), [((0.5, 1.2), RIGHT), ((1.2, 0.5), UP)])
def test_the_edge_of_the_start_square_has_one_way_out(start, way_out):
    for action in range(4):
        after, _ = move(state(*start), action)
        stays = np.array_equal(after.xy, np.float32(start))
        assert stays == (action != way_out)


# --- noise and observation -------------------------------------------------------------


def test_the_noise_of_step_has_std_tau():
    tau, count = 0.2, 20_000
    keys = jax.random.split(jax.random.key(4), count)
    step = jax.vmap(ENV.step, in_axes=(0, None, None, None))
    after, _ = step(keys, state(2, 4), jnp.int32(UP), jnp.array([tau]))
    error = np.asarray(after.xy) - (2, 5)
    np.testing.assert_allclose(error.mean(0), 0, atol=5 * tau / math.sqrt(count))
    np.testing.assert_allclose(error.std(0), tau, rtol=0.03)
    assert abs(np.corrcoef(error.T)[0, 1]) < 0.03


def test_observation_is_the_bilinear_one_hot():
    rng = np.random.default_rng(5)
    xy = rng.uniform((0.5, 0.5), (9.5, 7.5), (2000, 2)).astype(np.float32)
    ties = np.array(list(itertools.product(np.arange(0.5, 9.5, 0.5), np.arange(0.5, 7.5, 0.5))))
    xy = np.concatenate([xy, ties.astype(np.float32)])
    zeros = jnp.zeros(len(xy), jnp.int32)
    observe = jax.vmap(ENV.observe)
    obs = observe(KhazadDumState(jnp.array(xy), zeros, zeros))
    assert obs.dtype == jnp.float32
    assert obs.shape == (len(xy), ENV.observation_size)
    expected = np.array([bilinear(x, y) for x, y in xy.astype(float)])
    # The weights along each axis are exact in float32; only their product is rounded.
    np.testing.assert_array_equal(obs, expected.astype(np.float32))
    np.testing.assert_allclose(np.sum(obs, 1), 1, atol=1e-6)
    assert np.asarray(obs).min() >= 0 and np.asarray(obs).max() <= 1


def test_observation_is_x_major():
    obs = np.asarray(ENV.observe(state(7, 3)))
    assert obs[9 * 7 + 3] == 1 and obs.sum() == 1


# --- the interface ---------------------------------------------------------------------


def rollout(key, task):
    """One episode of random actions under scan; returns its time steps."""
    key_reset, key_actions, key_steps = jax.random.split(key, 3)
    start, _ = ENV.reset(key_reset, task)
    actions = jax.random.randint(key_actions, (ENV.horizon,), 0, 4)
    keys = jax.random.split(key_steps, ENV.horizon)
    return jax.lax.scan(lambda s, x: ENV.step(x[0], s, x[1], task), start, (keys, actions))


def test_interface():
    assert isinstance(ENV.action_space, Discrete) and ENV.action_space.n == 4
    assert (ENV.horizon, ENV.episodes, ENV.observation_size) == (32, 4, 99)
    assert len({ENV, KhazadDum(), KhazadDum(horizon=8)}) == 2
    final, steps = rollout(jax.random.key(6), jnp.array([0.1]))
    assert steps.obs.shape == (32, 99) and steps.reward.shape == (32,)
    assert steps.terminated.dtype == bool and not steps.terminated.any()
    assert {k: v.dtype for k, v in steps.info.items()} == {
        "path": jnp.int32,
        "status": jnp.int32,
    }
    assert steps.info["path"][-1] == final.path and steps.info["status"][-1] == final.status
    np.testing.assert_array_equal(steps.obs[-1], ENV.observe(final))


def test_state_keeps_its_types():
    start, _ = ENV.reset(jax.random.key(7), jnp.array([0.1]))
    after, _ = ENV.step(jax.random.key(8), start, jnp.int32(UP), jnp.array([0.1]))
    spec = [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(start)]
    assert spec == [(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in jax.tree.leaves(after)]


def test_step_is_transition_fed_with_two_standard_normals():
    """Fixes the order of the noise, so that recorded noise can be replayed."""
    key, task = jax.random.key(9), jnp.array([0.3])
    after, step = ENV.step(key, state(2, 4), jnp.int32(UP), task)
    with jax.debug_key_reuse(False):
        noise = jax.random.normal(key, (2,))
    expected, reward = ENV.transition(state(2, 4), jnp.int32(UP), task, noise)
    np.testing.assert_allclose(after.xy, expected.xy, rtol=1e-6)
    np.testing.assert_allclose(step.reward, reward, rtol=1e-6)


def test_equal_keys_give_equal_episodes():
    first, second = (rollout(jax.random.key(10), jnp.array([0.5])) for _ in range(2))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


def test_jit_and_vmap_change_nothing():
    tasks = jnp.array([[0.0], [0.2], [0.8]])
    keys, same_keys = (jax.random.split(jax.random.key(11), 3) for _ in range(2))
    plain = [rollout(k, t) for k, t in zip(keys, tasks, strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *plain)
    with jax.debug_key_reuse(False):  # it takes the axis move of a vmapped scan for a use
        batched = jax.jit(jax.vmap(rollout))(same_keys, tasks)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), stacked, batched)


def test_rewards_scale_with_the_horizon():
    _, reward = KhazadDum(horizon=10).transition(
        state(2, 6), jnp.int32(UP), jnp.zeros(1), jnp.zeros(2)
    )
    assert float(reward) == pytest.approx(0.5)


def test_family_is_exponential_rain():
    family = KhazadDum(rain_mean=0.2).family
    tasks = family.sample(jax.random.key(12), family.phi0, 20_000)
    assert tasks.shape == (20_000, 1) and family.names == ("rain",)
    assert float(tasks.min()) >= 0
    np.testing.assert_allclose(tasks.mean(), 0.2, rtol=0.03)
