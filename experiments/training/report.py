"""What the terminal shows before and after: the plan of a run, and the table of its test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.presets import DEFAULT_ENV, PRESETS
from experiments.spec.build import Built
from experiments.spec.experiment import Experiment, at_alpha, settings
from experiments.spec.learners import LEARNERS
from experiments.spec.words import split_row
from experiments.training import placement
from experiments.training.agents import Score, mean_and_ci
from experiments.training.runs import Run
from roml_jax.methods import METHODS


def plan(built: Built, runs: list[Run], paths: list[Path], step: int | None) -> str:
    """The resolved plan, some aligned lines."""
    experiment = built.experiment
    total, per_step = built.total_steps, built.learner.frames_per_step
    own = {name: value for name, value in settings(experiment.method).items() if name != "alpha"}
    alphas = {run.experiment.alpha for run in runs}
    level = f"alpha {_brief(experiment.alpha)}" if len(alphas) == 1 else "alpha swept"
    rows = {
        "run": f"{runs[0].env}, {experiment.method_name} on {experiment.learner_name}, "
        f"{_seeds([run.seed for run in runs], alphas)}",
        "method": ", ".join([level, *(f"{name} {_brief(value)}" for name, value in own.items())]),
        "frames": f"{total * per_step:,} = {total:,} steps x {built.learner.num_tasks} tasks x "
        f"{built.paradigm.per_task(built.env, built.agent)}",
        "checks": f"validation on {experiment.validation_tasks:,} tasks every "
        f"{experiment.validation_every:,} steps, test of {agent_words(experiment.tested_agent())} "
        f"on {tasks_words(experiment.test_tasks, experiment.test_repeats)}",
        "device": f"{placement.in_words(built)}, "
        f"{_memory(placement.memory_of_each(built, len(runs)))} of training state"
        f"{' on each' if built.mesh else ''}",
        "output": _folders(paths),
    }
    rows |= PRESETS[runs[0].env].plan(built.env)
    if len(alphas) > 1:  # which is no change of its own
        experiment = at_alpha(experiment, PRESETS[runs[0].env].experiment.alpha)
    if changed := changes(experiment, runs[0].env):
        rows["changed"] = changed
    if step is not None:
        rows["resume"] = f"from step {step:,} of {total:,}"
    return "\n".join(f"{name:8}{text}" for name, text in rows.items())


BY_HALVES = (
    "the worst tasks by one half of their plays, averaged over the other half, which is too high "
    "where the CVaR beside it is too low"
)


def table(scores: list[Score], alpha: float) -> str:
    """One line per seed, and one over seeds if there are several."""
    outcomes = sorted({name for score in scores for name in score.shares})
    phis = list(scores[0].phi)
    halves = [score.cvar_by_halves for score in scores if score.cvar_by_halves is not None]
    numbers = {"mean": [s.mean for s in scores], f"CVaR {alpha:g}": [s.cvar for s in scores]}
    if halves:
        numbers["by halves"] = halves
    head = [
        "seed",
        *numbers,
        *outcomes,
        *(f"phi {name.removeprefix('phi_')}" for name in phis),
    ]
    rows = [
        [
            str(score.seed),
            *(f"{values[i]:.4f}" for values in numbers.values()),
            *(f"{score.shares.get(name, 0.0):.1%}" for name in outcomes),
            *(f"{score.phi[name]:.4g}" for name in phis),
        ]
        for i, score in enumerate(scores)
    ]
    if len(scores) > 1:
        pairs = map(mean_and_ci, numbers.values())
        shares = [_average([s.shares.get(name, 0.0) for s in scores]) for name in outcomes]
        ends = [_average([s.phi[name] for s in scores]) for name in phis]
        rows.append(
            [
                "all",
                *(f"{mean:.4f} ± {half:.4f}" for mean, half in pairs),
                *(f"{share:.1%}" for share in shares),
                *(f"{end:.4g}" for end in ends),
            ]
        )
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [head, *rows]
    ]
    if len(scores) > 1:
        lines.append(f"± half the 95 % confidence interval of the mean over {len(scores)} seeds")
    if halves:
        lines.append(f"by halves: {BY_HALVES}")
    return "\n".join(lines)


def tasks_words(tasks: int, plays: int) -> str:
    """The size of a test: ``"3,008 tasks"``, and how often each is played."""
    return f"{tasks:,} tasks" + (f", {plays} plays of each" if plays > 1 else "")


def label(spec: str, learner: str | None = None, env: str = DEFAULT_ENV) -> str:
    """The name of a row for people: ``"CVaR-ML, policy.unselected=constant_advantage"``.

    Args:
      spec: [LEARNER/]METHOD[:flag=value,…], and @ENV if it is of another environment's results.
      learner: the name of its learner, which is the name of the baseline too; None for the one
        that ``spec`` says.
      env: of the results; its usual learner goes without saying.
    """
    usual = PRESETS[env].default_learner if env in PRESETS else None
    spec, _, other = spec.partition("@")
    said, spec = split_row(spec)
    learner = learner or said or usual or ""
    method, _, changes = spec.partition(":")
    own, below = _method_name(method), learner_label(learner)
    name = below if own is None else own
    if own is not None and learner != usual:
        name += f" on {below}"
    return ", ".join([name, *filter(None, changes.split(",")), *filter(None, [other])])


def learner_label(learner: str) -> str:
    """The name of a learner for people; of one that is not in the table, its own."""
    return LEARNERS[learner].label if learner in LEARNERS else learner


def method_label(spec: str) -> str:
    """The name of METHOD[:flag=value,…][@ENV] for people, whatever the learner."""
    spec, _, other = spec.partition("@")
    method, _, changes = spec.partition(":")
    return ", ".join([_method_name(method) or method, *filter(None, [*changes.split(","), other])])


def _method_name(method: str) -> str | None:
    """Of a method; None for the one that has the name of its learner."""
    return METHODS[method].label if method in METHODS else method


def agent_words(tested: str, steps: Sequence[int] = ()) -> str:
    """Which agent is tested, in words, and which training steps the agents of all seeds are of."""
    validation = {"best-mean": "mean", "best-cvar": "CVaR"}.get(tested)
    told = f" of step{'s' * (len({*steps}) > 1)} " if steps else ""
    told += ", ".join(f"{step:,}" for step in sorted({*steps}))
    if validation:
        return f"the agent of the best validation {validation}{told and ',' + told}"
    return f"the final agent{told}"


def _average(values: list[float]) -> float:
    return sum(values) / len(values)


def _folders(paths: list[Path]) -> str:
    """Where runs go, with * for what differs."""
    if len(paths) == 1:
        return str(paths[0])
    groups = {path.parent for path in paths}
    name = paths[0].parent.name
    if len(groups) > 1:
        name = name.rpartition("=")[0] + "=*"
    return str(paths[0].parent.with_name(name) / "seed-*")


def _seeds(seeds: list[int], alphas: set[float]) -> str:
    """Seeds, and the levels that each of them is trained for if these are several."""
    different = list(dict.fromkeys(seeds))
    named = ", ".join(map(str, different))
    if len(alphas) > 1:
        levels = ", ".join(f"{alpha:g}" for alpha in sorted(alphas))
        return f"{len(seeds)} runs side by side (alpha {levels}; seeds {named})"
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"{len(seeds)} seeds side by side ({named})"


def _brief(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_brief, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def changes(experiment: Experiment, env: str) -> str:
    """The settings that are not those of the preset."""
    preset = PRESETS[env].choose(experiment.learner_name, experiment.method_name)
    usual, now = settings(preset), settings(experiment)
    return ", ".join(
        f"{name} {_brief(usual[name])} → {_brief(value)}"
        for name, value in now.items()
        if value != usual[name] and name != "method"
    )


def _memory(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
