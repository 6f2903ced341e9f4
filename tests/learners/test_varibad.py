"""What the VariBAD agent believed while acting, and what it learns from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax.learners.memory import BeliefConfig
from roml_jax.learners.memory.base import remembered_action
from roml_jax.learners.memory.elbo import make_model
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.learners.varibad import VariBADConfig, varibad
from roml_jax.rollout import next_obs
from roml_jax.types import Boundary
from tests.probes import Echo, Probe

ENV = Echo()
CONFIG = VariBADConfig(
    num_tasks=3,
    warmup_frames=0,
    policy=PolicyConfig(layers=(4,), obs_embedding=4, latent_embedding=3, minibatches=2),
    belief=BeliefConfig(
        latent_size=2,
        hidden_size=4,
        action_embedding=2,
        obs_embedding=3,
        reward_embedding=2,
        decoder_layers=(4,),
        elbo_terms=3,
        decode_terms=2,
        batch_size=3,
        buffer_size=7,
        updates=2,
    ),
)
TASKS = jnp.array([[0.01, 99.0], [0.02, 2.0], [0.03, 4.0]])  # never, early, with the limit


def collected(config, steps=1):
    learner = varibad(ENV, config)
    state = jax.jit(learner.init)(jax.random.key(0))
    collect = jax.jit(learner.collect)
    out = []
    for i in range(steps):
        state, data, returns = collect(jax.random.key(i + 1), state, TASKS + i)
        out.append((data, returns))
    return learner, state, out


@pytest.mark.parametrize(("observation", "squash"), [("terminal", False), ("start", True)])
def test_acting_step_by_step_believes_what_the_stored_sequence_says(observation, squash):
    config = dataclasses.replace(
        CONFIG,
        boundary=Boundary(observation),
        policy=dataclasses.replace(CONFIG.policy, squash=squash),
    )
    _, state, [(data, _)] = collected(config)
    model = make_model(config.belief, 5, 2)
    stored = jax.tree.map(lambda x: x[:3], state.memory.buffer.data)
    after = jax.vmap(next_obs)(stored.obs)
    sequence = [jnp.swapaxes(x, 0, 1) for x in (stored.action, stored.reward, after, stored.valid)]
    belief = jax.jit(model.encoder.apply)(state.memory.belief.params["encoder"], *sequence).vector()
    assert belief.shape == (13, 3, 4)
    np.testing.assert_allclose(data.extras, belief[:-1], rtol=1e-4, atol=1e-5)
    last = model.encoder.apply(state.memory.belief.params["encoder"], data.carry, method="belief")
    np.testing.assert_allclose(last.vector(), belief[-1], rtol=1e-4, atol=1e-5)
    # It starts at the learned prior, and is kept where an episode ends or is padded.
    bias = state.memory.belief.params["encoder"]["params"]["heads"]["bias"]
    np.testing.assert_allclose(data.extras[0], jnp.tile(bias, (3, 1)), rtol=1e-6)
    np.testing.assert_array_equal(data.extras[2:5, 1], jnp.tile(data.extras[2, 1], (3, 1)))
    assert (jnp.abs(data.extras[4:] - bias[None, None]).max(axis=-1) > 1e-4).all()
    # The encoder was told what the environment received.
    np.testing.assert_allclose(
        sequence[0], jnp.tanh(data.action) if squash else data.action, rtol=1e-6
    )


def test_buffer_holds_what_was_collected():
    _, state, [first, second, third] = collected(CONFIG, steps=3)
    buffer = state.memory.buffer
    assert buffer.size == 6 and buffer.next == 3  # capacity 7 is two blocks of 3
    for slots, (data, returns) in ((slice(0, 3), third), (slice(3, 6), second)):
        got = jax.tree.map(lambda x: x[slots], buffer.data)  # noqa: B023
        np.testing.assert_array_equal(got.task, data.tasks)
        np.testing.assert_array_equal(got.reward, data.reward.T)
        np.testing.assert_array_equal(got.valid, data.valid.T)
        for b in range(3):
            np.testing.assert_array_equal(got.obs[b], data.obs[:, :, b])
            np.testing.assert_array_equal(got.action[b], data.action[:, b])
        np.testing.assert_allclose(got.reward.sum(axis=1) / 3, returns, rtol=1e-5)
    # A new task starts from the prior again.
    np.testing.assert_array_equal(first[0].extras[0], third[0].extras[0])


def test_warmup_and_both_halves_of_the_update():
    config = dataclasses.replace(CONFIG, warmup_frames=50)  # 36 frames a step
    learner = varibad(ENV, config)
    state = jax.jit(learner.init)(jax.random.key(0))
    collect, update = jax.jit(learner.collect), jax.jit(learner.update)
    for i in range(2):
        keys = jax.random.split(jax.random.key(i))
        state, data, _ = collect(keys[0], state, TASKS)
        before = state
        state, metrics = update(keys[1], state, data, jnp.array([1.0, 0.0, 1.0]))
        for part in (lambda s: s.policy.params.network, lambda s: s.memory.belief.params):
            same = jax.tree.map(jnp.array_equal, part(before), part(state))
            assert all(jax.tree.leaves(same)) == (i == 0)
        assert state.frames == 36 * (i + 1)
        jax.tree.map(np.testing.assert_array_equal, before.memory.buffer, state.memory.buffer)
        assert all(np.isfinite(v) for v in metrics.values())
        assert {"policy_loss", "value_loss", "entropy", "kl", "reward_error"} <= metrics.keys()
    # The belief learns from all tasks, the policy from the selected ones.
    other = update(jax.random.key(99), before, data, jnp.array([1.0, 0.0, 0.0]))[0]
    again = update(jax.random.key(99), before, data, jnp.ones(3))[0]
    jax.tree.map(np.testing.assert_array_equal, other.memory.belief, again.memory.belief)
    network = [s.policy.params.network for s in (other, again)]
    moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), *network)
    assert max(jax.tree.leaves(moved)) > 1e-5
    encoder = learner.params(state).memory
    jax.tree.map(np.testing.assert_array_equal, encoder, state.memory.belief.params["encoder"])


def test_an_index_is_one_float():
    index = jnp.array([[0, 3]], jnp.int32)
    got = remembered_action(Probe("arms"), index)
    assert got.shape == (1, 2, 1) and got.dtype == jnp.float32
    np.testing.assert_array_equal(got[..., 0], index)
    real = jnp.ones((2, 3, 2))
    assert remembered_action(ENV, real) is real


@pytest.mark.parametrize("changes", [{"buffer_size": 2}, {"buffer_size": 4, "batch_size": 4}])
def test_sizes_that_do_not_fit_together(changes):
    """A batch larger than the buffer can only hold empty or repeated trajectories."""
    with pytest.raises(ValueError, match="buffer"):
        belief = dataclasses.replace(CONFIG.belief, **changes)
        learner = varibad(ENV, dataclasses.replace(CONFIG, belief=belief))
        jax.eval_shape(learner.init, jax.random.key(0))
