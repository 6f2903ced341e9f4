"""The notebook runs at toy size, and is stored as the project wants it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "experiments/notebooks/khazad_dum.ipynb"
CELLS = json.loads(NOTEBOOK.read_text())["cells"]
SOURCES = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]

# Runs the cells as a notebook does, in one namespace, and then says what came of it.
DRIVER = """
import json, subprocess, sys
import jax, numpy as np
from matplotlib.figure import Figure

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_debug_key_reuse", True)
sources = json.load(sys.stdin)
subprocess.run = None  # nothing is to be installed
shown = []
scope = {"__name__": "notebook", "display": shown.append}
for i, source in enumerate(sources):
    exec(compile(source, f"cell {i}", "exec"), scope)
    if "state" in scope and "first" not in scope:
        copy = lambda: jax.tree.leaves(scope["learner"].params(scope["state"].learner))
        scope["first"] = jax.tree.map(np.array, copy())

pyplot = scope["plt"]
drawn = [pyplot.figure(number) for number in pyplot.get_fignums()]
changed = [bool((np.array(a) != b).any()) for a, b in zip(copy(), scope["first"])]
report = {
    "step": int(scope["state"].step),
    "steps": scope["steps"],
    "history": scope["history"],
    "changed": sum(changed),
    "curves": scope["curves"],
    "means": [float(scope[name].mean()) for name in ("untrained_returns", "trained_returns")],
    "courses": [[alpha, float(phi[-30:].mean())] for alpha, phi in scope["courses"].items()],
    "walls": [[float(x) for x in wall] for wall in scope["walls"].values()],
    "maps": [isinstance(figure, Figure) and len(figure.axes) for figure in shown],
    "lines": [sum(len(ax.lines) + len(ax.collections) + len(ax.patches) for ax in figure.axes)
              for figure in drawn],
}
print("REPORT " + json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What came of running the cells."""
    toy = {"ROML_JAX_TOY": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER],
        input=json.dumps(SOURCES),
        env=os.environ | toy,
        cwd=tmp_path_factory.mktemp("notebook"),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("REPORT ")[2])


def test_it_trains(report):
    assert report["step"] == report["steps"] == 4 and report["changed"] > 10
    assert [point["frames"] for point in report["history"]] == [512, 1024, 1536, 2048]
    assert report["history"][-1]["phi"] != pytest.approx(0.1, abs=1e-4)  # the sampler moved


def test_it_draws(report):
    assert report["maps"] == [8, 8]  # two episodes by four rains, before and after
    assert len(report["lines"]) == 4 and min(report["lines"]) >= 3


def test_cvar_ends_at_the_mean(report):
    for name, mean in zip(("untrained", "trained"), report["means"], strict=True):
        curve = report["curves"][name]
        assert curve == sorted(curve) and curve[-1] == pytest.approx(mean, abs=1e-5)


def test_alpha_sets_where_phi_goes(report):
    for alpha, phi in report["courses"]:
        assert phi == pytest.approx(0.1 * (1 - math.log(alpha)), rel=0.1)


def test_own_loop_finds_both_walls(report):
    # Costs are linear in the flood, so the best wall follows from the mean flood that counts.
    best = {mean: (math.sqrt(100 * mean) - 1) / 10 for mean in (0.1, 0.1 * (1 - math.log(0.05)))}
    (plain, mean, tail), (robust, robust_mean, robust_tail) = report["walls"]
    assert (plain, robust) == pytest.approx(tuple(best.values()), abs=0.03)
    assert robust_tail < tail and robust_mean > mean


# ------------------------------------------------------------------ the file


def test_format():
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in CELLS]
    assert len(set(ids)) == len(ids) and all(ids)


def test_no_outputs_are_stored():
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code and all(not cell["outputs"] and not cell["execution_count"] for cell in code)


def test_badge_opens_the_repository_that_is_installed():
    scope: dict = {}
    line = next(line for line in SOURCES[0].splitlines() if line.startswith("REPOSITORY"))
    exec(line, scope)
    path = NOTEBOOK.relative_to(ROOT).as_posix()
    url = f"https://colab.research.google.com/github/{scope['REPOSITORY']}/blob/main/{path}"
    assert url in "".join(CELLS[0]["source"])
