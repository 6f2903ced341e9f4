"""Robust meta-reinforcement learning in JAX, as pure functions over pytrees.

Import what you need from its modules: ``from roml_jax.risk import cvar``, ``from
roml_jax.samplers import cem``, ``from roml_jax.learners import varibad``; nothing is loaded here.
"""

__version__ = "0.1.0"
