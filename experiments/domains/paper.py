"""The paper's Tables 1 to 3 as facts: returns over 30 seeds, by preset and row of a comparison.

Rows have the words of ``experiments.compare``, ``[LEARNER/]METHOD[:flag=value,…]``; some are of
learners and methods that this library need not have. What the paper calls a standard deviation
is the standard error of the mean: the notebooks of the original code have both.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import NamedTuple

from experiments.domains.preset import Published

SEEDS = 30
ALPHA = 0.05  # of the CVaR
_NORMAL = 1.96  # standard errors on each side of a normal 95 % interval

_CESOR, _PAIRED, _PEARL, _PEARL_ROML = "ppo/cesor", "ppo/paired", "pearl/baseline", "pearl/roml"
_CVAR_ML = "cvar-ml:policy.unselected=constant_advantage"  # as the original code has it
NAMES = {  # of the rows, as the paper has them
    _CESOR: "CeSoR",
    _PAIRED: "PAIRED",
    _CVAR_ML: "CVaR-ML",
    _PEARL: "PEARL",
    "baseline": "VariBAD",
    "naive": "Naive sampler",
    "roml": "RoML (VariBAD)",
    _PEARL_ROML: "RoML (PEARL)",
}
NOTES = {  # what the published values of a row are of, where that does not go without saying
    _CESOR: "PPO without memory, with CEM and importance weights, but without the falling level "
    "of CeSoR; its values look like sums over two episodes, where those of the others are means",
    _PAIRED: "single episodes of 200 steps, without memory; by its released code, trained on "
    "three factors where the test has ten, and tested on two tasks a run",
    _CVAR_ML: "not Algorithm 1 to the letter: tasks that are not selected stay, with one constant "
    "advantage",
    _PEARL: "means over three episodes, of which two come before it has inferred the task",
    _PEARL_ROML: "means over three episodes, of which two come before it has inferred the task",
    "naive": "the released code draws from its whole pool of 100 tasks, where paper and library "
    "draw from the worst of it; which of them the table is of is not known",
}

_TEN = ("half-cheetah-10d-a", "half-cheetah-10d-b", "half-cheetah-10d-c")
_CHEETAHS = ("half-cheetah-vel", "half-cheetah-mass", "half-cheetah-body", *_TEN)
_OTHERS = ("humanoid-vel", "humanoid-mass", "humanoid-body", "ant-goal", "ant-mass", "ant-body")
_BLOCKS = {"HalfCheetah": _CHEETAHS, "Humanoid and Ant": _OTHERS}


class PaperTable(NamedTuple):
    """A table of the paper.

    Attributes:
      title: what it is of.
      quantity: ``mean`` or ``cvar``, of the test return.
      blocks: names of presets in order, by the name of a part of the table.
      values: mean and standard error over seeds, by row and preset, in the paper's order.
    """

    title: str
    quantity: str
    blocks: Mapping[str, tuple[str, ...]]
    values: Mapping[str, Mapping[str, tuple[float, float]]]


_Values = dict[str, tuple[tuple[float, float], ...]]  # by row, in the order of presets


def _by_preset(
    rows: _Values, presets: tuple[str, ...]
) -> dict[str, dict[str, tuple[float, float]]]:
    """The same, where a row may end before the presets do."""
    return {row: dict(zip(presets, values, strict=False)) for row, values in rows.items()}


_CVARS: _Values = {
    _CESOR: ((-2606, 25), (902, 36), (478, 27), (637, 26), (981, 31), (664, 26)),
    _PAIRED: ((-725, 65), (438, 37), (218, 51), (229, 59), (354, 53), (81, 65)),
    _CVAR_ML: ((-897, 23), (38, 6), (76, 5), (120, 11), (141, 11), (81, 4)),
    _PEARL: ((-1156, 23), (1115, 19), (800, 5), (1140, 33), (1623, 23), (1016, 5)),
    "baseline": (
        *((-202, 6), (1072, 16), (835, 30), (1126, 6), (1536, 39), (988, 13)),
        *((801, 10), (1283, 18), (1290, 19), (-500, 9), (1370, 6), (1365, 4)),
    ),
    "roml": (
        *((-184, 4), (1259, 19), (935, 17), (1227, 13), (1697, 24), (999, 20)),
        *((833, 4), (1378, 20), (1365, 21), (-454, 8), (1385, 3), (1368, 4)),
    ),
    _PEARL_ROML: ((-1089, 31), (1186, 34), (808, 6), (1141, 27), (1657, 18), (1024, 6)),
}
_MEANS: _Values = {
    _CESOR: ((-1316, 18), (1398, 31), (1008, 34), (1222, 23), (1388, 20), (1274, 32)),
    _PAIRED: ((-545, 55), (662, 30), (492, 51), (551, 53), (706, 36), (561, 65)),
    _CVAR_ML: ((-574, 22), (113, 8), (193, 6), (263, 15), (250, 11), (192, 5)),
    _PEARL: ((-534, 15), (1726, 13), (1655, 6), (1843, 9), (1866, 13), (1425, 6)),
    "baseline": (
        *((-82, 2), (1558, 32), (1616, 28), (1893, 6), (1984, 67), (1617, 12)),
        *((880, 4), (1645, 22), (1678, 17), (-229, 3), (1473, 3), (1476, 1)),
    ),
    "roml": (
        *((-95, 3), (1581, 32), (1582, 21), (1819, 8), (1950, 20), (1616, 13)),
        *((883, 4), (1580, 17), (1618, 18), (-224, 3), (1475, 2), (1472, 1)),
    ),
    _PEARL_ROML: ((-519, 15), (1553, 18), (1437, 8), (1783, 7), (1859, 10), (1399, 8)),
}
_NAIVE_CVARS: _Values = {
    "baseline": ((835, 30), (1126, 6), (1536, 39), (988, 13)),
    "naive": ((839, 20), (1056, 34), (1340, 57), (978, 12)),
    "roml": ((935, 17), (1227, 13), (1697, 24), (999, 20)),
}
_NAIVE_BLOCKS = {"HalfCheetah": ("half-cheetah-body", *_TEN)}

TABLES = {
    "table1": PaperTable(
        f"Table 1: CVaR {ALPHA:g} of the test return",
        "cvar",
        _BLOCKS,
        _by_preset(_CVARS, _CHEETAHS + _OTHERS),
    ),
    "table2": PaperTable(
        "Table 2: mean test return", "mean", _BLOCKS, _by_preset(_MEANS, _CHEETAHS + _OTHERS)
    ),
    "table3": PaperTable(
        f"Table 3: CVaR {ALPHA:g} of the test return, naive sampler",
        "cvar",
        _NAIVE_BLOCKS,
        _by_preset(_NAIVE_CVARS, _NAIVE_BLOCKS["HalfCheetah"]),
    ),
}


def published(preset: str) -> dict[str, Published]:
    """All that the tables know of a preset, by row, with normal 95 % intervals.

    Args:
      preset: its name.

    Returns:
      Values of each row; NaN for the mean of one that only Table 3 has.
    """
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for table in TABLES.values():
        for row, values in table.values.items():
            if preset in values:
                found.setdefault(row, {})[table.quantity] = values[preset]
    return {
        row: Published(
            _interval(*known.get("mean", (nan, nan))),
            _interval(*known.get("cvar", (nan, nan))),
            note=NOTES.get(row, ""),
        )
        for row, known in found.items()
    }


def _interval(mean: float, error: float) -> tuple[float, float, float]:
    return mean, mean - _NORMAL * error, mean + _NORMAL * error
