"""Learners made of learners: shaped rewards, rivals, and tasks on several devices."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from roml_jax import methods
from roml_jax.learners import PolicyConfig, PPOConfig, ppo
from roml_jax.rollout import rollout_returns
from roml_jax.train import make_train
from roml_jax.wrappers import by_seed, rivals, shaped, sharded
from tests.probes import Probe

ENV = Probe("arms", length=3, horizon=3, episodes=2)
POLICY = PolicyConfig(layers=(4,), obs_embedding=None, minibatches=2, epochs=1)
TASKS = jnp.array([[0.0], [1.0], [1.0], [0.0]])
ONES = jnp.ones(4)


@pytest.fixture(scope="module")
def learner():
    made = ppo(ENV, PPOConfig(num_tasks=4, policy=POLICY))
    jitted = {name: jax.jit(getattr(made, name)) for name in ("init", "collect", "update")}
    return made._replace(**jitted)


def same(a, b):
    return jax.tree.all(jax.tree.map(jnp.array_equal, a, b))


# ------------------------------------------------------------------ shaped


def test_the_policy_learns_from_shaped_rewards_and_is_measured_by_raw_ones(learner):
    seen = {}

    def cap(reward, returns):
        seen["returns"] = returns
        return jnp.where(returns[None] > 1, 0.5 * reward, reward)

    capped = shaped(learner, cap)
    state = learner.init(jax.random.key(0))
    state, data, returns = capped.collect(jax.random.key(1), state, TASKS)
    np.testing.assert_array_equal(returns, rollout_returns(data))
    new, _ = capped.update(jax.random.key(2), state, data, ONES)
    np.testing.assert_allclose(seen["returns"], returns, rtol=1e-6)
    by_hand = data._replace(reward=cap(data.reward, returns))
    want, _ = learner.update(jax.random.key(2), state, by_hand, ONES)
    plain, _ = learner.update(jax.random.key(2), state, data, ONES)
    assert same(new.policy.params, want.policy.params)
    assert not same(new.policy.params, plain.policy.params)


# ------------------------------------------------------------------ rivals


def test_rivals_are_two_learners_on_the_same_tasks(learner):
    with jax.debug_key_reuse(False):  # wrongly finds a reuse in a scan over keys under vmap
        check_rivals(learner, rivals(learner))


def check_rivals(learner, pair):
    state = pair.init(jax.random.key(0))
    before = pair.params(state)
    state, data, regret = pair.collect(jax.random.key(1), state, TASKS)
    own, rival = data.returns
    np.testing.assert_allclose(regret, own - rival)
    assert not same(own, rival)
    np.testing.assert_array_equal(data.rollout.tasks, jnp.stack([TASKS, TASKS]))
    extras = pair.extras(data)
    assert extras["own"] is not None and same(extras["own"], own) and same(extras["rival"], rival)
    new, metrics = pair.update(jax.random.key(2), state, data, ONES)
    np.testing.assert_allclose(metrics["own_return"], own.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["rival_return"], rival.mean(), rtol=1e-6)
    # The first is the learner alone with the first of the keys.
    alone_keys = [jax.random.split(jax.random.key(i))[0] for i in range(3)]
    alone = learner.init(alone_keys[0])
    assert same(before, learner.params(alone))
    alone, alone_data, alone_returns = learner.collect(alone_keys[1], alone, TASKS)
    np.testing.assert_allclose(alone_returns, own, rtol=1e-6)
    alone, _ = learner.update(alone_keys[2], alone, alone_data, ONES)
    for got, want in zip(
        jax.tree.leaves(pair.params(new)), jax.tree.leaves(learner.params(alone)), strict=True
    ):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)
    assert pair.frames_per_step == 2 * learner.frames_per_step


def test_rivals_train_under_a_method(learner):
    init, step = make_train(rivals(learner), methods.roml(ENV.family, 0.5))
    with jax.debug_key_reuse(False):  # wrongly finds a reuse in a scan over keys under vmap
        state, metrics = jax.jit(step)(jax.jit(init)(jax.random.key(0)))
    want = metrics["own_return"] - metrics["rival_return"]
    np.testing.assert_allclose(metrics["return_mean"], want, atol=1e-6)
    assert state.step == 1


# ------------------------------------------------------------------ sharded

# Khazad-Dum under RoML, on one device and on eight.
PROGRAM = """
import json, sys
import jax, numpy as np
from jax.sharding import AxisType, Mesh
from envs.khazad_dum import KhazadDum
from roml_jax import learners, methods
from roml_jax.train import make_train
from roml_jax.wrappers import sharded

env, name, steps = KhazadDum(horizon=4, episodes=2), sys.argv[1], 20
small = {"obs_embedding": 8, "latent_embedding": 8 if name == "varibad" else None}
policy = learners.PolicyConfig(layers=(8,), minibatches=2, **small)
if name == "varibad":
    belief = learners.BeliefConfig(
        latent_size=2, hidden_size=8, decoder_layers=(8,), batch_size=4, buffer_size=64,
        elbo_terms=4, decode_terms=4,
    )
    learner = learners.varibad(env, learners.VariBADConfig(16, 0, policy=policy, belief=belief))
else:
    learner = learners.ppo(env, learners.PPOConfig(16, policy=policy))
method = methods.roml(env.family, 0.1, beta=0.2, batch=32)

def train(learner):
    init, step = make_train(learner, method)
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s), s, None, length=steps))
    state, metrics = run(jax.jit(init)(jax.random.key(0)))
    params = learner.params(state.learner)
    return jax.tree.map(np.asarray, (params, metrics["return_mean"], metrics["phi"]))

def apart(a, b):
    gaps = jax.tree.map(lambda x, y: np.max(np.abs(x - y), initial=0), a, b)
    return float(max(jax.tree.leaves(gaps)))

alone = train(learner)
moved = apart(alone[1][:1], alone[1][-1:]), apart(alone[2][:1], alone[2][-1:])
told = {"devices": jax.device_count(), "moved": moved, "apart": {}}
devices = np.array(jax.devices())
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = Mesh(devices, ("tasks",), axis_types=(kind,))
    several = sharded(learner, mesh)
    told["apart"][kind.name] = apart(train(several), alone)
    if "set" in sys.argv:  # the mesh is that of everything
        with jax.set_mesh(mesh):
            told["apart"][f"{kind.name}, set"] = apart(train(several), alone)
tasks = env.family.sample(jax.random.key(2), env.family.phi0, 16)
data = jax.jit(several.collect)(jax.random.key(1), learner.init(jax.random.key(0)), tasks)[1]
told["shards"] = len(data.reward.sharding.device_set)
try:
    sharded(learner._replace(num_tasks=12), mesh)
except ValueError as error:
    told["error"] = str(error)
print("REPORT " + json.dumps(told))
"""


@pytest.mark.slow
@pytest.mark.parametrize("words", [("ppo", "set"), ("varibad", "set")], ids=" ".join)
def test_meshes_of_all_kinds_do_what_one_device_does(words):
    root = Path(__file__).parents[1]
    settings = {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 "
        "--xla_cpu_multi_thread_eigen=false",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(root),
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=os.environ | settings,
        cwd=root, capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.rpartition("REPORT ")[2])
    assert told["devices"] == 8 and told["shards"] == 8 and min(told["moved"]) > 1e-3
    assert (
        told["error"] == "num_tasks must be a multiple of the 8 devices of the axis tasks; got 12"
    )
    assert len(told["apart"]) == 2 * len(words)
    assert max(told["apart"].values()) < 1e-5, told["apart"]


_EIGHT = {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}
_SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in ("varibad", "rl2", "pearl", "maml")]


@pytest.mark.parametrize("name", ["ppo", *_SLOW])
def test_eight_devices_do_what_one_does(name):
    """Two seeds of tasks on four devices each: over 50 steps, and without moving a rollout."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.learners.on_devices", name],
        env=os.environ | _EIGHT, cwd=Path(__file__).parents[1], capture_output=True, text=True,
        timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["devices"] == 8 and min(told["moved"]) > 1e-3
    assert max(told["apart"].values()) < 1e-4, told["apart"]
    # Buffers lie with their tasks; nothing larger than returns, or tasks, is gathered.
    assert {*told["parts"]} == ({8} if name in ("varibad", "pearl") else set())
    assert told["gathered"] <= 4 * 16
    assert told["exchanged"] < 8 * told["params"] + 1024


def test_wrong_meshes(learner):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",), axis_types=(AxisType.Auto,))
    with pytest.raises(ValueError, match="axis is one of data; got 'tasks'"):
        sharded(learner, mesh)


# ------------------------------------------------------------------ seeds on several devices

_SEEDS = """
import json
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from roml_jax.train import make_train
from roml_jax.wrappers import by_seed
from tests.learners.small import make_learner, make_method

jax.config.update("jax_disable_most_optimizations", True)
init, step = make_train(make_learner("varibad"), make_method("roml", batch=8))
keys = jax.random.split(jax.random.key(0), 4)


def two_steps(init, step):
    state = init(keys)
    for _ in range(2):
        state, metrics = step(state)
    return metrics["return_mean"]


told = {"vmap": two_steps(jax.vmap(init), jax.jit(jax.vmap(step))).tolist()}
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((4,), ("seeds",), axis_types=(kind,))
    start, go = (jax.jit(by_seed(fn, mesh)) for fn in (init, step))
    with jax.set_mesh(mesh):
        if kind is AxisType.Explicit:
            keys = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("seeds")))
        found = two_steps(start, go)
    assert len(found.sharding.device_set) == 4
    told[kind.name] = np.asarray(found).tolist()
print("TOLD " + json.dumps(told))
"""


@pytest.mark.slow
def test_seeds_over_devices_are_seeds_side_by_side():
    """With Auto and with Explicit axes, VariBAD's buffer and the CEM's gathers among the rest."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
    }
    done = subprocess.run(
        [sys.executable, "-c", _SEEDS],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.rpartition("TOLD ")[2])
    assert told["Auto"] == told["Explicit"] == pytest.approx(told["vmap"], abs=1e-5)
    assert len(set(told["vmap"])) > 1


def test_seeds_that_do_not_fit_the_devices():
    mesh = Mesh(np.array(jax.devices()[:1]), ("seeds",))
    with pytest.raises(ValueError, match="axis is one of seeds; got 'tasks'"):
        by_seed(lambda x: x, mesh, "tasks")
    if len(jax.devices()) > 1:
        mesh = Mesh(np.array(jax.devices()[:2]), ("seeds",))
        with pytest.raises(ValueError, match="multiple of the 2 devices"):
            by_seed(lambda x: x, mesh)(jnp.ones(3))
