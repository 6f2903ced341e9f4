"""Task samplers: what to train on."""

from roml_jax.samplers._mixture import draw_mixture, importance_weights
from roml_jax.samplers.cem import CEMState, Pending, cem, select_tail
from roml_jax.samplers.fixed import fixed
from roml_jax.samplers.naive import NaiveState, naive
from roml_jax.samplers.oracle import oracle
from roml_jax.types import Draw, TaskSampler

__all__ = [
    "CEMState",
    "Draw",
    "NaiveState",
    "Pending",
    "TaskSampler",
    "cem",
    "draw_mixture",
    "fixed",
    "importance_weights",
    "naive",
    "oracle",
    "select_tail",
]
