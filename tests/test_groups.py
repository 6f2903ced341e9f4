"""Groups of tasks: equal parts of every minibatch and buffer, and nothing that crosses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.groups import apart, check_groups, each, keys_of, together
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.learners.policy_update import _flat_groups, _indices
from tests.learners.on_devices import rival_axes
from tests.learners.small import make_learner


def test_apart_is_by_neighbours_and_together_undoes_it():
    x = jnp.arange(24).reshape(12, 2)
    parts = apart(x, 3)
    np.testing.assert_array_equal(parts[1], x[4:8])
    np.testing.assert_array_equal(together(parts, 3), x)
    columns = apart(x.T, 3, axis=1)  # [2, 12] -> [3, 2, 4]
    np.testing.assert_array_equal(columns[2], x.T[:, 8:])


def test_one_group_has_no_axis():
    x, key = jnp.ones((4, 2)), jax.random.key(0)
    assert apart(x, 1) is x and together(x, 1) is x and keys_of(key, 1) is key
    assert each(jnp.sum, 1) is jnp.sum
    np.testing.assert_array_equal(each(jnp.sum, 2)(apart(x, 2)), [4, 4])


@pytest.mark.parametrize(("groups", "told"), [(0, "at least 1; got 0"), (3, "must divide n=4")])
def test_groups_without_equal_parts_are_refused(groups, told):
    with pytest.raises(ValueError, match=told):
        check_groups(groups, n=4)


def test_a_minibatch_takes_as_much_of_each_group():
    """Of 2 x 3 steps of 8 tasks in 4 groups: every sample once an epoch, 3 of each group."""
    steps, tasks, groups = 6, 8, 4
    task = jnp.broadcast_to(jnp.arange(tasks), (steps, tasks))
    flat = apart(_flat_groups(task, groups), groups)  # [G, n], which task a sample is of
    config = PolicyConfig(epochs=2, minibatches=4)
    index = _indices(jax.random.key(0), jnp.ones_like(flat, float), config, groups)
    assert index.shape == (8, groups, 3)
    for step in index:
        dealt = [np.asarray(flat[g][step[g]]) for g in range(groups)]
        assert all(set(part) <= {2 * g, 2 * g + 1} for g, part in enumerate(dealt))
    for epoch in np.split(np.asarray(index), 2):
        for g in range(groups):
            np.testing.assert_array_equal(np.sort(epoch[:, g].ravel()), np.arange(12))


def test_the_order_of_samples_is_that_of_one_group_where_there_is_one():
    x = jnp.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(_flat_groups(x, 1), x.ravel())
    np.testing.assert_array_equal(_flat_groups(x, 2)[:6], x[:, :2].ravel())


@pytest.mark.parametrize(
    ("name", "settings", "told"),
    [
        ("ppo", {"num_tasks": 6, "groups": 4}, "groups=4 must divide num_tasks=6"),
        ("rl2", {"num_tasks": 8, "groups": 8}, "divide the 1 tasks of a group"),
        ("pearl", {"num_tasks": 4, "groups": 4, "slots": 6}, "groups=4 must divide slots=6"),
        ("varibad", {"groups": 0}, "groups must be at least 1"),
    ],
)
def test_settings_that_do_not_come_out_even(name, settings, told):
    with pytest.raises(ValueError, match=told):
        make_learner(name, **settings)


def test_rivals_lie_apart_one_axis_further():
    both, one = (jax.tree.leaves(tree) for tree in rival_axes())
    assert set(one) == {0, -1}
    assert both == [at + 1 if at >= 0 else at for at in one]
