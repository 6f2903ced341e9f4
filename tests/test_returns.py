"""Advantages against hand-worked numbers, plain loops and brute-force sums."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.returns import TIME_LIMITS, episode_returns, gae, meta_gae, meta_returns

GAMMA, LAM = 0.9, 0.8


def test_gae_of_five_hand_worked_steps():
    # gamma = lambda = 1/2, so one step back is worth a quarter of the trace.
    # Step 2 terminates; step 4 is cut, but not terminated: it bootstraps.
    rewards = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])
    values = jnp.array([1.0, 0.0, 2.0, 1.0, 3.0])
    next_values = jnp.array([0.0, 2.0, 99.0, 3.0, 8.0])
    end = jnp.array([False, False, True, False, False])
    cut = end.at[4].set(True)
    got = gae(rewards, values, next_values, terminated=end, cut=cut, discount=0.5, trace_decay=0.5)
    # delta: 1+0-1 = 0; 2+1-0 = 3; 3-2 = 1; 4+1.5-1 = 4.5; 5+4-3 = 6
    # A_4 = 6, A_3 = 4.5 + 1.5 = 6, A_2 = 1, A_1 = 3.25, A_0 = 0.8125
    np.testing.assert_array_equal(got, [0.8125, 3.25, 1.0, 6.0, 6.0])


def test_gae_ignored_step_is_zero_and_stops_the_trace():
    rewards = jnp.array([1.0, 2.0, 3.0])
    values = jnp.array([1.0, 2.0, 4.0])
    next_values = jnp.array([2.0, 4.0, 8.0])
    no = jnp.zeros(3, bool)
    got = gae(
        rewards,
        values,
        next_values,
        terminated=no,
        cut=no,
        ignored=jnp.array([False, True, False]),
        discount=0.5,
        trace_decay=1.0,
    )
    # Step 0 still bootstraps from the value of step 1: 1 + 1 - 1.
    np.testing.assert_array_equal(got, [1.0, 0.0, 3.0])


def test_the_last_step_is_cut_whatever_the_flag():
    x, no = jnp.ones(2), jnp.zeros(2, bool)
    kwargs = dict(terminated=no, discount=0.5, trace_decay=0.5)
    np.testing.assert_array_equal(
        gae(x, x, x, cut=no, **kwargs), gae(x, x, x, cut=jnp.array([False, True]), **kwargs)
    )


def random_case(seed, episodes, horizon, batch, terminations=False):
    """Values of a meta-episode whose next values agree with the values acted upon."""
    rng = np.random.default_rng(seed)
    steps = episodes * horizon
    rewards, values, next_values = rng.normal(size=(3, steps, batch))
    ends = (np.arange(steps) + 1) % horizon == 0
    next_values[:-1][~ends[:-1]] = values[1:][~ends[:-1]]
    seen = np.concatenate([values[1:], next_values[-1:]])
    terminated = np.zeros((steps, batch), bool)
    if terminations:
        terminated = rng.random((steps, batch)) < 0.15
        terminated[ends] = False
    truncated = np.broadcast_to(ends[:, None], rewards.shape)
    meta_end = np.zeros((steps, batch), bool)
    meta_end[-1] = True
    return rewards, values, next_values, seen, terminated, truncated, meta_end


jitted_meta_gae = jax.jit(meta_gae, static_argnames=("discount", "trace_decay", "time_limit"))


def run(case, time_limit, fn=jitted_meta_gae):
    *numbers, terminated, truncated, meta_end = case
    return fn(
        *(jnp.asarray(x, jnp.float32) for x in numbers),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        meta_end=jnp.asarray(meta_end),
        discount=GAMMA,
        trace_decay=LAM,
        time_limit=time_limit,
    )


def test_ignore_is_the_recursion_of_the_original_code():
    """``b (delta + gamma lambda m A)`` over a storage, with masks m and b, one process."""
    episodes, horizon, batch = 3, 4, 2
    rewards, values, next_values, *_ = case = random_case(0, episodes, horizon, batch)
    steps = episodes * horizon
    want = np.zeros((steps, batch))
    for i in range(batch):
        # Storage: value t is of the stored state t; S + 1 entries.
        storage = np.append(values[:, i], next_values[-1, i])
        m, b = np.ones(steps + 1), np.ones(steps + 1)
        m[steps] = 0  # the meta-episode's end
        b[horizon::horizon] = 0  # the time limit of every episode
        a = 0.0
        for t in reversed(range(steps)):
            delta = rewards[t, i] + GAMMA * storage[t + 1] * m[t + 1] - storage[t]
            a = b[t + 1] * (delta + GAMMA * LAM * m[t + 1] * a)
            want[t, i] = a
    np.testing.assert_allclose(run(case, "ignore"), want, rtol=1e-5, atol=1e-6)
    assert (want[horizon - 1 :: horizon] == 0).all()


def brute_force(case, time_limit):
    """Exponentially weighted sum of n-step advantages, each written out in full."""
    rewards, values, next_values, seen, terminated, truncated, meta_end = case
    follow = seen if time_limit == "continue" else next_values
    stop = meta_end if time_limit == "continue" else meta_end | truncated
    no_value = terminated | meta_end if time_limit == "continue" else terminated
    steps, batch = rewards.shape
    out = np.zeros((steps, batch))
    for t, i in itertools.product(range(steps), range(batch)):
        if time_limit == "ignore" and truncated[t, i]:
            continue
        # The steps whose deltas count, up to and with the first end.
        horizon = 1
        while not (stop | terminated)[t + horizon - 1, i]:
            horizon += 1
            if time_limit == "ignore" and truncated[t + horizon - 1, i]:
                horizon -= 1
                break
        n_step = []
        for n in range(1, horizon + 1):
            last = t + n - 1
            tail = 0.0 if no_value[last, i] else GAMMA**n * follow[last, i]
            head = sum(GAMMA**j * rewards[t + j, i] for j in range(n))
            n_step.append(head + tail - values[t, i])
        weights = [(1 - LAM) * LAM ** (n - 1) for n in range(1, horizon)] + [LAM ** (horizon - 1)]
        out[t, i] = np.dot(weights, n_step)
    return out


@pytest.mark.parametrize("terminations", [False, True])
@pytest.mark.parametrize("time_limit", TIME_LIMITS)
def test_against_sums_of_n_step_returns(time_limit, terminations):
    case = random_case(1, 3, 5, 4, terminations)
    np.testing.assert_allclose(
        run(case, time_limit), brute_force(case, time_limit), rtol=1e-4, atol=1e-5
    )


def influence(case, time_limit):
    """``[T, T]`` True where the reward of step s moves the advantage of step t."""
    rewards, *rest = case
    first = lambda x: jnp.asarray(x[:, 0])  # noqa: E731
    rest = tuple(map(first, rest))
    jac = jax.jacobian(lambda r: run((r, *rest), time_limit))(first(rewards).astype(jnp.float32))
    return np.asarray(jac) != 0


def test_three_ends_of_a_step_differ():
    """Two episodes of three steps; step 1 terminates in the second case."""
    case = random_case(2, 2, 3, 1)
    upper = np.triu(np.ones((6, 6), bool))
    same_episode = np.kron(np.eye(2), np.ones((3, 3))).astype(bool)
    np.testing.assert_array_equal(influence(case, "continue"), upper)
    np.testing.assert_array_equal(influence(case, "bootstrap"), upper & same_episode)
    ignored = np.isin(np.arange(6), [2, 5])
    np.testing.assert_array_equal(
        influence(case, "ignore"), upper & same_episode & ~ignored[:, None] & ~ignored[None]
    )
    case[4][1] = True
    for time_limit in TIME_LIMITS:
        assert not influence(case, time_limit)[:2, 2:].any()
    for time_limit, (one, other) in {"bootstrap": (2, 3), "continue": (3, 2)}.items():
        # Of the two values around the boundary, each mode reads its own.
        bumped = [x.copy() for x in case]
        bumped[one][2] += 1
        assert run(bumped, time_limit)[2] != run(case, time_limit)[2]
        bumped = [x.copy() for x in case]
        bumped[other][2] += 1
        np.testing.assert_array_equal(run(bumped, time_limit), run(case, time_limit))


def test_vmap_is_a_batch_axis():
    case = random_case(3, 2, 3, 4, True)
    arrays = tuple(jnp.asarray(x) for x in case)
    got = jax.vmap(lambda *c: run(c, "continue"), in_axes=1, out_axes=1)(*arrays)
    np.testing.assert_allclose(got, run(case, "continue"), rtol=1e-6)


def test_unknown_time_limit_names_the_choices():
    with pytest.raises(ValueError, match="ignore, bootstrap, continue; got 'truncate'"):
        run(random_case(0, 1, 2, 1), "truncate", inspect.unwrap(meta_gae))


def test_returns_of_episodes_and_meta_episodes():
    rewards = jnp.arange(12.0).reshape(6, 2)  # T = 6 = 3 episodes of 2, for 2 tasks
    np.testing.assert_array_equal(episode_returns(rewards, 3), [[2, 4], [10, 12], [18, 20]])
    np.testing.assert_array_equal(meta_returns(rewards, 3), [10, 12])
    np.testing.assert_array_equal(meta_returns(rewards, 1), rewards.sum(0))
    np.testing.assert_array_equal(episode_returns(rewards[:, 0], 2), [6, 24])
