"""Parametric families of task distributions ``D_phi``, each with its original ``phi0``.

A factory returns a ``Family``: pure functions to sample tasks, to weigh them, and to fit
``phi`` to the weighted tasks of a tail. Tasks and ``phi`` are float32.
"""

from __future__ import annotations

from roml_jax.families._parts import Fit, Names, Number, Numbers
from roml_jax.families.circle import circle
from roml_jax.families.plain import categorical, exponential, normal
from roml_jax.families.product import product
from roml_jax.families.units import beta, disk, log2_beta

__all__ = [
    "Fit",
    "Names",
    "Number",
    "Numbers",
    "beta",
    "categorical",
    "circle",
    "disk",
    "exponential",
    "log2_beta",
    "normal",
    "product",
]
