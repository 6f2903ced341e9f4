"""Every benchmark runs, in its smallest size; nothing here is a timing."""

from __future__ import annotations

import csv
import dataclasses
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.bench import fidelity, khazad_dum, physics, samplers, scaling, sine, start, timing
from experiments.presets import PRESETS

BENCHES = sorted(
    file.stem
    for file in Path(timing.__file__).parent.glob("[!_]*.py")
    if file.stem not in ("timing", "programs")
)


@pytest.fixture(autouse=True)
def keys_again():
    """Benchmarks play the same again and again, with the same keys."""
    with jax.debug_key_reuse(False):
        yield


def run(module, words, tmp_path):
    """The rows that a benchmark keeps."""
    file = tmp_path / "new" / "rows.csv"
    assert cli.run(module.main, [*words.split(), "--out", str(file)]) == 0
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert rows and [f.name for f in file.parent.iterdir()] == ["rows.csv"]
    return rows


def test_every_bench_has_a_test_here():
    assert set(BENCHES) <= {name.removeprefix("test_") for name in globals()}


def test_scaling(capsys):
    words = ["khazad-dum", "--learner", "ppo", "--devices", "1", "--tasks", "4"]
    assert cli.run(scaling.main, words) == 0
    head, row = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    told = dict(zip(head, row, strict=True))
    assert told["tasks"] == "4" and float(told["mflop"]) > 0
    assert told["exchanges"] == "0" and float(told["gradients_kb"]) > 0


@pytest.mark.parametrize("name", BENCHES)
def test_wrong_options_are_one_line(name, capsys):
    module = importlib.import_module(f"experiments.bench.{name}")
    assert cli.run(module.main, ["--owt", "x"]) == 2
    assert capsys.readouterr().err.startswith("error: unknown flag --owt, did you mean --out?")


def test_start(tmp_path, monkeypatch):
    monkeypatch.setattr(start, "STARTS", {"nothing": ["-c", ""]})
    (row,) = run(start, "--repeats 1", tmp_path)
    assert row["start"] == "nothing" and float(row["least_s"]) >= 0


def test_sine(tmp_path, capsys):
    (row,) = run(sine, "--methods roml --seeds 2 --repeats 2", tmp_path)
    assert row["seeds"] == "2" and float(row["step_ms"]) > 0
    head, line = capsys.readouterr().out.splitlines()
    assert len(head) == len(line) and head.split()[:2] == ["method", "seeds"]
    assert cli.run(sine.main, ["--methods", "rml"]) == 2
    assert "did you mean roml?" in capsys.readouterr().err


def test_samplers(tmp_path, capsys):
    words = "--spaces line --tasks 64 --steps 20 --seeds 2 --samplers"
    rows = run(samplers, f"{words} mixture-cem fixed naive", tmp_path)
    told = {(row["sampler"], row["landscape"]): row for row in rows}
    assert len(told) == 12 and float(rows[0]["step_ms"]) > 0
    two = told["mixture-cem", "two tails"]
    assert float(two["hard"]) > 0.6 and float(two["both"]) > 0.4 and two["half_at"] != "never"
    for title in ("one tail", "two tails", "noisy", "moving"):
        row = told["fixed", title]  # as the original distribution is
        assert float(row["hard"]) < 0.12 and row["half_at"] == "never"
        assert abs(float(row["mean_bias"])) < 0.05 and abs(float(row["cvar_bias"])) < 0.06
        assert told["naive", title]["mean_bias"] == "-"
    assert cli.run(samplers.main, ["--samplers", "cme"]) == 2
    assert "did you mean cem?" in capsys.readouterr().err
    assert cli.run(samplers.main, ["--alpha", "0.5"]) == 2
    assert "--alpha must be in (0, 0.1]; got 0.5" in capsys.readouterr().err


@pytest.mark.parametrize("space", samplers.spaces(0.05).values())
def test_landscapes_of_samplers_are_what_they_say(space):
    """By a hundred thousand tasks, with noise of their own."""
    rng = np.random.default_rng(0)
    units = rng.random((100_000, len(space.family.names)), np.float32)
    tasks = space.family.from_units(jnp.asarray(units))
    for x in space.landscapes.values():
        score = np.asarray(x.score(tasks, 0.3))
        hard, returns = score <= x.edge, score + x.noise * rng.uniform(-1, 1, len(score))
        assert abs(hard.mean() - 0.05) < 0.003
        assert abs((hard & x.side(tasks, 0.3)).mean() - 0.025) < 0.003
        assert abs(score.mean() - x.mean(0.3)) < 0.01
        worst = np.argsort(returns)[:5000]
        assert abs(returns[worst].mean() - x.cvar) < 0.01
        assert abs(hard[worst].mean() - x.best) < 0.02


@pytest.mark.slow
def test_khazad_dum(tmp_path, monkeypatch, tiny_experiment, capsys):
    preset = PRESETS["khazad-dum"]
    small = preset._replace(
        experiment=tiny_experiment, learners={"varibad": tiny_experiment.learner}
    )
    monkeypatch.setitem(PRESETS, "khazad-dum", small)
    monkeypatch.setattr(
        khazad_dum, "_in_a_process", lambda tasks, seeds, _: khazad_dum.measure(tasks, seeds)
    )
    (row,) = run(khazad_dum, "--tasks 4 --seeds 1", tmp_path)
    assert float(row["belief_ms"]) > 0 and float(row["frames_per_s"]) > 0


def test_khazad_dum_leaves_out_what_does_not_fit(tmp_path, capsys):
    words = ["--tasks", "32", "--seeds", "1", "--memory-gib", "0.1"]
    assert cli.run(khazad_dum.main, words) == 0
    assert "skipped: needs about" in capsys.readouterr().out
    assert cli.run(khazad_dum.main, ["--tasks", "0"]) == 2
    assert "--tasks must be at least 1; got 0" in capsys.readouterr().err


@pytest.fixture
def short_bodies(monkeypatch):
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    preset = PRESETS["half-cheetah-mass"]
    env = dataclasses.replace(preset.experiment.env, horizon=4)
    experiment = dataclasses.replace(preset.experiment, env=env)
    monkeypatch.setitem(PRESETS, "half-cheetah-mass", preset._replace(experiment=experiment))


def test_physics(tmp_path, monkeypatch, short_bodies):
    for name, value in {"SETTLE": 2, "SECONDS": 1e-3, "TURNS": 1}.items():
        monkeypatch.setattr(physics, name, value)
    (row,) = run(physics, "--bodies half-cheetah --engines mujoco --tasks 2", tmp_path)
    assert (row["engine"], row["tasks"]) == ("mujoco", "2") and float(row["steps_per_s"]) > 0


@pytest.mark.slow
def test_physics_of_training(tmp_path, monkeypatch, short_bodies):
    monkeypatch.setattr(physics, "FRAMES", 1)
    (row,) = run(physics, "--training --engines mujoco --seeds 1", tmp_path)
    assert row["preset"] == "half-cheetah-mass" and float(row["frames_per_s"]) > 0


def test_fidelity(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    body = fidelity.HalfCheetah
    monkeypatch.setitem(
        fidelity.BODIES, "half-cheetah", lambda **settings: body(horizon=4, **settings)
    )
    monkeypatch.setattr(fidelity, "VARIATIONS", ("mass",))
    (row,) = run(fidelity, "--bodies half-cheetah --actions noise --tasks 3", tmp_path)
    assert row["tasks"] == "3" and row["variation"] == "mass"
    assert "| half-cheetah mass | noise |" in capsys.readouterr().out


def test_the_process_of_one_size_understands_its_words(monkeypatch, capsys):
    monkeypatch.setattr(
        khazad_dum, "measure", lambda tasks, seeds: {"tasks": tasks, "seeds": seeds}
    )
    assert khazad_dum.main(["--one", "32", "1"]) == 0
    assert '{"tasks": 32, "seeds": 1}' in capsys.readouterr().out
