"""Whatever array a public function is given, it is right or says why not, in one line.

Arrays of all dtypes, of rank 0 to 2 and of sizes from 0, with ties, infinities and NaN, under
jit, vmap and grad, against NumPy in double precision.
"""

import functools
import math

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from roml_jax import families, losses, normalize, quantiles, returns, risk, samplers
from roml_jax.buffers import add_block, init_buffer
from roml_jax.types import Draw

DTYPES = ["float32", "float16", "bfloat16", "int32", "int8", "uint8", "bool", "complex64"]
NUMBERS = st.sampled_from([0.0, 1.0, 1.0, -2.0, 0.5, 3.0, 100.0, -7.5])
ODD = st.sampled_from([math.inf, -math.inf, math.nan])
SHAPES = st.sampled_from([(), (0,), (1,), (2,), (5,), (9,), (0, 2), (1, 1), (5, 1), (5, 5)])
VECTORS = st.sampled_from([(5,)] * 5 + [(1,), (0,), (5, 1), ()])
STEPS = st.sampled_from([(5,), (4, 2), (6, 1), (1, 1), (0,), (0, 2)])
LEVELS = st.sampled_from([0.05, 0.2, 0.25, 0.5, 1.0])
few = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def untyped():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@st.composite
def arrays(draw, shapes=SHAPES, odd=True):
    shape, dtype = draw(shapes), draw(st.sampled_from(DTYPES))
    size = math.prod(shape)
    numbers = st.one_of(NUMBERS, ODD) if odd and "float" in dtype else NUMBERS
    values = draw(st.lists(numbers, min_size=size, max_size=size))
    return jnp.asarray(np.array(values, np.float32).reshape(shape)).astype(dtype)


def double(x):
    return np.asarray(x.astype(jnp.float32), float)


def attempt(fn, *args):
    """The value of a function, the same in a vmap; or None for one line of refusal."""
    try:
        jax.eval_shape(fn, *args)
    except (ValueError, TypeError) as error:
        assert len(str(error).splitlines()) == 1, error
        return None
    value = jax.jit(fn)(*args)
    twice = jax.jit(jax.vmap(fn))(*(jnp.stack([x, x]) for x in args))
    for one, two in zip(jax.tree.leaves(value), jax.tree.leaves(twice), strict=True):
        np.testing.assert_allclose(double(two[1]), double(one), rtol=1e-5, atol=1e-6)
    return value


def is_vector(*xs):
    return all(x.ndim == 1 and jnp.isrealobj(x) for x in xs)


def worst_first(x):
    return np.lexsort((np.where(np.isnan(x), 0, x), ~np.isnan(x)))


def agree(got, want, **tolerance):
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(got, want, **{"rtol": 1e-4, "atol": 1e-5} | tolerance)


# ------------------------------------------------------------------ risk and quantiles


@few
@given(arrays(), LEVELS)
def test_cvar_and_tail_mask(x, alpha):
    got = attempt(lambda x: (risk.cvar(x, alpha), risk.tail_mask(x, alpha)), x)
    assert (got is not None) == (is_vector(x) and x.size > 0)
    if got is None:
        return
    size, values = math.ceil(alpha * x.size - 1e-9), double(x)
    tail = worst_first(values)[:size]
    with np.errstate(all="ignore"):
        agree(got[0], values[tail].mean())
    assert got[0].dtype == jnp.float32
    assert sorted(np.flatnonzero(got[1])) == sorted(tail)
    if jnp.issubdtype(x.dtype, jnp.floating) and np.isfinite(values).all():
        slope = jax.grad(lambda x: risk.cvar(x, alpha))(x)
        agree(double(slope), np.where(got[1], 1 / size, 0), rtol=1e-2)


@few
@given(arrays(), LEVELS)
def test_cvar_two_sample(x, alpha):
    got = attempt(lambda x: risk.cvar_two_sample(x, alpha), x)
    plays = x.ndim == 2 and x.shape[0] > 1 and x.shape[1] > 0 and jnp.isrealobj(x)
    assert (got is not None) == plays
    if got is None:
        return
    values = double(x)
    size, half = math.ceil(alpha * x.shape[1] - 1e-9), len(values) // 2
    with np.errstate(all="ignore"):
        one, other = values[:half].mean(axis=0), values[half:].mean(axis=0)
        found = [other[worst_first(one)[:size]].mean(), one[worst_first(other)[:size]].mean()]
        unknown = np.isnan(one).any() or np.isnan(other).any()
        agree(got, np.nan if unknown else np.mean(found))


@few
@given(arrays(), arrays(), LEVELS)
def test_weighted_cvar(x, w, alpha):
    got = attempt(lambda x, w: risk.weighted_cvar(x, w, alpha), x, w)
    assert (got is not None) == (is_vector(x, w) and x.shape == w.shape and x.size > 0)
    if got is None or not np.isfinite(double(w)).all():
        return
    values, weights = double(x), np.maximum(double(w), 0)
    order = worst_first(values)
    left, total, part = alpha * weights.sum(), 0.0, 0.0
    with np.errstate(all="ignore"):
        for i in order:
            inside = min(weights[i], left)
            if inside > 1e-6 * weights.max():
                total, part, left = total + inside * values[i], part + inside, left - inside
        agree(got, total / part if part else np.nan)


@few
@given(arrays(), arrays(odd=False), st.sampled_from([0.0, 0.1, 0.5, 0.8, 1.0]), st.booleans())
def test_weighted_quantile(x, w, q, population):
    fn = functools.partial(quantiles.weighted_quantile, population=population)
    got = attempt(lambda x, w: fn(x, q, w), x, w)
    assert (got is not None) == (is_vector(x, w) and x.shape == w.shape and x.size > 0)
    if got is None:
        return
    values, weights = double(x), double(w)
    values, weights = values[weights > 0], weights[weights > 0]
    if not values.size or np.isnan(values).any():
        assert np.isnan(got)
        return
    order = np.argsort(values, kind="stable")
    values, weights, n = values[order], weights[order], values.size
    level = np.clip((q * (n + 1) - 1) / max(n - 1, 1) if population else q, 0, 1)
    places = np.cumsum(weights) - weights / 2 - weights[0] / 2
    if np.isfinite(values).all():
        agree(got, np.interp(level * places[-1], places, values), atol=1e-3)
    else:
        assert np.isnan(got) or values[0] <= got <= values[-1]


@few
@given(arrays(), arrays(), LEVELS)
def test_select_tail_and_summarize(x, w, alpha):
    select = functools.partial(samplers.select_tail, alpha=alpha, beta=0.4)
    got = attempt(lambda x, w: select(jax.random.key(0), x, w)[0], x, w)
    sound = is_vector(x, w) and x.shape == w.shape and x.size > 0
    assert (got is not None) == sound
    told = attempt(
        lambda x, w: risk.summarize(Draw(x[:, None], w, jnp.zeros(w.shape, bool)), x, alpha), x, w
    ) if x.ndim else None  # fmt: skip
    if sound:
        chosen, values = np.asarray(got), double(x)
        assert not chosen[np.isnan(values)].any()
        if chosen.any() and not chosen[values == -np.inf].all():
            assert (values[chosen] == -np.inf).all()  # the worst of all come first
        agree(told["sample_mean"], double(x).mean() if not np.isnan(double(x)).any() else np.nan)


# ------------------------------------------------------------------ returns and moments


@few
@given(arrays(odd=False), st.integers(0, 3))
def test_episode_returns(x, episodes):
    got = attempt(lambda x: returns.episode_returns(x, episodes), x)
    real = jnp.isrealobj(x)
    sound = real and x.ndim > 0 and episodes > 0 and len(x) > 0 and len(x) % episodes == 0
    assert (got is not None) == sound
    if sound:
        agree(got, double(x).reshape(episodes, -1, *x.shape[1:]).sum(axis=1))


@few
@given(arrays(odd=False), arrays(odd=False))
def test_gae(rewards, values):
    def fn(rewards, values):
        over = jnp.arange(rewards.size).reshape(rewards.shape) % 3 == 2
        return returns.gae(
            rewards, values, values, terminated=over, cut=over, discount=0.5, trace_decay=0.5
        )

    got = attempt(fn, rewards, values)
    real = jnp.isrealobj(rewards) and jnp.isrealobj(values)
    sound = real and rewards.shape == values.shape and rewards.ndim > 0 and len(rewards) > 0
    assert (got is not None) == sound
    if not sound:
        return
    r, v = double(rewards), double(values)
    over = np.arange(r.size).reshape(r.shape) % 3 == 2
    want, trace = np.zeros_like(r), np.zeros(r.shape[1:])
    for t in reversed(range(len(r))):
        trace = r[t] + 0.5 * ~over[t] * v[t] - v[t] + 0.25 * ~over[t] * trace
        want[t] = trace
    agree(got, want)


@few
@given(arrays(odd=False))
def test_moments_and_normalize(x):
    got = attempt(lambda x: normalize.batch_moments(x), x)
    sound = jnp.isrealobj(x) and x.ndim > 0 and len(x) > 0
    assert (got is not None) == sound
    if not sound:
        return
    values = double(x)
    agree(got.mean, values.mean(axis=0))
    agree(got.var, values.var(axis=0), atol=1e-4)
    scaled = normalize.normalize(x, got)
    agree(scaled, (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-8), rtol=1e-2, atol=1e-2)


# ------------------------------------------------------------------ losses, families, buffers


@few
@given(arrays(odd=False), arrays(odd=False))
def test_losses_refuse_what_does_not_fit(x, w):
    got = attempt(losses.weighted_mean, x, w)
    assert (got is not None) == (is_vector(x, w) and x.shape == w.shape)
    if got is not None and (double(w) >= 0).all():
        want = (double(x) * double(w)).sum() / max(double(w).sum(), 1e-9)
        agree(np.asarray(got, float), want, rtol=2e-2, atol=1e-2)


@few
@given(arrays(VECTORS, False), arrays(VECTORS, False))
def test_normalised_advantages(x, w):
    got = attempt(losses.normalize_advantages, x, w)
    assert (got is not None) == (is_vector(x, w) and x.shape == w.shape)
    if got is None or not x.size or (double(w) < 0).any() or (double(w) > 0).sum() < 2:
        return
    values, weights = double(x), double(w)
    total = weights.sum()
    mean = (values * weights).sum() / total
    spread = (weights * (values - mean) ** 2).sum() / (total - (weights**2).sum() / total)
    agree(double(got), (values - mean) / (np.sqrt(spread) + 1e-5), rtol=1e-2, atol=1e-2)


@few
@given(*[arrays(VECTORS, False)] * 3, st.sampled_from([None, 0.5]))
def test_losses_of_policy_and_value(new, old, other, clip):
    got = attempt(
        lambda new, old, other: (
            losses.policy_loss(new / 99, old / 99, other, jnp.ones(old.shape), clip or 0.2),
            losses.value_loss(new, old, other, jnp.ones(old.shape), clip=clip, huber=False),
        ),
        new, old, other,
    )  # fmt: skip
    sound = is_vector(new, old, other) and new.shape == old.shape == other.shape
    assert (got is not None) == sound
    if got is None or not new.size:
        return
    n, o, a = map(double, (new, old, other))
    ratio, margin = np.exp(n / 99 - o / 99), clip or 0.2
    surrogate = np.minimum(ratio * a, np.clip(ratio, 1 - margin, 1 + margin) * a)
    agree(double(got[0]), -surrogate.mean(), rtol=2e-2, atol=2e-2)
    error = (n - a) ** 2
    if clip:
        error = np.maximum(error, (o + np.clip(n - o, -clip, clip) - a) ** 2)
    agree(double(got[1]), error.mean() / 2, rtol=1e-3)


FAMILIES = {
    "exponential": families.exponential(0.1),
    "normal": families.normal((0.0, 1.0), (1.0, 2.0)),
    "categorical": families.categorical([0.2, 0.3, 0.5]),
    "beta": families.beta((0.0, -3.0), (4.0, 3.0)),
    "log2_beta": families.log2_beta(-1.0, 1.0, 2),
    "circle": families.circle(),
    "disk": families.disk(5.0),
    "product": families.product(families.exponential(1.0), families.circle(name="at")),
}


@few
@given(st.sampled_from(sorted(FAMILIES)), st.booleans(), st.data())
def test_families(name, fitting, data):
    """Every family takes any real numbers as it takes the same in float32, and nothing else."""
    family = FAMILIES[name]
    size, parts = len(family.names), len(family.phi0)
    fn, rest = (family.fit, 3) if fitting else (family.log_prob, parts)
    tasks = data.draw(arrays(st.sampled_from([(3, size)] * 4 + [(3, size + 1), (3,), ()]), False))
    other = data.draw(arrays(st.sampled_from([(rest,)] * 4 + [(rest + 1,), (rest, 1), ()]), False))
    got = attempt(fn, tasks, other)
    real = jnp.isrealobj(tasks) and jnp.isrealobj(other)
    assert (got is not None) == (real and tasks.shape == (3, size) and other.shape == (rest,))
    if got is not None:
        single = [x.astype(jnp.float32) for x in (tasks, other)]
        np.testing.assert_allclose(got, fn(*single), rtol=1e-5, atol=1e-6)
        assert got.shape == ((parts,) if fitting else (3,))


@few
@given(arrays(STEPS, False), st.sampled_from(sorted(returns.TIME_LIMITS)))
def test_meta_gae(x, time_limit):
    """Without a trace: what may follow a step, by the ways in which it can end."""
    steps = np.broadcast_to(np.arange(len(x)).reshape(-1, *(1,) * (x.ndim - 1)), x.shape)
    over, cut, last = steps % 3 == 1, steps % 2 == 1, steps == len(x) - 1
    options = {"discount": 0.9, "trace_decay": 0.0, "time_limit": time_limit}
    flags = {"terminated": over, "truncated": cut, "meta_end": last}
    got = attempt(lambda x: returns.meta_gae(x, x, x, x, **flags, **options), x)
    assert (got is not None) == (jnp.isrealobj(x) and len(x) > 0)
    if got is None:
        return
    ignored = time_limit == "ignore"
    want = np.where(over | (last & (time_limit != "bootstrap")), 0.0, 0.9 * double(x))
    agree(got, np.where(ignored & cut, 0.0, want), atol=1e-2)


@few
@given(st.integers(0, 9), st.integers(1, 4))
def test_buffers(capacity, block):
    try:
        buffer = init_buffer(jnp.zeros(2), capacity, block)
    except ValueError as error:
        assert capacity < block and "\n" not in str(error)
        return
    rows = np.zeros((capacity // block * block, 2))
    for i in range(4):
        new = np.full((block, 2), i + 1.0)
        buffer = add_block(buffer, jnp.asarray(new, jnp.float32))
        at = i * block % len(rows)
        rows[at : at + block] = new
    np.testing.assert_array_equal(buffer.data, rows)
