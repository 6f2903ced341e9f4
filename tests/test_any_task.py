"""Learners, rollouts and networks take arrays of the right shape, and refuse others in one line.

The sizes are read while tracing, so nothing of this compiles.
"""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roml_jax.decoders import TransitionDecoder
from roml_jax.encoder import BeliefEncoder, RecurrentEncoder
from roml_jax.evaluate import evaluate
from roml_jax.networks import ActorCritic
from roml_jax.rollout import rollout
from tests.learners.small import ENV, LEARNERS, Arms, B, make_learner

SHAPES = [
    *((), (1,), (B,), (0,), (B, 1), (1, B), (0, 1), (B, 2), (B, B), (2, 1), (B, 1, 1)),
    *((5, B), (5, B, 3), (5, B, 1), (5, 1), (B, 5), (0, B), (5, B, B, 1), (5, B, 2)),
]
DTYPES = ["float32", "float16", "bfloat16", "int32", "int8", "bool", "complex64"]
some = settings(
    max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
arrays = st.builds(jax.ShapeDtypeStruct, st.sampled_from(SHAPES), st.sampled_from(DTYPES))


@pytest.fixture(autouse=True)
def untyped():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def result(fn, *args):
    """The shapes of a function's value; or None for one line of refusal."""
    try:
        return jax.eval_shape(fn, *args)
    except (ValueError, TypeError) as error:
        assert len(str(error).splitlines()) == 1, error
        return None


def real(x):
    return x.dtype != jnp.complex64


@functools.cache
def learned(name):
    learner = make_learner(name)
    key = jax.random.key(0)
    state = jax.eval_shape(learner.init, key)
    tasks = jax.ShapeDtypeStruct((B, 1), jnp.float32)
    return learner, state, jax.eval_shape(learner.collect, key, state, tasks)[1]


@some
@given(st.sampled_from(sorted(LEARNERS)), arrays)
def test_tasks(name, tasks):
    learner, state, _ = learned(name)
    env = Arms() if LEARNERS[name].supervised else ENV
    key, params = jax.random.key(1), jax.eval_shape(learner.params, state)
    sound = real(tasks) and len(tasks.shape) == 2 and tasks.shape[1] == 1 and tasks.shape[0] > 0
    tested = result(lambda p, t: evaluate(key, env, learner.agent, p, t).returns, params, tasks)
    assert (tested is not None) == sound
    if sound:
        assert tested.shape == tasks.shape[:1] and tested.dtype == jnp.float32
    if env is ENV:
        played = result(lambda p, t: rollout(key, env, learner.agent, p, t).reward, params, tasks)
        assert (played is not None) == sound
    if not sound or tasks.shape[0] == B:
        collected = result(lambda s, t: learner.collect(key, s, t)[2], state, tasks)
        assert (collected is not None) == sound


@some
@given(st.sampled_from(sorted(LEARNERS)), arrays)
def test_weights(name, weights):
    learner, state, data = learned(name)
    found = result(lambda s, d, w: learner.update(jax.random.key(0), s, d, w), state, data, weights)
    assert (found is not None) == (real(weights) and weights.shape == (B,))
    if found is not None:
        assert jax.tree.structure(found[0]) == jax.tree.structure(state)


def test_tasks_of_whole_numbers_are_the_same_tasks():
    learner = make_learner("ppo")
    state = learner.init(jax.random.key(0))
    played = [
        np.asarray(learner.collect(jax.random.key(1), state, jnp.array([[0], [1]] * 2, dtype))[2])
        for dtype in ("float32", "int32", "bool", "float16")
    ]
    for one in played:
        np.testing.assert_array_equal(one, played[0])


STEPS = jnp.ones((5, B))
HISTORY = {
    "action": STEPS[..., None],
    "reward": STEPS,
    "next_obs": jnp.ones((5, B, 3)),
    "valid": STEPS > 0,
}
SIZES = {"hidden_size": 3, "action_embedding": 2, "obs_embedding": 2, "reward_embedding": 2}


@some
@given(
    st.sampled_from([BeliefEncoder, RecurrentEncoder]),
    st.sampled_from(sorted(HISTORY)),
    st.sampled_from(SHAPES),
)
def test_encoders(kind, name, shape):
    encoder = kind(latent_size=2, **SIZES)
    params = jax.eval_shape(lambda: encoder.init(jax.random.key(0), **HISTORY))
    history = HISTORY | {name: jnp.ones(shape, HISTORY[name].dtype)}
    found = result(lambda p: encoder.apply(p, **history), params)
    assert (found is not None) == (shape == HISTORY[name].shape)


PARTS = {"latent": (5, B, 2), "obs": (5, B, 3), "action": (5, B, 1), "next_obs": (5, B, 3)}


@some
@given(st.sampled_from(sorted(PARTS)), st.sampled_from(SHAPES))
def test_decoders(name, shape):
    decoder = TransitionDecoder(latent_size=2, layers=(3,))
    step = {part: jnp.ones(size) for part, size in PARTS.items()}
    params = jax.eval_shape(lambda: decoder.init(jax.random.key(0), **step))
    found = result(lambda p: decoder.apply(p, **step | {name: jnp.ones(shape)}), params)
    assert (found is not None) == (shape == PARTS[name])


@some
@given(st.sampled_from(SHAPES), st.sampled_from(SHAPES))
def test_policies(obs, belief):
    network = ActorCritic(3, True, (4,))
    params = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.ones((5, B, 3)), jnp.ones((5, B, 2)))
    )
    found = result(lambda p: network.apply(p, jnp.ones(obs), jnp.ones(belief)), params)
    fits = obs[-1:] == (3,) and belief[-1:] == (2,)
    assert (found is not None) == (fits and obs[:-1] == belief[:-1])
