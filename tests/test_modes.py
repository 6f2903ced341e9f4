"""Training under the switches of JAX that strict users turn on, and at the edge of sizes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spec.learners import LEARNERS
from roml_jax import families, samplers
from roml_jax.evaluate import evaluate
from roml_jax.methods import METHODS
from roml_jax.samplers import cem
from roml_jax.train import make_train
from roml_jax.types import UNTOLD, Agent
from tests.learners.small import (
    BELIEF,
    ENV,
    FAMILY,
    POLICY,
    Arms,
    make_learner,
    make_method,
    wrapped,
)
from tests.probes import Probe

PAIRS = [(name, "roml") for name in LEARNERS]
PAIRS += [("ppo", name) for name in METHODS if name != "roml"]
METHOD_SETTINGS = {"roml": {"batch": 8}}  # two steps
pairs = pytest.mark.parametrize(("learner", "method"), PAIRS)


@pytest.fixture(autouse=True)
def no_false_alarm(request):
    """Two learners side by side: a scan over keys under vmap, wrongly taken for a reuse."""
    params = getattr(request.node, "callspec", None)
    with jax.debug_key_reuse(params is None or params.params.get("method") != "paired"):
        yield


def make(learner, method):
    made = make_learner(learner)
    made = wrapped(made, method)
    return made, *make_train(made, make_method(method, **METHOD_SETTINGS.get(method, {})))


def is_double(x):
    return x.dtype in (jnp.float64, jnp.int64)


@pairs
def test_with_double_precision_the_state_stays_in_32_bits(learner, method, x64):
    made, init, step = make(learner, method)
    state = jax.eval_shape(init, jax.random.key(0))
    new, _ = jax.eval_shape(step, state)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype and not is_double(a)
    problem = ENV if isinstance(made.agent, Agent) else Arms()
    tasks, params = jnp.ones((2, 1)), jax.eval_shape(made.params, state.learner)
    jax.eval_shape(lambda p: evaluate(jax.random.key(0), problem, made.agent, p, tasks), params)


def test_a_step_in_double_precision_runs(x64):
    made, init, step = make("varibad", "roml")
    state, _ = jax.jit(step)(init(jax.random.key(0)))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(made.params(state.learner)))


@pairs
def test_strict_promotion(learner, method):
    with jax.numpy_dtype_promotion("strict"):
        made, init, step = make(learner, method)
        state = jax.eval_shape(init, jax.random.key(0))
        jax.eval_shape(step, state)
        problem = ENV if isinstance(made.agent, Agent) else Arms()
        tasks, params = jnp.ones((2, 1)), jax.eval_shape(made.params, state.learner)
        jax.eval_shape(lambda p: evaluate(jax.random.key(0), problem, made.agent, p, tasks), params)


@pytest.mark.parametrize(
    ("learner", "method"), [("varibad", "roml"), ("maml", "roml"), ("ppo", "naive")]
)
def test_no_nan_is_made_where_nothing_is_wrong(learner, method):
    _, init, step = make(learner, method)
    with jax.debug_nans(True):
        state, step = init(jax.random.key(0)), jax.jit(step)
        for _ in range(3):
            state, metrics = step(state)
    if method == "naive":
        assert metrics["reference_cvar"] == metrics["reference_mean"] == UNTOLD


@pytest.mark.parametrize("name", ["fixed", "cem", "naive", "oracle"])
def test_samplers_make_no_nan_one_operation_at_a_time(name):
    sampler = {
        "fixed": lambda family: samplers.fixed(family),
        "cem": lambda family: cem(family, alpha=0.2, batch=16),
        "naive": lambda family: samplers.naive(family, alpha=0.2, pool=10),
        "oracle": lambda family: samplers.oracle(family, [0.7], nu=0.25),
    }[name](families.beta(0.0, 1.0))
    with jax.debug_nans(True):
        state = sampler.init(jax.random.key(0))
        for i in range(4):
            draw = sampler.sample(jax.random.key(i), state, 8)
            state, info = sampler.update(jax.random.key(i), state, draw, -draw.tasks[:, 0])
    assert name != "cem" or info["updated"]


def test_a_family_of_double_precision(x64):
    """Pending tasks keep the digits of their family; returns and tasks of any float are welcome."""
    coarse = families.exponential(0.1)
    fine = coarse._replace(
        phi0=np.array([0.1]),
        sample=lambda key, phi, n: phi[0] * jax.random.exponential(key, (n, 1)),
    )
    for family, dtype in ((coarse, jnp.float32), (fine, jnp.float64)):
        sampler = cem(family, alpha=0.2, batch=16)
        state = sampler.init(jax.random.key(0))
        draw = sampler.sample(jax.random.key(1), state, 8)
        draw = draw._replace(tasks=draw.tasks.astype(jnp.float64))
        new, _ = sampler.update(jax.random.key(2), state, draw, jnp.arange(8.0))
        assert new.pending.tasks.dtype == dtype
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
            assert a.dtype == b.dtype


@pytest.mark.parametrize("learner", ["ppo", "varibad"])
def test_one_frame_a_step(learner):
    env = Probe("arms", length=1, horizon=1, episodes=1)
    one = dataclasses.replace(POLICY, minibatches=1)
    settings = {"num_tasks": 1, "policy": one}
    if learner == "varibad":
        settings["belief"] = dataclasses.replace(BELIEF, batch_size=1)
    made = make_learner(learner, env, **settings)
    assert made.frames_per_step == 1
    init, step = make_train(made, make_method("baseline"))
    state, _ = jax.lax.scan(lambda s, _: step(s), init(jax.random.key(0)), length=5)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.learner) if x.dtype == "float32")


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_task_of_weight_zero_cannot_touch_the_parameters(learner):
    """Whatever it holds; those of positive weight can."""
    made = make_learner(learner)
    tasks = FAMILY.sample(jax.random.key(1), FAMILY.phi0, made.num_tasks)

    def learn(weights, factor):
        state, rollout, _ = made.collect(jax.random.key(2), made.init(jax.random.key(0)), tasks)

        def spoil(x):  # of the last task, wherever its axis is
            shape = [i for i, n in enumerate(x.shape) if n == made.num_tasks]
            if not shape or x.dtype != jnp.float32:
                return x
            row = jnp.arange(made.num_tasks) == made.num_tasks - 1
            row = row.reshape([-1 if i == shape[0] else 1 for i in range(x.ndim)])
            return jnp.where(row, x * factor, x)

        rollout = jax.tree.map(spoil, rollout)
        state, _ = made.update(jax.random.key(3), state, rollout, weights)
        return made.params(state)

    learn = jax.jit(learn)
    weights = jnp.ones(made.num_tasks).at[-1].set(0)
    for bad in (np.inf, np.nan):
        spoilt = learn(weights, jnp.float32(bad))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(spoilt))
        seen = learn(jnp.ones(made.num_tasks), jnp.float32(bad))
        assert not all(np.isfinite(x).all() for x in jax.tree.leaves(seen))


@pytest.mark.parametrize(("episodes", "boundary"), [(1, "terminal"), (2, "start")])
def test_the_value_of_a_terminal_observation_is_as_if_it_went_on(episodes, boundary):
    """The done flag is new to the normaliser there: 8,000 deviations, and any value at all."""
    from roml_jax.types import Boundary

    env = Probe("constant", length=9, horizon=5, episodes=episodes)  # truncated, never over
    policy = dataclasses.replace(
        POLICY, time_limit="bootstrap", discount=0.5, gae_lambda=0.0, learning_rate=0.02, epochs=4
    )
    made = make_learner("ppo", env, num_tasks=8, policy=policy, boundary=Boundary(boundary))
    init, step = make_train(made, make_method("baseline"))

    def run(state, _):
        state, metrics = step(state)
        return state, metrics["value_loss"]

    _, losses = jax.jit(lambda s: jax.lax.scan(run, s, length=60))(init(jax.random.key(0)))
    assert losses[-1] < 0.01 * losses[0] + 1e-3
