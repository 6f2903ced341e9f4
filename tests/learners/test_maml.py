"""MAML: inner and outer gradients against closed forms and finite differences; probes."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from envs.sine import Sine
from roml_jax import families, methods
from roml_jax.evaluate import evaluate_adaptation, sample_tasks
from roml_jax.learners.maml import MAMLConfig, adapted_losses, make_adapt, maml
from roml_jax.supervised import Model, draw_examples, mlp_regression
from roml_jax.train import make_train

HESSIAN = jnp.array([[3.0, 1.0], [1.0, 2.0]])  # of the quadratic
RATE = 0.1


def quadratic(params, centres):
    """Half the mean squared distance to the centres, in the metric of HESSIAN."""
    gaps = params[None] - centres
    return 0.5 * jnp.einsum("ni,ij,nj->n", gaps, HESSIAN, gaps).mean()


# ------------------------------------------------------------------ the inner loop


def test_inner_gradient_against_finite_differences(x64):
    model = mlp_regression(Sine(), (5,))
    key, x_key = jax.random.split(jax.random.key(0))
    x = jax.random.uniform(x_key, (7,), jnp.float64)
    batch = (x, jnp.sin(3 * x))
    params = jax.tree.map(lambda p: p.astype(jnp.float64), model.init(key, x))

    def loss(params, batch):
        return model.error(model.apply(params, batch[0]), batch[1])

    moved = make_adapt(loss, optax.sgd(RATE))(params, batch, 1)
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    slopes = []
    for i in range(flat.size):
        ends = [loss(unflatten(flat.at[i].add(h)), batch) for h in (1e-6, -1e-6)]
        slopes.append((ends[0] - ends[1]) / 2e-6)
    got = jax.flatten_util.ravel_pytree(moved)[0]
    np.testing.assert_allclose(got, flat - RATE * jnp.array(slopes), atol=1e-8)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_steps_by_hand(steps):
    adapt = jax.jit(make_adapt(quadratic, optax.sgd(RATE)), static_argnums=2)
    centres = jnp.array([[1.0, -2.0], [3.0, 0.0]])
    params = jnp.array([0.5, 0.5])
    want = np.asarray(params)
    for _ in range(steps):
        want = want - RATE * np.asarray(HESSIAN) @ (want - np.array([2.0, -1.0]))
    np.testing.assert_allclose(adapt(params, centres, steps), want, rtol=1e-5)


def test_any_inner_optimizer_that_starts_anew():
    heavy = optax.sgd(RATE, momentum=0.9)
    adapt = make_adapt(quadratic, heavy)
    centres, params = jnp.zeros((1, 2)), jnp.array([1.0, 1.0])
    want, speed = np.ones(2), np.zeros(2)
    for _ in range(3):
        speed = 0.9 * speed + np.asarray(HESSIAN) @ want
        want = want - RATE * speed
    np.testing.assert_allclose(adapt(params, centres, 3), want, rtol=1e-5)
    np.testing.assert_array_equal(adapt(params, centres, 3), adapt(params, centres, 3))


def test_vmap_over_tasks_is_each_task_alone():
    adapt = make_adapt(quadratic, optax.sgd(RATE))
    centres = jax.random.normal(jax.random.key(0), (4, 3, 2))
    params = jnp.array([0.5, 0.5])
    many = jax.vmap(adapt, (None, 0, None))(params, centres, 2)
    for i in range(4):
        np.testing.assert_allclose(many[i], adapt(params, centres[i], 2), rtol=1e-5)


# ------------------------------------------------------------------ the outer gradient


def outer_gradient(first_order, steps, params, support, query):
    adapt = make_adapt(quadratic, optax.sgd(RATE), first_order=first_order)
    return jax.grad(lambda p: quadratic(adapt(p, support, steps), query))(params)


@pytest.mark.parametrize("steps", [1, 2])
def test_first_and_second_order_on_a_quadratic(steps):
    """The outer gradient is ``(I - rate H)^k H (adapted - query)``; first order lacks the power."""
    support, query = jnp.array([[1.0, -2.0]]), jnp.array([[0.0, 3.0]])
    params, h = jnp.array([0.5, 0.5]), np.asarray(HESSIAN, float)
    adapted = make_adapt(quadratic, optax.sgd(RATE))(params, support, steps)
    slope = h @ (np.asarray(adapted) - np.array([0.0, 3.0]))
    shrink = np.linalg.matrix_power(np.eye(2) - RATE * h, steps)
    second = outer_gradient(False, steps, params, support, query)
    first = outer_gradient(True, steps, params, support, query)
    np.testing.assert_allclose(first, slope, rtol=1e-5)
    np.testing.assert_allclose(second, shrink @ slope, rtol=1e-5)
    assert not np.allclose(first, second, rtol=0.05)


def test_outer_gradient_against_finite_differences(x64):
    model = mlp_regression(Sine(), (4,), "tanh")  # smooth, unlike the default

    def loss(params, batch):
        return model.error(model.apply(params, batch[0]), batch[1])

    rng = np.random.default_rng(0)
    support, query = ((jnp.asarray(rng.uniform(size=(3, 5))),) * 2 for _ in range(2))
    x = support[0][0]
    params = jax.tree.map(lambda p: p.astype(jnp.float64), model.init(jax.random.key(0), x))
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    adapt = make_adapt(loss, optax.sgd(0.5))

    def outer(flat):
        return adapted_losses(loss, adapt, unflatten(flat), support, query, 2).sum()

    got = jax.jit(jax.grad(outer))(flat)
    shifts = 1e-6 * jnp.eye(flat.size)
    ends = jax.jit(jax.vmap(lambda shift: outer(flat + shift)))(jnp.concatenate([shifts, -shifts]))
    up, down = jnp.split(ends, 2)
    np.testing.assert_allclose(got, (up - down) / 2e-6, atol=1e-8)


# ------------------------------------------------------------------ the learner


SINE = Sine()


@pytest.fixture(scope="module")
def learner():
    made = maml(SINE, MAMLConfig(layers=(8,)))
    jitted = {name: jax.jit(getattr(made, name)) for name in ("init", "collect", "update")}
    return made._replace(**jitted)


def test_returns_are_negative_query_losses(learner):
    """Restated in NumPy, network and all."""
    key, collect_key = jax.random.split(jax.random.key(0))
    state = learner.init(key)
    tasks = sample_tasks(jax.random.key(1), SINE, 20)
    same, batch, returns = learner.collect(collect_key, state, tasks)
    leaves = jax.tree.leaves(batch)
    assert [leaf.shape for leaf in leaves] == [(20, 10)] * 4 and returns.shape == (20,)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, same, state))
    layers = state.params["params"]
    w1, b1 = (np.asarray(layers["MLP_0"]["Linear_0"][name], float) for name in ("kernel", "bias"))
    w2, b2 = (np.asarray(layers["Linear_0"][name], float) for name in ("kernel", "bias"))
    assert 0.5 * 8**-0.5 < np.abs(w2).max() <= 8**-0.5
    for i in range(20):
        (x, y), (x_query, y_query) = (
            [np.asarray(part[i], float)[:, None] for part in pair] for pair in batch
        )
        hidden = np.maximum(x @ w1 + b1, 0)
        error = 2 * (hidden @ w2 + b2 - y) / 10
        back = (error @ w2.T) * (hidden > 0)
        v2, c2 = w2 - 0.01 * hidden.T @ error, b2 - 0.01 * error.sum(0)
        v1, c1 = w1 - 0.01 * x.T @ back, b1 - 0.01 * back.sum(0)
        fitted = np.maximum(x_query @ v1 + c1, 0) @ v2 + c2
        np.testing.assert_allclose(-returns[i], ((fitted - y_query) ** 2).mean(), rtol=1e-4)
    x, y = jax.tree.map(np.asarray, batch.query)
    wave = [np.asarray(tasks)[:, [i]] for i in range(3)]
    np.testing.assert_allclose(y, wave[0] * np.sin(wave[2] * x + wave[1]), atol=1e-4)
    assert not np.isin(batch.query[0], batch.support[0]).any()


@pytest.mark.parametrize("average", ["batch", "selected"])
def test_unselected_tasks_do_not_matter(average):
    learner = maml(SINE, MAMLConfig(layers=(4,), average=average, num_tasks=6))
    key, collect_key = jax.random.split(jax.random.key(0))
    update = jax.jit(learner.update)
    state = learner.init(key)
    tasks = sample_tasks(jax.random.key(1), SINE, 6)
    _, batch, returns = jax.jit(learner.collect)(collect_key, state, tasks)
    mask = jnp.array([True, False, False, True, False, False])
    new, metrics = update(key, state, batch, mask.astype(jnp.float32))
    other = jax.tree.map(lambda x: jnp.where(mask[:, None], x, 3.0), batch)
    same, _ = update(key, state, other, mask.astype(jnp.float32))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, new.params, same.params))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, new.params, state.params))
    total = -(returns[0] + returns[3])
    want = total / (2 if average == "selected" else 6)
    np.testing.assert_allclose(metrics["outer_loss"], want, rtol=1e-5)


@pytest.mark.parametrize("average", ["batch", "selected"])
def test_tasks_count_by_their_weights(average):
    learner = maml(SINE, MAMLConfig(layers=(4,), average=average, num_tasks=3))
    key, collect_key = jax.random.split(jax.random.key(0))
    state = learner.init(key)
    tasks = sample_tasks(jax.random.key(1), SINE, 3)
    _, batch, returns = learner.collect(collect_key, state, tasks)
    weights = jnp.array([0.5, 2.0, 0.0])
    _, metrics = learner.update(key, state, batch, weights)
    want = -(0.5 * returns[0] + 2 * returns[1]) / (2.5 if average == "selected" else 3)
    np.testing.assert_allclose(metrics["outer_loss"], want, rtol=1e-5)


def test_the_outer_step_is_adam(learner):
    key, collect_key = jax.random.split(jax.random.key(0))
    state = learner.init(key)
    tasks = sample_tasks(jax.random.key(1), SINE, 20)
    _, batch, _ = learner.collect(collect_key, state, tasks)
    new, metrics = learner.update(key, state, batch, jnp.ones(20))
    adapt = make_adapt(learner.agent.loss, optax.sgd(0.01))
    mean = lambda p: adapted_losses(learner.agent.loss, adapt, p, *batch, 1).mean()  # noqa: E731
    grads = jax.jit(jax.grad(mean))(state.params)
    for old, after, grad in zip(
        *map(jax.tree.leaves, (state.params, new.params, grads)), strict=True
    ):
        # The first step of Adam is the rate times the sign, but where the gradient is tiny.
        want = old - 1e-3 * grad / (jnp.abs(grad) + 1e-8)
        np.testing.assert_allclose(after, want, atol=2e-6)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads), rtol=1e-4)


def test_cvar_ml_learns_from_one_task_of_twenty(learner):
    init, step = make_train(learner, methods.cvar_ml(SINE.family, 0.05))
    state = init(jax.random.key(0))
    for _ in range(3):
        worst = {}

        def watched(key, state, batch, mask, worst=worst):
            worst |= {"mask": mask, "losses": losses_of(learner, state, batch)}
            return learner.update(key, state, batch, mask)

        _, step = make_train(learner._replace(update=watched), methods.cvar_ml(SINE.family, 0.05))
        state, metrics = step(state)
        assert worst["mask"].sum() == 1
        assert worst["mask"].argmax() == worst["losses"].argmax()
        np.testing.assert_allclose(metrics["outer_loss"], worst["losses"].max() / 20, rtol=1e-5)


def losses_of(learner, state, batch):
    adapt = make_adapt(learner.agent.loss, optax.sgd(0.01))
    return adapted_losses(learner.agent.loss, adapt, state.params, *batch, 1)


def test_the_cem_updates_every_tenth_step(learner):
    method = methods.roml(SINE.family, 0.05, nu=0.0, batch=200, soft_update=0.5)
    init, step = make_train(learner, method)
    state = init(jax.random.key(0))
    state, metrics = jax.lax.scan(lambda s, _: step(s), state, None, length=30)
    assert metrics["updated"].tolist() == ([False] * 9 + [True]) * 3
    assert (metrics["phi"][:9] == 0.5).all() and (metrics["phi"][9] != 0.5).all()
    assert metrics["phi"][-1, 0] > 0.7  # amplitude, the first thing that matters
    # Strictly below the 0.2 quantile of 200, or filled up to 40.
    assert (metrics["selected"][9::10] >= 40).all()


def test_one_program_for_all_steps(count_traces):
    made = maml(SINE, MAMLConfig(layers=(4,), num_tasks=4))
    counted = count_traces(made.update)
    init, step = make_train(made._replace(update=counted), methods.baseline(SINE.family))
    step = jax.jit(step)
    state = jax.jit(init)(jax.random.key(0))
    for _ in range(3):
        state, _ = step(state)
    assert counted.count == 1


# ------------------------------------------------------------------ problems with known answers


@dataclass(frozen=True)
class Point:
    """Fit a constant to a point that the task is."""

    @property
    def family(self):
        return families.exponential(1.0, name="point")

    def sample_batch(self, key, task, n):
        del key
        return jnp.zeros(n), jnp.broadcast_to(task, (n,))


CONSTANT = Model(
    lambda key, x: jnp.zeros(()),
    lambda params, x: jnp.broadcast_to(params, x.shape),
    # The last term makes high points the hard ones, whatever the constant.
    lambda prediction, y: jnp.mean((prediction - y) ** 2 + 100 * y),
)


@pytest.mark.parametrize(
    ("name", "extra", "alpha"),
    [
        ("baseline", {}, 1.0),
        ("cvar_ml", {}, 0.1),
        ("roml", {"nu": 0.0, "soft_update": 0.5}, 0.1),
    ],
)
def test_every_method_finds_the_start_that_is_best_for_it(name, extra, alpha):
    """The mean of the worst ``alpha`` of exponential points: ``1 - log(alpha)``."""
    config = MAMLConfig(num_tasks=100, support=1, query=1, learning_rate=0.03, test_steps=1)
    learner = maml(Point(), config, CONSTANT)
    init, step = make_train(learner, getattr(methods, name)(Point().family, alpha, **extra))

    @jax.jit
    def train(key):
        return jax.lax.scan(lambda s, _: (step(s)[0], s.learner.params), init(key), None, 800)

    _, course = train(jax.random.key(0))
    np.testing.assert_allclose(course[-400:].mean(), 1 - np.log(alpha), rtol=0.1)


def test_second_order_matters_where_steps_are_long():
    """Where curvature differs between tasks, the best start is not the mean of their targets."""

    @dataclass(frozen=True)
    class Curved:
        @property
        def family(self):
            return families.beta(0.0, 1.0, name="steep")

        def sample_batch(self, key, task, n):
            del key  # target 1 where steep, else 0; its curvature is 1.8 or 0.2
            steep = task[0] > 0.5
            label = jnp.stack([jnp.where(steep, 1.0, 0.0), jnp.where(steep, 0.9, 0.1)])
            return jnp.zeros(n), jnp.broadcast_to(label, (n, 2))

    model = CONSTANT._replace(
        error=lambda prediction, y: jnp.mean(y[:, 1] * (prediction - y[:, 0]) ** 2)
    )
    found = {}
    for first_order in (False, True):
        config = MAMLConfig(
            num_tasks=64, support=1, query=1, inner_learning_rate=0.5, learning_rate=0.01,
            first_order=first_order, test_steps=1,
        )  # fmt: skip
        init, step = make_train(maml(Curved(), config, model), methods.baseline(Curved().family))
        run = jax.jit(lambda key: jax.lax.scan(lambda s, _: (step(s)[0], s.learner.params),  # noqa: B023
                                               init(key), None, 800))  # noqa: B023  # fmt: skip
        found[first_order] = float(run(jax.random.key(0))[1][-300:].mean())
    # One step leaves 1 - 2 * 0.5 * c of the gap, with c the weight 0.9 or 0.1.
    left, weight = np.array([0.1, 0.9]), np.array([0.9, 0.1])
    second, first = weight * left**2, weight * left
    np.testing.assert_allclose(found[False], second[0] / second.sum(), atol=0.05)
    np.testing.assert_allclose(found[True], first[0] / first.sum(), atol=0.05)


# ------------------------------------------------------------------ evaluation and settings


def test_evaluation_without_jit(learner):
    """No inner step is a loop of no length, of which JAX then knows no types."""
    state, tasks = learner.init(jax.random.key(0)), sample_tasks(jax.random.key(3), SINE, 1)
    sizes = {"support": 2, "query": 3, "inner_steps": 1}
    with jax.disable_jit():
        found = evaluate_adaptation(
            jax.random.key(1), SINE, learner.agent, state.params, tasks, **sizes
        )
    assert np.isfinite(found.info["return_after_0"]).all()
    untouched = learner.agent.adapt(state.params, (jnp.ones((2, 1)), jnp.ones((2, 1))), 0)
    jax.tree.map(np.testing.assert_array_equal, untouched, state.params)


def test_evaluation_by_task_and_step(learner):
    key, task_key = jax.random.split(jax.random.key(3))
    state, tasks = learner.init(jax.random.key(0)), sample_tasks(task_key, SINE, 7)
    sizes = {"support": 10, "query": 32, "inner_steps": 1, "most_steps": 3}
    run = partial(evaluate_adaptation, problem=SINE, predictor=learner.agent, **sizes)
    result = jax.jit(partial(run, batch_size=3))(key, params=state.params, tasks=tasks)
    key = jax.random.clone(key)
    whole = jax.jit(run)(key, params=state.params, tasks=tasks)
    assert list(result.info) == [f"return_after_{k}" for k in range(4)]
    np.testing.assert_allclose(result.episode_returns, whole.episode_returns, rtol=1e-5)
    np.testing.assert_array_equal(result.returns, result.info["return_after_1"][0])
    support, query = draw_examples(jax.random.clone(key), SINE, tasks, 10, 32)
    assert query[0].shape == (7, 32)
    for i in range(7):
        own, others = jax.tree.map(lambda x: x[i], (support, query))  # noqa: B023
        params = state.params
        for k in range(4):
            loss = learner.agent.loss(params, others)
            np.testing.assert_allclose(-result.info[f"return_after_{k}"][0, i], loss, rtol=1e-4)
            params = learner.agent.adapt(params, own, 1)
    with pytest.raises(ValueError, match="most_steps=0"):
        run(jax.random.clone(key), params=state.params, tasks=tasks, most_steps=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": 0}, "support must be at least 1"),
        ({"inner_steps": 3, "test_steps": 2}, "test_steps must be at least 3"),
        ({"inner_learning_rate": 0.0}, "inner_learning_rate must be positive"),
        ({"layers": (40, 0)}, "layers must be at least 1"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        MAMLConfig(**changes)


def test_labels_of_any_shape():
    class Plane:
        family = families.beta(0.0, 1.0)

        def sample_batch(self, key, task, n):
            x = jax.random.normal(key, (n, 3, 2))
            return x, task[0] * x.sum(axis=1)[:, :, None]

    model = mlp_regression(Plane(), (5, 4))
    x, y = Plane().sample_batch(jax.random.key(0), jnp.ones(1), 6)
    params = model.init(jax.random.key(1), x)
    assert model.apply(params, x).shape == y.shape == (6, 2, 1)
    learner = maml(Plane(), MAMLConfig(num_tasks=3))
    state = learner.init(jax.random.key(0))
    _, _, returns = jax.jit(learner.collect)(jax.random.key(1), state, jnp.ones((3, 1)))
    assert returns.shape == (3,) and (returns < 0).all()
