"""Exported agents do what they did, in a process that knows nothing of this project."""

import json
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.spec.errors import UserError
from experiments.training import exported
from experiments.training.trained import TrainedAgent
from roml_jax.types import Transition
from tests.learners.small import ENV, make_learner
from tests.probes import Probe

LEARNERS = ["ppo", "rl2", "varibad", "pearl"]
FOLLOW = Probe("follow", length=3, horizon=3, episodes=2)  # real actions
N = 2
STEPS = 7  # two episodes of three steps, and the next start


def trained(name, env=ENV):
    learner = make_learner(name, env)
    state = learner.init(jax.random.key(1))
    return TrainedAgent(env, learner.agent, learner.params(state), {}, 0)


def script(size):
    """Observations, rewards and ends of episodes, at each step."""
    rng = np.random.default_rng(0)
    for t in range(STEPS):
        obs = rng.normal(size=(N, size)).astype(np.float32)
        yield t % 3 == 0, obs, np.full(N, t % 3 == 2), rng.normal(size=N).astype(np.float32)


def by_behaviour(agent):
    """The actions of the behaviour itself, on the script."""
    behaviour, env = agent.behaviour, agent.env
    flag = behaviour.boundary.done_flag

    def seen(obs, done):
        parts = [obs, done[:, None].astype(np.float32)]
        return jnp.asarray(np.concatenate(parts, axis=1) if flag else obs)

    carry, actions, old = behaviour.init_carry(N), [], (None, np.zeros(N, bool))
    for t, (first, obs, done, reward) in enumerate(script(env.observation_size)):
        shown = seen(obs if old[0] is None else old[0], old[1])
        if first:
            carry = behaviour.begin(agent.params, carry, shown, jax.random.key(jnp.uint32(t)))
        action, _ = behaviour.act(agent.params, carry, shown, jax.random.key(jnp.uint32(t)), True)
        action = behaviour.env_action(action)
        happened = Transition(action, jnp.asarray(reward), seen(obs, done), jnp.ones(N, bool))
        carry, old = behaviour.observe(agent.params, carry, happened), (obs, done)
        actions.append(np.asarray(action))
    return np.stack(actions)


FOREIGN = """
import json, sys, zipfile
for name in ("roml_jax", "experiments", "envs", "flax", "optax", "distrax"):
    sys.modules[name] = None  # to import it is an error
import numpy as np
from jax import export

file, script = sys.argv[1], json.load(sys.stdin)
with zipfile.ZipFile(file) as archive:
    start, begin, act, observe = (
        export.deserialize(bytearray(archive.read(name))).call
        for name in ("start", "begin", "act", "observe")
    )

memory, actions, old = start(np.uint32(0)), [], None
for t, (first, obs, done, reward) in enumerate(script):
    obs, done = np.asarray(obs, np.float32), np.asarray(done)
    shown = (obs, np.zeros_like(done)) if old is None else old
    if first:
        memory = begin(memory, *shown, np.uint32(t))
    action = act(memory, *shown, np.uint32(t))
    memory = observe(memory, action, np.asarray(reward, np.float32), obs, done)
    actions.append(np.asarray(action).tolist())
    old = obs, done
print(json.dumps(actions))
"""


def by_file(file, size, tmp_path):
    words = [
        [first, obs.tolist(), done.tolist(), r.tolist()] for first, obs, done, r in script(size)
    ]
    command = [sys.executable, "-c", FOREIGN, str(file)]
    done = subprocess.run(
        command, input=json.dumps(words), capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return np.asarray(json.loads(done.stdout))


def test_it_runs_without_this_project(tmp_path):
    agent = trained("varibad")
    agent.export(tmp_path / "agent.zip", n=N)
    got = by_file(tmp_path / "agent.zip", 1, tmp_path)
    np.testing.assert_array_equal(got, by_behaviour(agent))


@pytest.mark.parametrize(
    ("name", "env"), [(name, ENV) for name in LEARNERS] + [("ppo", FOLLOW), ("pearl", FOLLOW)]
)
def test_actions_are_those_of_the_behaviour(name, env, tmp_path):
    agent = trained(name, env)
    file = tmp_path / "agents" / "agent.zip"
    exported.write(file, env, agent.behaviour, agent.params, n=N, platforms=("cpu",))
    found = exported.read(file)
    memory, actions, old = found["start"](jnp.uint32(0)), [], None
    for t, (first, obs, done, reward) in enumerate(script(env.observation_size)):
        shown = (obs, np.zeros(N, bool)) if old is None else old
        if first:
            memory = found["begin"](memory, *shown, jnp.uint32(t))
        actions.append(found["act"](memory, *shown, jnp.uint32(t)))
        memory = found["observe"](memory, actions[-1], reward, obs, done)
        old = obs, done
    np.testing.assert_allclose(np.stack(actions), by_behaviour(agent), rtol=1e-5, atol=1e-6)


def test_the_file_says_what_it_holds(tmp_path):
    agent = trained("ppo")
    agent.export(tmp_path / "agent.zip", n=3)
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        about = json.loads(archive.read("about.json"))
    assert (about["agents"], about["observation_size"], about["actions"]) == (3, 1, "int32 below 2")
    assert (about["horizon"], about["episodes"], about["first_action_on"]) == (3, 2, "terminal")


def test_what_cannot_be_exported(tmp_path):
    agent = trained("ppo")
    with pytest.raises(UserError, match=r"to a \.zip; got .*agent\.onnx"):
        agent.export(tmp_path / "agent.onnx")
    with pytest.raises(UserError, match="at least 1; got 0"):
        agent.export(tmp_path / "agent.zip", n=0)
    with pytest.raises(UserError, match="acts in no environment"):
        trained("maml").export(tmp_path / "agent.zip")
    assert not any(tmp_path.iterdir())
