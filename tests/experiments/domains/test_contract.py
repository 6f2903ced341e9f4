"""What every listed environment promises, and what its presets and views do."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import style
from experiments.presets import PRESETS
from experiments.spec.words import split_row
from roml_jax.methods import METHODS
from roml_jax.types import Box, Discrete, Family, TaskData, TaskEnv, TimeStep

# Presets of the same environment share it; one of each body is stepped, the others only traced.
ENVS = {preset.experiment.env: name for name, preset in reversed(PRESETS.items())}
NAMES = sorted(ENVS.values(), key=list(PRESETS).index)
STEPPED = {"khazad-dum", "half-cheetah-mass", "point", "point-sparse"}


def describe(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def env_of(name):
    env = PRESETS[name].experiment.env
    if getattr(env, "body", None) is not None:
        pytest.importorskip("mujoco")
        pytest.importorskip("gymnasium")
    return env


def play_two(env, key):
    """A reset and two steps on one task, with the first action of all and the last."""
    reset_key, task_key, *keys = jax.random.split(key, 4)
    task = env.family.sample(task_key, jnp.asarray(env.family.phi0), 1)[0]
    space = env.action_space
    if isinstance(space, Discrete):
        actions = [jnp.zeros((), jnp.int32), jnp.full((), space.n - 1, jnp.int32)]
    else:
        actions = [jnp.full(space.size, bound) for bound in (space.low, space.high)]
    state, obs = env.reset(reset_key, task)
    told = [(state, obs)]
    for step_key, action in zip(keys, actions, strict=True):
        state, out = env.step(step_key, state, action, task)
        told.append((state, out))
    return told


@pytest.mark.parametrize("name", NAMES)
def test_settings_and_family(name):
    env = env_of(name)
    assert isinstance(env, TaskEnv) != isinstance(env, TaskData)
    assert dataclasses.is_dataclass(env) and hash(env) == hash(dataclasses.replace(env))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(env, dataclasses.fields(env)[0].name, 1)
    family = env.family
    assert isinstance(family, Family) and isinstance(family.phi0, np.ndarray)
    assert family.phi0.shape == (len(family.phi_names),)
    tasks = family.sample(jax.random.key(0), family.phi0, 5)
    assert tasks.shape == (5, len(family.names)) and tasks.dtype == jnp.float32
    assert family.log_prob(tasks, family.phi0).shape == (5,)
    np.testing.assert_allclose(family.project(family.phi0), family.phi0, rtol=1e-6)


@pytest.mark.parametrize(
    "name", [n for n in NAMES if isinstance(PRESETS[n].experiment.env, TaskEnv)]
)
def test_steps_keep_what_the_protocol_says(name):
    env = env_of(name)
    assert isinstance(env.action_space, (Box, Discrete)) and env.horizon > 0 and env.episodes > 0
    shapes = jax.eval_shape(lambda key: play_two(env, key), jax.random.key(0))
    (state, obs), *steps = shapes
    assert (obs.shape, obs.dtype) == ((env.observation_size,), jnp.float32)
    for after, out in steps:
        assert isinstance(out, TimeStep) and describe(after) == describe(state)
        assert describe(out.obs) == describe(obs)
        assert describe(out.reward) == ((), jnp.float32) and describe(out.terminated) == ((), bool)
        assert all(value.shape == () for value in out.info.values())
    assert describe(steps[0][1].info) == describe(steps[1][1].info)
    if name in STEPPED:
        play = jax.jit(lambda key: play_two(env, key))
        told, again = play(jax.random.key(1)), play(jax.random.key(1))
        assert all(np.isfinite(out.reward) and np.isfinite(out.obs).all() for _, out in told[1:])
        assert jax.tree.all(jax.tree.map(jnp.array_equal, told, again))  # the key decides all


@pytest.mark.parametrize("name", NAMES)
def test_views_speak_of_the_environment_at_hand(name):
    env = env_of(name)
    view = PRESETS[name].view_of(env)
    if view is None:
        return
    family, log_prob = env.family, env.family.log_prob
    assert view.tasks.shape[1:] == (len(family.names),) and view.tasks.dtype == np.float32
    assert np.isfinite(log_prob(jnp.asarray(view.tasks), family.phi0)).all()
    assert list(view.ranges) == sorted(set(view.ranges)) and len(view.ranges) > 2
    drawn = np.asarray(family.sample(jax.random.key(0), family.phi0, 1000))[:, 0]
    low, high = view.ranges[0], view.ranges[-1]
    assert ((low <= drawn) & (drawn <= high)).all()  # every task lies in a range
    assert view.tasks[:, 0].min() >= low and view.tasks[:, 0].max() <= high
    assert set(view.outcomes) == set() or view.outcome is not None


CHANGED = {
    "khazad-dum": {"rain_mean": 0.02},
    "sine": {"amplitude": (0.5, 1.0)},
    "point": {"radius": 3.0},
    "half-cheetah-vel": {"max_velocity": 3.0},
    "humanoid-vel": {"max_velocity": 1.0},
    "ant-goal": {"radius": 1.0},
}


@pytest.mark.parametrize("name", CHANGED)
def test_views_follow_settings(name):
    usual, env = env_of(name), dataclasses.replace(env_of(name), **CHANGED[name])
    view = PRESETS[name].view_of(env)
    drawn = np.asarray(env.family.sample(jax.random.key(0), env.family.phi0, 1000))[:, 0]
    low, high = view.ranges[0], view.ranges[-1]
    assert ((low <= drawn) & (drawn <= high)).all()
    assert np.isfinite(env.family.log_prob(jnp.asarray(view.tasks), env.family.phi0)).all()
    assert low <= view.tasks[:, 0].min() and view.tasks[:, 0].max() <= min(high, 8 * drawn.max())
    assert view.ranges != PRESETS[name].view_of(usual).ranges


def test_a_slow_cheetah_is_drawn_slow():
    env = dataclasses.replace(env_of("half-cheetah-vel"), max_velocity=3.0)
    view = PRESETS["half-cheetah-vel"].view_of(env)
    assert view.ranges[-1] == 3 and view.tasks.max() <= 3


@pytest.mark.parametrize("name", PRESETS)
def test_presets_name_what_is_listed(name):
    preset = PRESETS[name]
    assert preset.learners.keys() <= set(preset.learner_names())
    assert preset.methods.keys() <= METHODS.keys()
    usual = [row for row in preset.published if split_row(row)[0] is None]
    assert {row.partition(":")[0] for row in usual} <= METHODS.keys()
    assert not [row for row in preset.published if split_row(row)[0] == preset.default_learner]
    for learner in preset.learner_names():
        for method in METHODS:
            experiment = preset.choose(learner, method)
            assert (experiment.learner_name, experiment.method_name) == (learner, method)
            assert experiment.alpha == preset.experiment.alpha
    assert preset.choose() == preset.experiment


def test_looks_of_methods_differ():
    looks = style.looks(METHODS)
    assert len({look.color for look in looks.values()}) == len(METHODS)
