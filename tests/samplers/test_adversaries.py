"""The adversaries of PAIRED, on problems whose regret is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from roml_jax import families
from roml_jax.samplers import adversary, designer

N = 64
PLACE, WIDTH = 0.4, 0.15  # of the largest regret, on a line from -1 to 1


def regret(z):
    """Largest at ``PLACE``; none where the task is easy, nor where it is impossible."""
    return jnp.exp(-jnp.square((z - PLACE) / WIDTH) / 2)


def own_return(z):
    """The agent's own return falls all the way: the worst tasks are the impossible ones."""
    return -z


def run(sampler, steps, returns=lambda z: -regret(z)):
    """State and tasks after some steps."""

    def step(state, key):
        draw_key, update_key = jax.random.split(key)
        draw = sampler.sample(draw_key, state, N)
        state, info = sampler.update(update_key, state, draw, returns(draw.tasks[:, 0]))
        return state, (draw.tasks[:, 0], info)

    keys = jax.random.split(jax.random.key(1), steps)
    with jax.debug_key_reuse(False):  # wrongly finds a reuse in a scan over keys
        state, (tasks, info) = jax.jit(lambda s: jax.lax.scan(step, s, keys))(
            sampler.init(jax.random.key(0))
        )
    return state, np.asarray(tasks), jax.tree.map(np.asarray, info)


def test_phi_climbs_to_the_largest_regret_not_to_the_impossible():
    sampler = adversary(families.normal(0.0, 0.5, min_std=0.1), learning_rate=0.1)
    state, tasks, info = run(sampler, 300)
    np.testing.assert_allclose(sampler.phi(state), [PLACE, 0.05], atol=0.02)
    assert abs(tasks[-50:].mean() - PLACE) < 0.02
    assert info["regret"][0] < 0.5 < 0.9 < info["regret"][-50:].mean()
    # Without the rival the same sampler goes on to where nobody can do anything.
    state, tasks, _ = run(sampler, 300, own_return)
    assert tasks[-50:].mean() > 2


def test_phi_of_a_family_that_cannot_gather_is_the_best_of_it():
    """Against the maximum of the expected regret, by quadrature and a search."""
    family = families.beta(-1.0, 1.0, eps=0.02)

    def expected(phi):
        u = np.linspace(0, 1, 20_001)[1:-1]
        density = stats.beta.pdf(u, 2 * phi, 2 - 2 * phi)
        return -np.trapezoid(density * np.asarray(regret(2 * u - 1)), u)

    best = optimize.minimize_scalar(expected, bounds=(0.05, 0.95), method="bounded").x
    state, _, _ = run(adversary(family, learning_rate=0.05), 800)
    np.testing.assert_allclose(state.phi, [best], atol=0.06)


def test_a_step_is_the_natural_gradient():
    """Exponential tasks: the score is ``(z - phi) / phi²``, the metric ``1 / phi²``."""
    family, rate = families.exponential(0.5), 0.1
    sampler = adversary(family, learning_rate=rate, clip_regret=False)
    state = sampler.init(jax.random.key(0))
    draw = sampler.sample(jax.random.key(1), state, 4096)
    z = np.asarray(draw.tasks[:, 0], np.float64)
    new, _ = jax.jit(sampler.update)(jax.random.key(2), state, draw, -draw.tasks[:, 0])
    advantage = (z - z.mean()) / z.std()
    want = 0.5 + rate * np.mean(advantage * (z - 0.5))
    # The metric is estimated from 256 draws, whose fourth moment is large.
    np.testing.assert_allclose(new.phi[0] - 0.5, want - 0.5, rtol=0.4)


def test_regrets_are_clipped_at_zero_and_broken_tasks_left_out():
    family = families.normal(0.0, 1.0)
    for clip in (True, False):
        sampler = adversary(family, clip_regret=clip)
        state = sampler.init(jax.random.key(0))
        draw = sampler.sample(jax.random.key(1), state, 8)
        returns = jnp.array([1.0, 2.0, -1.0, jnp.nan, jnp.inf, -2.0, 0.0, 0.0])
        new, info = sampler.update(jax.random.key(2), state, draw, returns)
        np.testing.assert_allclose(info["regret"], (3 if clip else 0) / 6, atol=1e-6)
        assert np.isfinite(new.phi).all() and not jnp.array_equal(new.phi, state.phi)
        new, info = sampler.update(jax.random.key(2), state, draw, jnp.full(8, jnp.nan))
        np.testing.assert_allclose(new.phi, state.phi, atol=1e-6)


def test_a_network_finds_the_largest_regret():
    family = families.beta(-1.0, 1.0)
    sampler = designer(family, learning_rate=3e-3, layers=(16,), noise=4, entropy_coef=0.001)
    state, tasks, info = run(sampler, 300)
    assert abs(tasks[0].mean()) < 0.2 < 0.5 < tasks[0].std()  # starts over all tasks
    assert abs(np.median(tasks[-50:]) - PLACE) < 0.1 and tasks[-50:].std() < 0.2
    assert info["regret"][-50:].mean() > 0.7
    np.testing.assert_allclose(state.phi, (tasks[-1].mean() + 1) / 2, rtol=1e-4)


def test_the_networks_draws_follow_from_its_extras():
    family = families.log2_beta(-1.0, 1.0, 2)
    sampler = designer(family, layers=(4,), noise=3)
    state = sampler.init(jax.random.key(0))
    draw = sampler.sample(jax.random.key(1), state, N)
    action = np.asarray(draw.extras["designer_action"])
    np.testing.assert_allclose(draw.tasks, 2 ** np.tanh(action), rtol=1e-4)
    assert (draw.weights == 0).all() and not draw.is_reference.any()
    assert draw.extras["designer_noise"].shape == (N, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: adversary(f, learning_rate=0.0), "learning_rate=0.0"),
        (lambda f: adversary(f, nu=1.0), "nu=1.0"),
        (lambda f: designer(f, learning_rate=-1.0), "learning_rate=-1.0"),
        (lambda f: designer(f, clip=0.0), "clip=0.0"),
        (lambda f: designer(f, init_std=0.0), "init_std=0.0"),
        (lambda f: designer(f, entropy_coef=-1.0), "entropy_coef=-1.0"),
        (lambda f: designer(f, noise=0), "noise=0 must be at least 1"),
        (lambda f: designer(f, layers=(0,)), "layers=0 must be at least 1"),
        (lambda f: designer(f._replace(from_units=None)), "has no from_units"),
    ],
)
def test_wrong_values(make, message):
    with pytest.raises(ValueError, match=message) as error:
        make(families.exponential(0.1))
    assert "\n" not in str(error.value)


def test_minibatches_that_do_not_divide_the_tasks():
    sampler = designer(families.exponential(0.1), layers=(4,), noise=2, minibatches=3)
    state = sampler.init(jax.random.key(0))
    draw = sampler.sample(jax.random.key(1), state, 8)
    with pytest.raises(ValueError, match="minibatches=3 must divide the 8 tasks"):
        sampler.update(jax.random.key(2), state, draw, jnp.zeros(8))
