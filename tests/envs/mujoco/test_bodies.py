"""One contract for all task environments of all bodies, and their rules against an oracle."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")

from envs import Ant, HalfCheetah, Humanoid
from roml_jax.types import Box, TaskEnv
from tests.envs.mujoco.oracle import (
    IDS,
    SIZES,
    TEN,
    TIMES,
    VARIATIONS,
    Game,
    compiled,
    follow_bounds,
    write_task,
)

EVERY = pytest.mark.parametrize(("cls", "variation"), VARIATIONS, ids=IDS)
BODIES = pytest.mark.parametrize("cls", [HalfCheetah, Ant, Humanoid])
START = {  # nominal positions, and noise of positions and of velocities
    "half_cheetah": (np.zeros(9), 0.1, "normal"),
    "ant": (np.array([0, 0, 0.75, 1, *[0] * 11]), 0.1, "normal"),
    "humanoid": (np.array([0, 0, 1.4, 1, *[0] * 20]), 0.01, "uniform"),
}
N, T = 4, 10  # worlds and steps of most tests, which then share compiled programs
FACTORS = ("mass", "damping", "head_size")
NAMES = {"vel": ("velocity",), "goal": ("x", "y"), "mass": FACTORS[:1], "body": FACTORS}
NAMES |= {variation: tuple(fields.split()) for variation, fields in TEN.items()}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    """MuJoCo writes its warnings to a file."""
    monkeypatch.chdir(tmp_path)


def make(cls, variation, **settings):
    return cls(physics="mujoco", variation=variation, **settings)


def real():
    """The type of a test's numbers, float64 in those with ``double``."""
    return jnp.result_type(float)


def draw(env, n=N, seed=0):
    """Tasks of the environment's space, by NumPy."""
    rng = np.random.default_rng(seed)
    size = len(env.family.names)
    if env.variation == "vel":
        tasks = rng.uniform(0, env.max_velocity, (n, size))
    elif env.variation == "goal":
        tasks = rng.uniform(-3, 3, (n, size))
    else:
        log2 = 0.5 if env.variation in TEN else 1.0
        tasks = 2 ** rng.uniform(-log2, log2, (n, size))
    return tasks.astype(real())


def actions(env, steps=T, n=N, seed=0, scale=1.0):
    shape = (steps, n, env.action_space.size)
    return np.random.default_rng(seed).uniform(-scale, scale, shape).astype(real())


@functools.cache
def compiled_env(env):
    """Jitted ``reset(seed, tasks)`` and ``walk(state, action, tasks)``, and how often traced."""
    traces = []

    def reset(seed, tasks):
        traces.append("reset")
        return jax.vmap(env.reset)(jax.random.split(jax.random.key(seed), len(tasks)), tasks)

    def walk(state, action, tasks):
        traces.append("walk")
        keys = jax.random.split(jax.random.key(0), action.shape[:2])

        def step(state, xs):
            return jax.vmap(env.step)(xs[0], state, xs[1], tasks)

        return jax.lax.scan(step, state, (keys, action))

    return jax.jit(reset), jax.jit(walk), traces


def reset(env, tasks, seed=0):
    """``(states, observations)``, as NumPy."""
    return jax.tree.map(np.asarray, compiled_env(env)[0](seed, tasks))


def walk(env, state, action, tasks):
    """``(last states, TimeSteps [T, n])``, as NumPy."""
    return jax.tree.map(np.asarray, compiled_env(env)[1](state, action, tasks))


def one(tree, i):
    return jax.tree.map(lambda x: jnp.asarray(x[i]), tree)


# --- the interface ---------------------------------------------------------------------


@EVERY
def test_interface(cls, variation):
    env = make(cls, variation)
    observation, action = SIZES[cls.body]
    observation = 113 if variation == "goal" else observation
    assert isinstance(env, TaskEnv)
    assert (env.horizon, env.episodes, env.observation_size) == (200, 2, observation)
    limit = 0.4 if cls is Humanoid else 1.0
    assert env.action_space == Box(action, pytest.approx(-limit), pytest.approx(limit))
    assert env.dt == pytest.approx(TIMES[cls.body])
    names = NAMES[variation] if cls is not Ant else ("mass", "damping", "leg_length")
    names = names[:1] if variation == "mass" else NAMES["goal"] if variation == "goal" else names
    assert env.family.names == names

    tasks = draw(env)
    state, obs = reset(env, tasks)
    final, steps = walk(env, state, actions(env), tasks)
    assert obs.shape == (N, observation) and obs.dtype == np.float32
    assert steps.obs.shape == (T, N, observation) and steps.obs.dtype == np.float32
    assert steps.reward.shape == (T, N) and steps.reward.dtype == np.float32
    assert steps.terminated.shape == (T, N) and steps.terminated.dtype == bool
    assert set(steps.info) == {"diverged", "x", "y", "height"}
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, final)]
    assert shapes[0] == shapes[1]
    np.testing.assert_array_equal(state.steps, [0] * N)
    np.testing.assert_array_equal(final.steps, [T] * N)


@BODIES
def test_settings_are_hashable_and_frozen(cls):
    envs = {cls(), cls(variation="mass"), cls(variation="body"), cls(horizon=7)}
    assert len(envs | {cls(variation="body")}) == len(envs)
    with pytest.raises(dataclasses.FrozenInstanceError):
        cls().horizon = 3


@pytest.mark.parametrize(
    ("cls", "settings", "message"),
    [
        (HalfCheetah, {"variation": "goal"}, "one of vel, mass, body, 10d-a, 10d-b, 10d-c; got"),
        (Ant, {"variation": "vel"}, "variation is one of goal, mass, body; got 'vel'"),
        (Humanoid, {"variation": "goal"}, "variation is one of vel, mass, body; got 'goal'"),
        (Ant, {"physics": "brax"}, "physics is one of auto, mjx, warp, mujoco; got 'brax'"),
        (Ant, {"derived": "fresh"}, "derived is one of raw, consistent, original; got 'fresh'"),
        (Ant, {"derived": "original", "physics": "mjx"}, "choose physics mujoco; got mjx"),
        (Ant, {"radius": 0.0}, "radius must be positive; got 0.0"),
        (HalfCheetah, {"max_velocity": -1.0}, "max_velocity must be positive; got -1.0"),
        (Humanoid, {"max_velocity": 0.0}, "max_velocity must be positive; got 0.0"),
        (Humanoid, {"horizon": 0}, "horizon must be at least 1; got 0"),
        (HalfCheetah, {"episodes": 0}, "episodes must be at least 1; got 0"),
    ],
)
def test_wrong_settings_say_what_is_right(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        env = cls()  # past the types, which tests check at run time
        for name, value in settings.items():
            object.__setattr__(env, name, value)
        env.__post_init__()


@EVERY
def test_tasks_fill_their_space(cls, variation):
    family = make(cls, variation).family
    tasks = np.asarray(family.sample(jax.random.key(0), family.phi0, 4000))
    if variation == "goal":
        radius, angle = np.hypot(*tasks.T), np.arctan2(tasks[:, 1], tasks[:, 0])
        units = np.stack([(radius / 5) ** 2, angle / (2 * np.pi) + 0.5], axis=1)
    elif variation == "vel":
        units = tasks / {"half_cheetah": 7.0, "humanoid": 2.5}[cls.body]
    else:
        log2 = 0.5 if variation in TEN else 1.0
        units = (np.log2(tasks) + log2) / (2 * log2)
    assert units.min() >= -1e-6 and units.max() <= 1 + 1e-6
    for unit in units.T:
        np.testing.assert_allclose(np.quantile(unit, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)
    assert np.abs(np.corrcoef(units.T) - np.eye(units.shape[1])).max() < 0.06


# --- the rules -------------------------------------------------------------------------


def follow(env, steps, atol):
    """Steps of both sides, each from the state that ours has reached: motions are chaotic.

    Even in float64 they agree to 1e-7 only, since the oracle meets the same contacts in
    another order, and the solver of the Humanoid stops a little elsewhere.

    Returns:
      Observations and rewards ``[T, n]``.
    """
    tasks, action = draw(env, seed=1), actions(env, steps, seed=1, scale=1.5)
    state, obs = reset(env, tasks, seed=1)
    games = [oracle(env, task) for task in tasks]
    for i, game in enumerate(games):
        first = game.reset(state.physics.qpos[i], state.physics.qvel[i])
        np.testing.assert_allclose(obs[i], first, rtol=1e-6, atol=1e-6)
    out = []
    for t in range(steps):
        for i, game in enumerate(games):
            game.resume(*(x[i] for x in state.physics[:3]))
        state, now = walk(env, state, action[t : t + 1], tasks)
        assert not now.terminated.any() and not now.info["diverged"].any()
        for i, game in enumerate(games):
            expected, reward = game.step(action[t, i])
            case = f"task {tasks[i]}, step {t}"
            np.testing.assert_allclose(now.obs[0, i], expected, atol, atol, err_msg=case)
            np.testing.assert_allclose(now.reward[0, i], reward, atol, atol, err_msg=case)
            where = game.data.qpos[:3]
            if env.body == "half_cheetah":
                where = [where[0], 0, where[1] + 0.7]
            info = [now.info[name][0, i] for name in ("x", "y", "height")]
            np.testing.assert_allclose(info, where, atol=atol, err_msg=case)
        out.append((now.obs[0], now.reward[0]))
    return [np.stack(x) for x in zip(*out, strict=True)]


def oracle(env, task):
    model = write_task(compiled(env.body), env.body, env.variation, task)
    return Game(env.body, env.variation, task, follow_bounds(model), env.contact_forces)


@BODIES
def test_the_rules_in_single_precision(cls):
    follow(make(cls, "body"), 5, 2e-3)


@BODIES
def test_starts(cls):
    """Positions are uniform around the nominal ones, a quaternion's length included."""
    nominal, width, kind = START[cls.body]
    env = make(cls, "mass")
    state, obs = reset(env, draw(env, 3000), seed=2)
    noise = (state.physics.qpos - nominal) / width
    assert np.abs(noise).max() <= 1 + 1e-5
    np.testing.assert_allclose(noise.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(noise.var(0), 1 / 3, atol=0.03)
    velocity = state.physics.qvel / width
    np.testing.assert_allclose(velocity.mean(0), 0, atol=0.1)
    if kind == "normal":
        np.testing.assert_allclose(velocity.std(0), 1, atol=0.06)
        np.testing.assert_allclose((velocity**4).mean(), 3, atol=0.15)
    else:
        assert np.abs(velocity).max() <= 1
        np.testing.assert_allclose(velocity.var(0), 1 / 3, atol=0.03)
    both = np.concatenate([noise, velocity], axis=1)
    assert np.abs(np.corrcoef(both.T) - np.eye(both.shape[1])).max() < 0.09
    start = 2 if cls is not HalfCheetah else 1
    size = noise.shape[1] - start
    np.testing.assert_array_equal(obs[:, :size], state.physics.qpos[:, start:])


@EVERY
def test_forces_saturate_and_costs_do_not(cls, variation):
    env = make(cls, variation)
    limit, size = env.action_space.high, env.action_space.size
    tasks, signs = draw(env, seed=3), np.sign(actions(env, seed=3))
    state, _ = reset(env, tasks, seed=3)
    _, within = walk(env, state, np.float32(limit) * signs, tasks)
    _, beyond = walk(env, state, np.float32(3 * limit) * signs, tasks)
    np.testing.assert_array_equal(within.obs, beyond.obs)
    cost = 0.05 if cls is HalfCheetah else 0.5 if cls is Ant and variation != "goal" else 0.1
    expected = np.full((T, N), cost * size * 8 * limit**2)
    np.testing.assert_allclose(within.reward - beyond.reward, expected, rtol=1e-4)


@pytest.mark.parametrize("cls", [Ant, Humanoid])
def test_the_bonus_of_an_upright_body(cls):
    """Bounds of the height count as upright, and no fall ends anything."""
    env = make(cls, "mass")
    bonus, (low, high) = (1.0, (0.2, 1.0)) if cls is Ant else (5.0, (1.0, 2.0))
    heights = np.float32([low, high, np.nextafter(np.float32(low), 0), high + 1e-3, -1.0])
    tasks = draw(env)
    state = one(reset(env, tasks)[0], 0)

    def reward(height):
        qpos = state.physics.qpos.at[2].set(height)
        after = state._replace(physics=state.physics._replace(qpos=qpos))
        return env.reward(state, after, jnp.zeros(env.action_space.size), jnp.asarray(tasks[0]))

    expected = bonus * np.array([1, 1, 0, 0, 0])
    np.testing.assert_allclose(jax.vmap(reward)(heights), expected, atol=1e-6)


# --- keys, transformations, and what tasks may not do ----------------------------------


def run(env, tasks, seed):
    """Observations and rewards of short episodes with the same actions in every world."""
    action = np.repeat(actions(env, n=1, seed=4), N, axis=1)
    state, obs = reset(env, tasks, seed)
    _, steps = walk(env, state, action, tasks)
    return np.concatenate([obs[None], steps.obs]), steps.reward


@EVERY
def test_equal_keys_give_equal_episodes_and_tasks_do_not_leak(cls, variation):
    env = make(cls, variation)
    tasks, others = draw(env, seed=4), draw(env, seed=5)
    obs, reward = run(env, tasks, seed=4)
    other_obs, other_reward = run(env, others, seed=4)
    for again, first in zip(run(env, tasks, seed=4), (obs, reward), strict=True):
        np.testing.assert_array_equal(again, first)
    assert not np.array_equal(run(env, tasks, seed=5)[0][0], obs[0])
    seen = {"humanoid": 45, "half_cheetah": 19}.get(cls.body)  # then inertia, scaled heights
    np.testing.assert_array_equal(other_obs[0, :, :seen], obs[0, :, :seen])
    assert np.array_equal(other_obs, obs) == (variation in ("vel", "goal"))
    assert not np.array_equal(other_reward, reward)


@EVERY
def test_other_tasks_do_not_retrace(cls, variation):
    env = make(cls, variation)
    traces = compiled_env(env)[-1]
    run(env, draw(env, seed=6), seed=6)
    count = len(traces)
    assert count >= 2
    rewards = [run(env, draw(env, seed=seed), seed=6)[1] for seed in (7, 8)]
    assert len(traces) == count and not np.array_equal(*rewards)


@BODIES
def test_worlds_do_not_depend_on_their_neighbours(cls):
    env = make(cls, "body")
    tasks, action, order = draw(env, seed=6), actions(env, seed=6), np.array([2, 0, 3, 1])
    state, _ = reset(env, tasks, seed=6)
    _, steps = walk(env, state, action, tasks)
    shuffled = jax.tree.map(lambda x: x[order], state)
    _, out = walk(env, shuffled, action[:, order], tasks[order])
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[:, order]), out, steps)


@BODIES
def test_jit_and_vmap_change_nothing(cls):
    env = make(cls, "body")
    tasks, action = jnp.asarray(draw(env, seed=7)), jnp.asarray(actions(env, seed=7))
    state, obs = reset(env, tasks, seed=7)
    _, steps = walk(env, state, action, tasks)
    now, first = env.reset(jax.random.split(jax.random.key(7), N)[1], tasks[1])
    np.testing.assert_allclose(first, obs[1], rtol=1e-5, atol=1e-5)
    for t in range(2):
        now, out = env.step(jax.random.key(t), now, action[t, 1], tasks[1])
        np.testing.assert_allclose(out.obs, steps.obs[t, 1], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(out.reward, steps.reward[t, 1], rtol=1e-3, atol=1e-3)


# --- robustness ------------------------------------------------------------------------


def assert_sound_episodes(cls, variation, n):
    env = make(cls, variation)
    tasks, action = draw(env, n, seed=9), actions(env, env.horizon, n, seed=9)
    state, obs = reset(env, tasks, seed=9)
    assert np.isfinite(obs).all()
    for t in range(0, env.horizon, T):
        state, steps = walk(env, state, action[t : t + T], tasks)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves((state, steps)))
        assert not steps.info["diverged"].any() and not steps.terminated.any()
    np.testing.assert_array_equal(state.steps, env.horizon)


@EVERY
def test_random_episodes_are_sound(cls, variation):
    assert_sound_episodes(cls, variation, N)


@pytest.mark.slow
@EVERY
def test_many_random_episodes_are_sound(cls, variation):
    assert_sound_episodes(cls, variation, 1000)


def down(env, task, where):
    """What a body that lies still gets in a step."""
    if env.body == "half_cheetah":
        return -task[0] if env.variation == "vel" else -0.6
    if env.variation == "goal":
        return -np.abs(where - task).sum()
    return -1.25 * task[0] if env.variation == "vel" else 0.0


def assert_same(actual, expected, worlds, axis=0):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(np.take(a, worlds, axis), np.take(b, worlds, axis))


@pytest.mark.parametrize("engine", ["mujoco", pytest.param("mjx", marks=pytest.mark.slow)])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e30], ids=str)
def test_actions_that_are_not_finite_end_a_world_in_every_engine(
    engine, poison, tmp_path, monkeypatch, capfd
):
    """One whose cost overflows too; nothing is printed, and no file written."""
    monkeypatch.chdir(tmp_path)
    env = HalfCheetah(variation="mass", physics=engine)
    tasks, action = draw(env, seed=10), actions(env, seed=10)
    before = reset(env, tasks, seed=10)[0]
    _, expected = walk(env, before, action, tasks)
    action[0, 1, 2] = poison
    _, steps = walk(env, before, action, tasks)
    np.testing.assert_array_equal(steps.terminated[0], [False, True, False, False])
    np.testing.assert_array_equal(steps.info["diverged"][0], [0, 1, 0, 0])
    np.testing.assert_allclose(steps.reward[0, 1], 200 * down(env, tasks[1], None), atol=120)
    assert np.isfinite(steps.obs).all() and np.isfinite(steps.reward[0]).all()
    assert_same(steps, expected, [0, 2, 3], axis=1)
    assert not [*tmp_path.iterdir()] and "WARNING" not in "".join(capfd.readouterr())


def test_a_world_that_diverges_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    env = HalfCheetah(variation="mass", physics="mujoco")
    tasks = draw(env, seed=10)
    before = reset(env, tasks, seed=10)[0]
    qvel = before.physics.qvel.copy()
    qvel[1:] = 1e8
    poisoned = before._replace(physics=before.physics._replace(qvel=qvel))
    _, steps = walk(env, poisoned, actions(env, seed=10), tasks)
    assert steps.info["diverged"][0].tolist() == [0, 1, 1, 1]
    assert not [*tmp_path.iterdir()] and not "".join(capfd.readouterr())
    heard, mujoco = [], pytest.importorskip("mujoco")
    mujoco.set_mju_user_warning(heard.append)  # whoever wants to hear of it still does
    try:
        walk(env, poisoned, actions(env, seed=11), tasks)
        assert heard and mujoco.get_mju_user_warning() is not None
    finally:
        mujoco.set_mju_user_warning(None)


@EVERY
def test_a_diverging_world_ends_and_no_other(cls, variation):
    """9e3 rad/s is still sound, and is the last state that is; the others never were."""
    env = make(cls, variation)
    tasks, action = draw(env, seed=10), actions(env, seed=10)
    before, _ = walk(env, reset(env, tasks, seed=10)[0], action, tasks)
    expected, expected_steps = walk(env, before, action, tasks)
    place = before.physics.seen["xpos"][1, 1, :2] if cls is Ant else None
    for poison in (np.nan, 1e6, 9e3):
        qvel = before.physics.qvel.copy()
        qvel[1] = poison
        poisoned = before._replace(physics=before.physics._replace(qvel=qvel))
        after, steps = walk(env, poisoned, action, tasks)
        np.testing.assert_array_equal(steps.terminated[0], [False, True, False, False])
        np.testing.assert_array_equal(steps.info["diverged"][0], [0, 1, 0, 0])
        rest = (200 - T) * down(env, tasks[1], place)
        np.testing.assert_allclose(steps.reward[0, 1], rest, rtol=1e-5)
        assert_same(after.physics, poisoned.physics, [1])
        assert_same(after, expected, [0, 2, 3])
        assert_same(steps, expected_steps, [0, 2, 3], axis=1)
    assert np.isfinite(steps.obs[:, 1]).all()
    np.testing.assert_array_equal(steps.obs[0, 1], env.observe(one(poisoned.physics, 1)))


# --- what follows from a changed body --------------------------------------------------


def test_settings_of_the_physics_reach_the_engine():
    """What they change of a model is tested elsewhere; thick legs touch the floor early."""
    tasks = np.full((N, 3), 1.8, np.float32)
    action = actions(make(HalfCheetah, "body"), seed=11)

    def motion(**settings):
        env = make(HalfCheetah, "body", **settings)
        state, _ = reset(env, tasks, seed=11)
        for _ in range(3):
            state, steps = walk(env, state, action, tasks)
        return steps.obs

    raw = motion()
    for settings in ({"derived": "consistent"}, {"derived": "original"}, {"legacy_inertia": True}):
        assert np.abs(motion(**settings) - raw).max() > 1e-3


# --- the rules to the last digits --------------------------------------------------------


@pytest.fixture
def double():
    """Double precision everywhere: a context does not reach the callbacks of other threads.

    What was traced in the other precision must not be met again, so such tests come last.
    """
    jax.clear_caches()
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
    jax.clear_caches()


@pytest.mark.parametrize(
    ("cls", "variation"),
    [(HalfCheetah, "vel"), (HalfCheetah, "body"), (Ant, "body"), (Humanoid, "vel")],
)
def test_the_rules_in_double_precision(cls, variation, double):
    follow(make(cls, variation), 20, 1e-6)


@pytest.mark.slow
@EVERY
def test_all_rules_in_double_precision(cls, variation, double):
    follow(make(cls, variation), 100, 1e-6)


@pytest.mark.parametrize(("cls", "variation"), [(Ant, "goal"), (Humanoid, "body")])
def test_the_rules_with_contact_forces(cls, variation, double):
    obs, reward = follow(make(cls, variation, contact_forces=True), 30, 1e-6)
    other_obs, other_reward = follow(make(cls, variation), 30, 1e-6)
    forces, none = obs[..., -84:], other_obs[..., -84:]
    assert forces.any() and not none.any() and (reward < other_reward - 1e-6).any()
    assert (np.abs(forces).max() == 1) == (cls is Ant)
