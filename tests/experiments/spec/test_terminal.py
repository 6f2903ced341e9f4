"""What is printed cannot cost a run: no encoding, no full disk, no reader that has gone."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import cli, train
from experiments.spec.terminal import Steady

ROOT = Path(__file__).parents[3]


def start(*words, **options):
    environment = os.environ | options.pop("env", {})
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, **options
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "cp1252"},
    ],
    ids=str,
)
def test_any_encoding_gets_what_it_can_show(settings):
    text = "φ \N{MINUS SIGN}0.5 ± 1 ≥ 7 │ 猫"
    code = f"from experiments import cli; cli.run(lambda argv: print({text!a}) or 0)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | settings, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.decode("cp1252").strip()
    assert told in ("phi -0.5 +/- 1 >= 7 | ?", "phi -0.5 ± 1 >= 7 | ?")


def test_help_in_ascii():
    done = start(
        "experiments.train", "--help", env={"PYTHONIOENCODING": "ascii"}, stdout=subprocess.PIPE
    )
    out, err = done.communicate()
    assert done.returncode == 0 and b"--soft-update" in out and not err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_the_log():
    with open("/dev/full", "w") as full:
        done = start("experiments.train", "--help", stdout=full)
        assert done.communicate()[1] == b"" and done.returncode == 0


def test_a_reader_that_has_gone():
    reader, writer = os.pipe()
    os.close(reader)
    done = start("experiments.train", "--help", stdout=writer)
    os.close(writer)
    assert done.communicate()[1] == b"" and done.returncode == 0


class Broken(io.StringIO):
    """Takes some writes, then fails."""

    def __init__(self, error, good):
        super().__init__()
        self.error, self.good, self.failed = error, good, 0

    def write(self, text):
        if self.tell() > self.good:
            self.failed += 1
            raise self.error
        return super().write(text)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "full"), BrokenPipeError(errno.EPIPE, "gone"), ValueError()]
)
def test_training_goes_on_in_silence(error, run_tiny, tmp_path, monkeypatch):
    streams = {name: Broken(error, 200) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert run_tiny(tmp_path, "--seeds", "1") == 0
    assert all(stream.failed for stream in streams.values())
    assert (tmp_path / "khazad-dum" / "roml-varibad" / "seed-1" / "test.csv").is_file()


def test_errors_keep_their_exit_code(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Broken(BrokenPipeError(errno.EPIPE, "gone"), -1))
    assert cli.run(train.main, ["khazad-dum", "--method", "romal"]) == 2


def test_all_else_is_the_streams(capsys):
    steady = Steady(sys.stdout)
    assert steady.encoding == sys.stdout.encoding and not steady.isatty()
    steady.writelines(["a", "b"])
    assert capsys.readouterr().out == "ab"
