"""The paper's tables: what its text says of them, and that the presets follow from them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from experiments.domains.paper import ALPHA, NAMES, NOTES, TABLES, published
from experiments.presets import PRESETS
from experiments.spec.words import split_row

FIRST, SECOND, THIRD = (TABLES[f"table{i}"].values for i in (1, 2, 3))


def test_the_tables_are_of_the_twelve_families():
    for table in TABLES.values():
        presets = [preset for block in table.blocks.values() for preset in block]
        assert len(presets) == len(set(presets)) and set(presets) <= PRESETS.keys()
        assert set(presets) == {preset for values in table.values.values() for preset in values}
        assert table.values.keys() <= NAMES.keys()
        assert {PRESETS[preset].experiment.alpha for preset in presets} == {ALPHA}
    assert NOTES.keys() <= NAMES.keys()
    assert [len(values) for values in FIRST.values()] == [6, 6, 6, 6, 12, 12, 6]
    assert {row: set(values) for row, values in FIRST.items()} == {
        row: set(values) for row, values in SECOND.items()
    }


def test_a_tail_is_below_its_mean():
    for row, values in FIRST.items():
        for preset, (tail, error) in values.items():
            mean, mean_error = SECOND[row][preset]
            assert tail < mean and 0 < error < 100 and 0 < mean_error < 100, (row, preset)


def test_the_tables_agree_and_roml_gains_everywhere():
    for row, preset in itertools.product(("baseline", "roml"), THIRD["naive"]):
        assert THIRD[row][preset] == FIRST[row][preset]
    for preset in FIRST["roml"]:
        assert FIRST["roml"][preset] > FIRST["baseline"][preset]
    for preset in FIRST["pearl/roml"]:
        assert FIRST["pearl/roml"][preset] > FIRST["pearl/baseline"][preset]


@pytest.mark.parametrize("preset", FIRST["baseline"])
def test_presets_have_the_values_of_their_tables(preset):
    found = PRESETS[preset].published
    assert repr(found) == repr(published(preset))  # nan is not nan
    rows = [row for table in TABLES.values() for row in table.values if preset in table.values[row]]
    assert set(found) == set(rows)
    for row, value in found.items():
        for table, interval in ((FIRST, value.cvar), (SECOND, value.mean)):
            if row in table:
                mean, error = table[row][preset]
                assert interval == (mean, mean - 1.96 * error, mean + 1.96 * error)
        assert value.note == NOTES.get(row, "")


def test_the_naive_sampler_has_a_tail_alone():
    value = PRESETS["half-cheetah-body"].published["naive"]
    assert value.cvar[0] == 839 and np.isnan(value.mean).all() and "pool" in value.note
    assert "naive" not in PRESETS["half-cheetah-vel"].published
    assert not PRESETS["half-cheetah-body-wide"].published


def test_rows_are_words_of_a_comparison():
    assert {split_row(row)[0] for row in NAMES} == {None, "ppo", "pearl"}
    assert {split_row(row)[1].partition(":")[0] for row in NAMES} == {
        "baseline", "cesor", "cvar-ml", "naive", "paired", "roml",
    }  # fmt: skip
