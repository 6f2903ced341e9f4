"""Every listed learner and method in a size at which it compiles in seconds."""

import jax

from experiments.spec.learners import LEARNERS
from roml_jax.learners import SACConfig
from roml_jax.learners.memory import BeliefConfig, RecurrentConfig
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.methods import METHODS
from tests.probes import Probe

ENV = Probe("arms", length=3, horizon=3, episodes=2)  # terminates with its very last step
FAMILY = ENV.family
POLICY = PolicyConfig(layers=(4,), obs_embedding=3, latent_embedding=3, epochs=1, minibatches=2)
BELIEF = BeliefConfig(
    latent_size=2,
    hidden_size=3,
    action_embedding=2,
    obs_embedding=2,
    reward_embedding=2,
    decoder_layers=(3,),
    elbo_terms=2,
    decode_terms=2,
    batch_size=4,
    buffer_size=8,
)
RECURRENT = RecurrentConfig(3, 2, action_embedding=2, obs_embedding=2, reward_embedding=2)
B = 4


class Arms:
    """Supervised tasks with the same task distribution: the label is the arm times the input."""

    family = FAMILY

    def sample_batch(self, key, task, n):
        x = jax.random.normal(key, (n,))
        return x, task[0] * x


# Smaller settings; a learner or a method that is not listed here is tested with its defaults.
SMALL = {
    "ppo": {"policy": POLICY},
    "varibad": {"warmup_frames": 0, "policy": POLICY, "belief": BELIEF},
    "rl2": {"policy": POLICY, "memory": RECURRENT},
    "pearl": {
        "slots": 8,
        "gradient_steps": 2,
        "meta_batch": 2,
        "batch_size": 3,
        "context_batch": 2,
        "latent_size": 2,
        "encoder_layers": (3,),
        "sac": SACConfig(layers=(4,)),
    },
    "maml": {"support": 2, "query": 4, "layers": (3,)},
}
NEEDED = {"naive": {"pool": 6}, "oracle": {"phi": (0.2, 0.8)}}


def make_learner(name, env=ENV, **settings):
    kind = LEARNERS[name]
    tasks = Arms() if kind.supervised else env
    learner = kind.make(tasks, kind.config(**{"num_tasks": B} | SMALL.get(name, {}) | settings))
    return learner._replace(init=jax.jit(learner.init))  # one program, not one an operation


def method_settings(name, **settings):
    return METHODS[name].config(**{"alpha": 0.5} | NEEDED.get(name, {}) | settings)


def make_method(name, **settings):
    return METHODS[name].make(FAMILY, method_settings(name, **settings), 4)


def wrapped(learner, name, **settings):
    """The learner as a method wraps it."""
    return METHODS[name].wrap(learner, method_settings(name, **settings))
