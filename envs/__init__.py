"""Environments and supervised problems: frozen dataclasses that implement one interface.

That is ``roml_jax.types.TaskEnv``, or ``TaskData`` for labelled examples.

An environment imports ``roml_jax``; ``roml_jax`` never imports an environment.
"""

from __future__ import annotations

from .khazad_dum import KhazadDum
from .mujoco import Ant, HalfCheetah, Humanoid
from .point import Point
from .sine import Sine

__all__ = ["Ant", "HalfCheetah", "Humanoid", "KhazadDum", "Point", "Sine"]
