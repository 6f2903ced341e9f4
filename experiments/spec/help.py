"""The settings of a training that most people need, on two screens."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator
from typing import Any

import docstring_parser

_WIDTH = 100
# For large machines, and for those who know what they look for.
_RARE = {
    *("name", "checkpoint_minutes", "on_nan", "tensorboard", "wandb", "mesh", "coordinator"),
    *("process_id", "num_processes", "compile_cache", "test_repeats", "evaluation_seed"),
    *("validation_tasks", "validation_every", "groups"),
}


def common(command: Any, names: dict[str, str], rest: str) -> str:
    """What ``--help`` says of a training.

    Args:
      command: its defaults: ``options``, and an ``experiment`` with env, method and learner.
      names: of environment, method and learner, for the titles.
      rest: how to see all others.
    """
    experiment = command.experiment
    parts = {
        "Runs": command.options,
        "Training and test": experiment,
        f"Environment: {names['env']}": experiment.env,
        f"Method: {names['method']}": experiment.method,
        f"Learner: {names['learner']}": experiment.learner,
    }
    left: list[str] = []
    blocks: list[str] = []
    for title, config in parts.items():
        rows = [*_rows(config, left)]
        if rows:
            blocks.append("\n".join([f"{title}", *rows]))
    more = f"{rest}: {', '.join(left)}."
    return "\n\n".join([*blocks, row("", more, 0)])


def _rows(config: Any, left: list[str]) -> Iterator[str]:
    """A row for each setting; what is not shown is added to ``left``."""
    told = {p.arg_name: p.description for p in docstring_parser.parse(config.__doc__ or "").params}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        flag = "--" + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            if field.name not in ("options", "env", "learner", "method"):
                left.append(f"{flag}.*")
        elif field.name in _RARE:
            left.append(flag)
        elif field.name not in ("learner_name", "method_name"):
            yield _row(flag, value, told.get(field.name) or "")


def _row(flag: str, value: Any, about: str) -> str:
    return row(f"  {flag} [{_default(value)}]", about.replace("``", ""), 34)


def row(head: str, text: str, indent: int) -> str:
    """A head, and beside it a text on as many lines as it takes."""
    lead = head.ljust(indent) if len(head) < indent or not head else f"{head} "
    if not text.split():
        return lead.rstrip()
    return textwrap.fill(
        " ".join(text.split()),
        _WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * indent,
        break_on_hyphens=False,
    )


def _default(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(_default, value)) or "none"
    return (
        f"{value:g}"
        if isinstance(value, float)
        else f"{value:,}"
        if type(value) is int
        else str(value)
    )
