"""What a robust meta-algorithm is to those who choose it by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from roml_jax.types import Family, Learner, MetaAlgorithm, Schedule


def _as_it_is(learner: Learner, config: Any) -> Learner:
    return learner


def _never(config: Any) -> bool:
    return False


class MethodKind(NamedTuple):
    """A method by its settings, its factory, and how it is named and drawn.

    Attributes:
      config: frozen dataclass of its settings, ``alpha`` among them.
      make: ``(family, config, steps) -> MetaAlgorithm``, or a function of the training step that
        gives one, see ``roml_jax.train.make_train``; ``steps`` are those of the whole training.
      label: its name for people; None for the name of the learner below it.
      wrap: ``(learner, config) -> learner``, what it makes of the learner.
      look: how figures draw it: colour, marker and line style, as matplotlib takes them;
        None for the next that is free.
      aim: what it makes large: the mean return, or the CVaR.
      paced: ``config -> bool``, whether what it does at a step depends on ``steps``, so that a
        training cannot be gone on with to another length.
    """

    config: type
    make: Callable[[Family, Any, int], MetaAlgorithm | Schedule]
    label: str | None
    wrap: Callable[[Learner, Any], Learner] = _as_it_is
    look: tuple[str, str, Any] | None = None
    aim: Literal["mean", "cvar"] = "cvar"
    paced: Callable[[Any], bool] = _never
