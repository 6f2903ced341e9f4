"""What the user types: names, flags, values, and what is said when they are wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli, evaluate, train
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.experiment import settings
from experiments.spec.learners import LEARNERS
from experiments.training import trainer
from roml_jax.methods import METHODS

WRONG = {
    "kazad-dum": ["kazad-dum", "did you mean khazad-dum", "khazad-dum-paper"],
    "khazad-dum extra": ["extra"],
    "--learner varibat": ["varibat", "did you mean varibad", "ppo"],
    "--method rml": ["rml", "did you mean roml", "cvar-ml", "oracle"],
    "--method RoML": ["RoML", "did you mean roml?"],
    "--method CVaR_ML": ["CVaR_ML", "did you mean cvar-ml?"],
    "--lr 1e-3": ["did you mean --belief.learning-rate or --policy.learning-rate?"],
    "--learning-rate 1e-3": ["did you mean --belief.learning-rate or --policy.learning-rate?"],
    "--policy.no-normalize-obs False": ["write --FLAG or --no-FLAG"],
    "--policy.layers 64;64": ["--policy.layers has no such value", "64 32"],
    "--alpah 0.1": ["--alpah", "did you mean --alpha"],
    "--alpha lots": ["--alpha", "lots"],
    "--alpha 0": ["alpha", "(0, 1]"],
    "--alpha nan": ["alpha", "(0, 1]"],
    "--nu 1": ["nu", "[0, 1)"],
    "--beta 1": ["beta", "(0, 1)"],
    "--frames 100": ["--frames", "4096"],
    "--frames 1.5": ["--frames", "whole"],
    "--frames 1e999": ["--frames", "whole"],
    "--policy.minibatches 7": ["minibatches", "4096", "1, 2, 4, 8"],
    "--policy.minibatches 0": ["minibatches", "at least 1"],
    "--policy.layers -3": ["policy", "layers", "at least 1"],
    "--belief.truncation 0": ["belief", "truncation", "at least 1"],
    "--belief.buffer-size 3": ["buffer_size", "batch of 10", "at least 32"],
    "--belief.buffer-size 20": ["buffer", "32"],
    "--num-tasks 33": ["33", "128", "1, 2, 4, 8"],
    "--num-tasks 256": ["256", "128"],
    "--batch 100": ["100", "50"],
    "--quantile plane": ["plane", "did you mean plain", "population"],
    "--seeds": ["--seeds"],
    "--seeds 1 1": ["--seeds", "different"],
    "--seeds 4294967296": ["--seeds", "0 to 4294967295"],
    "--evaluation-seed 4294967296": ["--evaluation-seed", "0 to 4294967295"],
    "--horizon 0": ["horizon", "at least 1"],
    "--rain-mean -1": ["mean", "positive"],
    "--test-tasks 0": ["test_tasks", "at least 1"],
    "--checkpoint-minutes 0": ["--checkpoint-minutes"],
    "--method oracle --phi None": ["--phi", "mean_rain"],
    "--method oracle --phi 1 2": ["phi", "mean_rain"],
}


@pytest.fixture
def no_compiling(monkeypatch):
    def refuse(*args):
        raise AssertionError("compiled")

    monkeypatch.setattr(trainer, "compile_functions", refuse)


def one_line(capsys) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and err.endswith("\n")
    return err


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_of_train(arguments, tmp_path, capsys, no_compiling):
    assert cli.run(train.main, [*arguments.split(), "--out", str(tmp_path / "out")]) == 2
    message = one_line(capsys)
    for part in WRONG[arguments]:
        assert part in message
    assert not (tmp_path / "out").exists()


def test_wrong_arguments_of_evaluate(tmp_path, capsys):
    foreign, untrained = tmp_path / "foreign", tmp_path / "untrained"
    (foreign / "checkpoint" / "5").mkdir(parents=True)
    (foreign / "config.json").write_text('{"env": "chess"}')
    untrained.mkdir()
    (untrained / "config.json").write_text("{}")
    for arguments, part in {
        "": "RUN",
        str(tmp_path / "missing"): "no directory",
        str(foreign / "checkpoint"): "no run",
        str(foreign): "not a config of this version",
        str(untrained): "no checkpoint",
        f"{tmp_path} --tasks 0": "--tasks",
        f"{tmp_path} --repeats 0": "--repeats must be at least 1",
        f"{tmp_path} --seed 4294967296": "--seed is a number from 0 to 4294967295",
        f"{tmp_path} --taks 1": "did you mean --task",
        f"{tmp_path} --picture tasks.jpg": "--picture is a .png or a .pdf; got tasks.jpg",
    }.items():
        assert cli.run(evaluate.main, arguments.split()) == 2
        assert part in one_line(capsys)


def test_the_exit_code_of_the_command():
    command = [sys.executable, "-m", "experiments.train", "moria"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 2
    assert done.stderr == f"error: unknown environment 'moria'; valid: {', '.join(PRESETS)}\n"


def test_a_device_that_is_not_there_is_one_line():
    command = [sys.executable, "-m", "experiments.train", "sine", "--out", "/nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[3],
        env=os.environ | {"JAX_PLATFORMS": "abacus"},
    )  # fmt: skip
    assert done.returncode == 2 and not done.stdout
    (line,) = [line for line in done.stderr.splitlines() if "Warning" not in line]
    assert line.startswith(
        "error: JAX finds no device for JAX_PLATFORMS=abacus; without it there is"
    )


def help_of(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main, words)
    assert not stop.value.code
    return capsys.readouterr().out


def test_help_is_no_error_and_fits_on_two_screens(capsys):
    out = help_of(capsys, "--help")
    assert "--frames [8,000,000]" in out and "khazad-dum-paper" in out
    assert "--policy.*" in out and "--help-all" in out and "--policy.learning-rate" not in out
    for learner, method in choices("half-cheetah-mass"):
        lines = help_of(capsys, "half-cheetah-mass", "--learner", learner, "--method", method, "-h")
        assert len(lines.splitlines()) <= 100
        assert max(map(len, lines.splitlines())) <= 100


@pytest.mark.parametrize("env", ["khazad-dum", "sine"])
def test_help_all_has_every_flag_and_help_says_where(env, capsys):
    short, whole = help_of(capsys, env, "--help"), help_of(capsys, env, "--help-all")
    for name in settings(cli.parse_train([env])[1]):
        flag = cli.flag_of(name)
        if name not in ("learner", "method"):
            assert re.search(rf"{re.escape(flag)}\b", whole)
            part = flag.partition(".")[0] + ".*" if "." in flag else flag
            assert part in short


def test_without_arguments_it_is_the_preset():
    env, command = cli.parse_train([])
    assert env == "khazad-dum" and command.options == cli.Options()
    assert command.experiment == PRESETS["khazad-dum"].experiment


def test_names_are_listed_with_a_line_each(capsys):
    assert cli.run(train.main, ["--list"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert {*PRESETS, *LEARNERS, *METHODS, "mix", "cem"} <= rows.keys()
    assert all(len(line) <= 100 for line in out.splitlines()) and "`" not in out
    assert all(len(rows[name].split()) > 2 for name in METHODS)


def choices(env):
    """Every learner of a preset under its own method, and every method on its own learner."""
    preset = PRESETS[env]
    pairs = [(learner, preset.default_method) for learner in preset.learner_names()]
    return pairs + [(preset.default_learner, method) for method in METHODS]


@pytest.mark.parametrize("env", PRESETS)
def test_every_setting_has_a_flag(env):
    for learner, method in choices(env):
        default = PRESETS[env].choose(learner, method)
        arguments = [env, "--learner", learner, "--method", method]
        for name, value in settings(default).items():
            flag = "--" + name.replace("_", "-")
            if isinstance(value, bool):
                head, _, last = flag.rpartition("." if "." in flag else "--")
                glue = "." if "." in flag else "--"
                arguments.append(flag if value else f"{head}{glue}no-{last}")
            else:
                arguments += [flag, *map(str, value if isinstance(value, tuple) else (value,))]
        assert cli.parse_train(arguments) == (env, cli.Command(cli.Options(), default))


def test_flags_reach_nested_settings():
    arguments = (
        "--policy.learning-rate 1e-3 --belief.updates 2 --alpha .05 --frames 8e5 --batch None"
    )
    _, command = cli.parse_train(arguments.split())
    experiment = command.experiment
    assert experiment.learner.policy.learning_rate == 1e-3
    assert experiment.learner.belief.updates == 2
    assert (experiment.method.alpha, experiment.method.batch) == (0.05, None)
    assert experiment.frames == 800_000


def test_a_folder_that_cannot_be_one(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trainer, "compile_functions", None)
    assert cli.run(train.main, ["--out", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_user_errors_are_shown_on_one_line(capsys):
    def main(argv):
        raise UserError("a\n  b")

    assert cli.run(main, []) == 2
    assert one_line(capsys) == "error: a b\n"
