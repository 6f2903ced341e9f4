"""Meta-learners: black boxes that turn tasks into rollouts, and rollouts into a better policy."""

from roml_jax.learners.maml import MAMLConfig, maml
from roml_jax.learners.memory import BeliefConfig, RecurrentConfig
from roml_jax.learners.on_policy import on_policy
from roml_jax.learners.pearl import PEARLConfig, pearl
from roml_jax.learners.policy_parts import PolicyConfig
from roml_jax.learners.ppo import PPOConfig, ppo
from roml_jax.learners.rl2 import RL2Config, rl2
from roml_jax.learners.sac import SACConfig, soft_actor_critic
from roml_jax.learners.varibad import VariBADConfig, varibad

__all__ = [
    "BeliefConfig",
    "MAMLConfig",
    "PEARLConfig",
    "PPOConfig",
    "PolicyConfig",
    "RL2Config",
    "RecurrentConfig",
    "SACConfig",
    "VariBADConfig",
    "maml",
    "on_policy",
    "pearl",
    "ppo",
    "rl2",
    "soft_actor_critic",
    "varibad",
]
