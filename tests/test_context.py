import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from roml_jax.context import (
    MIN_VAR,
    ContextEncoder,
    gather_evidence,
    kl_to_prior,
    no_evidence,
    posterior,
)

RNG = np.random.default_rng(0)


def factors(n=7, latent=3):
    return RNG.normal(size=(n, latent)), RNG.uniform(0.1, 3.0, (n, latent))


def test_product_of_gaussians_is_that_of_their_densities():
    """On a grid: the normalised product of the densities has the mean and variance found."""
    mean, var = factors(latent=1)
    found = posterior(gather_evidence(jnp.asarray(mean), jnp.asarray(var), jnp.ones(7, bool)))
    x = np.linspace(-10, 10, 200_001)
    density = np.exp(
        sum(stats.norm.logpdf(x, m, np.sqrt(v)) for m, v in zip(mean, var, strict=True))
    )
    density /= np.trapezoid(density, x)
    want = np.trapezoid(x * density, x)
    np.testing.assert_allclose(found[0], want, rtol=1e-4)
    np.testing.assert_allclose(found[1], np.trapezoid((x - want) ** 2 * density, x), rtol=1e-4)


def test_order_and_padding_do_not_matter():
    mean, var = factors()
    whole = gather_evidence(jnp.asarray(mean), jnp.asarray(var), jnp.ones(7, bool))
    order = RNG.permutation(7)
    np.testing.assert_allclose(
        gather_evidence(jnp.asarray(mean[order]), jnp.asarray(var[order]), jnp.ones(7, bool)),
        whole,
        rtol=1e-5,
    )
    padding = np.full((3, 3), np.nan)
    counted = np.r_[np.ones(7, bool), np.zeros(3, bool)][order_of := RNG.permutation(10)]
    padded = [np.concatenate([x, padding])[order_of] for x in (mean, var)]
    found = gather_evidence(*map(jnp.asarray, (*padded, counted)))
    np.testing.assert_allclose(found, whole, rtol=1e-5)
    # One by one, as an agent does, and batched.
    total = no_evidence((3,))
    for m, v in zip(mean, var, strict=True):
        one = gather_evidence(jnp.asarray(m[None]), jnp.asarray(v[None]), jnp.ones(1, bool))
        total = jax.tree.map(jnp.add, total, one)
    np.testing.assert_allclose(total, whole, rtol=1e-5)
    batched = gather_evidence(
        *(jnp.asarray(np.stack([x, x])) for x in (mean, var)), jnp.ones((2, 7), bool)
    )
    np.testing.assert_allclose(batched.shift[1], whole.shift, rtol=1e-5)


def test_the_posterior_contracts_and_starts_at_the_prior():
    mean, var = posterior(no_evidence((2, 3)))
    assert (mean == 0).all() and (var == 1).all()
    means, variances = map(jnp.asarray, factors(50))
    seen = [
        posterior(gather_evidence(means, variances, jnp.arange(50) < n))[1] for n in (1, 5, 20, 50)
    ]
    assert all((b < a).all() for a, b in itertools.pairwise(seen))
    np.testing.assert_allclose(seen[-1], 1 / np.sum(1 / np.asarray(variances), axis=0), rtol=1e-5)


def test_small_variances_have_a_floor_and_gradients_are_finite():
    def spread(var):
        return posterior(gather_evidence(jnp.ones((4, 2)), var, jnp.arange(4) < 3))[1].sum()

    value, grad = jax.value_and_grad(spread)(jnp.zeros((4, 2)))
    np.testing.assert_allclose(value, 2 * MIN_VAR / 3, rtol=1e-5)
    assert np.isfinite(grad).all()

    def nothing(var):
        mean, var = posterior(gather_evidence(jnp.ones((4, 2)), var, jnp.zeros(4, bool)))
        return kl_to_prior(mean, var)

    value, grad = jax.value_and_grad(nothing)(jnp.ones((4, 2)))
    assert value == 0 and (grad == 0).all()


def test_kl_against_its_integral():
    mean, var = np.array([0.7, -1.2]), np.array([0.3, 2.0])
    x = np.linspace(-15, 15, 300_001)
    want = 0.0
    for m, v in zip(mean, var, strict=True):
        q, p = stats.norm.logpdf(x, m, np.sqrt(v)), stats.norm.logpdf(x)
        want += np.trapezoid(np.exp(q) * (q - p), x)
    np.testing.assert_allclose(kl_to_prior(jnp.asarray(mean), jnp.asarray(var)), want, rtol=1e-4)


def test_encoder():
    encoder = ContextEncoder((8,), 3)
    params = encoder.init(jax.random.key(0), jnp.zeros((1, 5)))
    mean, var = encoder.apply(params, 1e3 * jax.random.normal(jax.random.key(1), (4, 6, 5)))
    assert mean.shape == var.shape == (4, 6, 3) and (var >= MIN_VAR).all()


@pytest.mark.parametrize(
    ("mean", "var", "counted"),
    [((4, 2), (4, 3), (4,)), ((4, 2), (4, 2), (3,)), ((4,), (4,), (4,)), ((4, 2), (4, 2), (4, 2))],
)
def test_shapes_that_do_not_fit(mean, var, counted):
    with pytest.raises(ValueError, match="must have the"):
        jax.eval_shape(
            inspect.unwrap(gather_evidence), jnp.zeros(mean), jnp.ones(var), jnp.ones(counted, bool)
        )
