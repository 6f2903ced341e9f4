"""The notebooks run at toy size, and are stored as the project wants them."""

import importlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parents[1]
with mock.patch.object(sys, "path", [str(ROOT / "docs"), *sys.path]):
    owners = importlib.import_module("owner")
NOTEBOOKS = sorted((ROOT / "experiments/notebooks").glob("*.ipynb"))

# Runs the cells as a notebook does, in one namespace; what came of them, each has a part to tell.
DRIVER = """
import json, subprocess, sys
import jax, numpy as np
from matplotlib.figure import Figure

jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_debug_key_reuse", True)
sources = json.load(sys.stdin)
shown = []
scope = {"__name__": "notebook", "display": shown.append}


def run(after=lambda: None):
    for i, source in enumerate(sources):
        exec(compile(source, f"cell {i}", "exec"), scope)
        after()


def is_image(shown):
    data = getattr(shown, "data", None) or getattr(shown, "_repr_png_", bytes)()
    return isinstance(data, bytes) and data[1:4] == b"PNG"


def figures():
    pyplot = scope["plt"]
    drawn = [pyplot.figure(number) for number in pyplot.get_fignums()]
    return {
        "maps": [len(figure.axes) for figure in shown if isinstance(figure, Figure)],
        "images": sum(is_image(one) for one in shown),
        "lines": [sum(len(ax.lines) + len(ax.collections) + len(ax.patches) for ax in figure.axes)
                  for figure in drawn],
    }


def tell(report):
    print("REPORT " + json.dumps(report | figures()))

"""

KHAZAD_DUM = """
run()
tell({
    "finished": [scope[name].finished for name in ("baseline", "robust")],
    "step": scope["robust"].agent().step,
    "phi": scope["robust"].agent().phi["mean_rain"],
    "rows": list(scope["comparison"].table.index),
    "curves": scope["curves"],
    "means": [float(scope[name].test(1.0)["mean"].iloc[0]) for name in ("baseline", "robust")],
    "courses": [[alpha, float(phi[-30:].mean())] for alpha, phi in scope["courses"].items()],
})
"""

LIFT = """
run()
tell({
    "fits": scope["fits"],
    "told": {name: [float(x.mean()), float(x.std())] for name, x in scope["estimates"].items()},
    "walls": [[float(x) for x in wall] for wall in scope["walls"].values()],
})
"""

SINE = """
run()
numbers = lambda tree: jax.tree.map(lambda x: np.asarray(x).tolist(), tree)
untrained = scope["train"](scope["learner"], scope["algorithms"]["MAML"], 0)
changed = lambda params: jax.tree.map(lambda a, b: bool((a != b).any()), params, untrained)
tell({
    "changed": {name: jax.tree.leaves(changed(p)) for name, p in scope["trained"].items()},
    "phis": numbers(scope["phis"]),
    "curves": numbers(scope["curves"]),
    "alphas": numbers(scope["alphas"]),
    "sweep": numbers(scope["sweep"]),
    "own": numbers(scope["own_losses"]),
    "lifted": numbers(list(scope["lifted"].values())),
    "gradient": numbers(scope["gradient"]),
})
"""


def cells(path):
    """The cells of a notebook, and the sources of those with code."""
    found = json.loads(path.read_text())["cells"]
    return found, ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def run_cells(name, script, folder):
    """What came of running the cells of a notebook."""
    toy = {"ROML_JAX_TOY": "1", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER + script],
        input=json.dumps(cells(ROOT / f"experiments/notebooks/{name}.ipynb")[1]),
        env=os.environ | toy,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("REPORT ")[2])


# ------------------------------------------------------------------ Khazad-Dum


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return run_cells("khazad_dum", KHAZAD_DUM, tmp_path_factory.mktemp("notebook"))


def test_it_trains_and_compares(report):
    assert report["finished"] == [True, True] and report["step"] == 4
    assert report["phi"] != pytest.approx(0.1, abs=1e-4)  # the sampler moved
    assert report["rows"][:2] == ["VariBAD", "RoML"]


def test_it_draws(report):
    assert report["images"] == 4  # episodes of both, the course of the sampler, the test
    assert len(report["lines"]) == 2 and min(report["lines"]) >= 3


def test_cvar_ends_at_the_mean(report):
    for curve, mean in zip(report["curves"].values(), report["means"], strict=True):
        assert curve == sorted(curve) and curve[-1] == pytest.approx(mean, abs=1e-5)


def test_alpha_sets_where_phi_goes(report):
    for alpha, phi in report["courses"]:
        assert phi == pytest.approx(0.1 * (1 - math.log(alpha)), rel=0.1)


# ------------------------------------------------------------------ one function


@pytest.fixture(scope="module")
def lifted(tmp_path_factory):
    return run_cells("lift_a_function", LIFT, tmp_path_factory.mktemp("lifted"))


def test_it_needs_the_package_alone():
    code = "\n".join(cells(ROOT / "experiments/notebooks/lift_a_function.ipynb")[1])
    assert not re.search(r"\b(experiments|envs)\b(?!/)", code)


def test_the_tail_loss_has_the_better_tail(lifted):
    (mean, tail), (robust_mean, robust_tail) = lifted["fits"].values()
    assert mean < robust_mean and robust_tail < tail


def test_weights_lead_back_to_the_normal_distribution(lifted):
    exact = {"quantile": -3.0902, "CVaR": -3.3671}
    for name, value in exact.items():
        (mean, deviation), (_, plain) = (
            lifted["told"][f"{name}, {x}"] for x in ("weighted", "plain")
        )
        assert mean == pytest.approx(value, abs=0.02) and deviation < plain / 1.5


def test_own_loop_finds_both_walls(lifted):
    # Costs are linear in the flood, so the best wall follows from the mean flood that counts.
    best = {mean: (math.sqrt(100 * mean) - 1) / 10 for mean in (0.1, 0.1 * (1 - math.log(0.05)))}
    (plain, mean, tail), (robust, robust_mean, robust_tail) = lifted["walls"]
    assert (plain, robust) == pytest.approx(tuple(best.values()), abs=0.03)
    assert robust_tail < tail and robust_mean > mean


# ------------------------------------------------------------------ sine regression


@pytest.fixture(scope="module")
def sine(tmp_path_factory):
    return run_cells("sine", SINE, tmp_path_factory.mktemp("notebook"))


@pytest.mark.slow
def test_sine_trains_each_method(sine):
    assert sine["changed"].keys() == {"MAML", "CVaR-ML", "RoML"}
    assert all(changed and all(changed) for changed in sine["changed"].values())


@pytest.mark.slow
def test_sine_only_roml_moves_its_tasks(sine):
    for name in ("MAML", "CVaR-ML"):
        assert sine["phis"][name] == [[0.5] * 3] * 40
    course = sine["phis"]["RoML"]
    assert course[0] == [0.5] * 3 and len(course) == 40
    assert course[-1][0] > 0.7  # to high amplitudes


@pytest.mark.slow
def test_sine_losses_in_the_course_of_adaptation(sine):
    assert sine["curves"].keys() == {"MAML", "CVaR-ML", "RoML"}
    for means, tails in sine["curves"].values():
        assert len(means) == len(tails) == 6
        assert all(tail > mean for mean, tail in zip(means, tails, strict=True))
        assert means[1] < means[0]  # the step that was trained helps


@pytest.mark.slow
def test_sine_sweep_has_a_point_for_each_alpha(sine):
    points = sine["sweep"]
    assert len(points) == len(sine["alphas"]) == 5
    assert all(tail > mean for mean, tail in points)
    assert points[0] != points[-1]  # alpha has come through


@pytest.mark.slow
def test_sine_own_tasks_are_learned(sine):
    own = sine["own"]
    assert own.keys() == {"untrained", "MAML", "RoML"}
    for name in ("MAML", "RoML"):
        assert all(
            after < before for after, before in zip(own[name], own["untrained"], strict=True)
        )
    assert sine["lifted"] == sorted(sine["lifted"], reverse=True)  # more steps, less loss
    assert all(math.isfinite(slope) and slope for slope in sine["gradient"].values())


@pytest.mark.slow
def test_sine_draws(sine):
    assert sine["maps"] == [9, 9]  # amplitudes by frequencies, for two methods
    assert sine["lines"] == [6, 4, 6]  # CVaR and mean by method; phi; a point for each alpha


# ------------------------------------------------------------------ the file


DRAWS = re.compile(r"\bdisplay\(|\bplt\.(subplots|figure)\(")


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return request.param


def test_format(notebook):
    stored = json.loads(notebook.read_text())
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)
    assert stored["metadata"]["kernelspec"]["name"] == "python3"
    ids = [cell["id"] for cell in stored["cells"]]
    assert len(set(ids)) == len(ids) and all(ids)


def test_stored_outputs_are_of_one_whole_run(notebook):
    code = [cell for cell in cells(notebook)[0] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        kinds = {kind for out in cell["outputs"] for kind in out.get("data", {})}
        assert "image/png" in kinds or not DRAWS.search("".join(cell["source"]))
        assert not [out for out in cell["outputs"] if out["output_type"] == "error"]
        assert not re.search(r"/(home|root|tmp|work)/", json.dumps(cell["outputs"]))


def test_a_command_puts_in_the_account(tmp_path):
    folder = tmp_path / "experiments" / "notebooks"
    shutil.copytree(ROOT / "experiments/notebooks", folder)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    was = owners.owner(tmp_path)
    changed = owners.set_owner("gandalf", tmp_path)
    assert len(changed) == 2 + len(NOTEBOOKS) and owners.owner(tmp_path) == "gandalf/roml-jax"
    assert all(was not in path.read_text() for path in changed)
    assert owners.set_owner("moria/mines", tmp_path) == changed
    assert "moria/mines" in (folder / "sine.ipynb").read_text()
    with pytest.raises(ValueError, match="neither ACCOUNT nor"):
        owners.set_owner("no spaces", tmp_path)


def test_badge_opens_the_repository_that_is_installed(notebook):
    found, sources = cells(notebook)
    scope: dict = {}
    line = next(line for line in sources[0].splitlines() if line.startswith("REPOSITORY"))
    exec(line, scope)
    path = notebook.relative_to(ROOT).as_posix()
    url = f"https://colab.research.google.com/github/{scope['REPOSITORY']}/blob/main/{path}"
    assert url in "".join(found[0]["source"]) and scope["REPOSITORY"] == owners.owner()


def test_links_lead_to_files(notebook):
    text = "".join("".join(cell["source"]) for cell in cells(notebook)[0])
    links = re.findall(r"\]\((\.\./[^)#]+)", text)
    assert links and all((notebook.parent / link).is_file() for link in links)


# ------------------------------------------------------------------ in a kernel


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_that_draws_shows_an_image(path, tmp_path, monkeypatch):
    """Executed by Jupyter in a fresh kernel, as readers do."""
    import nbformat
    from nbclient import NotebookClient

    for name, value in {"ROML_JAX_TOY": "1", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    drawn = 0
    for cell in notebook.cells:
        if cell.cell_type == "code" and DRAWS.search(cell.source) and "def " not in cell.source[:4]:
            images = [out for out in cell.outputs if "image/png" in out.get("data", {})]
            assert images, cell.source
            drawn += len(images)
    assert drawn
