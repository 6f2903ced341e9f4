"""A folder ``envs`` where one stands does not hide ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OURS = "from envs.khazad_dum import KhazadDum; import envs, experiments; print(envs.__file__)"


def run(code, folder, first=""):
    """Runs code where a folder ``envs`` stands, which comes first on the path."""
    (folder / "envs").mkdir()
    (folder / "envs" / "__init__.py").write_text("mine = 1\n")
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    return subprocess.run(
        [sys.executable, "-c", first + code], cwd=folder, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("first", ["import experiments; ", "from experiments import cli; "])
def test_ours_is_found(first, tmp_path):
    done = run(OURS, tmp_path, first)
    assert done.stdout.strip() == str(ROOT / "envs" / "__init__.py"), done.stderr


def test_one_line_says_what_hides_it(tmp_path):
    done = run("", tmp_path, "import envs; import experiments")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path.resolve() / 'envs'} stands in the place of")
