import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import families, risk
from roml_jax.samplers import BufferState, fixed, replay
from roml_jax.samplers._buffer import Settings, probabilities
from roml_jax.types import UNTOLD

LINE = families.beta(0.0, 1.0)


@functools.cache
def functions(**settings):
    sampler = replay(LINE, **settings)
    return sampler.init, jax.jit(sampler.sample, static_argnums=2), jax.jit(sampler.update)


def steps(n, count, returns, seed=0, **settings):
    """State before, draw, returns, state after and info of every step."""
    init, sample, update = functions(**settings)
    state = init(jax.random.key(seed))
    for i in range(count):
        key_draw, key_update = jax.random.split(jax.random.key(1000 * seed + i))
        draw = sample(key_draw, state, n)
        scores = np.asarray(returns(np.asarray(draw.tasks[:, 0]), i), np.float32)
        old = state
        state, info = update(key_update, old, draw, scores)
        yield jax.device_get((old, draw, scores, state, info))


def noisy(z, i):
    """Returns fall along the line; some are not finite."""
    rng = np.random.default_rng(i)
    values = -z + 0.1 * rng.normal(size=z.shape)
    broken = rng.random(z.shape) < 0.1
    return np.where(broken, rng.choice([np.nan, np.inf, -np.inf], z.shape), values)


class Model:
    """A buffer as a dict of tasks, one visit after the other."""

    def __init__(self, capacity, rate, regret):
        self.capacity, self.rate, self.regret, self.known = capacity, rate, regret, {}

    def visit(self, z, value, i):
        row = self.known.get(z)
        if row is None:
            return {"mean": value, "best": value, "visits": 1, "seen": i}
        row["seen"] = i
        if np.isfinite(value):
            row["visits"] += 1
            pace = max(1 / row["visits"], self.rate)
            row["mean"] += pace * (value - row["mean"])
            row["best"] = max(row["best"], value)
        return row

    def scores(self, rows):
        if not self.regret:
            return [-r["mean"] for r in rows]
        told = [r["best"] - r["mean"] for r in rows if r["visits"] > 1]
        others = np.mean(told) if told else 0.0
        return [r["best"] - r["mean"] if r["visits"] > 1 else others for r in rows]

    def step(self, tasks, new, values, i):
        order = np.argsort(new, kind="stable")  # known tasks first
        fresh = {}
        for z, is_new, value in zip(tasks[order], new[order], values[order], strict=True):
            if is_new and np.isfinite(value):
                fresh[z] = self.visit(z, value, i)
            elif not is_new:
                self.visit(z, value, i)
        everyone = self.known | fresh
        order = np.argsort(-np.array(self.scores(everyone.values())), kind="stable")
        keys = list(everyone)
        self.known = {keys[k]: everyone[keys[k]] for k in order[: self.capacity]}


@pytest.mark.parametrize(("score", "rate"), [("return", 0.3), ("return", 1.0), ("regret", 0.5)])
def test_the_buffer_is_that_of_a_plain_model(score, rate):
    model = Model(12, rate, score == "regret")
    settings = {"score": score, "rate": rate, "capacity": 12, "min_fill": 0.2}
    evicted = 0
    for i, (_, draw, values, state, info) in enumerate(steps(5, 200, noisy, **settings)):
        before = {*model.known}
        model.step(draw.tasks[:, 0], draw.is_reference, values, i)
        evicted += len(before - {*model.known})
        count = len(model.known)
        inside = state.buffer.visits > 0
        assert inside[:count].all() and not inside[count:].any() and info["filled"] == count
        np.testing.assert_array_equal(sorted(state.buffer.tasks[:count, 0]), sorted(model.known))
        rows = [model.known[z] for z in state.buffer.tasks[:count, 0]]
        for name in ("mean", "best", "visits", "seen"):
            want = [row[name] for row in rows]
            np.testing.assert_allclose(getattr(state.buffer, name)[:count], want, atol=1e-5)
        np.testing.assert_allclose(info["score"], np.mean(model.scores(rows)), atol=1e-5)
        if score == "return":
            assert (np.diff(model.scores(rows)) <= 1e-5).all()  # the highest first
    assert evicted > 20


def test_draws_of_a_step_are_distinct_and_as_many_as_they_should_be():
    counts = []
    for old, draw, _, _, info in steps(7, 60, noisy, capacity=16, replay_share=0.5):
        slot = draw.extras["buffer_slot"]
        known = slot[slot < 16]
        assert len({*known.tolist()}) == len(known) == info["replayed"]
        np.testing.assert_array_equal(draw.tasks[slot < 16], old.buffer.tasks[known])
        np.testing.assert_array_equal(draw.is_reference, slot == 16)
        np.testing.assert_array_equal(draw.weights, (slot == 16).astype(np.float32))
        assert (old.buffer.visits[known] > 0).all()
        if (old.buffer.visits > 0).sum() < 8:  # half of the capacity
            assert len(known) == 0
        else:
            counts.append(len(known))
    assert {*counts} == {3, 4} and abs(np.mean(counts) - 3.5) < 0.25
    # More than the buffer holds is all of it.
    *_, (_, draw, _, _, info) = steps(24, 4, noisy, capacity=4, replay_share=0.9)
    assert info["replayed"] == 4 and draw.is_reference.sum() == 20


def told(filled, staleness, temperature):
    """A state of ages from 1 on, and its probabilities by NumPy."""
    init, _, _ = functions(capacity=6)
    state = jax.device_get(init(jax.random.key(0)))
    visits = (np.arange(6) < filled).astype(np.int32)
    ages = np.array([3, 1, 8, 2, 1, 5])
    buffer = state.buffer._replace(visits=visits, seen=(20 - ages).astype(np.int32))
    rank = (1 / np.arange(1, 7)) ** (1 / temperature) * visits
    want = (1 - staleness) * rank / rank.sum() + staleness * ages * visits / (ages * visits).sum()
    return jax.tree.map(jnp.asarray, BufferState(buffer, np.int32(20))), want


@pytest.mark.parametrize("filled", [2, 6])
@pytest.mark.parametrize(("staleness", "temperature"), [(0.3, 0.5), (0.0, np.inf), (1.0, 1.0)])
def test_probabilities(filled, staleness, temperature):
    state, want = told(filled, staleness, temperature)
    settings = Settings(0.5, 6, 0.5, temperature, staleness, 0.5)
    np.testing.assert_allclose(probabilities(state, settings), want, rtol=1e-5)
    empty = state._replace(buffer=jax.tree.map(jnp.zeros_like, state.buffer))
    assert (probabilities(empty, settings) == 0).all()


def test_draws_have_the_probabilities_each_among_those_that_are_left():
    state, want = told(6, 0.3, 1.0)
    state = state._replace(buffer=state.buffer._replace(tasks=jnp.arange(6.0)[:, None]))
    sampler = replay(LINE, capacity=6, replay_share=0.5, temperature=1.0)
    keys = jax.random.split(jax.random.key(0), 20_000)
    draw = jax.jit(jax.vmap(lambda key: sampler.sample(key, state, 4)))(keys)
    slots = np.sort(np.asarray(draw.extras["buffer_slot"]), axis=1)[:, :2]  # of two each
    pairs = np.zeros((6, 6))
    np.add.at(pairs, tuple(slots.T), 1 / len(slots))
    exact = np.outer(want, want) / (1 - want)[:, None]  # the first, then the second
    exact = np.triu(exact + exact.T, 1)
    np.testing.assert_allclose(pairs, exact, atol=0.012)
    tasks, slot = np.asarray(draw.tasks[..., 0]), np.asarray(draw.extras["buffer_slot"])
    np.testing.assert_array_equal(tasks[slot < 6], slot[slot < 6])
    assert (tasks[slot == 6] < 1).all() and abs(tasks[slot == 6].mean() - 0.5) < 0.01


def test_draws_gather_at_the_tail_for_all_seeds():
    sampler = replay(LINE, capacity=32, staleness=0.1)

    def run(key):
        def step(state, key):
            key_draw, key_update = jax.random.split(key)
            draw = sampler.sample(key_draw, state, 16)
            returns = -jnp.abs(draw.tasks[:, 0] - 0.5)  # low at both ends
            told = risk.summarize(draw, returns, 0.1)
            state, _ = sampler.update(key_update, state, draw, returns)
            return state, (draw.tasks[:, 0], draw.is_reference, told["reference_mean"])

        return jax.lax.scan(step, sampler.init(jax.random.key(0)), jax.random.split(key, 60))[1]

    with jax.debug_key_reuse(False):  # wrongly finds a reuse in a scan over keys under vmap
        z, new, mean = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(1), 3))
    z, new = np.asarray(z)[:, 30:], np.asarray(new)[:, 30:]
    assert len(np.unique(z[:, 0, 0])) == 3
    for end in (z < 0.05, z > 0.95):
        share = (end & ~new).sum(axis=(1, 2)) / (~new).sum(axis=(1, 2))
        assert (share > 0.2).all()
    hard = np.abs(z - 0.5) > 0.45
    assert hard[~new].mean() > 0.9 and abs(hard[new].mean() - 0.1) < 0.05
    np.testing.assert_allclose(np.mean(mean), -0.25, atol=0.02)  # of new draws alone


def test_regret_replays_what_was_better_once():
    def falling(z, i):
        """Tasks above a half get worse and worse, the others are hard and stay so."""
        return np.where(z > 0.5, -0.1 * i, -100.0)

    late = [
        draw.tasks[~draw.is_reference, 0]
        for _, draw, *_ in steps(16, 60, falling, score="regret", capacity=32, staleness=0.1)
    ][30:]
    assert (np.concatenate(late) > 0.5).mean() > 0.65


def test_nothing_is_told_where_nothing_is_known():
    with jax.debug_nans(True):
        *_, (_, draw, _, state, info) = steps(
            4, 3, lambda z, i: np.full_like(z, np.inf), capacity=4
        )
    assert info["filled"] == info["replayed"] == 0 and info["score"] == UNTOLD
    assert draw.is_reference.all() and not state.buffer.visits.any()
    # A step of one task that is replayed says nothing about D_phi0.
    for _, draw, values, _, info in steps(1, 40, noisy, capacity=2, replay_share=0.9, min_fill=1.0):
        told = risk.summarize(draw, jnp.asarray(values), 0.1)["reference_mean"]
        assert (told == UNTOLD) == (info["replayed"] == 1) or np.isinf(values).any()
    assert info["filled"] == 2


@pytest.mark.parametrize("promotion", ["standard", "strict"])
def test_doubles_are_taken(x64, promotion):
    sampler = replay(LINE, score="regret", capacity=4)
    with jax.numpy_dtype_promotion(promotion):
        state = sampler.init(jax.random.key(0))
        for i in range(3):
            draw = sampler.sample(jax.random.key(i), state, 4)
            returns = draw.tasks[:, 0]
            if promotion == "standard":
                returns = returns.astype(jnp.float64)
            state, _ = sampler.update(jax.random.key(9), state, draw, returns)
    want = [jnp.float32] * 3 + [jnp.int32] * 3
    assert [x.dtype for x in jax.tree.leaves(state)] == want


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "gain"}, "score"),
        ({"replay_share": 1.0}, "replay_share=1.0"),
        ({"capacity": 0}, "capacity=0"),
        ({"min_fill": 1.5}, "min_fill=1.5"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"staleness": -0.1}, "staleness=-0.1"),
        ({"rate": 0.0}, "rate=0.0"),
    ],
)
def test_wrong_values(settings, message):
    with pytest.raises(Exception, match=message) as error:
        replay(LINE, **settings)
    if "score" not in settings:
        assert isinstance(error.value, ValueError) and "\n" not in str(error.value)


def test_a_draw_of_another_sampler_is_refused():
    sampler = replay(LINE)
    draw = fixed(LINE).sample(jax.random.key(0), (), 4)
    with pytest.raises(ValueError, match="buffer_slot"):
        sampler.update(jax.random.key(1), sampler.init(jax.random.key(2)), draw, jnp.ones(4))
