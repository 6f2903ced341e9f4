"""The paper's tables beside stored results, from compact results alone.

``find`` reads all folders of results, ``summarize`` sets what it has found beside the published
numbers, as one table of raw numbers; the rest words it.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from experiments.domains.paper import ALPHA, NAMES, NOTES, SEEDS, PaperTable
from experiments.presets import PRESETS
from experiments.spec.errors import UserError
from experiments.spec.words import join_row, split_row
from experiments.study import results
from experiments.study.intervals import Interval, over_seeds
from experiments.study.sheets import FEW_SHOWN, SHOWN, Sheet, cells_of, digits_of, write_sheets
from experiments.study.tables import columns, scores_of
from experiments.training.report import agent_words
from roml_jax.methods import METHODS

_NOTHING = Interval(np.nan, np.nan, np.nan, np.nan)
_FRAMES = "frames"  # the setting that rows of one cell may differ in


class Stored(NamedTuple):
    """The runs of a row in one folder of results, those of the most frames there."""

    preset: str
    row: str  # [LEARNER/]METHOD[:flag=value,…], without a number of frames
    folder: Path
    frames: int
    tested: str
    changes: tuple[str, ...]  # of the preset's settings, but for the row's own and the frames
    scores: pd.DataFrame  # mean and cvar by seed

    @property
    def rank(self) -> tuple[int, bool, int]:
        """What is preferred to it is greater: frames, then the preset's settings, then seeds."""
        return self.frames, not self.changes, len(self.scores)


def write(table: PaperTable, root: Path, out: Path) -> str:
    """Writes ``table.md``, ``table.csv`` and ``table.tex`` of a table of the paper.

    Args:
      table: of the paper.
      root: folder of stored results, at any depth below it.
      out: folder of the files.

    Returns:
      The text of ``table.md``.

    Raises:
      UserError: the folder is none, or results in it are not whole.
    """
    stored = [one for one in find(root, table) if one.preset in table.values.get(one.row, {})]
    summary = summarize(table, stored, root)
    out.mkdir(parents=True, exist_ok=True)
    return write_sheets(out, word(table, summary, stored, root), {"table.csv": summary})


def find(root: Path, table: PaperTable) -> list[Stored]:
    """All stored results of the presets of a table, by folder.

    Raises:
      UserError: the folder is none, or results in it are not whole.
    """
    if not root.is_dir():
        raise UserError(f"--results {root} is no folder")
    presets = {preset for block in table.blocks.values() for preset in block}
    folders = [file.parent for file in sorted(root.rglob("runs.csv"))]
    return [one for folder in folders if _env(folder) in presets for one in _read(folder)]


def _env(folder: Path) -> str | None:
    """The environment of results, by the first of their runs."""
    with (folder / "runs.csv").open(encoding="utf-8", newline="") as file:
        return next(csv.DictReader(file), {}).get("env")


def _read(folder: Path) -> list[Stored]:
    """The rows of a folder that aim at the level of the paper's tables."""
    found = results.read(folder)
    runs = found.runs.assign(tested=found.runs.get("tested", "final"))
    stored = []
    for method, own in runs[np.isclose(runs["alpha"], ALPHA)].groupby("method", sort=False):
        most = own[own[_FRAMES] == own[_FRAMES].max()]
        first = most.iloc[0]
        scores = scores_of(found, str(method))
        row, flags = _without_frames(str(method))
        told = dict.fromkeys(change for text in most["changed"] for change in text.split(", "))
        changes = (change for change in told if change and change.split()[0] not in flags)
        stored.append(
            Stored(
                first["env"],
                join_row(first["learner"], row, PRESETS[first["env"]].default_learner),
                folder,
                int(first[_FRAMES]),
                first["tested"],
                tuple(changes),
                scores[scores.index.isin(most["seed"])],
            )
        )
    return stored


def _without_frames(word: str) -> tuple[str, set[str]]:
    """METHOD[:flag=value,…] of a row but for its frames, and all settings that the row names."""
    method, _, changes = split_row(word)[1].partition(":")
    named = {change: change.split("=")[0].replace("-", "_") for change in changes.split(",")}
    kept = [change for change, name in named.items() if change and name != _FRAMES]
    return ":".join([method, *filter(None, [",".join(kept)])]), {_FRAMES, *named.values()}


# ------------------------------------------------------------------ numbers


def _chosen(stored: list[Stored]) -> dict[tuple[str, str], Stored]:
    """By preset and row, the one that is preferred to all others; of equals the first."""
    best: dict[tuple[str, str], Stored] = {}
    for one in stored:
        place = one.preset, one.row
        if place not in best or one.rank > best[place].rank:
            best[place] = one
    return best


def summarize(table: PaperTable, stored: list[Stored], root: Path) -> pd.DataFrame:
    """A row per cell of a table of the paper, in raw numbers.

    Args:
      table: of the paper.
      stored: what ``find`` has found.
      root: folder that ``folder`` is told from.

    Returns:
      Columns ``block``, ``preset``, ``row``, ``name``, then the published ``published`` and
      ``ours``, each with its interval as in ``tables.summarize``, ``seeds``, ``frames``,
      ``tested``, ``changed`` and ``folder`` of ours, and ``preset_frames``: ours are empty, with
      0 seeds, where nothing is stored.
    """
    best = _chosen(stored)
    rows = []
    for block, presets in table.blocks.items():
        for preset, row in itertools.product(presets, table.values):
            if preset in table.values[row]:
                mean, error = table.values[row][preset]
                own = {"block": block, "preset": preset, "row": row, "name": NAMES[row]}
                theirs = _columns("published", Interval(mean, np.nan, np.nan, error))
                ours = _ours(best.get((preset, row)), table.quantity, root)
                frames = {"preset_frames": _preset_frames(preset, row)}
                rows.append(own | theirs | ours | frames)
    return pd.DataFrame(rows)


def _preset_frames(preset: str, row: str) -> float:
    """The frames that a row's training asks for; NaN for one of a name that is not there."""
    learner, method = split_row(row)
    name, known = method.partition(":")[0], PRESETS[preset]
    if name not in METHODS or learner not in (None, *known.learner_names()):
        return np.nan
    return known.choose(learner, name).frames


def _ours(one: Stored | None, quantity: str, root: Path) -> dict[str, Any]:
    """The columns of a cell that are of stored results."""
    if one is None:
        empty = {"seeds": 0, "frames": np.nan, "tested": "", "changed": "", "folder": ""}
        return _columns("ours", _NOTHING) | empty
    scores = one.scores[quantity].dropna().to_numpy()
    return _columns("ours", over_seeds(scores)) | {
        "seeds": len(scores),
        "frames": one.frames,
        "tested": one.tested,
        "changed": ", ".join(one.changes),
        "folder": one.folder.relative_to(root).as_posix(),
    }


def _columns(quantity: str, interval: Interval) -> dict[str, Any]:
    return dict(zip(columns(quantity), interval, strict=True))


# ------------------------------------------------------------------ words


def word(table: PaperTable, summary: pd.DataFrame, stored: list[Stored], root: Path) -> list[Sheet]:
    """The numbers as a table for people, in the parts that the paper has."""
    sheets = []
    head = ["preset", "method", "published", "ours", "seeds", "million frames", "results"]
    digits = digits_of(summary["published"])
    for block, part in summary.groupby("block", sort=False):
        presets = part["preset"].mask(part["preset"].duplicated(), "")
        seeds = part["seeds"].map(lambda count: str(count) if count else "")
        numbers = [cells_of(part, name, digits) for name in ("published", "ours")]
        frames = part[[_FRAMES, "preset_frames"]].apply(_share, axis=1)
        cells = zip(presets, part["name"], *numbers, seeds, frames, part["folder"], strict=True)
        sheets.append(Sheet(f"{table.title}: {block}", head, [list(row) for row in cells], []))
    notes = [
        f"Published: mean over {SEEDS} seeds ± standard error.",
        f"Ours: {SHOWN[0].lower()}{SHOWN[1:]}; {FEW_SHOWN}; the frames that they were trained for, "
        "of those that the preset asks for. A run of fewer frames is not the published experiment; "
        "what is left open was not run.",
        *_row_notes(summary),
        *_cell_notes(summary),
        *_left_out(stored, root),
    ]
    return [*sheets[:-1], sheets[-1]._replace(notes=notes)]


def _share(frames: pd.Series) -> str:
    """``1 of 60``, in millions."""
    own, all_of_it = frames / 1e6
    return f"{own:.3g} of {all_of_it:.3g}" if np.isfinite(own) else ""


def _row_notes(summary: pd.DataFrame) -> list[str]:
    """What the rows are called here, and what the published ones are of."""
    names = dict(zip(summary["row"], summary["name"], strict=True))
    told: dict[str, list[str]] = {}
    for row, name in names.items():
        if row in NOTES:
            told.setdefault(NOTES[row], []).append(name)
    called = "; ".join(f"{name}: {row}" for row, name in names.items())
    return [
        f"Rows as experiments.compare has them: {called}.",
        *(f"{' and '.join(rows)}, published: {note}." for note, rows in told.items()),
    ]


def _cell_notes(summary: pd.DataFrame) -> list[str]:
    """What ours differ in from the preset, beside the frames."""
    told: dict[str, list[str]] = {}
    for cell in summary[summary["seeds"] > 0].to_dict("records"):
        place = f"{cell['preset']} {cell['name']}"
        if cell["changed"]:
            told.setdefault(f"Ours, other settings, {cell['changed']}", []).append(place)
        if cell["tested"] != "final":
            told.setdefault(f"Ours, {agent_words(cell['tested'])}", []).append(place)
    return [f"{note}: {', '.join(places)}." for note, places in told.items()]


def _left_out(stored: list[Stored], root: Path) -> list[str]:
    """Which stored results give way to others of the same cell."""
    if not stored:
        return [f"No results of these presets are stored below {root}."]
    best = _chosen(stored)
    others = [one for one in stored if best[one.preset, one.row] is not one]
    told = ", ".join(
        f"{one.preset} {NAMES[one.row]} in {one.folder.relative_to(root)} ({one.frames / 1e6:.3g})"
        for one in others
    )
    rule = "Of several results of a cell, that of the most million frames is shown"
    return [f"{rule}; left out: {told}."] if others else []
