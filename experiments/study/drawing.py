"""All figures and tables of a comparison, from compact results alone."""

from __future__ import annotations

from pathlib import Path

from experiments import style
from experiments.presets import PRESETS
from experiments.spec import program
from experiments.spec.errors import UserError
from experiments.spec.paradigms import paradigm_of
from experiments.spec.words import one_of, phi_column
from experiments.study import adaptation, results, sheets, tables
from experiments.study.comparison import FIGURES as COMPARISON
from experiments.study.figure_parts import (
    Comparison,
    NotConcernedError,
    NothingToDrawError,
    Series,
    looks_of,
)
from experiments.study.options import FigureOptions
from experiments.study.references import REFERENCES
from experiments.training import runs

CAPTIONS = "captions.md"


def draw_all(options: FigureOptions, formats: list[str]) -> None:
    """Draws what can be drawn of the results, and writes captions and tables.

    Raises:
      UserError: there are no results, or a method has none.
    """
    found = results.read(_folder(options, options.env))
    for other in options.beside:
        found = results.beside(found, results.read(_folder(options, other)), other)
    comparison = compare(options, found)
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
    shown = [*(method.spec for method in comparison.methods), *REFERENCES]
    sheets.write(out, results.Results(*(t[t["method"].isin(shown)] for t in found)), {})
    print(out / "table.md")


def _folder(options: FigureOptions, env: str) -> Path:
    """The folder of an environment's results.

    Raises:
      UserError: there is none; names those that are there.
    """
    folder = options.results / env
    if folder.is_dir():
        return folder
    there = [name for name in PRESETS if (options.results / name).is_dir()]
    raise UserError(
        f"{folder} is no folder: it is made by {program.command('compare', [env])}; "
        f"{options.results} has results of: {', '.join(there) or 'nothing'}"
    )


def compare(options: FigureOptions, found: results.Results) -> Comparison:
    """What the figures need to know beside the tables.

    Raises:
      UserError: a method has no results.
    """
    table = found.runs.drop_duplicates("method")
    learners = dict(zip(table["method"], table["learner"], strict=True))
    wanted = {one_of("method", spec, learners) for spec in options.methods or learners}
    preset, looks = PRESETS[options.env], looks_of(learners)
    methods = [
        Series(
            spec,
            learner,
            results.label(spec, learner, options.env),
            looks[spec],
            tables.published_of(spec, learner, options.env),
        )
        for spec, learner in learners.items()
        if spec in wanted
    ]
    if not methods:
        raise UserError(f"{_folder(options, options.env)} holds no run yet")
    env = preset.experiment.env
    family, paradigm, view = env.family, paradigm_of(env), preset.view_of(env)
    alphas = set(table["alpha"][table["method"].isin(wanted)])
    return Comparison(
        methods,
        float(alphas.pop()) if len(alphas) == 1 else None,
        preset.experiment.alpha,
        view.task if view else "task",
        view.unit if view else "",
        paradigm.frames,
        paradigm.returns,
        results.tested_words(found.runs[found.runs["method"].isin(wanted)]),
        dict(zip(map(phi_column, family.phi_names), family.phi0.tolist(), strict=True)),
        view.map if view else None,
        view.outcomes if view else {},
    )
