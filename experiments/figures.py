"""Draws the figures that compare methods on an environment, from compact results alone.

``python -m experiments.figures khazad-dum`` reads ``experiments/results/khazad-dum`` and
writes ``figures/khazad-dum``: learning curves, sample episodes, tests, the task sampler,
outcomes and ranges of tasks, losses in the course of adaptation and what alpha buys, each with
its caption in ``captions.md``, and the tables. Nothing is trained.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection

from envs.khazad_dum import AT_GOAL, FALLEN, UNDER_WAY, KhazadDum
from experiments import cli, style
from experiments.domains.khazad_dum import draw
from experiments.presets import PRESETS
from experiments.spec.experiment import UserError
from experiments.spec.paradigms import paradigm_of
from experiments.study import adaptation, results, tables
from experiments.study.comparison import FIGURES as COMPARISON
from experiments.study.figure_parts import (
    Comparison,
    Map,
    Method,
    NotConcernedError,
    NothingToDrawError,
)
from experiments.training import runs

CAPTIONS = "captions.md"


@dataclasses.dataclass(frozen=True)
class Options:
    """What to draw, and where to.

    Attributes:
      env: the environment.
      results: folder of compact results, with a folder for each environment.
      out: folder of figures, likewise.
      methods: those to draw, all if none is named; they keep their order and their colours.
      beside: other presets of the same environment, whose methods METHOD@ENV join these.
      format: png, pdf or both.
    """

    env: Annotated[str, tyro.conf.Positional]
    results: Path = Path("experiments/results")
    out: Path = Path("figures")
    methods: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    format: tuple[str, ...] = style.FORMATS


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
      argv: command-line arguments.

    Returns:
      The exit code, 0.

    Raises:
      UserError: there are no results, or an option is not valid.
    """
    options = _parse(argv)
    cli.one_of("environment", options.env, PRESETS)
    same = [name for name in PRESETS if PRESETS[name].view is PRESETS[options.env].view]
    for other in options.beside:
        cli.one_of("preset", other, [name for name in same if name != options.env])
    formats = [cli.one_of("format", kind, style.FORMATS) for kind in options.format]
    if not formats:
        raise UserError(f"--format needs one or more of {', '.join(style.FORMATS)}")
    found = results.read(_folder(options, options.env))
    for other in options.beside:
        found = results.beside(found, results.read(_folder(options, other)), other)
    comparison = _compare(options, found)
    out = options.out / "+".join([options.env, *options.beside])
    out.mkdir(parents=True, exist_ok=True)
    captions = []
    for name, draw_one in (COMPARISON | adaptation.FIGURES).items():
        try:
            figure, caption = draw_one(found, comparison)
        except NotConcernedError:
            continue
        except NothingToDrawError as reason:
            print(f"{name}: left out, {reason}")
            continue
        for kind in dict.fromkeys(formats):
            style.save(figure, out / f"{name}.{kind}")
            print(out / f"{name}.{kind}")
        captions.append(f"**{name}.** {caption}\n")
    runs.write_whole(out / CAPTIONS, "\n".join(captions))
    print(out / CAPTIONS)
    shown = [method.spec for method in comparison.methods]
    tables.write(out, results.Results(*(t[t["method"].isin(shown)] for t in found)), {})
    print(out / "table.md")
    return 0


def _parse(argv: Sequence[str]) -> Options:
    if not any(word in ("-h", "--help") for word in argv) and (not argv or argv[0][:1] == "-"):
        raise UserError(
            "say which environment first: python -m experiments.figures ENV "
            f"(ENV: {', '.join(PRESETS)})"
        )
    default = Options(env=tyro.MISSING)
    return cli.parse(
        Options, default, argv, prog="python -m experiments.figures", description=__doc__ or ""
    )


def _folder(options: Options, env: str) -> Path:
    """The folder of an environment's results.

    Raises:
      UserError: there is none; names those that are there.
    """
    folder = options.results / env
    if folder.is_dir():
        return folder
    there = [name for name in PRESETS if (options.results / name).is_dir()]
    raise UserError(
        f"{folder} is no folder: it is made by python -m experiments.compare {env}; "
        f"{options.results} has results of: {', '.join(there) or 'nothing'}"
    )


def _compare(options: Options, found: results.Results) -> Comparison:
    """What the figures need to know beside the tables.

    Raises:
      UserError: a method has no results.
    """
    table = found.runs.drop_duplicates("method")
    learners = dict(zip(table["method"], table["learner"], strict=True))
    wanted = {cli.one_of("method", spec, learners) for spec in options.methods or learners}
    preset, looks = PRESETS[options.env], style.looks(learners)
    published = preset.published or {}
    methods = [
        Method(
            spec,
            results.label(spec, learner, options.env),
            looks[spec],
            published.get(spec) if learner == preset.default_learner else None,
        )
        for spec, learner in learners.items()
        if spec in wanted
    ]
    if not methods:
        raise UserError(f"{_folder(options, options.env)} holds no run yet")
    family, paradigm = preset.experiment.env.family, paradigm_of(preset.experiment.env)
    alphas = set(table["alpha"][table["method"].isin(wanted)])
    return Comparison(
        methods,
        float(alphas.pop()) if len(alphas) == 1 else None,
        preset.experiment.method.alpha,
        preset.view.task if preset.view else "task",
        preset.view.unit if preset.view else "",
        paradigm.frames,
        paradigm.returns,
        results.tested_words(found.runs[found.runs["method"].isin(wanted)]),
        dict(zip(family.phi_names, np.asarray(family.phi0, float).tolist(), strict=True)),
        MAPS.get(preset.env_class()),
    )


# ------------------------------------------------------------------ maps of environments


def _khazad_dum_paths(ax: Axes, places: np.ndarray, outcomes: list[str]) -> None:
    ends = {"done": AT_GOAL, "fall": FALLEN}
    status = np.array([ends.get(outcome.rpartition("_")[2], UNDER_WAY) for outcome in outcomes])
    draw.draw_paths(ax, places, status, legend=False)
    for part in ax.collections:  # made for panels of twice the size
        if isinstance(part, PathCollection):
            part.set_sizes(0.4 * part.get_sizes())
        elif isinstance(part, LineCollection):
            part.set_linewidth(0.7)


MAPS: dict[type, Map] = {KhazadDum: Map(_khazad_dum_paths, draw.legend_handles)}


if __name__ == "__main__":
    sys.exit(cli.run(main))
