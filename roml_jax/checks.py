"""Checks of settings: one clear line for every value that cannot be."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array


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


def check_in(name: str, value: Any, interval: str, meaning: str) -> None:
    """Raises a ValueError unless a number lies in an interval.

    Args:
      name: of the number.
      value: the number, or a concrete scalar array.
      interval: as it is written: "[0, 1)" holds 0 and not 1.
      meaning: what the number is, for the message.
    """
    low, high = map(float, interval[1:-1].split(","))
    above = value >= low if interval[0] == "[" else value > low
    below = value <= high if interval[-1] == "]" else value < high
    if not (above and below):
        raise ValueError(f"{name}={value} is {meaning}: choose it in {interval}.")


def check_shape(name: str, x: Any, shape: tuple[int, ...], of: str) -> None:
    """Raises a ValueError, while tracing, unless an array has the shape of another."""
    if jnp.shape(x) != shape:
        raise ValueError(f"{name} must have the shape {shape} of {of}; got {jnp.shape(x)}")


def check_rows(name: str, x: Any, axes: tuple[int, ...], of: str) -> None:
    """Raises a ValueError, while tracing, unless an array is ``[*axes, components]``."""
    shape = jnp.shape(x)
    if len(shape) != len(axes) + 1 or shape[:-1] != axes:
        raise ValueError(
            f"{name} must have the axes {list(axes)} of {of} and one more for its components; "
            f"got {list(shape)}"
        )


def as_real(name: str, x: Any) -> Array:
    """An array of floats of 32 bits at least; integers and booleans are promoted.

    Raises:
      ValueError: while tracing, if it is complex or holds no numbers.
    """
    x = jnp.asarray(x)
    if not (x.dtype == bool or (jnp.issubdtype(x.dtype, jnp.number) and jnp.isrealobj(x))):
        raise ValueError(f"{name} must hold real numbers; got {x.dtype.name}{list(x.shape)}")
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def as_vector(name: str, x: Any, *, some: bool = False) -> Array:
    """``as_real`` of an array that must have one axis, and a component if there must be ``some``.

    Raises:
      ValueError: while tracing, if it is complex or of another shape.
    """
    if some and jnp.shape(x) == (0,):
        raise ValueError(f"{name} must hold at least one number")
    if jnp.ndim(x) != 1:
        raise ValueError(
            f"{name} must be a vector of real numbers: vmap over more axes; got "
            f"{jnp.asarray(x).dtype.name}{list(jnp.shape(x))}"
        )
    return as_real(name, x)


def as_tasks(tasks: Any, names: tuple[str, ...]) -> Array:
    """``as_real`` of tasks ``[n, D]``, at least one.

    Args:
      tasks: rows of components.
      names: of the D components.

    Raises:
      ValueError: while tracing, if they are complex or of another shape.
    """
    shape = jnp.shape(tasks)
    if len(shape) != 2 or shape[1] != len(names) or not shape[0]:
        raise ValueError(
            f"tasks must have the shape [n, {len(names)}], n at least 1, with a column for "
            f"{', '.join(names)}; got {list(shape)}"
        )
    return as_real("tasks", tasks)


def as_weights(weights: Any, tasks: int) -> Array:
    """``as_real`` of the weights of tasks, ``[n]``.

    Raises:
      ValueError: while tracing, if they are complex or not one for each task.
    """
    weights = as_vector("weights", weights)
    check_shape("weights", weights, (tasks,), "the tasks")
    return weights
