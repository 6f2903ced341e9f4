"""Going on: with more frames, other validations, after a hang-up, from a script of one's own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import cli, evaluate, own, train
from experiments.presets import PRESETS
from experiments.spec import program
from experiments.training import checkpoints, device, loop, runs, trainer
from experiments.training.loop import Loop
from roml_jax import families, samplers
from tests.experiments.conftest import TINY
from tests.experiments.scenarios.test_run import metrics, stop_at

FOLDER = Path("khazad-dum", "roml-varibad", "seed-1")
SHORT = ("--frames", "400")  # ten steps instead of 17


@pytest.fixture(scope="module")
def short(run_tiny, tmp_path_factory):
    """The folder of all runs, with one that has come to an end after ten steps."""
    out = tmp_path_factory.mktemp("short")
    assert run_tiny(out, "--seeds", "1", *SHORT) == 0
    return out


def test_a_finished_run_goes_on_with_more_frames(short, single, run_tiny, capsys):
    before = metrics(short / FOLDER)
    assert run_tiny(short, "--seeds", "1") == 0
    assert "resume  from step 10 of 17" in capsys.readouterr().out
    after = metrics(short / FOLDER)
    pd.testing.assert_frame_equal(after.head(len(before)), before)
    trained = [column for column in after if not column.startswith("validation")]
    pd.testing.assert_frame_equal(after[trained], metrics(single)[trained])
    assert (short / FOLDER / "test.csv").read_bytes() == (single / "test.csv").read_bytes()

    assert run_tiny(short, "--seeds", "1", *SHORT) == 2
    message = capsys.readouterr().err
    assert "has come to step 17" in message and "ends at 10" in message
    assert (short / FOLDER / "test.csv").is_file()


def test_what_does_not_touch_the_training_may_change(run_tiny, tmp_path, capsys, monkeypatch):
    with monkeypatch.context() as patch:
        stop_at(7, signal.SIGTERM, patch)
        assert run_tiny(tmp_path, "--seeds", "1") == 143
    assert run_tiny(tmp_path, "--seeds", "1", "--policy.clip", "0.3") == 2
    capsys.readouterr()
    others = ("--validation-every", "4", "--validation-tasks", "5", "--test-tasks", "6")
    with monkeypatch.context() as patch:  # before any validation on the other tasks
        stop_at(9, signal.SIGTERM, patch)
        assert run_tiny(tmp_path, "--seeds", "1", *others) == 143
    assert checkpoints.newest_step(tmp_path / FOLDER) == 9
    assert run_tiny(tmp_path, "--seeds", "1", *others, "--tested", "best-mean") == 0
    table = pd.read_csv(tmp_path / FOLDER / "metrics.csv")
    assert list(table["step"][table["validation_mean"].notna()]) == [0, 6, 12, 16, 17]
    assert len(pd.read_csv(tmp_path / FOLDER / "test.csv")) == 12
    told = re.search(r"best validation mean, of step (\d+)", capsys.readouterr().out)
    later = table[table["step"] > 8]  # the ones before were on other tasks
    best = later["step"][later["validation_mean"] == later["validation_mean"].max()]
    assert int(told[1]) == best.iloc[-1]
    assert runs.status(tmp_path / FOLDER) == "finished"
    assert run_tiny(tmp_path, "--seeds", "1", *others, "--tested", "final") == 0  # tests once more
    assert "test of the final agent of step 17" in capsys.readouterr().out


def test_other_random_numbers_are_refused_by_the_name_of_the_switch(
    single, run_tiny, tmp_path, capsys
):
    shutil.copytree(single, tmp_path / FOLDER)
    file = tmp_path / FOLDER / "config.json"
    made = json.loads(file.read_text())
    assert made["jax_config"]["jax_default_prng_impl"] == "threefry2x32"
    file.write_text(
        json.dumps(made | {"jax_config": made["jax_config"] | {"jax_default_prng_impl": "rbg"}})
    )
    assert run_tiny(tmp_path, "--seeds", "1") == 2
    told = capsys.readouterr().err
    assert "jax_default_prng_impl=rbg there, threefry2x32 here" in told
    assert "go on with JAX_DEFAULT_PRNG_IMPL=rbg" in told and len(told.splitlines()) == 1
    file.write_text(
        json.dumps(made | {"jax_config": made["jax_config"] | {"jax_enable_x64": True}})
    )
    assert run_tiny(tmp_path, "--seeds", "1") == 2  # finished
    told = capsys.readouterr().err
    assert "rounds otherwise: jax_enable_x64=True there, False here" in told
    del made["jax_config"]  # an older run does not say
    file.write_text(json.dumps(made))
    assert run_tiny(tmp_path, "--seeds", "1") == 2
    assert "holds a finished run" in capsys.readouterr().err


def test_a_hang_up_is_saved_and_the_first_checkpoint_comes_soon(
    run_tiny, tmp_path, capsys, monkeypatch
):
    for step, number in ((3, signal.SIGHUP), (5, signal.SIGUSR1), (7, signal.SIGUSR2)):
        with monkeypatch.context() as patch:
            stop_at(step, number, patch)
            assert run_tiny(tmp_path, "--seeds", "1") == 128 + number
        assert checkpoints.newest_step(tmp_path / FOLDER) >= step
        assert signal.getsignal(number) == signal.SIG_DFL
    saves = []
    monkeypatch.setattr(loop, "_FIRST", 0.0)
    monkeypatch.setattr(Loop, "save", lambda self: saves.append(self.step))
    monkeypatch.setattr(trainer, "_finish", lambda *_: None)
    assert run_tiny(tmp_path, "--seeds", "1") == 0
    assert len(saves) == 2 and saves[0] < 17  # soon, and then not for 1,000 minutes


def test_training_in_a_thread_has_no_handlers(run_tiny, tmp_path, monkeypatch):
    """As Ray and the servers of notebooks have it: signals are of the main thread alone."""
    monkeypatch.setattr(trainer, "_finish", lambda *_: None)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run_tiny, tmp_path, "--seeds", "1").result() == 0
    assert checkpoints.newest_step(tmp_path / FOLDER) == 17


def test_signals_that_others_handle_are_left_to_them():
    old = signal.signal(signal.SIGUSR2, lambda *_: None)
    try:
        assert signal.SIGUSR2 not in loop.stopping_signals()
        assert signal.SIGUSR1 in loop.stopping_signals()
    finally:
        signal.signal(signal.SIGUSR2, old)


def test_a_hang_up_under_nohup_is_not_heeded():
    code = "import signal; from experiments.training import loop; print(loop.stopping_signals())"
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    heeded, ignored = (
        subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True).stdout
        for start in ("import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); ", ignore)
    )
    assert "SIGHUP" in heeded and "SIGHUP" not in ignored


def test_two_processes_cannot_have_one_run(single, run_tiny, capsys):
    with trainer.lock.hold([single]):
        assert run_tiny(single.parents[2], "--seeds", "1", "--overwrite") == 2
    assert f"in use by process {os.getpid()}" in capsys.readouterr().err
    assert (single / "test.csv").is_file()


def test_where_no_terminal_is_progress_comes_in_dated_lines(capsys):
    with loop._bar(1000, 0, "frames") as bar:
        bar.set_postfix_str("mean 1.0")
        bar.update(400)
    told = capsys.readouterr().err.rstrip()
    assert "\r" not in told and "█" not in told
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert all(re.match(rf"{date}  +\d+% .*frames/s, .* left", x) for x in told.splitlines())
    last = told.splitlines()[-1]
    assert "400/1.00k frames" in last and last.endswith("mean 1.0")


# ------------------------------------------------------------------ the tested agent


def test_an_untrained_agent_is_never_the_best(run_tiny, tmp_path, monkeypatch, capsys):
    """Also while a learner warms up: the first 2 steps here; and training makes it worse."""
    scores = iter(np.arange(9.0, 0.0, -1.0, dtype=np.float32))
    compile_functions = device.compile_functions

    def scored(*args, **options):
        functions, seconds = compile_functions(*args, **options)
        score = lambda *_: np.full((1, 2), next(scores))  # noqa: E731
        return functions._replace(validate=score), seconds

    monkeypatch.setattr(trainer, "compile_functions", scored)
    words = ("--seeds", "1", "--tested", "best-cvar", "--validation-every", "1", "--frames", "320")
    assert run_tiny(tmp_path, *words, "--validation-tasks", "3") == 0
    assert "the best validation CVaR, of step 2 on" in capsys.readouterr().out
    # What training and evaluation show of the same agent is the same, its phi included.
    assert cli.run(evaluate.main, [str(tmp_path), "--summary", str(tmp_path / "again.csv")]) == 0
    phi = float(pd.read_csv(tmp_path / "again.csv")["phi_mean_rain"].iloc[0])
    table = metrics(tmp_path / FOLDER).set_index("step")
    assert phi == pytest.approx(table.loc[2, "phi_mean_rain"]) != table.loc[8, "phi_mean_rain"]


def test_train_shows_the_phi_of_the_tested_agent(run_tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(loop, "as_good", lambda value, best: np.isnan(best))  # the first one stays
    assert run_tiny(tmp_path, "--seeds", "1", "--tested", "best-mean") == 0
    shown = capsys.readouterr().out
    table = metrics(tmp_path / FOLDER).set_index("step")
    assert (
        f"{table.loc[6, 'phi_mean_rain']:.3f}" in shown.split("best validation mean, of step 6")[1]
    )


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("family", "phi"),
    [
        (families.exponential(0.1), [-1.0]),
        (families.beta(0, 1), [1.5]),
        (families.categorical([1, 1]), [0.3, 0.3]),
    ],
)
def test_an_oracle_outside_of_its_family(family, phi):
    with pytest.raises(ValueError, match="outside of the family; the nearest inside is") as error:
        samplers.oracle(family, phi)
    assert "\n" not in str(error.value)
    samplers.oracle(family, family.phi0)


def test_the_command_line_says_so(tmp_path, capsys):
    words = ["khazad-dum", "--method", "oracle", "--phi", "-1", "--out", str(tmp_path)]
    assert cli.run(train.main, words) == 2
    assert "phi=-1 lies outside of the family" in capsys.readouterr().err


def test_a_missing_extra_is_named_with_its_command(tmp_path, capsys):
    def main(argv):
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")

    assert cli.run(main, []) == 2
    message = capsys.readouterr().err
    assert "this needs mujoco: pip install 'roml-jax[mujoco]'" in message
    other = ModuleNotFoundError("No module named 'x'", name="x")
    with pytest.raises(ModuleNotFoundError):
        cli.run(lambda argv: (_ for _ in ()).throw(other), [])


def test_one_run_that_cannot_be_tested_does_not_hold_up_the_others(
    single, tmp_path, capsys, monkeypatch
):
    from experiments.training import retest

    other = tmp_path / "seed-9"
    shutil.copytree(single, tmp_path / "seed-1")
    shutil.copytree(single, other)
    build = retest.agents.load_agent

    def load(path, *args):
        if path.name == "seed-9":
            raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
        return build(path, *args)

    monkeypatch.setattr(retest.agents, "load_agent", load)
    original = runs.read_config
    monkeypatch.setattr(
        runs, "read_config", lambda path: original(path)._replace(env="khazad-dum-wide")
        if path.name == "seed-9" else original(path),
    )  # fmt: skip
    assert cli.run(evaluate.main, [str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "seed 1: as in" in out
    assert "seed-9 is left out: it needs mujoco: pip install 'roml-jax[mujoco]'" in err


# ------------------------------------------------------------------ a script of one's own


@pytest.fixture
def boat(monkeypatch):
    monkeypatch.setitem(PRESETS, "boat", PRESETS["khazad-dum"]._replace(summary="a boat"))
    monkeypatch.setattr(sys, "argv", [os.path.relpath("/somewhere/boat.py")])
    yield "boat"
    program.set_script([])


def test_every_command_works_in_a_script_of_ones_own(
    boat, compilation, tmp_path, capsys, monkeypatch
):
    out = str(tmp_path / "runs")
    words = [*TINY, "--out", out, "--seeds", "1"]
    with compilation():
        with monkeypatch.context() as patch:
            stop_at(3, signal.SIGTERM, patch)
            assert own.run(boat, ["train", *words]) == 143
        told = capsys.readouterr().out.splitlines()[-1]
        again = told.split("go on with: python ")[1].split()
        assert again[0].endswith("boat.py") and again[1:3] == ["train", "boat"]
        assert own.run(boat, again[1:]) == 0
        assert own.run(boat, ["evaluate", out]) == 0
        assert "as in" in capsys.readouterr().out
        compared = [*words, "--methods", "roml", "--results", str(tmp_path / "results")]
        assert own.run(boat, ["compare", *compared]) == 0
        assert own.run(boat, ["figures", "--results", str(tmp_path / "results"),
                              "--out", str(tmp_path), "--format", "png"]) == 0  # fmt: skip
    assert (tmp_path / "boat" / "test.png").is_file()
    capsys.readouterr()
    assert own.run(boat, ["tran"]) == 2 and "did you mean train" in capsys.readouterr().err
    assert own.run(boat, []) == 2 and "boat.py" in capsys.readouterr().err
