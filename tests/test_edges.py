"""What public functions make of the dtypes, ranks and sizes at their edges.

The right value, or one line of ValueError while tracing: as a user meets them, without the
type checker of the other tests.
"""

import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import roml_jax
from roml_jax import families, normalize, quantiles, risk, samplers
from roml_jax.buffers import add_block, init_buffer
from roml_jax.returns import gae
from roml_jax.samplers import select_tail
from roml_jax.types import Draw


@pytest.fixture(autouse=True)
def untyped():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


ONES, MATRIX = jnp.ones(6), jnp.ones((3, 2))
SQUARE = jnp.zeros((3, 3))  # as many steps as tasks
discounted = functools.partial(gae, discount=0.9, trace_decay=0.9)
FAMILY = families.exponential(0.1)
DRAW = Draw(ONES[:, None], ONES, ONES > 0)
cem = samplers.cem(FAMILY, alpha=0.5)
naive, plain = samplers.naive(FAMILY, alpha=0.5), samplers.fixed(FAMILY)
scaled = functools.partial(normalize.normalize_rewards, normalize.init_moments(), discount=0.9)


def tell(sampler, returns, **draw):
    state = sampler.init(jax.random.key(0))
    return sampler.update(jax.random.key(1), state, DRAW._replace(**draw), returns)


def start(family):
    return samplers.cem(family, alpha=0.5).init(jax.random.key(0))


WRONG = {
    "cvar of a matrix": (lambda: risk.cvar(MATRIX, 0.5), "returns must be a vector"),
    "cvar of a number": (lambda: risk.cvar(jnp.ones(()), 0.5), "returns must be a vector"),
    "cvar of nothing": (lambda: risk.cvar(jnp.ones(0), 0.5), "n=0"),
    "mask of a matrix": (lambda: risk.tail_mask(MATRIX, 0.5), "returns must be a vector"),
    "complex returns": (lambda: risk.cvar(ONES + 1j, 0.5), "returns must hold real numbers"),
    "other weights": (lambda: risk.weighted_cvar(ONES, jnp.ones(5), 0.5), "weights must have"),
    "a column of weights": (lambda: risk.weighted_cvar(ONES, ONES[:, None], 0.5), "weights must"),
    "quantile of a column": (lambda: quantiles.weighted_quantile(ONES[:, None], 0.5), "x must be"),
    "quantile, other weights": (
        lambda: quantiles.weighted_quantile(ONES, 0.5, jnp.ones(1)),
        "weights must have the shape",
    ),
    "gae with flags of another shape": (
        lambda: discounted(SQUARE, SQUARE, SQUARE, terminated=jnp.zeros(3, bool), cut=SQUARE > 0),
        r"terminated must have the shape \(3, 3\) of rewards; got \(3,\)",
    ),
    "gae with other values": (
        lambda: discounted(SQUARE, SQUARE[:, :1], SQUARE, terminated=SQUARE > 0, cut=SQUARE > 0),
        "values must have the shape",
    ),
    "returns of another number": (lambda: tell(cem, jnp.ones(5)), r"returns must .* \(6,\)"),
    "a column of returns": (lambda: tell(cem, ONES[:, None]), "returns must be a vector"),
    "a column of returns, naive": (lambda: tell(naive, ONES[:, None]), "returns must be a vector"),
    "a column of returns, fixed": (lambda: tell(plain, ONES[:, None]), "returns must be a vector"),
    "a column of weights of a draw": (lambda: tell(cem, ONES, weights=ONES[:, None]), "weights m"),
    "a tail of columns": (
        lambda: select_tail(jax.random.key(0), MATRIX, MATRIX, alpha=0.5, beta=0.5),
        "returns must be a vector",
    ),
    "a fit that is a number": (
        lambda: start(FAMILY._replace(fit=lambda tasks, weights: jnp.zeros(()))),
        r"family.fit must give the shape \(1,\); got \(\)",
    ),
    "names of another number": (
        lambda: start(FAMILY._replace(names=("a", "b"))),
        r"family.sample must give the shape \(3, 2\); got \(3, 1\)",
    ),
    "phi names of another number": (
        lambda: start(FAMILY._replace(phi_names=())),
        "family.phi0 must have the shape",
    ),
    "one task to a family": (lambda: FAMILY.log_prob(jnp.ones(1), FAMILY.phi0), "tasks must"),
    "other phi": (lambda: FAMILY.sample(jax.random.key(0), jnp.ones(2), 3), "phi must have"),
    "phi to be projected": (lambda: FAMILY.project(jnp.ones(())), "phi must have the shape"),
    "weights to a fit": (lambda: FAMILY.fit(ONES[:, None], jnp.ones(1)), "weights must have"),
    "moments of nothing": (lambda: normalize.batch_moments(jnp.ones((0, 3))), "x must hold sam"),
    "moments of a number": (lambda: normalize.batch_moments(jnp.ones(())), "x must hold samples"),
    "moments of other features": (
        lambda: normalize.merge_moments(*map(normalize.init_moments, [(2,), (3,)])),
        "mean of b must have the shape",
    ),
    "other features": (
        lambda: normalize.normalize(MATRIX, normalize.init_moments((3,))),
        r"x must end in the axes \(3,\)",
    ),
    "rewards of one task": (lambda: scaled(ONES, ONES > 0), r"rewards must be \[T, B\]"),
    "ends by task": (lambda: scaled(MATRIX, MATRIX > 0), "meta_end must have the shape"),
    "a summary of a column": (lambda: risk.summarize(DRAW, ONES[:, None], 0.5), "returns must be"),
    "a block of another size": (
        lambda: add_block(init_buffer(jnp.zeros(2), 8, 4), jnp.zeros((3, 2))),
        "blocks must be of the size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_refused_in_one_line_while_tracing(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as error:
        jax.eval_shape(call)
    assert "\n" not in str(error.value)


def test_integers_are_promoted():
    counts = jnp.arange(5)
    np.testing.assert_allclose(quantiles.weighted_quantile(counts, 0.3), 1.2)
    assert risk.cvar(counts, 0.5) == 1 and risk.cvar(counts > 1, 0.5) == np.float32(1 / 3)
    returns = np.random.default_rng(0).permutation(128)
    options = {"alpha": 0.05, "beta": 0.2}
    key, weights = jax.random.key(0), jnp.ones(128)
    got = select_tail(key, jnp.asarray(returns), weights, **options)
    want = select_tail(jax.random.clone(key), jnp.asarray(returns, jnp.float32), weights, **options)
    np.testing.assert_array_equal(got[0], want[0])
    assert got[0].sum() == 26


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sums_are_in_32_bits_at_least(dtype):
    returns = jnp.full(100_000, 64.0, dtype)  # whose sum float16 cannot hold
    for value in (
        risk.cvar(returns, 0.9),
        risk.weighted_cvar(returns, jnp.ones_like(returns), 0.9),
        quantiles.weighted_quantile(returns, 0.9),
        jax.jit(risk.cvar)(returns, 0.9),
    ):
        assert value == 64 and value.dtype == jnp.float32


def test_large_integers_keep_their_order():
    returns = jnp.array([2**24 + 1, 2**24, 2**24 + 2, 2**24 + 3])  # alike in float32
    assert risk.tail_mask(returns, 0.25).tolist() == [False, True, False, False]


def test_modules_are_loaded_when_they_are_asked_for():
    assert roml_jax.risk is risk and roml_jax.learners.varibad and roml_jax.samplers.cem
    assert {"risk", "learners", "methods"} <= set(dir(roml_jax))
    with pytest.raises(AttributeError, match="no attribute 'rsik'"):
        getattr(roml_jax, "rsik")  # noqa: B009


# ------------------------------------------------------------------ doubles


def test_estimators_take_doubles_under_strict_promotion(x64):
    """Which allows no float64 beside a float32, not even in the question of what both become."""
    rng = np.random.default_rng(0)
    returns, weights = jnp.asarray(rng.normal(size=40)), jnp.asarray(rng.random(40))
    assert returns.dtype == jnp.float64
    with jax.numpy_dtype_promotion("strict"):
        told = {
            "cvar": risk.cvar(returns, 0.1),
            "weighted_cvar": risk.weighted_cvar(returns, weights, 0.1),
            "two_sample": risk.cvar_two_sample(returns.reshape(4, 10), 0.2),
            "quantile": quantiles.weighted_quantile(returns, 0.3, weights),
            "normalized": normalize.normalize(returns, normalize.batch_moments(returns)).std(),
        }
    assert all(value.dtype == jnp.float64 for value in told.values())
    np.testing.assert_allclose(told["cvar"], np.sort(returns)[:4].mean(), rtol=1e-12)
    np.testing.assert_allclose(told["normalized"], 1, rtol=1e-6)
