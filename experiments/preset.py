"""What the command line offers under one name: settings, a view, and published results."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from experiments.config import Experiment, learner_name
from experiments.views import View


class Published(NamedTuple):
    """Published results of a method: means over seeds with their 95 % intervals, or NaN."""

    mean: tuple[float, float, float]  # mean return, low, high
    cvar: tuple[float, float, float]  # CVaR return, low, high
    course: tuple[tuple[float, float], ...] = ()  # mean, CVaR after 0, 1, … inner steps


class Preset(NamedTuple):
    """What the command line offers under one name.

    Attributes:
      summary: one line for people.
      experiment: the settings, with the default learner's.
      learners: settings of the learners, by name.
      view: how what a learner does in this environment is named and drawn.
      published: results of the default learner to compare with, by method.
    """

    summary: str
    experiment: Experiment
    learners: dict[str, Any]
    view: View | None = None
    published: dict[str, Published] | None = None

    @property
    def default_learner(self) -> str:
        """The name of the learner of ``experiment``."""
        return learner_name(self.experiment.learner)

    def with_learner(self, name: str) -> Experiment:
        """The experiment with one of ``learners``."""
        return dataclasses.replace(self.experiment, learner=self.learners[name])

    def env_class(self) -> type:
        """Class of the environment's settings."""
        return type(self.experiment.env)
