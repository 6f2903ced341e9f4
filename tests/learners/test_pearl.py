"""PEARL: what its agent guesses and remembers, and what its losses see of the tasks."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from roml_jax import methods
from roml_jax.context import ContextEncoder, gather_evidence, posterior
from roml_jax.evaluate import evaluate
from roml_jax.learners import PEARLConfig, SACConfig, pearl
from roml_jax.rollout import next_obs, rollout, seen_obs
from roml_jax.train import make_train
from roml_jax.types import Boundary, Box
from tests.probes import Echo, Probe

ARMS = Probe("arms", length=4, horizon=5, episodes=3)
ONES = jnp.ones(4)
SAC = SACConfig(
    layers=(32, 32), discount=0.9, target_rate=0.02, learning_rate=3e-3, reward_scale=1.0,
    temperature=0.1,
)  # fmt: skip
LEARNS = PEARLConfig(
    num_tasks=16, slots=256, gradient_steps=20, meta_batch=8, batch_size=16, context_batch=8,
    latent_size=2, encoder_layers=(16,), encoder_learning_rate=3e-3, kl_weight=0.01, sac=SAC,
)  # fmt: skip
TINY = PEARLConfig(
    num_tasks=4, slots=8, gradient_steps=2, meta_batch=3, batch_size=4, context_batch=2,
    latent_size=2, encoder_layers=(3,), sac=SACConfig(layers=(4,)),
)  # fmt: skip


def tiny(env=ARMS, **changes):
    learner = pearl(env, dataclasses.replace(TINY, **changes))
    return learner._replace(init=jax.jit(learner.init), update=jax.jit(learner.update))


def collected(learner, tasks, seed=0):
    key, collect_key = jax.random.split(jax.random.key(seed))
    return jax.jit(learner.collect)(collect_key, learner.init(key), tasks)


def same(a, b):
    return all(jnp.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


# ------------------------------------------------------------------ learning


def trained(env, config, steps):
    learner = pearl(env, config)
    init, step = make_train(learner, methods.baseline(env.family))

    @jax.jit
    def run(key):
        return jax.lax.scan(lambda state, _: step(state), init(key), None, length=steps)

    state, metrics = run(jax.random.key(0))
    return learner, state.learner, metrics


def test_an_arm_is_told_by_its_context_and_by_no_other():
    """After one episode both arms are known; with the other's context the other arm is played."""
    env = dataclasses.replace(ARMS, episodes=2)
    learner, state, _ = trained(env, LEARNS, 150)
    params, tasks = learner.params(state), jnp.tile(jnp.array([[0.0], [1.0]]), (8, 1))
    data = rollout(jax.random.key(9), env, learner.agent, params, tasks, deterministic=True)
    scores = data.reward.reshape(2, 5, 16)[:, :4].mean(axis=(1, 2))
    assert 0.3 < scores[0] < 0.7 and scores[1] > 0.95

    def act(carry):
        begun = learner.agent.begin(params, carry, jnp.zeros((16, 1)), jax.random.key(1))
        return learner.agent.act(params, begun, jnp.zeros((16, 1)), jax.random.key(2), True)[0]

    np.testing.assert_array_equal(act(data.carry), tasks[:, 0])
    swapped = jax.tree.map(lambda x: x[::-1] if x.ndim else x, data.carry)
    np.testing.assert_array_equal(act(swapped), 1 - tasks[:, 0])


def test_real_actions_follow_the_observation():
    env = Probe("follow")
    config = dataclasses.replace(LEARNS, sac=dataclasses.replace(SAC, critic="targets"))
    learner, state, _ = trained(env, config, 60)
    tasks = jnp.zeros((64, 1))
    result = evaluate(jax.random.key(9), env, learner.agent, learner.params(state), tasks)
    assert result.returns.mean() > -0.05  # 0 at best, -1 for the best constant


# ------------------------------------------------------------------ behaviour


def test_the_latent_is_of_the_prior_then_of_all_that_was_seen():
    env = Echo(horizon=4, episodes=3)
    learner = tiny(env, prior_episodes=2, next_obs_in_context=True)
    tasks = jnp.array([[1.0, 9.0], [2.0, 2.0], [0.5, 9.0], [1.5, 1.0]])  # some end early
    state, data, _ = collected(learner, tasks)
    params, latents, evidence = learner.params(state), [], []

    def begin(params, carry, obs, key):
        new = learner.agent.begin(params, carry, obs, key)
        jax.debug.callback(lambda *x: latents.append(x), new.latent, key_data(key), ordered=True)
        jax.debug.callback(evidence.append, carry.evidence, ordered=True)
        return new

    def key_data(key):
        return jax.random.key_data(key)

    spied = learner.agent._replace(begin=begin)
    data = rollout(jax.random.key(5), env, spied, params, tasks)
    jax.effects_barrier()
    assert len(latents) == 3
    # Evidence is the product over all transitions so far that are no padding.
    encoder = ContextEncoder(TINY.encoder_layers, TINY.latent_size)
    steps = [seen_obs(data.obs), data.action, data.reward[..., None], next_obs(data.obs)]
    mean, var = encoder.apply(params.encoder, jnp.concatenate(steps, axis=-1))
    for k in range(3):
        seen = data.valid & (jnp.arange(12) < 4 * k)[:, None]
        parts = (jnp.swapaxes(x, 0, 1) for x in (mean, var, seen))
        want = gather_evidence(*parts)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), evidence[k], want
        )
        center, spread = posterior(want) if k == 2 else (jnp.zeros((4, 2)), jnp.ones((4, 2)))
        noise = jax.random.normal(jax.random.wrap_key_data(latents[k][1]), (4, 2))
        np.testing.assert_allclose(
            latents[k][0], center + jnp.sqrt(spread) * noise, rtol=1e-4, atol=1e-5
        )


@dataclasses.dataclass(frozen=True)
class Wide(Probe):
    """``follow`` with actions from 2 to 10."""

    @property
    def action_space(self):
        return Box(1, 2.0, 10.0)


def test_actions_are_stretched_to_the_box():
    env = Wide("follow")
    learner = tiny(env)
    _, data, returns = collected(learner, jnp.zeros((4, 1)))
    assert jnp.abs(data.action).max() < 1
    mark = seen_obs(data.obs)[0, :, 0]
    want = -jnp.square(2 + 8 * (data.action[0, :, 0] + 1) / 2 - mark)
    np.testing.assert_allclose(returns, want, rtol=1e-4)
    carry = learner.agent.init_carry(4)
    assert carry.evidence.precision.shape == (4, 2)


def test_more_episodes_are_collected_than_the_environment_has():
    learner = tiny(collect_episodes=5)
    assert learner.frames_per_step == 4 * 5 * 5
    state, data, returns = collected(learner, jnp.zeros((4, 1)))
    assert data.episodes == 5 and state.frames == 100
    np.testing.assert_allclose(returns, data.reward.sum(axis=0) / 5)
    assert learner.extras(data)["step"].shape == (4, 5)


# ------------------------------------------------------------------ memory and weights


def test_transitions_of_a_task_are_kept_apart_from_all_others():
    learner = tiny()
    tasks = jnp.array([[0.0], [1.0], [0.0], [1.0]])
    state, data, _ = collected(learner, tasks)
    state, _ = learner.update(jax.random.key(1), state, data, jnp.array([1.0, 0.0, 0.5, 2.0]))
    kept = state.replay
    np.testing.assert_array_equal(kept.written, [1] * 4 + [0] * 4)
    np.testing.assert_array_equal(kept.weights[:4, 0], [1.0, 0.0, 0.5, 2.0])
    np.testing.assert_array_equal(kept.counts[:4, 0], 12)  # 3 episodes of 4 steps that count
    np.testing.assert_array_equal(kept.contexts[:4, 0], 4)  # of the first episode
    valid = np.asarray(data.valid)
    for i in range(4):
        for name, whole in (
            ("reward", data.reward),
            ("action", data.action),
            ("obs", seen_obs(data.obs)),
            ("next_obs", next_obs(data.obs)),
            ("terminated", data.terminated),
        ):
            stored = getattr(kept.data, name)[i, 0, :12]
            np.testing.assert_array_equal(stored, np.asarray(whole)[valid[:, i], i])
    # In the original's way, a slot goes on holding its former tasks.
    original = tiny(slots=4, replay="original", replay_depth=3)
    state, data, _ = collected(original, tasks)
    for _ in range(2):
        state, _ = original.update(jax.random.key(1), state, data, ONES)
    np.testing.assert_array_equal(state.replay.counts, [[12, 12, 0]] * 4)


def test_a_task_of_weight_zero_leaves_no_trace():
    learner = tiny()
    tasks = jnp.array([[0.0], [1.0], [0.0], [1.0]])
    state, data, _ = collected(learner, tasks)
    weights = jnp.array([1.0, 0.0, 1.0, 0.5])
    want, _ = learner.update(jax.random.key(1), state, data, weights)
    other = data._replace(reward=data.reward.at[:, 1].set(1e6))
    got, metrics = learner.update(jax.random.key(1), state, other, weights)
    assert same(want.learned, got.learned)
    other = data._replace(reward=data.reward.at[:, 3].set(2.0))
    got, metrics = learner.update(jax.random.key(1), state, other, weights)
    assert not same(want.learned, got.learned)
    # Even if it holds what is not finite; of positive weight, that is seen.
    broken = data._replace(reward=data.reward.at[2, 1].set(jnp.nan))
    got, metrics = learner.update(jax.random.key(1), state, broken, weights)
    assert same(want.learned, got.learned) and got.replay.counts[1, 0] == 0
    broken = data._replace(reward=jnp.full_like(data.reward, jnp.nan))
    got, metrics = learner.update(jax.random.key(1), state, broken, ONES)
    assert not np.isfinite(metrics["critic_loss"])
    # Nothing at all leaves the parameters where they were.
    got, metrics = learner.update(jax.random.key(1), state, data, jnp.zeros(4))
    assert same(got.learned.sac.params, state.learned.sac.params)
    assert same(got.learned.encoder, state.learned.encoder)


def test_losses_are_means_by_the_weights_of_tasks():
    """All weights twice as large are the same; one task's, and the result is another."""
    learner = tiny()
    state, data, _ = collected(learner, jnp.array([[0.0], [1.0], [0.0], [1.0]]))
    runs = [
        learner.update(jax.random.key(1), state, data, jnp.asarray(w))[0].learned.sac.params
        for w in ([1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 2.0, 2.0], [8.0, 1.0, 1.0, 1.0])
    ]
    for a, b in zip(*map(jax.tree.leaves, runs[:2]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert not same(runs[0], runs[2])


def test_nothing_is_learned_before_the_warm_up_is_over():
    learner = tiny(warmup_frames=61)
    tasks = jnp.zeros((4, 1))
    first, data, _ = collected(learner, tasks)  # 60 frames
    new, metrics = learner.update(jax.random.key(1), first, data, ONES)
    assert same(new.learned, first.learned) and new.replay.written.sum() == 4
    assert all(x == 0 for x in metrics.values())
    second, data, _ = jax.jit(learner.collect)(jax.random.key(2), new, tasks)
    new, metrics = learner.update(jax.random.key(3), second, data, ONES)
    assert not same(new.learned, second.learned) and metrics["critic_loss"] > 0


def test_the_boundary_may_be_the_original_codes():
    learner = tiny(boundary=Boundary("terminal"))
    state, data, _ = collected(learner, jnp.zeros((4, 1)))
    assert data.obs.shape[-1] == 2  # with the done flag
    learner.update(jax.random.key(1), state, data, ONES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replay": "mine"}, "replay is one of own, original"),
        ({"slots": 3}, "slots must be at least 4"),
        ({"gradient_steps": 0}, "gradient_steps must be at least 1"),
        ({"prior_episodes": 0}, "prior_episodes must be at least 1"),
        ({"kl_weight": -1.0}, "kl_weight must be at least 0"),
        ({"encoder_learning_rate": 0.0}, "encoder_learning_rate must be positive"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(Exception, match=re.escape(message.split(" is one")[0])):
        dataclasses.replace(TINY, **changes)


def test_more_exploration_than_there_are_episodes():
    with pytest.raises(ValueError, match="at most the 3 episodes that are collected; got 4"):
        tiny(prior_episodes=4)
