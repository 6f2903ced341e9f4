"""TensorBoard and Weights & Biases get the numbers of metrics.csv, and can fail without harm."""

from __future__ import annotations

import struct
import sys
import types

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments.spec.errors import UserError
from experiments.training import runs, trackers
from experiments.training.runs import Run
from experiments.training.trackers import Tracker

ROWS = [
    {"step": 1, "frames": 40, "seconds": 0.5, "q_alpha": np.float32("nan")},
    {"step": 2, "frames": 80, "seconds": 0.75, "q_alpha": np.float32(-0.25)},
]


@pytest.fixture
def run(tiny_experiment):
    return Run("khazad-dum", tiny_experiment, 3)


def events(path):
    """The scalars of a TensorBoard file: length, checksum, data and checksum again and again."""
    (file,) = path.glob("events.out.tfevents.*")
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + length :]
    return found


def test_tensorboard_gets_the_finite_numbers(run, tmp_path):
    tracker = trackers.tensorboard()(run, tmp_path)
    for row in ROWS:
        tracker.write(row)
    tracker.close()
    assert events(tmp_path) == [
        ("step", 40, 1.0),
        ("seconds", 40, 0.5),
        ("step", 80, 2.0),
        ("seconds", 80, 0.75),
        ("q_alpha", 80, -0.25),
    ]


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the library, which notes what it is told."""
    told = types.SimpleNamespace(starts=[], logs=[], ends=0)

    def init(**options):
        told.starts.append(options)

        def finish():
            told.ends += 1

        log = lambda numbers, step: told.logs.append((step, numbers))  # noqa: E731
        return types.SimpleNamespace(log=log, finish=finish)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return told


def test_wandb_gets_the_numbers_and_goes_on_with_its_run(run, wandb, tmp_path):
    for row in ROWS:
        tracker = trackers.wandb("robust")(run, tmp_path)
        tracker.write(row)
        tracker.close()
    assert wandb.logs == [
        (1, {"step": 1.0, "frames": 40, "seconds": 0.5}),
        (2, {"step": 2.0, "frames": 80, "seconds": 0.75, "q_alpha": -0.25}),
    ]
    first, second = wandb.starts
    assert first["project"] == "robust" and first["resume"] == "allow" and wandb.ends == 2
    assert first["id"] == second["id"] and len(first["id"]) == 16
    assert first["config"]["seed"] == 3 and first["config"]["policy.clip"] == 0.1
    runs.clear(tmp_path)  # a run that starts anew is another one there, too
    trackers.wandb("robust")(run, tmp_path)
    assert wandb.starts[2]["id"] != first["id"]


def test_a_tracker_that_fails_is_given_up(capsys):
    calls = []

    def write(frames, numbers):
        calls.append(frames)
        raise ConnectionError("no route")

    tracker = Tracker("Somewhere", write, lambda: calls.append("close"))
    tracker.write(ROWS[0])
    tracker.write(ROWS[1])
    tracker.close()
    assert calls == [40]
    assert capsys.readouterr().err == "warning: Somewhere is given up: no route\n"


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        trackers.wandb("robust")
