"""What can be chosen by name, a line each."""

from __future__ import annotations

import inspect
import sys
import textwrap
from typing import Any

from experiments.presets import PRESETS
from experiments.spec.learners import LEARNERS
from roml_jax import samplers
from roml_jax.methods import METHODS

_WIDTH = 100


def listing() -> str:
    """Environments, learners, methods and samplers, with what each is."""
    makers = {name: getattr(samplers, name) for name in samplers.__all__}
    parts = {
        "Environments": {name: preset.summary for name, preset in PRESETS.items()},
        "Learners (--learner)": {name: _about(kind.make) for name, kind in LEARNERS.items()},
        "Methods (--method)": {name: _about(kind.config) for name, kind in METHODS.items()},
        "Task samplers (roml_jax.samplers, below the methods or in code of your own)": {
            name: (inspect.getdoc(maker) or "").split("\n")[0]
            for name, maker in makers.items()
            if inspect.isfunction(maker) and "TaskSampler" in str(maker.__annotations__["return"])
        },
    }
    return "\n\n".join(f"{title}:\n{_lines(rows)}" for title, rows in parts.items())


def _about(thing: Any) -> str:
    """What a thing's module says of itself, in its first line."""
    text = sys.modules[thing.__module__].__doc__ or ""
    return text.split("\n")[0].rstrip(".")


def _lines(rows: dict[str, str]) -> str:
    wide = max(map(len, rows)) + 4
    return "\n".join(
        textwrap.fill(
            text.rstrip(".").replace("``", ""),
            _WIDTH,
            initial_indent=f"  {name}".ljust(wide),
            subsequent_indent=" " * wide,
        )
        for name, text in rows.items()
    )
