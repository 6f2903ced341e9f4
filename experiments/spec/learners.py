"""The learners that an experiment can choose from, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from roml_jax.learners import (
    MAMLConfig,
    PEARLConfig,
    PPOConfig,
    RL2Config,
    VariBADConfig,
    maml,
    pearl,
    ppo,
    rl2,
    varibad,
)
from roml_jax.types import Learner, TaskData


class LearnerKind(NamedTuple):
    """A learner by its settings, its factory and its name for people.

    Attributes:
      config: frozen dataclass of its settings; several learners may share one.
      make: ``(env, config) -> Learner``.
      label: its name for people.
      supervised: it learns from ``TaskData``, not from a ``TaskEnv``.
    """

    config: type
    make: Callable[[Any, Any], Learner]
    label: str
    supervised: bool = False


LEARNERS: dict[str, LearnerKind] = {
    "varibad": LearnerKind(VariBADConfig, varibad, "VariBAD"),
    "ppo": LearnerKind(PPOConfig, ppo, "PPO"),
    "rl2": LearnerKind(RL2Config, rl2, "RL²"),
    "pearl": LearnerKind(PEARLConfig, pearl, "PEARL"),
    "maml": LearnerKind(MAMLConfig, maml, "MAML", supervised=True),
}


def learners_for(env: Any) -> list[str]:
    """The names of the learners that can learn in an environment, or from supervised tasks."""
    supervised = isinstance(env, TaskData)
    return [name for name, kind in LEARNERS.items() if kind.supervised == supervised]
