"""How what a learner does in an environment is named, counted and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Info: TypeAlias = dict[str, np.ndarray]  # [K, n], the environment's info at each episode's end


class Map(NamedTuple):
    """How paths of an environment are drawn in small panels, side by side."""

    draw: Callable[[Axes, np.ndarray, list[str]], None]  # axes, positions [n, H+1, 2], outcomes
    handles: Callable[[], list[Artist]]  # of the legend


class View(NamedTuple):
    """What people want to see of an environment's episodes, or of fits to labelled examples.

    It is made from the environment at hand, whose settings decide what its tasks are.

    Attributes:
      tasks: ``[n, D]``, the tasks that are drawn.
      draw: ``(tasks[n, D], obs[K, H+1, n, O], info) -> Figure``; for supervised tasks,
        ``(tasks[n, D], fits, predictor) -> Figure``.
      task: what the first component of a task is.
      unit: of that component, if it has one.
      ranges: edges of ranges of that component, increasing, over which tests are averaged.
      columns: ``info -> columns`` of ``test.csv``, each ``[K, n]``.
      outcome: the column of ``columns`` whose shares are reported; None if there is none.
      outcomes: colour and hatch of outcomes by name, in the order of a bar; others get what is
        left.
      trace: ``obs[..., O] -> position[..., 2]``, for the paths of sample episodes; None if
        there are no paths.
      map: what these paths are drawn on; None if there is none.
    """

    tasks: Float[np.ndarray, "n D"]
    draw: Callable[..., Figure]
    task: str
    unit: str = ""
    ranges: tuple[float, ...] = ()
    columns: Callable[[Info], Info] = dict
    outcome: str | None = None
    outcomes: Mapping[str, tuple[str, str]] = MappingProxyType({})
    trace: Callable[[np.ndarray], np.ndarray] | None = None
    map: Map | None = None
