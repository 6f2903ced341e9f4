"""Checks of settings: one clear line for every value that cannot be."""

from __future__ import annotations

from typing import Any


def check_choice(name: str, value: str, valid: tuple[str, ...]) -> None:
    """Raises a ValueError that lists what is valid, unless ``value`` is."""
    if value not in valid:
        raise ValueError(f"{name} is one of {', '.join(valid)}; got {value!r}")


def check_at_least(config: Any, least: int, *names: str) -> None:
    """Raises a ValueError if a field, or an item of one, is less; None passes."""
    for name in names:
        value = getattr(config, name)
        items = value if isinstance(value, tuple) else (value,)
        if any(item is not None and not item >= least for item in items):
            raise ValueError(f"{name} must be at least {least}; got {value}")


def check_positive(config: Any, *names: str) -> None:
    """Raises a ValueError if a field is not a positive number."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be positive; got {getattr(config, name)}")
