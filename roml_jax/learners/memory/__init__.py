"""Memories of on-policy agents: nothing, a belief over the task, a recurrent state."""

from roml_jax.learners.memory.base import Memory, Trajectory
from roml_jax.learners.memory.belief import belief
from roml_jax.learners.memory.blank import blank
from roml_jax.learners.memory.elbo import BeliefConfig
from roml_jax.learners.memory.recurrent import RecurrentConfig, recurrent

__all__ = [
    "BeliefConfig",
    "Memory",
    "RecurrentConfig",
    "Trajectory",
    "belief",
    "blank",
    "recurrent",
]
