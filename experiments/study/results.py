"""Compact results: what tables and figures need of many runs, as six small CSV files.

``collect`` reads run directories, ``write`` and ``read`` a folder of results. A method is a
word in all of them: its name, or a variant with flags of ``experiments.train``, as in
``roml:nu=0,soft_update=0``. Tests are of two agents more, which have learned nothing.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax.numpy as jnp
import numpy as np
import pandas as pd

from experiments.presets import PRESETS
from experiments.spec import program
from experiments.spec.build import Built, build
from experiments.spec.errors import UserError, warn
from experiments.spec.experiment import Experiment, at_alpha, settings
from experiments.spec.paradigms import make_play
from experiments.spec.view import View
from experiments.spec.words import flag_words, seed_words
from experiments.study import references
from experiments.study.references import REFERENCES
from experiments.training import agents, checkpoints, report, runs
from experiments.training.report import label
from experiments.training.runs import Run
from roml_jax.risk import cvar, cvar_two_sample
from roml_jax.types import Agent

_WORDS = (
    *("env", "method", "learner", "tested", "command", "commit", "device", "jax", "changed"),
    "outcome",
)
_ESTIMATES = ["sample_mean", "reference_mean", "reference_cvar"]
FINAL_AGENTS = "final agents"  # what tested_words says of them
TEST_COLUMNS = ["method", "seed", "low", "high", "tasks", "mean", "cvar"]
_VALIDATION = ["method", "seed", "step", "frames", "mean", "cvar"]
_EPISODES = ["method", "seed", "task_0", "task_index", "episode", "step", "x", "y", "outcome"]
_RISK = ["method", "seed", "steps", "alpha", "cvar"]
HALVES = "cvar_by_halves"  # in ``risk``, if a test played its tasks several times
_LEFT_OUT = {"risk": _RISK, "episodes": _EPISODES, "sampler": ["method", "seed"]}  # of some results
_LEVELS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)  # of the CVaR of a test
_AFTER = "return_after_"  # the columns of a test after a number of inner steps
_REPEATS = 12  # sample episodes of the same first component of the task
_WINDOWS = 5, 200  # of the sampler's course, between two validations and in all, about


class Results(NamedTuple):
    """Six tables, each with the columns ``method`` and ``seed``.

    Attributes:
      runs: a row per run: its settings, its cost, and what made it.
      tests: a row per run over all test tasks (``low``, ``high`` empty), and one per range of
        tasks ``low <= task_0 < high``; ``tasks``, ``mean``, ``cvar`` (over all tasks only),
        then the share of each outcome. A range without tasks has neither mean nor shares.
        As methods ``still`` and ``random``, the agents of ``references`` have rows here and
        in ``risk``.
      validation: a row per validation: ``step``, ``frames``, ``mean``, ``cvar``.
      sampler: a row per window of training steps of the methods whose ``phi`` moves: the last
        ``step``, ``frames`` and ``phi_…``, and the means of the sampler's estimates.
      episodes: a row per step of the sample episodes of each method's first seed: where the
        agent stood, and how the episode ended.
      risk: a row per run and level ``alpha``: the CVaR of the test at this level, the mean at
        level 1, of the return that counts (``steps`` empty) and, at level 1 and at that of
        the run, of the return after 0, 1, … inner ``steps``. Older results have none. Where
        tests played their tasks several times, ``cvar_by_halves`` is that of
        ``risk.cvar_two_sample``.
    """

    runs: pd.DataFrame
    tests: pd.DataFrame
    validation: pd.DataFrame
    sampler: pd.DataFrame
    episodes: pd.DataFrame
    risk: pd.DataFrame


def tested_words(table: pd.DataFrame) -> str:
    """Which agents were tested: ``"final agents"``, or those of the best validations.

    Args:
      table: rows of ``Results.runs``; all are of final agents where these do not say it.
    """
    if "tested" not in table or set(table["tested"]) == {"final"}:
        return FINAL_AGENTS
    words = {"final": "last step", "best-mean": "mean", "best-cvar": "CVaR"}
    kinds: dict[str, list[str]] = {}
    for row in table.drop_duplicates("method").to_dict("records"):
        name = label(row["method"], row["learner"], row["env"])
        kinds.setdefault(words[row["tested"]], []).append(name)
    if len(kinds) == 1:
        return f"agents of the best validation {next(iter(kinds))}{_steps(table)}"
    told = "; ".join(f"{', '.join(names)}: {kind}" for kind, names in kinds.items())
    return f"agents of the best validation ({told}){_steps(table)}"


def _steps(table: pd.DataFrame) -> str:
    """Which training steps the tested agents are of, where that is known."""
    known = table["tested_step"].dropna() if "tested_step" in table else pd.Series(dtype=float)
    if known.empty:
        return ""
    low, high = int(known.min()), int(known.max())
    return f", of step {low:,}" if low == high else f", of steps {low:,} to {high:,}"


def read(folder: Path) -> Results:
    """Reads results that ``write`` has written.

    Raises:
      UserError: a file is missing that all results have.
    """
    tables = []
    for name in Results._fields:
        file = folder / f"{name}.csv"
        if not file.is_file() and name in _LEFT_OUT:
            tables.append(pd.DataFrame(columns=_LEFT_OUT[name]))
            continue
        if not file.is_file():
            raise UserError(
                f"{file} is missing: it is made by {program.command('compare', [folder.name])}"
            )
        table = pd.read_csv(file, dtype=dict.fromkeys(_WORDS, str))
        table = table.rename(
            columns=lambda name: name.replace("phi_phi_", "phi_")
        )  # of older results
        words = [column for column in table if column in _WORDS]
        tables.append(table.fillna(dict.fromkeys(words, "")))
    return Results(*tables)


def write(folder: Path, results: Results) -> None:
    """Writes six files, each of them whole or not at all; no file for a table that may miss."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in results._asdict().items():
        if name in _LEFT_OUT and table.empty and not (folder / f"{name}.csv").is_file():
            continue
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        runs.write_whole(folder / f"{name}.csv", text)


def beside(results: Results, other: Results, env: str) -> Results:
    """Results with those of another environment, whose methods become METHOD@ENV."""
    others = (more[~more["method"].isin(REFERENCES)] for more in other)
    pairs = zip(results, others, strict=True)
    return Results(
        *(pd.concat([own, more.assign(method=more["method"] + f"@{env}")]) for own, more in pairs)
    )


def collect(members: list[tuple[str, Path]]) -> Results:
    """Reads finished runs of one environment.

    Args:
      members: method and run directory of each, in the order of the tables. The first run of
        a method plays the sample episodes, if the checkpoint of its last step is there.

    Raises:
      UserError: there is none, or a directory is not that of a run of this version.
    """
    if not members:
        raise UserError("no run is finished yet: there are no results to collect")
    parts: dict[str, list[Any]] = {name: [] for name in Results._fields}
    played = set[str]()
    all_runs = [runs.read_config(path) for _, path in members]
    for run, (spec, path) in zip(all_runs, members, strict=True):
        built, view = build(run.experiment), PRESETS[run.env].view_of(run.experiment.env)
        metrics, test = pd.read_csv(path / runs.METRICS), pd.read_csv(path / runs.TEST)
        own: dict[str, Any] = {"method": spec, "seed": run.seed}
        parts["runs"].append(_run_row(spec, run, built, path, metrics))
        parts["tests"] += [own | row for row in _test_rows(test, run, view)]
        parts["risk"] += [own | row for row in _risk_rows(test, run)]
        parts["validation"].append(_validation(metrics).assign(**own))
        parts["sampler"].append(_sampler(metrics, built).assign(**own))
        if view is not None and spec not in played:
            parts["episodes"] += [
                table.assign(**own) for table in _episodes(run, built, path, view)
            ]
        played.add(spec)
    seeds = [run.evaluation_seed for run in all_runs]
    kept = members[0][1].parents[1] / "references"
    first = all_runs[0]
    for name, rows in _reference_rows(first.env, first.experiment, seeds, kept).items():
        parts[name] += rows
    return Results(
        pd.DataFrame(parts["runs"]),
        _fill_shares(pd.DataFrame(parts["tests"])),
        _joined(parts["validation"], _VALIDATION),
        _moving(_joined(parts["sampler"], ["method", "seed", "step", "frames"])),
        _joined(parts["episodes"], _EPISODES),
        pd.DataFrame(parts["risk"], columns=_risk_columns(parts["risk"])),
    )


def _risk_columns(rows: list[dict[str, Any]]) -> list[str]:
    return _RISK + [HALVES] * any(HALVES in row for row in rows)


def with_references(results: Results, env: str) -> Results:
    """The same results, with what is reached without learning in the preset's environment.

    Args:
      results: of one environment, on the test tasks of the runs' own seeds.
      env: name of its preset.
    """
    whole = results.tests[results.tests["low"].isna()]
    experiment = dataclasses.replace(
        PRESETS[env].experiment, test_tasks=int(whole["tasks"].iloc[0])
    )
    found = _reference_rows(env, experiment, results.runs["seed"].unique().tolist())
    tables = {}
    for name, rows in found.items() if len(results.risk) else [("tests", found["tests"])]:
        table = getattr(results, name)
        others = table[~table["method"].isin(REFERENCES)]
        tables[name] = pd.concat([others, pd.DataFrame(rows, columns=table.columns)])
    tables["tests"] = _fill_shares(tables["tests"])
    return results._replace(**tables)


def _reference_rows(
    env: str, experiment: Experiment, seeds: list[int], kept: Path | None = None
) -> dict[str, list[dict[str, Any]]]:
    """The rows of both references in ``tests`` and ``risk``."""
    run, view = Run(env, experiment, 0), PRESETS[env].view_of(experiment.env)
    rows: dict[str, list[dict[str, Any]]] = {"tests": [], "risk": []}
    for name, seed, test in references.play(env, experiment, seeds, kept):
        own = {"method": name, "seed": seed}
        rows["tests"] += [own | row for row in _test_rows(test, run, view)]
        rows["risk"] += [own | row for row in _risk_rows(test, run)]
    return rows


# ------------------------------------------------------------------ one run


def command(run: Run, seeds: Sequence[int], alphas: Sequence[float] = ()) -> str:
    """The command that trains a run in the default folder, beside the same runs.

    Args:
      run: the run.
      seeds: of these runs.
      alphas: of these runs, if they sweep it.
    """
    seeds, alphas = list(dict.fromkeys(seeds)), list(dict.fromkeys(alphas))
    if alphas:  # what a sweep has put into the name and the settings
        usual_alpha = PRESETS[run.env].experiment.alpha
        name = (run.name or "").rpartition(",alpha=")[0]
        run = run._replace(
            name=None if name == run.folder else name,
            experiment=at_alpha(run.experiment, usual_alpha),
        )
    learner, method = run.experiment.learner_name, run.experiment.method_name
    words = [run.env]
    preset = PRESETS[run.env]
    words += ["--learner", learner] if learner != preset.default_learner else []
    words += ["--method", method] + (["--name", run.name] if run.name else [])
    usual = settings(preset.choose(learner, method))
    for name, value in settings(run.experiment).items():
        if value != usual[name] and name != "method":
            words += flag_words(name, value)
    words += ["--alphas", *(f"{alpha:g}" for alpha in alphas)] if alphas else []
    return program.command("train", [*words, "--seeds", *seed_words(seeds)])


def _run_row(
    spec: str, run: Run, built: Built, path: Path, metrics: pd.DataFrame
) -> dict[str, Any]:
    made = json.loads((path / runs.CONFIG).read_text(encoding="utf-8"))
    return {
        "env": run.env,
        "method": spec,
        "learner": run.experiment.learner_name,
        "seed": run.seed,
        "alpha": run.experiment.alpha,
        "frames": built.total_steps * built.learner.frames_per_step,
        "steps": built.total_steps,
        "tasks_per_step": built.learner.num_tasks,
        "tested": run.experiment.tested_agent(),
        "tested_step": made.get("tested_step", np.nan),
        "seconds": float(metrics["seconds"].iloc[-1]),
        "command": command(run, made.get("side_by_side", [run.seed]), made.get("alphas", [])),
        "commit": made.get("commit", ""),
        "device": made.get("device", ""),
        "jax": made.get("versions", {}).get("jax", ""),
        "changed": report.changes(run.experiment, run.env),
    }


def _test_rows(table: pd.DataFrame, run: Run, view: View | None) -> list[dict[str, Any]]:
    """The test over all tasks, then over each range of them."""
    score = agents.score(table, run.experiment.alpha, view, {})
    component = agents.task_columns(table)[0]
    first = table.groupby("task_index")[component].first().to_numpy()
    returns = agents.task_returns(table).astype(float)
    rows = [_row(np.nan, np.nan, returns, score.cvar, score.shares)]
    rows[0]["mean"] = score.mean
    if view is None:
        return rows
    for low, high in itertools.pairwise(view.ranges):
        part = table[(table[component] >= low) & (table[component] < high)]
        shares = agents.outcome_shares(part, view)
        rows.append(_row(low, high, returns[(first >= low) & (first < high)], np.nan, shares))
    return rows


def _row(
    low: float, high: float, returns: np.ndarray, cvar: float, shares: dict[Any, float]
) -> dict[str, Any]:
    mean = float(returns.mean()) if returns.size else np.nan
    row = {"low": low, "high": high, "tasks": returns.size, "mean": mean, "cvar": cvar}
    return row | {str(name): float(share) for name, share in shares.items()}


def _risk_rows(table: pd.DataFrame, run: Run) -> list[dict[str, Any]]:
    """The CVaR at several levels, and in the course of the adaptation."""
    own = run.experiment.alpha
    after = [name for name in map(str, table) if name.startswith(_AFTER)]
    by_task = table.groupby("task_index")[after].mean()  # of all plays
    courses = {int(name.removeprefix(_AFTER)): by_task[name].to_numpy(np.float32) for name in after}
    wanted: list[tuple[float, np.ndarray, set[float]]] = [
        (np.nan, agents.task_returns(table), {*_LEVELS, own})
    ]
    wanted += [(steps, courses[steps], {own, 1.0}) for steps in sorted(courses)]
    rows = [
        {"steps": steps, "alpha": level, "cvar": float(cvar(jnp.asarray(returns), level))}
        for steps, returns, levels in wanted
        for level in sorted(levels)
    ]
    if (plays := agents.by_play(table)) is not None:
        for row in rows:
            if np.isnan(row["steps"]):  # of the return that counts
                row[HALVES] = float(cvar_two_sample(jnp.asarray(plays), row["alpha"]))
    return rows


def _fill_shares(tests: pd.DataFrame) -> pd.DataFrame:
    """Outcomes in order of their names; 0 where there were tasks but no such episode."""
    outcomes = sorted(str(name) for name in tests if name not in TEST_COLUMNS)
    tests = tests[[*TEST_COLUMNS, *outcomes]]
    filled = tests[outcomes].fillna(0.0).where(tests["tasks"] > 0)
    return tests.assign(**{name: filled[name] for name in outcomes})


def _validation(metrics: pd.DataFrame) -> pd.DataFrame:
    seen = metrics.dropna(subset=["validation_mean"])
    names = {"validation_mean": "mean", "validation_cvar": "cvar"}
    return seen.rename(columns=names)[["step", "frames", "mean", "cvar"]]


def _sampler(metrics: pd.DataFrame, built: Built) -> pd.DataFrame:
    """The sampler's course by windows of training steps; the last one may be shorter."""
    between, in_all = _WINDOWS
    most = max(built.total_steps // in_all, 10)  # steps: a long training has many windows
    window = max(1, min(built.experiment.validation_every // between, most))
    steps = metrics[metrics["step"] > 0]
    last = ["step", "frames", *built.metric_names()["phi"]]
    how = dict.fromkeys(last, "last") | dict.fromkeys(_ESTIMATES, "mean")
    windows = steps.groupby((steps["step"] - 1) // window)
    return windows[[*last, *_ESTIMATES]].agg(how).reset_index(drop=True)


def _joined(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """One table of many: the columns given come first."""
    if not parts:
        return pd.DataFrame(columns=columns)
    table = pd.concat(parts)
    return table[[*columns, *(name for name in table.columns if name not in columns)]]


def _moving(sampler: pd.DataFrame) -> pd.DataFrame:
    """Only the methods whose ``phi`` does not stay where it was."""
    phis = [column for column in sampler.columns if str(column).startswith("phi_")]
    spread = sampler.groupby("method")[phis].nunique().max(axis=1)
    return sampler[sampler["method"].isin(spread[spread > 1].index)]


def _episodes(run: Run, built: Built, path: Path, view: View) -> list[pd.DataFrame]:
    """First and last episodes of the final agent on some of the view's tasks, one by one."""
    if view.trace is None or view.outcome is None:
        return []
    if checkpoints.newest_step(path) != built.total_steps:
        warn(f"{path} has no checkpoint of its last step: no sample episodes of {run.label()}")
        return []
    (params, _), _ = agents.load_agent(path, built)
    obs, info = make_play(built.env, cast(Agent, built.agent), view)(params, run.evaluation_seed)
    places, ends = view.trace(obs).astype(float), view.columns(info)[view.outcome]
    first = view.tasks[:, 0]
    chosen = [i for i, value in enumerate(first) if (first[:i] == value).sum() < _REPEATS]
    return [
        pd.DataFrame(
            {
                "task_0": first[i],
                "task_index": i,
                "episode": k,
                "step": range(places.shape[1]),
                "x": places[k, :, i, 0].round(2),
                "y": places[k, :, i, 1].round(2),
                "outcome": ends[k, i],
            }
        )
        for i in chosen
        for k in sorted({0, len(places) - 1})
    ]
