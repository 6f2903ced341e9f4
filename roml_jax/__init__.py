"""Robust meta-reinforcement learning in JAX, as pure functions over pytrees.

Its modules are loaded when they are first used: ``roml_jax.risk.cvar`` works as ``from
roml_jax.risk import cvar`` does.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """A module of the package, imported when it is first asked for."""
    if name.startswith("_") or name not in __dir__():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    """The modules of the package."""
    return sorted({"__version__", *(module.name for module in pkgutil.iter_modules(__path__))})
