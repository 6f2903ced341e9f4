"""Continuous control: HalfCheetah, Ant and Humanoid with hidden tasks, on three engines."""

from __future__ import annotations

from .ant import Ant
from .half_cheetah import HalfCheetah
from .humanoid import Humanoid

__all__ = ["Ant", "HalfCheetah", "Humanoid"]
