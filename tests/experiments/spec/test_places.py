"""Folders and files that commands are told."""

from pathlib import Path

import pytest

from experiments import cli, compare, evaluate, figures, render, train
from experiments.spec.errors import UserError
from experiments.spec.words import file_to_write, place


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert place("--out", "~/runs") == Path("/home/me/runs")
    assert cli.parse_train(["khazad-dum", "--out=~/runs"])[1].options.out == "/home/me/runs"
    options, _ = compare._parse(["khazad-dum", "--out=~/runs", "--results=~"])
    assert (options.out, options.results) == ("/home/me/runs", "/home/me")
    assert figures._parse(["khazad-dum", "--out=~/x"]).out == Path("/home/me/x")
    assert render._parse(["~/runs/a", "--out=~/x"]).runs == ("/home/me/runs/a",)
    assert evaluate._parse(["~/runs/a", "--csv=~/x"]).run == "/home/me/runs/a"
    with pytest.raises(UserError, match="nobody-at-all"):
        place("--out", "~nobody-at-all/runs")


@pytest.mark.parametrize("out", ["gs://bucket/runs", "s3://b", "file:///tmp/x", "hdfs://a/b"])
def test_addresses_are_refused(out, capsys):
    for command in (train, compare):
        assert cli.run(command.main, ["khazad-dum", "--out", out]) == 2
        told = capsys.readouterr().err
        assert "--out is a path of this machine" in told and len(told.splitlines()) == 1
    with pytest.raises(UserError):  # the Path of an address has lost a slash
        figures._parse(["khazad-dum", "--out", out])


@pytest.mark.parametrize("out", ["runs", "a/b", "exp[1]", "x:y", "/abs", "-5", "C:/runs"])
def test_any_legal_name_is_a_place(out):
    assert place("--out", out) == Path(out)


def test_a_file_is_no_folder(tmp_path, capsys):
    tmp_path = tmp_path / "runs"
    tmp_path.mkdir()
    assert file_to_write("--csv", None) is None
    assert file_to_write("--csv", tmp_path / "new" / "x.csv") == tmp_path / "new" / "x.csv"
    assert cli.run(evaluate.main, [str(tmp_path), "--csv", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told == f"error: --csv names a file; {tmp_path} is a folder\n"
    assert not [*tmp_path.parent.glob(".*")]
