"""The paper's tables beside stored results: what is found, preferred, shown and left open."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments import cli, figures
from experiments.domains.paper import NAMES, TABLES
from experiments.study import results as compact
from experiments.study.intervals import over_seeds

MINUS = chr(0x2212)
VEL, MASS = "half-cheetah-vel", "half-cheetah-mass"
RUN = {"learner": "varibad", "alpha": 0.05, "frames": 29_996_800, "tested": "final", "changed": ""}


def store(folder, env, rows):
    """Results of rows with what is particular to them, and ``{seed: (mean, cvar)}`` of each."""
    runs, tests = [], []
    for method, (own, scores) in rows.items():
        for seed, (mean, cvar) in scores.items():
            head = {"method": method, "seed": seed}
            runs.append({"env": env, **RUN, **head, **own})
            whole = {"low": np.nan, "high": np.nan, "tasks": 1008}
            tests.append({**head, **whole, "mean": mean, "cvar": cvar})
            tests.append({**head, "low": 0, "high": 1, "tasks": 9, "mean": 7.0, "cvar": np.nan})
    empty = pd.DataFrame(columns=["method", "seed", "step", "frames", "mean", "cvar"])
    nothing = pd.DataFrame()
    found = compact.Results(pd.DataFrame(runs), pd.DataFrame(tests), empty, *[nothing] * 3)
    compact.write(folder / env, found)


@pytest.fixture
def root(tmp_path):
    """Four seeds of RoML, short runs elsewhere, and what no table of the paper has."""
    folder, one = tmp_path / "stored", {0: (-1.0, -2.0)}
    seeds = {seed: (1500.0 + seed, 1200.0 + seed**2) for seed in range(4)}
    store(folder, MASS, {"roml": ({}, seeds), "roml:nu=0": ({}, one), "cvar-ml": ({}, one)})
    short = {"frames": 998_400, "changed": "frames 30000000 → 998400, test_tasks 1008 → 304"}
    store(folder / "million", MASS, {"roml": (short, one), "baseline": (short, {3: (5, 4)})})
    word = "cvar-ml:policy.unselected=constant_advantage"
    changed = {"changed": "policy.unselected zero_advantage → constant_advantage"}
    rows = {"baseline": ({"alpha": 0.1}, one), word: (changed, one)}
    rows["dreamer/roml"] = ({"learner": "dreamer"}, one)
    rows["pearl/roml:frames=2e6"] = ({"learner": "pearl", "frames": 2_000_000}, one)
    rows["ppo/cesor"] = ({"learner": "ppo", "tested": "best-cvar"}, one)
    store(folder / "deep" / "er", VEL, rows)
    store(folder, "khazad-dum", {"roml": ({"alpha": 0.05}, one)})
    (folder / "bench").mkdir()
    (folder / "bench" / "runs.csv").write_text("body,seconds\nant,3\n")
    return folder


def run(name, root, out, *words):
    return cli.run(figures.main, [name, "--results", str(root), "--out", str(out), *words])


def cells(path):
    """The rows of both parts, by preset and name."""
    found, preset = {}, ""
    for line in path.read_text().splitlines():
        if line.startswith("| ") and not line.startswith(("| preset", "| ---")):
            preset_cell, name, *rest = (cell.strip() for cell in line.strip("|").split("|"))
            preset = preset_cell or preset
            found[preset, name] = [cell.replace(MINUS, "-") for cell in rest]
    return found


def test_cells_by_hand(root, tmp_path, capsys):
    assert run("table1", root, tmp_path) == 0
    out = capsys.readouterr().out
    assert out.startswith((tmp_path / "table1" / "table.md").read_text())
    found = cells(tmp_path / "table1" / "table.md")
    assert len(found) == 6 * 7 + 6 * 2
    mean, low, high, error, _ = over_seeds(np.array([1200.0, 1201, 1204, 1209]))
    own = f"{mean:.0f} ({low:.0f}, {high:.0f}) ± {error:.0f}"
    assert found[MASS, "RoML (VariBAD)"] == ["1259 ± 19", own, "4", "30 of 30", MASS]
    assert found[MASS, "VariBAD"] == ["1072 ± 16", "4", "1", "0.998 of 30", f"million/{MASS}"]
    assert found[MASS, "CVaR-ML"] == ["38 ± 6", "", "", "", ""]  # ours is Algorithm 1
    assert found[VEL, "CVaR-ML"] == ["-897 ± 23", "-2", "1", "30 of 30", f"deep/er/{VEL}"]
    assert found[VEL, "RoML (PEARL)"][1:4] == ["-2", "1", "2 of 2.7"]
    assert found[VEL, "VariBAD"] == ["-202 ± 6", "", "", "", ""]  # ours has another alpha
    assert found[VEL, "RoML (VariBAD)"][1] == ""  # nor is it of VariBAD
    assert found["ant-body", "RoML (VariBAD)"] == ["1368 ± 4", "", "", "", ""]


def test_the_mean_and_the_naive_sampler(root, tmp_path, capsys):
    one = {0: (1.0, 2.0)}
    store(root / "naive", "half-cheetah-10d-b", {"naive": ({"frames": 8e7}, one)})
    assert run("table2", root, tmp_path) == 0 and run("table3", root, tmp_path) == 0
    found = cells(tmp_path / "table2" / "table.md")
    assert found[MASS, "VariBAD"][:2] == ["1558 ± 32", "5"] and len(found) == 54
    found = cells(tmp_path / "table3" / "table.md")
    place = "naive/half-cheetah-10d-b"
    assert found["half-cheetah-10d-b", "Naive sampler"] == [
        "1340 ± 57",
        "2",
        "1",
        "80 of 80",
        place,
    ]
    assert len(found) == 4 * 3 and "draws from its whole pool" in capsys.readouterr().out


def test_notes_say_what_ours_are(root, tmp_path):
    assert run("table1", root, tmp_path) == 0
    text = (tmp_path / "table1" / "table.md").read_text()
    assert f"left out: {MASS} RoML (VariBAD) in million/{MASS} (0.998)." in text
    assert f"other settings, test_tasks 1008 → 304: {MASS} VariBAD." in text
    assert f"best validation CVaR: {VEL} CeSoR." in text
    assert "unselected zero" not in text and "frames 30000000" not in text
    assert "RoML (PEARL): pearl/roml" in text and "look like sums over two episodes" in text
    tex = (tmp_path / "table1" / "table.tex").read_text()
    assert tex.isascii() and r"1008 $\to$ 304" in tex and tex.count(r"\begin{tabular}") == 2


def test_csv_has_all_numbers(root, tmp_path):
    assert run("table1", root, tmp_path) == 0
    table = pd.read_csv(tmp_path / "table1" / "table.csv")
    published = table.set_index(["row", "preset"])[["published", "published_error"]]
    for row, values in TABLES["table1"].values.items():
        for preset, pair in values.items():
            assert tuple(published.loc[(row, preset)]) == pair
    known = table[table["seeds"] > 0].set_index(["preset", "row"])
    assert list(known["frames"]) == [29_996_800] * 2 + [2_000_000, 998_400, 29_996_800]
    assert known.loc[(MASS, "roml"), "ours"] == pytest.approx(1203.5)
    assert set(table["name"]) == set(NAMES.values()) - {"Naive sampler"}


@pytest.mark.parametrize(
    ("rows", "folder"),
    [
        ([({"frames": 2}, 1), ({"frames": 3}, 1)], "1"),
        ([({"frames": 3}, 1), ({"frames": 2}, 5)], "0"),
        ([({"changed": "policy.clip 0.1 → 0.3"}, 2), ({}, 1)], "1"),
        ([({}, 1), ({}, 2)], "1"),
        ([({}, 1), ({}, 1)], "0"),
    ],
)
def test_which_of_several_is_shown(rows, folder, tmp_path):
    for i, (own, seeds) in enumerate(rows):
        store(tmp_path / str(i), MASS, {"roml": (own, dict.fromkeys(range(seeds), (1.0, 1.0)))})
    assert run("table1", tmp_path, tmp_path / "out") == 0
    found = cells(tmp_path / "out" / "table1" / "table.md")
    assert found[MASS, "RoML (VariBAD)"][-1] == f"{folder}/{MASS}"


def test_without_results_all_is_open(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run("table3", tmp_path / "empty", tmp_path) == 0
    assert "No results of these presets are stored below" in capsys.readouterr().out
    found = cells(tmp_path / "table3" / "table.md")
    assert {tuple(row[1:]) for row in found.values()} == {("", "", "", "")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["table1", "--methods", "roml"], "--methods is for figures; table1 takes --results and"),
        (["table1", "--format", "png"], "--format is for figures"),
        (["table1", "--beside", "ant-body"], "--beside is for figures"),
        (["table4"], "unknown environment or table 'table4', did you mean table"),
        (["table2", "--results", "nowhere"], "--results nowhere is no folder"),
    ],
)
def test_errors_are_one_line(words, told, tmp_path, capsys):
    assert cli.run(figures.main, [*words, "--out", str(tmp_path / "out")]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and told in error
    assert not (tmp_path / "out").exists()


def test_results_that_are_not_whole_are_named(root, tmp_path, capsys):
    (root / "million" / MASS / "tests.csv").unlink()
    assert run("table1", root, tmp_path / "out") == 2
    assert f"million/{MASS}/tests.csv is missing" in capsys.readouterr().err
