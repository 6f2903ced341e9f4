"""The comparison: what is asked for, what trains together, and the whole from end to end."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import cli, compare, train
from experiments.spec import words as words_
from experiments.spec.errors import UserError
from experiments.study import comparing, schedule
from experiments.study import results as compact
from experiments.study.intervals import over_seeds
from experiments.training import runs
from tests.experiments.conftest import TINY

NAMES = [*(f"{name}.csv" for name in compact.Results._fields), "pairs.csv"]
NAMES += ["table.csv", "table.md", "table.tex"]
SEEDS = ["--seeds", "1", "5"]
METHODS = ("baseline", "roml")


@pytest.fixture
def no_training(monkeypatch):
    """Notes the arguments of trainings instead of running them."""
    asked: list[list[str]] = []

    def note(env, command, argv):
        asked.append(argv)
        return 0

    monkeypatch.setattr(comparing, "train", note)
    return asked


# ------------------------------------------------------------------ what is asked for

WRONG = {
    "kazad-dum": ["kazad-dum", "did you mean khazad-dum", "khazad-dum-paper"],
    "khazad-dum extra": ["extra"],
    "--learners varibat": ["varibat", "did you mean varibad", "ppo"],
    "--learners maml": ["unknown learner 'maml'", "valid: varibad, ppo, rl2"],
    "--learners ppo ppo": ["--learners", "different"],
    "--learners ppo --methods rl2/roml": ["--learners", "each of --methods does"],
    "--learner ppo": ["--learner is no flag", "--learners", "ppo/roml"],
    "--methods maml/roml": ["unknown learner 'maml'", "valid: varibad, ppo, rl2"],
    "--methods /roml": ["unknown learner ''", "valid: varibad"],
    "--methods rl2/": ["unknown method ''", "valid: baseline"],
    "--methods varibad/roml roml": ["name roml twice"],
    "--methods roml ppo/roml --learners varibad ppo": ["name ppo/roml twice"],
    "--methods ppo/roml:nuu=0": ["ppo/roml:nuu=0", "--nuu", "did you mean --nu"],
    "--learners ppo --belief.latent-size 3": ["--belief.latent-size", "none of ppo/baseline"],
    "--methods roml ppo/roml:frames=7": ["method ppo/roml:frames=7", "4096"],
    "--methods": ["--methods", "none"],
    "--methods roml roml": ["--methods", "different"],
    "--methods rml": ["rml", "did you mean roml", "cvar-ml", "oracle"],
    "--methods roml:nu": ["roml:nu", "METHOD:flag=value", "naive"],
    "--methods roml: ": ["roml:", "METHOD:flag=value"],
    "--methods roml:nu=0,": ["METHOD:flag=value"],
    "--methods roml:out=a/b": ["METHOD:flag=value"],
    "--methods roml:nuu=0": ["roml:nuu=0", "--nuu", "did you mean --nu"],
    "--methods roml:nu=2": ["roml:nu=2", "[0, 1)"],
    "--methods roml:frames=7": ["roml:frames=7", "4096"],
    "--methods roml:seeds=7": ["roml:seeds=7", "seeds is a flag of the whole comparison"],
    "--methods roml roml:nu=0.2": ["roml and roml:nu=0.2", "same settings"],
    "--metods roml": ["--metods", "did you mean --methods"],
    "--colect": ["--colect", "did you mean --collect"],
    "--alpah 0.1": ["--alpah", "did you mean --alpha"],
    "--alpha 0": ["alpha", "(0, 1]"],
    "--frames 1.5": ["--frames", "whole"],
    "--method roml": ["--method", "--methods"],
    "--overwrite": ["--overwrite", "another --out"],
    "--name mine": ["--name"],
    "--seeds": ["--seeds", "none"],
    "--seeds 1 1": ["--seeds", "different"],
    "--at-once 0": ["--at-once", "at least 1"],
    "--checkpoint-minutes 0": ["--checkpoint-minutes", "positive"],
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments(arguments, tmp_path, capsys, no_training):
    words = [*arguments.split(), "--out", str(tmp_path / "out")]
    assert cli.run(compare.main, words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    for part in WRONG[arguments]:
        assert part in err
    assert not no_training and not (tmp_path / "out").exists()


def test_help_names_its_flags(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run(compare.main, ["--help"])
    assert not stop.value.code and "--at-once" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spec", "method", "words"),
    [
        ("roml", "roml", ""),
        ("rl2/roml:nu=0", "roml", "--nu 0"),
        ("roml:nu=0,soft_update=0", "roml", "--nu 0 --soft-update 0"),
        ("roml:strict=False", "roml", "--no-strict"),
        ("cvar-ml:policy.normalize_obs=False", "cvar-ml", "--policy.no-normalize-obs"),
        ("cvar-ml:policy.normalize-obs=True", "cvar-ml", "--policy.normalize-obs"),
        ("oracle:phi=0.2,batch=None", "oracle", "--phi 0.2 --batch None"),
    ],
)
def test_a_method_in_one_word(spec, method, words):
    assert schedule.parse_spec(spec) == (method, words.split())


@pytest.mark.parametrize(
    ("methods", "learners", "rows"),
    [
        ("baseline roml", "", "baseline roml"),
        ("baseline roml", "ppo", "ppo/baseline ppo/roml"),
        ("baseline roml", "rl2 varibad", "rl2/baseline rl2/roml baseline roml"),
        ("ppo/roml:nu=0 roml:nu=0", "", "roml:nu=0 ppo/roml:nu=0"),
        ("varibad/roml rl2/roml", "", "roml rl2/roml"),
        ("roml rl2/roml:nu=0", "ppo rl2", "ppo/roml rl2/roml rl2/roml:nu=0"),
    ],
)
def test_learners_by_methods(methods, learners, rows):
    found = schedule.row_words("khazad-dum", methods.split(), learners.split())
    assert list(found) == rows.split()


@pytest.mark.parametrize(
    ("word", "learner", "method"),
    [
        ("roml", None, "roml"),
        ("roml:nu=0,soft_update=0", None, "roml:nu=0,soft_update=0"),
        ("rl2/roml:nu=0", "rl2", "roml:nu=0"),
        ("rl2/roml@khazad-dum-wide", "rl2", "roml@khazad-dum-wide"),
        ("/roml", "", "roml"),
        ("roml:folder=a/b", None, "roml:folder=a/b"),
    ],
)
def test_a_row_in_one_word(word, learner, method):
    assert words_.split_row(word) == (learner, method)
    if learner:
        assert words_.join_row(learner, method, "varibad") == word
        assert words_.join_row(learner, method, learner) == method


# ------------------------------------------------------------------ what trains together


@pytest.mark.parametrize(
    ("steps", "most", "groups"),
    [
        (dict.fromkeys(range(4)), 9, [((0, 1, 2, 3), None)]),
        (dict.fromkeys(range(4)), 1, [((seed,), None) for seed in range(4)]),
        (dict.fromkeys(range(7)), 3, [((0, 1, 2), None), ((3, 4), None), ((5, 6), None)]),
        (dict.fromkeys(range(10)), 9, [((0, 1, 2, 3, 4), None), ((5, 6, 7, 8, 9), None)]),
        (
            {0: None, 1: 5, 2: 12, 3: 5, 4: None, 8: 0},
            2,
            [((2,), 12), ((1, 3), 5), ((8,), 0), ((0, 4), None)],
        ),
        ({}, 3, []),
    ],
)
def test_only_seeds_of_one_step_train_side_by_side(steps, most, groups):
    assert schedule.side_by_side(steps, most) == groups


def test_memory_limits_the_seeds():
    gib = 2**30
    need = 1.5 * gib + 1.3 * gib * 4
    assert schedule.seeds_at_once(gib, int(need) + 1, None) == 4
    assert schedule.seeds_at_once(gib, int(need) - 1, None) == 3
    assert schedule.seeds_at_once(gib, int(need) + 1, 2) == 2
    assert schedule.seeds_at_once(gib, int(need) + 1, 30) == 4
    assert schedule.seeds_at_once(gib, gib, None) == 1  # always one
    assert (
        schedule.seeds_at_once(gib, None, None) == 1 and schedule.seeds_at_once(gib, None, 6) == 6
    )


@pytest.mark.parametrize(
    ("seeds", "words"),
    [([4], "4"), ([0, 1], "0 1"), ([0, 1, 2], "0..2"), ([0, 2, 3, 4, 9, 10], "0 2..4 9 10")],
)
def test_seeds_as_words(seeds, words):
    assert words_.seed_words(seeds) == words.split()
    assert list(words_.parse_seeds(words.split())) == seeds


# ------------------------------------------------------------------ the plan


def plan_rows(text):
    return [re.split(" {2,}", line) for line in text.splitlines() if line.startswith("roml")]


def test_the_plan_leaves_out_what_is_finished(single, tmp_path, capsys, no_training):
    folder = tmp_path / "khazad-dum" / "roml-varibad"
    for seed in (1, 4):
        shutil.copytree(single, folder / f"seed-{seed}")
    (folder / "seed-4" / "test.csv").unlink()  # all trained, not yet tested
    arguments = ["khazad-dum", *TINY, "--methods", "roml", "roml:nu=0", "--seeds", "0..4"]
    arguments += ["--out", str(tmp_path), "--at-once", "2", "--plan"]
    assert cli.run(compare.main, arguments) == 0
    text = capsys.readouterr().out
    assert plan_rows(text) == [
        ["roml", "1", "finished", "0"],
        ["roml", "4", "step 17", "0"],
        ["roml", "0 2", "new", "1,360"],  # 2 seeds x 17 steps x 40 frames
        ["roml", "3", "new", "680"],
        ["roml:nu=0", "0 1", "new", "1,360"],
        ["roml:nu=0", "2 3", "new", "1,360"],
        ["roml:nu=0", "4", "new", "680"],
    ]
    commands = [line for line in text.splitlines() if line.startswith("python")]
    assert len(commands) == 6 and not no_training
    env, command = cli.parse_train(shlex.split(commands[3])[3:])
    assert (env, command.options.seeds, command.options.out) == (
        "khazad-dum",
        (0, 1),
        str(tmp_path),
    )
    assert command.options.name == "roml-varibad,nu=0"
    assert command.experiment.method.nu == 0 and command.experiment.frames == 700
    assert not (tmp_path / "results").exists()


def test_seeds_that_were_saved_one_by_one_go_on_side_by_side(
    several, tmp_path, capsys, no_training
):
    for seed in (1, 5):  # stopped when seed 1 had written step 12, and seed 5 not yet
        path = tmp_path / "khazad-dum" / "roml-varibad" / f"seed-{seed}"
        shutil.copytree(several / f"seed-{seed}", path)
        (path / "test.csv").unlink()
        folder = path / "checkpoint"
        shutil.copytree(folder / "17", folder / "6")
        (folder / "17").rename(folder / ("12" if seed == 1 else "3"))
    command = ["khazad-dum", *TINY, "--methods", "roml", *SEEDS, "--out", str(tmp_path)]
    assert cli.run(compare.main, [*command, "--plan"]) == 0
    rows = plan_rows(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [["roml", "1 5", "step 6"]]
    assert cli.run(compare.main, [*command, "--plan", "--seeds", "1"]) == 0  # seed 1 alone
    rows = plan_rows(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [["roml", "1", "step 12"]]


def test_a_finished_run_of_other_settings_is_refused(single, tmp_path, capsys, no_training):
    arguments = ["khazad-dum", *TINY, "--methods", "roml", "--out", str(single.parents[2])]
    assert cli.run(compare.main, [*arguments, "--seeds", "0..3", "--policy.clip", "0.3"]) == 2
    assert "policy.clip 0.1 there, 0.3 here" in capsys.readouterr().err
    assert not no_training


def test_the_command_that_is_shown_is_the_one_that_runs(tmp_path, capsys, no_training):
    arguments = ["--methods", "oracle", "naive", "--learners", "ppo", "--seeds", "3..5", "--frames"]
    arguments += ["1e5", "--tensorboard", "--checkpoint-minutes", "3", "--out", str(tmp_path)]
    assert cli.run(compare.main, arguments) == 2  # nothing is finished afterwards
    out, err = capsys.readouterr()
    assert "no run is finished" in err
    shown = [shlex.split(line)[3:] for line in out.splitlines() if line.startswith("python")]
    assert shown == no_training and len(shown) == 2
    env, command = cli.parse_train(shown[0])
    assert env == "khazad-dum" and command.experiment.method_name == "oracle"
    assert command.experiment.frames == 100_000 and command.options == cli.Options(
        (3, 4, 5), str(tmp_path), checkpoint_minutes=3.0, tensorboard=True
    )


def test_shared_flags_are_for_the_rows_that_have_them(tmp_path, capsys):
    arguments = ["khazad-dum", "--learners", "varibad", "ppo", "--methods", "baseline", "roml"]
    arguments += ["rl2/roml:nu=0", "--belief.latent-size", "3", "--batch", "64", "--plan"]
    assert cli.run(compare.main, [*arguments, "--seeds", "0", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("khazad-dum on varibad, ppo, rl2, memory")
    shown = [shlex.split(line)[3:] for line in out.splitlines() if line.startswith("python")]
    experiments = [cli.parse_train(words)[1].experiment for words in shown]
    names = [(one.learner_name, one.method_name) for one in experiments]
    product = [(learner, method) for learner in ("varibad", "ppo") for method in METHODS]
    assert names == [*product, ("rl2", "roml")]
    sizes = [one.learner.belief.latent_size for one in experiments[:2]]
    assert sizes == [3, 3] and experiments[4].method.nu == 0
    assert [one.method.batch for one in experiments if one.method_name == "roml"] == [64] * 3
    assert cli.parse_train(shown[4])[1].options.name == "roml-rl2,nu=0"


# ------------------------------------------------------------------ from end to end


def run_compare(out, *extra):
    """Exit code, standard output and standard error of a comparison of two methods."""
    told, complaints = io.StringIO(), io.StringIO()
    arguments = ["khazad-dum", *TINY, "--methods", "baseline", "roml", *SEEDS, *extra]
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complaints):
        code = cli.run(compare.main, [*arguments, "--out", str(out)])
    return code, told.getvalue(), complaints.getvalue()


@pytest.fixture(scope="module")
def compared(several, compilation, tmp_path_factory):
    """A comparison for which roml was finished before, and what it told."""
    out = tmp_path_factory.mktemp("compared")
    shutil.copytree(several, out / "khazad-dum" / "roml-varibad")
    with compilation(), jax.debug_key_reuse(False):  # see the fixture ``several``
        code, text, _ = run_compare(out)
    assert code == 0
    return out, text


def test_a_comparison_trains_what_is_missing(compared, several):
    out, text = compared
    assert plan_rows(text)[0] == ["roml", "1 5", "finished", "0"]
    assert text.count("compile ") == 1 and "baseline on varibad, 2 seeds side by side" in text
    for path in (out / "khazad-dum" / "baseline-varibad").iterdir():
        assert runs.status(path) == "finished"
    for name in ("config.json", "metrics.csv", "test.csv"):
        new, old = (root / "seed-5" / name for root in (out / "khazad-dum/roml-varibad", several))
        assert new.read_bytes() == old.read_bytes()
    assert {file.name for file in (out / "results" / "khazad-dum").iterdir()} == set(NAMES)


def test_its_tables_follow_from_the_tests(compared):
    out, text = compared
    folder = out / "results" / "khazad-dum"
    table = pd.read_csv(folder / "table.csv").set_index("method")
    assert list(table.index) == ["baseline", "roml", "still", "random"]
    assert list(table["seeds"]) == [2] * 4
    scores = {}
    for method in ("baseline", "roml"):
        tests = [
            pd.read_csv(out / "khazad-dum" / f"{method}-varibad" / f"seed-{seed}" / "test.csv")
            for seed in (1, 5)
        ]
        returns = np.array([test.groupby("task_index")["return"].mean() for test in tests])
        scores[method] = returns.mean(axis=1), returns.min(axis=1)  # 1 % of 12: the worst one
        for name, values in zip(("mean", "cvar"), scores[method], strict=True):
            *expected, words = over_seeds(values)
            found = table.loc[method, [name, *(f"{name}_{x}" for x in ("low", "high", "error"))]]
            np.testing.assert_allclose(found.to_numpy(float), expected, rtol=1e-4)
            assert table.loc[method, f"{name}_values"] == words  # of two seeds
    gain = scores["roml"][0] - scores["baseline"][0]
    assert table.loc["roml", "mean_gain"] == pytest.approx(gain.mean(), rel=1e-3, abs=1e-6)
    assert (folder / "table.md").read_text() in text
    results = compact.read(folder)
    assert list(results.runs["method"]) == ["baseline"] * 2 + ["roml"] * 2
    assert list(results.runs["seed"]) == [1, 5] * 2
    assert set(results.sampler["method"]) == {"roml"}
    assert set(results.episodes["seed"]) == {1}  # the first of each method
    assert list(results.validation["step"]) == [0, 6, 12, 17] * 4


def test_learners_share_one_folder_of_results(compared, tmp_path):
    out, _ = compared
    root = tmp_path / "khazad-dum"
    for method in METHODS:
        shutil.copytree(out / "khazad-dum" / f"{method}-varibad", root / f"{method}-varibad")
    words = ["khazad-dum", *TINY, "--methods", "baseline", "roml", "--seeds", "5"]
    words += ["--out", str(tmp_path), "--at-once", "1"]
    with jax.debug_key_reuse(False):
        assert cli.run(compare.main, [*words, "--learners", "varibad", "ppo"]) == 0
    results = compact.read(tmp_path / "results" / "khazad-dum")
    rows = results.runs[["method", "learner"]].to_numpy().tolist()
    assert rows == [
        ["baseline", "varibad"], ["roml", "varibad"], ["ppo/baseline", "ppo"], ["ppo/roml", "ppo"],
    ]  # fmt: skip
    table = pd.read_csv(tmp_path / "results" / "khazad-dum" / "table.csv").set_index("method")
    gain = table.loc["ppo/roml", "mean"] - table.loc["ppo/baseline", "mean"]
    assert table.loc["ppo/roml", "mean_gain"] == pytest.approx(gain, abs=1e-5)


@pytest.mark.parametrize("extra", [[], ["--collect"]])
def test_a_finished_comparison_only_repeats_its_tables(compared, extra, monkeypatch):
    out, _ = compared
    monkeypatch.setattr(train, "main", None)
    folder = out / "results" / "khazad-dum"
    before = {name: (folder / name).read_bytes() for name in NAMES}
    other = out / "elsewhere"
    assert run_compare(out, "--results", str(other), *extra)[0] == 0
    assert {name: (other / "khazad-dum" / name).read_bytes() for name in NAMES} == before


@pytest.mark.slow
def test_a_signal_ends_the_comparison(compared, tmp_path, monkeypatch):
    asked = []

    def stop(argv):
        asked.append(argv)
        return 143

    monkeypatch.setattr(train, "main", stop)
    code, text, _ = run_compare(tmp_path, "--at-once", "1")
    assert code == 143 and len(asked) == 1
    last = text.splitlines()[-1]
    assert (
        "go on with the comparison: python -m experiments.compare khazad-dum --frames 700" in last
    )
    assert not (tmp_path / "results").exists()

    def interrupt(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "main", interrupt)
    assert run_compare(tmp_path)[0] == 130


def test_a_failure_does_not_end_the_comparison(several, tmp_path, monkeypatch):
    shutil.copytree(several, tmp_path / "khazad-dum" / "roml-varibad")
    shutil.rmtree(tmp_path / "khazad-dum" / "roml-varibad" / "seed-5")
    asked = []

    def fail(env, command, argv):
        asked.append(argv[argv.index("--method") + 1])
        if len(asked) == 1:
            raise UserError("no such luck")
        return 1

    monkeypatch.setattr(comparing, "train", fail)
    code, text, complaints = run_compare(tmp_path, "--at-once", "1")
    assert code == 1 and asked == ["baseline", "baseline", "roml"]
    assert complaints.splitlines()[-3:] == [
        "failed: baseline, seeds 1: no such luck",
        "failed: baseline, seeds 5: exit code 1, as said when it ended",
        "failed: roml, seeds 5: exit code 1, as said when it ended",
    ]
    table = pd.read_csv(tmp_path / "results" / "khazad-dum" / "table.csv")
    assert list(table["method"]) == ["roml", "still", "random"] and set(table["seeds"]) == {1}
    assert "Not finished, and not in these tables: VariBAD, seeds 1 5." in text
    assert "Not finished, and not in these tables: RoML, seed 5." in text
