"""What people see of the point: ends of episodes, ranges and goals of the settings at hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from envs.point import Point
from experiments import style
from experiments.domains.point.view import columns, point_view
from experiments.presets import PRESETS

PRESET_NAMES = pytest.mark.parametrize("name", ["point", "point-sparse"])


def straight(view, env, episodes=2):
    """Observations with a done flag, and info, of paths along x."""
    n, steps = len(view.tasks), env.horizon + 1
    obs = np.zeros((episodes, steps, n, 3))
    obs[..., 0] = np.linspace(0, 0.8, steps)[:, None]
    reached = np.arange(n) % 2 * np.ones((episodes, 1), int)
    return obs, {"reached": reached, "distance": 0.3 * np.ones((episodes, n))}


def test_columns_say_how_episodes_end():
    told = columns({"reached": np.array([[0, 1]]), "distance": np.array([[0.5, 0.1]])})
    assert told["goal"].tolist() == [["missed", "reached"]]
    assert told["distance"].tolist() == [[0.5, 0.1]]


def test_goals_lie_all_around_and_all_along():
    disk, wide = point_view(Point()), point_view(Point(radius=3.0))
    assert disk.ranges == (-1.0, -0.6, -0.2, 0.2, 0.6, 1.0)
    np.testing.assert_allclose(wide.ranges, 3 * np.array(disk.ranges))
    np.testing.assert_allclose(wide.tasks, 3 * disk.tasks, atol=1e-5)
    np.testing.assert_allclose(np.hypot(*disk.tasks.T), 0.8, atol=1e-5)
    assert np.unique(disk.tasks[:, 0]).size == 5  # columns of the figure of sample episodes
    arc = point_view(Point(goals="half-circle"))
    assert arc.tasks.shape == (5, 1) and arc.ranges[0] == 0 and math.pi < arc.ranges[-1] < 3.2


@PRESET_NAMES
def test_the_picture_shows_every_goal_and_path(name):
    env = PRESETS[name].experiment.env
    view = PRESETS[name].view_of(env)
    obs, info = straight(view, env)
    figure = view.draw(view.tasks, obs, info)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["episode 1", "episode 2"]
    for ax in figure.axes:
        circles = np.array([patch.center for patch in ax.patches])
        assert len(circles) == len(view.tasks) and {p.radius for p in ax.patches} == {0.2}
        paths = [line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 21]
        assert len(paths) == len(view.tasks)
        np.testing.assert_allclose(paths[0], obs[0, :, 0, :2])
    goals = (
        view.tasks
        if name == "point"
        else np.stack([f(view.tasks[:, 0]) for f in (np.cos, np.sin)], 1)
    )
    np.testing.assert_allclose(circles, goals, atol=1e-6)


@PRESET_NAMES
def test_small_panels_tell_ends_apart(name):
    env = PRESETS[name].experiment.env
    view = PRESETS[name].view_of(env)
    _, axes = style.new_figure(2, 2)
    places = np.zeros((2, 21, 2))
    view.map.draw(axes[0, 0], places, ["reached", "missed"])
    drawn = {line.get_color() for line in axes[0, 0].lines}
    assert {color for color, _ in view.outcomes.values()} < drawn
    assert [handle.get_label() for handle in view.map.handles()][:2] == list(view.outcomes)
