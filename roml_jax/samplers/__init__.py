"""Task samplers: what to train on."""

from roml_jax.samplers._buffer import Buffer, BufferState
from roml_jax.samplers._mixture import draw_mixture, importance_weights
from roml_jax.samplers.adversary import AdversaryState, adversary
from roml_jax.samplers.cem import CEMState, Pending, cem, select_tail
from roml_jax.samplers.designer import DesignerState, designer
from roml_jax.samplers.dro import DROState, dro
from roml_jax.samplers.fixed import fixed
from roml_jax.samplers.learnability import learnability
from roml_jax.samplers.mix import MixState, mix
from roml_jax.samplers.mixture_cem import MixtureCEMState, mixture_cem
from roml_jax.samplers.naive import NaiveState, naive
from roml_jax.samplers.oracle import oracle
from roml_jax.samplers.replay import replay
from roml_jax.types import Draw, TaskSampler

__all__ = [
    "AdversaryState",
    "Buffer",
    "BufferState",
    "CEMState",
    "DROState",
    "DesignerState",
    "Draw",
    "MixState",
    "MixtureCEMState",
    "NaiveState",
    "Pending",
    "TaskSampler",
    "adversary",
    "cem",
    "designer",
    "draw_mixture",
    "dro",
    "fixed",
    "importance_weights",
    "learnability",
    "mix",
    "mixture_cem",
    "naive",
    "oracle",
    "replay",
    "select_tail",
]
