"""One training step however it is run, for every listed method on every listed learner."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spec.learners import LEARNERS
from roml_jax import methods, risk, samplers
from roml_jax.methods import METHODS
from roml_jax.train import StepMetrics, TrainState, make_grouped_train, make_train
from roml_jax.types import UNTOLD, Draw, Learner, MetaAlgorithm, TaskSampler
from tests.learners.small import FAMILY, B, make_learner, make_method, wrapped

LOSSES = {
    "maml": {"outer_loss", "grad_norm"},
    "pearl": {"critic_loss", "value_loss", "policy_loss", "kl", "entropy"},
}


@pytest.fixture(scope="module", params=LEARNERS)
def learner_name(request):
    return request.param


@pytest.fixture(scope="module")
def learner(learner_name, module_traces):
    """A learner whose functions are compiled once for all methods."""
    made = make_learner(learner_name)
    jitted = {
        name: jax.jit(module_traces(name, getattr(made, name)))
        for name in ("init", "collect", "update")
    }
    return made._replace(**jitted)


@pytest.fixture(scope="module")
def module_traces():
    """``wrap(name, fn)`` counts the traces of fn in ``wrap.counts[name]``."""

    def wrap(name, fn):
        wrap.counts[name] = 0

        def traced(*args):
            wrap.counts[name] += 1
            return fn(*args)

        return traced

    wrap.counts = {}
    return wrap


@pytest.mark.parametrize("name", METHODS)
def test_contract_of_every_method_on_every_learner(name, learner, learner_name, module_traces):
    trained = wrapped(learner, name)
    rivals, anew = name == "paired", trained is not learner
    init, step = make_train(trained, make_method(name))
    before = dict(module_traces.counts)
    with jax.debug_key_reuse(not rivals):  # wrongly finds a reuse in a scan over keys under vmap
        check_contract(name, learner_name, trained, init, step, rivals)
    # Compiled once, for all steps and all methods: state comes back as it went in.
    once = {"init": 1, "collect": 1, "update": 1}
    if anew:  # a learner of its own, or under other switches
        assert module_traces.counts.keys() == once.keys()
        module_traces.counts = before
    else:
        assert module_traces.counts == once


def check_contract(name, learner_name, learner, init, step, rivals):
    state = init(jax.random.key(0))
    assert isinstance(state, TrainState) and isinstance(learner, Learner)
    describe = lambda x: (x.shape, x.dtype, getattr(x, "weak_type", False))  # noqa: E731
    spec, seen = jax.tree.map(describe, state), []
    for i in range(3):
        before, (state, metrics) = state, step(state)
        assert jax.tree.map(describe, state) == spec  # a fixed point of types
        assert state.step == i + 1
        assert not jnp.array_equal(jax.random.key_data(before.key), jax.random.key_data(state.key))
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(learner.params(state.learner)))
        losses = LOSSES.get(learner_name, {"policy_loss", "value_loss", "entropy"})
        assert {"return_mean", "phi", "sample_mean", *losses} <= metrics.keys()
        for key, value in metrics.items():
            replayed = name == "naive" and i == 2 and key.startswith("reference_")
            nothing_broke = key == "broken_task" and (value == UNTOLD).all()
            assert np.isfinite(value).all() or replayed or nothing_broke, key
        least = -9 if learner_name == "maml" or rivals else 0
        assert least <= metrics["return_mean"] <= 9
        seen.append(jax.tree.map(describe, metrics))
    assert seen[0] == seen[1] == seen[2]
    assert learner.frames_per_step == B * 6 * (1 + rivals)
    assert np.all(getattr(state.learner, "frames", 3 * B * 6) == 3 * B * 6)


def scripted_learner():
    """A learner that writes down what it is given; the return of a task is its arm."""

    def collect(key, state, tasks):
        return state | {"tasks": tasks}, tasks, -tasks[:, 0]

    def update(key, state, rollout, weights):
        return state | {"weights": weights, "rollout": rollout}, {"loss": jnp.zeros(())}

    blank = jnp.zeros((B, 1))
    init = lambda key: {"tasks": blank, "weights": jnp.zeros(B), "rollout": blank}  # noqa: E731
    return Learner(init, collect, update, None, None, B, B)


def test_selection_and_sampler_see_the_returns_of_the_step():
    init, step = make_train(scripted_learner(), methods.cvar_ml(FAMILY, 0.25))
    state = init(jax.random.key(0))
    for _ in range(5):
        state, metrics = step(state)
        tasks = state.learner["tasks"][:, 0]
        np.testing.assert_array_equal(state.learner["rollout"][:, 0], tasks)
        assert state.learner["weights"].sum() >= 1
        if tasks.max() == 1:  # the worst quarter is among the tasks of arm 1
            assert (tasks[state.learner["weights"] > 0] == 1).all()
        np.testing.assert_allclose(metrics["return_mean"], -tasks.mean())
    init, step = make_train(scripted_learner(), methods.naive(FAMILY, 0.5, pool=8))
    state, drawn = init(jax.random.key(0)), []
    for i in range(4):
        state, _ = step(state)
        drawn.append(np.asarray(state.learner["tasks"][:, 0]))
        assert state.sampler.count == min(B * (i + 1), 8)
    pool = np.concatenate(drawn[:2])
    np.testing.assert_array_equal(state.sampler.tasks[:, 0], pool)
    np.testing.assert_array_equal(state.sampler.returns, -pool)


def test_jitted_scanned_and_vmapped_steps_agree():
    """Same numbers to 1e-4 relative: only the order of sums may differ."""
    init, step = make_train(make_learner("ppo"), methods.roml(FAMILY, 0.5))
    seeds = jnp.arange(2)

    def from_seed(seed):
        return init(jax.random.key(seed))

    def chunk(state, length):
        return jax.lax.scan(lambda s, _: step(s), state, None, length=length)

    jitted, scanned = jax.jit(step), jax.jit(chunk, static_argnums=1)
    singles = []
    for seed in seeds:
        state, rows = jax.jit(from_seed)(seed), []
        for _ in range(4):
            state, metrics = jitted(state)
            rows.append(metrics)
        singles.append((state, jax.tree.map(lambda *x: jnp.stack(x), *rows)))
    state, first = scanned(jax.jit(from_seed)(0), 2)
    state, second = scanned(state, 2)
    chunks = state, jax.tree.map(lambda *x: jnp.concatenate(x), first, second)
    with jax.debug_key_reuse(False):
        many = jax.jit(jax.vmap(lambda seed: chunk(from_seed(seed), 4)))(seeds)

    def same(a, b):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                x, y = jax.random.key_data(x), jax.random.key_data(y)
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)

    same(singles[0], chunks)
    for i in range(2):
        same(singles[i], jax.tree.map(lambda x: x[i], many))  # noqa: B023
    entropies = [metrics["entropy"] for _, metrics in singles]
    assert not jnp.array_equal(*entropies)


# ------------------------------------------------------------------ what the step hands on


def test_metrics_are_told_apart_by_who_says_them():
    _, step = make_grouped_train(scripted_learner(), methods.roml(FAMILY, 0.5))
    init, flat_step = make_train(scripted_learner(), methods.roml(FAMILY, 0.5))
    metrics = step(init(jax.random.key(0)))[1]
    assert metrics.learner.keys() == {"loss"}
    assert metrics.sampler.keys() == {"updated", "selected", "q_alpha", "q_beta"}
    told = {"return_mean", "phi", "sample_mean", "reference_mean", "reference_cvar"}
    told |= {"broken_tasks", "broken_task"}
    assert metrics.tasks.keys() == told
    assert flat_step(init(jax.random.key(0)))[1].keys() == metrics.flat().keys()
    with pytest.raises(ValueError, match=r"two metrics .* have the name phi"):
        StepMetrics({"loss": 0, "phi": 1}, {}, {"phi": 2}).flat()


def test_tasks_without_a_finite_return_are_counted_and_the_first_is_told():
    learner = scripted_learner()
    bad = jnp.zeros(B).at[1].set(-jnp.inf).at[2].set(jnp.nan)

    def collect(key, state, tasks):
        state, data, returns = learner.collect(key, state, tasks)
        return state, data, returns + bad

    for made, count in ((learner, 0), (learner._replace(collect=collect), 2)):
        init, step = make_train(made, methods.baseline(FAMILY))
        state, metrics = step(init(jax.random.key(0)))
        assert metrics["broken_tasks"] == count and metrics["broken_task"].shape == (1,)
        want = state.learner["tasks"][1] if count else UNTOLD
        np.testing.assert_array_equal(metrics["broken_task"], want)


def recording_sampler():
    """Draws the step's number as its tasks, and keeps what it is told afterwards."""

    def sample(key, state, n):
        tasks = jnp.full((n, 1), state["count"])
        return Draw(tasks, jnp.ones(n), jnp.ones(n, bool))

    def update(key, state, draw, returns):
        return state | {"count": state["count"] + 1, "extra": draw.extras["twice"]}, {}

    init = lambda key: {"count": jnp.zeros(()), "extra": jnp.zeros(B)}  # noqa: E731
    return TaskSampler(init, sample, update, lambda state: state["count"][None])


def test_samplers_and_weighings_read_the_learners_extras():
    learner = scripted_learner()._replace(extras=lambda rollout: {"twice": 2 * rollout[:, 0]})
    weigh = lambda draw, returns: 1 + draw.extras["twice"]  # noqa: E731
    init, step = make_train(learner, MetaAlgorithm(recording_sampler(), weigh, 0.5))
    state = init(jax.random.key(0))
    for i in range(3):
        state, metrics = step(state)
        assert (state.sampler["extra"] == 2 * i).all()
        assert (state.learner["weights"] == 1 + 2 * i).all()
        assert metrics["phi"] == i + 1  # of the state that the step has led to
        assert metrics["return_mean"] == -i


def test_a_method_may_be_a_schedule():
    """Soft risk: the tail that is learned from falls from all to the worst task alone."""

    def at(step):
        alpha = jnp.maximum(1 - step / 4, 0.25)
        return MetaAlgorithm(samplers.fixed(FAMILY), risk.tail(alpha), alpha)

    init, step = make_train(scripted_learner(), at)

    @jax.jit
    def run(key):
        def one(state, _):
            state, metrics = step(state)
            return state, (state.learner["weights"].sum(), metrics["reference_cvar"])

        return jax.lax.scan(one, init(key), None, length=6)[1]

    counts, cvars = run(jax.random.key(0))
    assert counts.tolist() == [4, 3, 2, 1, 1, 1]
    alone = make_train(scripted_learner(), methods.cvar_ml(FAMILY, 0.5))
    state = alone[0](jax.random.key(0))
    for _ in range(3):
        state, metrics = alone[1](state)
    np.testing.assert_allclose(cvars[2], metrics["reference_cvar"])  # alpha was a half then
