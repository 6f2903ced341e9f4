"""The README's Python runs as it stands."""

import re
from pathlib import Path

import jax
import pytest

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_readme_shows_two_programs():
    assert len(BLOCKS) == 2


def test_lifted_functions_run(capsys):
    # The shown program unrolls nothing and reuses no key.
    exec(BLOCKS[0], {})
    phi, *references = re.findall(r"-?\d+\.\d+", capsys.readouterr().out)
    assert float(phi) > 0.2  # harder than the original mean of 0.1
    assert float(references[1]) < float(references[0])  # the CVaR is below the mean


@pytest.mark.slow
def test_whole_training_runs():
    with jax.debug_key_reuse(False):  # a false alarm: vmap of a scan over keys
        scope: dict = {}
        exec(BLOCKS[1], scope)
    assert scope["state"].step.tolist() == [1, 1, 1]
