"""The replay memory against lists of lists."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from roml_jax.replay import (
    make_replay,
    newest,
    sample_context,
    sample_slots,
    sample_transitions,
    write,
)

T = 5


def empty(slots, depth):
    example = {"id": jax.ShapeDtypeStruct((T,), jnp.int32), "x": jnp.zeros((T, 2))}
    return make_replay(example, slots, depth)


def collection(rng, n, first):
    """n collections whose transitions have numbers of their own."""
    ids = first + np.arange(n * T).reshape(n, T)
    counted = rng.uniform(size=(n, T)) < 0.6
    context = np.arange(T) < 2
    weights = rng.integers(0, 3, n).astype(np.float32)
    data = {
        "id": jnp.asarray(ids, jnp.int32),
        "x": jnp.asarray(np.stack([ids, -ids], -1), jnp.float32),
    }
    broadcast = np.broadcast_to(context, counted.shape)
    return data, *map(jnp.asarray, (counted, broadcast, weights))


@pytest.mark.parametrize(("slots", "depth", "n"), [(4, 1, 2), (5, 3, 2), (3, 2, 3), (4, 1, 3)])
def test_against_lists(slots, depth, n):
    rng, replay, put = np.random.default_rng(0), empty(slots, depth), jax.jit(write)
    lists = [[] for _ in range(slots)]
    turn = 0
    for step in range(11):
        data, counted, context, weights = collection(rng, n, 1000 * step)
        replay = put(replay, data, counted, context, weights)
        for i in range(n):
            ids = np.asarray(data["id"][i])
            there, told = np.asarray(counted[i]), np.asarray(counted[i] & context[i])
            kept = ids[there].tolist(), ids[told].tolist(), float(weights[i])
            lists[turn] = [*lists[turn], kept][-depth:]
            turn = (turn + 1) % slots
        for slot, rows in enumerate(lists):
            if not rows:
                continue
            s = jnp.array([slot])
            drawn, weight = sample_transitions(jax.random.key(step), replay, s, 400)
            found = dict(zip(np.asarray(drawn["id"][0]).tolist(), weight[0].tolist(), strict=True))
            want = {i: w for ids, _, w in rows for i in ids}
            assert found == want or not want
            assert want or (np.asarray(weight) == 0).all()
            np.testing.assert_array_equal(drawn["x"][0, :, 0], drawn["id"][0])
            told, there = sample_context(jax.random.key(step), replay, s, 200)
            ids = set(np.asarray(told["id"][0]).tolist()) if there.all() else set()
            assert there.all() == there.any() and ids == set(rows[-1][1])
        usable = {i for i, rows in enumerate(lists) if rows and rows[-1][0] and rows[-1][2] > 0}
        chosen = set(np.asarray(sample_slots(jax.random.key(step), replay, 200)).tolist())
        assert chosen == usable or not usable
        row = [(len_ - 1) % depth for len_ in np.asarray(replay.written)]
        np.testing.assert_array_equal(newest(replay), row)


def test_draws_are_uniform_over_all_transitions_of_a_slot():
    replay = empty(1, 3)
    for i, count in enumerate((5, 2, 1)):
        data = collection(np.random.default_rng(i), 1, 10 * i)[0]
        counted = jnp.arange(T)[None] < count
        replay = write(replay, data, counted, counted, jnp.ones(1))
    drawn, _ = sample_transitions(jax.random.key(0), replay, jnp.zeros(3, jnp.int32), 8000)
    values, counts = np.unique(drawn["id"], return_counts=True)
    np.testing.assert_array_equal(values, [0, 1, 2, 3, 4, 10, 11, 20])
    assert stats.chisquare(counts).pvalue > 1e-3
    assert (
        stats.chisquare(
            np.unique(sample_slots(jax.random.key(1), empty(5, 1), 5000), return_counts=True)[1]
        ).pvalue
        > 1e-3
    )


def test_nothing_is_drawn_from_an_empty_memory():
    replay = empty(3, 2)
    slots = sample_slots(jax.random.key(0), replay, 4)
    _, weight = sample_transitions(jax.random.key(1), replay, slots, 6)
    _, there = sample_context(jax.random.key(2), replay, slots, 6)
    assert weight.shape == there.shape == (4, 6)
    assert not weight.any() and not there.any()


def test_writes_are_vmapped_over_seeds():
    rng = np.random.default_rng(3)
    blocks = [collection(rng, 2, 100 * i) for i in range(2)]
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y) for y in x]), *blocks)
    both = jax.vmap(write, (None, 0, 0, 0, 0))(empty(3, 1), *stacked)
    for i, block in enumerate(blocks):
        alone = write(empty(3, 1), *block)
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], both), alone)


def test_wrong_sizes():
    data, counted, context, weights = collection(np.random.default_rng(0), 4, 0)
    with pytest.raises(
        ValueError, match="4 tasks of a training step need as many slots; there are 3"
    ):
        inspect.unwrap(write)(empty(3, 1), data, counted, context, weights)
    with pytest.raises(ValueError, match="is_context must have the shape"):
        inspect.unwrap(write)(empty(4, 1), data, counted, context[:, :2], weights)
    with pytest.raises(ValueError, match="weights must have the shape"):
        inspect.unwrap(write)(empty(4, 1), data, counted, context, weights[:2])
    for sizes in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            empty(*sizes)
