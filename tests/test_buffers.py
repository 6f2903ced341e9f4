"""The ring of trajectories: who is where, and who can be drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.buffers import add_block, distinct_indices, init_buffer, sample_trajectories

EXAMPLE = {"x": jax.ShapeDtypeStruct((2,), jnp.float32), "n": jnp.zeros((), jnp.int32)}


def block(first, size=3):
    """Trajectories that carry their number in every leaf."""
    n = jnp.arange(first, first + size, dtype=jnp.int32)
    return {"x": jnp.stack([n, -n], axis=1).astype(jnp.float32), "n": n}


def filled(blocks, capacity=9, size=3):
    buffer = init_buffer(EXAMPLE, capacity, size)
    for i in range(blocks):
        buffer = jax.jit(add_block)(buffer, block(size * i, size))
    return buffer


@pytest.mark.parametrize("capacity", [9, 10, 11])
def test_capacity_is_rounded_down_to_whole_blocks(capacity):
    buffer = init_buffer(EXAMPLE, capacity, 3)
    assert buffer.data["x"].shape == (9, 2) and buffer.data["n"].shape == (9,)
    assert buffer.data["n"].dtype == jnp.int32
    assert buffer.next == buffer.size == 0


def test_too_small_a_capacity_is_an_error():
    with pytest.raises(ValueError, match="at least the 3 trajectories of a step; got 2"):
        init_buffer(EXAMPLE, 2, 3)
    assert init_buffer(EXAMPLE, 3, 3).data["n"].shape == (3,)


def test_the_oldest_block_is_overwritten():
    for blocks in range(8):
        buffer = filled(blocks)
        assert buffer.size == min(3 * blocks, 9) and buffer.next == 3 * blocks % 9
        want = [3 * i + j for i in range(max(0, blocks - 3), blocks) for j in range(3)]
        n = np.asarray(buffer.data["n"])[: buffer.size]
        np.testing.assert_array_equal(np.sort(n), want)
        np.testing.assert_array_equal(buffer.data["x"][: buffer.size], np.stack([n, -n], 1))
    assert list(buffer.data["n"][:3]) == [18, 19, 20]  # the seventh block, at the start again


def test_samples_are_distinct_uniform_and_never_empty():
    size, n, draws = 7, 3, 6000
    keys = jax.random.split(jax.random.key(0), draws)
    with jax.debug_key_reuse(False):
        index = jax.jit(jax.vmap(lambda k: distinct_indices(k, jnp.int32(size), n)))(keys)
    index = np.sort(np.asarray(index), axis=1)
    assert (np.diff(index, axis=1) > 0).all()
    assert index.min() == 0 and index.max() == size - 1
    # Each of the 35 subsets alike: chi-square with 34 degrees of freedom.
    _, counts = np.unique(index @ [49, 7, 1], return_counts=True)
    assert len(counts) == 35
    expected = draws / 35
    assert ((counts - expected) ** 2 / expected).sum() < 34 + 5 * np.sqrt(2 * 34)


@pytest.mark.parametrize("n", [1, 6])
def test_all_that_is_there_can_be_drawn(n):
    buffer = filled(2)
    seen = set()
    for seed in range(12):
        batch = jax.jit(sample_trajectories, static_argnums=2)(jax.random.key(seed), buffer, n)
        assert batch["x"].shape == (n, 2)
        np.testing.assert_array_equal(batch["x"][:, 0], batch["n"])  # leaves stay together
        numbers = set(np.asarray(batch["n"]).tolist())
        assert len(numbers) == n
        seen |= numbers
    assert seen <= set(range(6)) and (n == 1 or seen == set(range(6)))


def test_the_size_is_traced():
    with jax.debug_key_reuse(False):
        index = jax.vmap(lambda s: distinct_indices(jax.random.key(1), s, 2))(jnp.arange(2, 40))
    assert (index < jnp.arange(2, 40)[:, None]).all() and index.max() > 20
