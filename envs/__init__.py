"""Environments: each a frozen dataclass that implements ``roml_jax.types.TaskEnv``.

An environment imports ``roml_jax``; ``roml_jax`` never imports an environment.
"""

from __future__ import annotations

from .khazad_dum import KhazadDum

__all__ = ["KhazadDum"]
