import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import families, risk
from roml_jax.samplers import cem, fixed, mix, mixture_cem, oracle
from roml_jax.types import TaskSampler

LINE = families.beta(0.0, 1.0)


def scripted(start, extras):
    """A sampler whose tasks are numbers from a start on; its state is the last that it was told."""

    def sample(key, state, n):
        tasks = start + jnp.arange(n, dtype=jnp.float32)[:, None]
        return fixed(LINE).sample(key, (), n)._replace(tasks=tasks, extras=extras(tasks))

    def update(key, state, draw, returns):
        told = jnp.stack([draw.tasks[:, 0], returns])
        return told, {"seen": draw.extras["learner"].sum()} | {
            name: x.sum() for name, x in draw.extras.items() if name != "learner"
        }

    return TaskSampler(lambda key: jnp.zeros(()), sample, update, lambda state: jnp.ones(1))


def test_each_sees_its_own_draws_in_order():
    one = scripted(0, lambda tasks: {"a": tasks[:, 0]})
    two = scripted(100, lambda tasks: {"b": tasks.astype(jnp.int32)})
    sampler = mix(one, two, 0.29)
    sample, update = jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)
    state = sampler.init(jax.random.key(0))
    places = set()
    for seed in range(3):
        draw = sample(jax.random.key(seed), state, 100)
        tasks = np.asarray(draw.tasks[:, 0])
        assert sorted(tasks) == [*range(71), *range(100, 129)]  # 0.29 * 100 is 29
        places.add(tuple(np.flatnonzero(tasks >= 100)))
        draw = draw._replace(extras=draw.extras | {"learner": jnp.ones(100)})
        (first, second), info = update(jax.random.key(seed), state, draw, -draw.tasks[:, 0])
        np.testing.assert_array_equal(first, [np.arange(71), -np.arange(71)])
        np.testing.assert_array_equal(second, [np.arange(100, 129), -np.arange(100, 129)])
        assert info["a"] == sum(range(71)) and info["other_b"] == sum(range(100, 129))
        assert info["b"] == info["other_a"] == 0
        assert info["seen"] == 71 and info["other_seen"] == 29
    assert len(places) == 3


@pytest.mark.parametrize(
    "make", [lambda: oracle(LINE, [0.75]), lambda: mixture_cem(LINE, alpha=0.2, kernels=4)]
)
def test_weighted_means_are_those_of_the_original_distribution(make):
    sampler = mix(make(), fixed(LINE), 0.3)
    state = sampler.init(jax.random.key(0))
    sample, update = jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)
    for i in range(3):
        draw = sample(jax.random.key(10 + i), state, 200)
        state, _ = update(jax.random.key(20 + i), state, draw, -draw.tasks[:, 0])
    draw = sample(jax.random.key(1), state, 100_000)
    w, z = np.asarray(draw.weights, np.float64), np.asarray(draw.tasks[:, 0], np.float64)
    assert draw.is_reference.sum() == 30_000 and (w[draw.is_reference] == 1).all()
    assert z.mean() > 0.6
    np.testing.assert_allclose(
        [w.mean(), (w * z).mean(), (w * z**2).mean()], [1, 1 / 2, 1 / 3], atol=0.01
    )
    told = risk.summarize(draw, -draw.tasks[:, 0], 0.1)
    np.testing.assert_allclose(told["reference_cvar"], -0.95, atol=0.003)


def test_the_cem_gathers_beside_a_reference():
    sampler = mix(cem(LINE, alpha=0.1, nu=0.0), fixed(LINE), 0.5)

    @jax.jit
    def run(key):
        def step(state, key):
            key_sample, key_update = jax.random.split(key)
            draw = sampler.sample(key_sample, state, 128)
            return sampler.update(key_update, state, draw, -draw.tasks[:, 0])[0], draw

        first, key = jax.random.split(key)
        return jax.lax.scan(step, sampler.init(first), jax.random.split(key, 20))

    state, draws = run(jax.random.key(0))
    assert sampler.phi(state) > 0.9
    last = draws.is_reference[-1]
    np.testing.assert_allclose(draws.tasks[-1][last].mean(), 0.5, atol=0.15)
    assert draws.tasks[-1][~last].mean() > 0.85


def test_what_cannot_be_is_one_line():
    key, rule = jax.random.key(0), fixed(LINE)

    def draw(sampler, n):
        return jax.eval_shape(lambda k: sampler.sample(k, sampler.init(k), n), key)

    number, vector = (
        scripted(0, lambda z, f=f: {"a": f(z)}) for f in (lambda z: z[:, 0], jnp.array)
    )

    def stray():
        sampler = mix(rule, rule, 0.5)
        sampler.update(key, sampler.init(key), rule.sample(key, (), 4), jnp.ones(4))

    cases = [
        (lambda: mix(rule, rule, 0.0), "nu=0.0"),
        (lambda: mix(rule, rule, 1.0), "nu=1.0"),
        (lambda: draw(mix(rule, rule, 0.1), 9), "leaves 0 and 9"),
        (lambda: draw(mix(cem(LINE, alpha=0.1, batch=128), rule, 0.25), 16), "n=12 tasks"),
        (lambda: draw(mix(number, vector, 0.5), 4), r"'a', as float32\[\] and as float32\[1\]"),
        (lambda: draw(mix(rule, mix(rule, rule, 0.5), 0.5), 8), "mix_place"),
        (stray, "not of this sampler"),
    ]
    for make, message in cases:
        with pytest.raises(ValueError, match=message) as error, jax.debug_key_reuse(False):
            make()
        assert "\n" not in str(error.value)
