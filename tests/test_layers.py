"""Who imports whom: the floors of the house, walked through without importing anything."""

import ast
import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("roml_jax", "envs", "experiments")

# Floors of ``experiments``, from the ground up; those of one line do not see each other.
FLOORS = [
    {"roml_jax"},
    {"envs", "experiments.style"},
    {"experiments.spec"},
    {"experiments.domains"},
    {"experiments.presets"},
    {"experiments.cli", "experiments.listing"},
    {"experiments.training"},
    {"experiments.study", "experiments.videos"},
    {"experiments.commands", "experiments.bench"},
]
COMMANDS = {
    f"experiments.{name}"
    for name in ("api", "train", "evaluate", "compare", "figures", "references", "render", "own")
}
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}
# Generic code, which names no environment: those of videos are of bodies by definition.
GENERIC = ["roml_jax", "experiments.spec", "experiments.training", "experiments.study"]
GENERIC += ["experiments.cli", "experiments.style", *sorted(COMMANDS - {"experiments.render"})]
ENVIRONMENTS = re.compile(
    r"khazad|mujoco|cheetah|humanoid|\bants?\b|\bsine\b|half.circle|point.sparse", re.IGNORECASE
)


def module_of(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {
    module_of(file): file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))
}


def imports(module):
    """The modules of the project that a module imports, wherever it does so."""
    file = FILES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*above, *([node.module] if node.module else [])])
            base = base if node.level else node.module
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else base for name in names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


GRAPH = {module: set(imports(module)) - {module} for module in FILES}


def floor_of(module):
    head, *rest = module.split(".")
    if head != "experiments" or not rest:
        return head
    name = f"{head}.{rest[0]}"
    return "experiments.commands" if name in COMMANDS else name


def inside(module, *packages):
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def test_the_walk_sees_the_imports():
    assert len(FILES) > 100
    assert "roml_jax.risk" in GRAPH["roml_jax.train"]  # from roml_jax.risk import …
    assert "experiments.training.trainer" in GRAPH["experiments.train"]  # inside a function
    assert "envs.mujoco.engines" in GRAPH["envs.mujoco.body_env"]  # relative
    assert "roml_jax.samplers" in GRAPH["roml_jax.methods.roml"]  # a package
    assert all(GRAPH[module] <= FILES.keys() for module in GRAPH)


@pytest.mark.parametrize("module", GRAPH)
def test_nothing_runs_back_up(module):
    if module == "experiments":
        return
    own = floor_of(module)
    for other in GRAPH[module]:
        below = floor_of(other)
        same = own == below and own != "experiments.commands"
        assert same or HEIGHT[below] < HEIGHT[own], f"{module} imports {other}"


@pytest.mark.parametrize("package", [*PACKAGES])
def test_there_are_no_circles(package):
    done, path = set(), []

    def visit(module):
        assert module not in path, f"a circle: {' → '.join([*path, module])}"
        if module in done:
            return
        path.append(module)
        for other in sorted(GRAPH[module]):
            if inside(other, package):
                visit(other)
        done.add(path.pop())

    for module in GRAPH:
        if inside(module, package):
            visit(module)


def test_environments_do_not_see_each_other():
    for own, other in itertools.combinations(("khazad_dum", "mujoco", "point", "sine"), 2):
        for one, two in ((own, other), (other, own)):
            for module in GRAPH:
                if inside(module, f"envs.{one}", f"experiments.domains.{one}"):
                    seen = [m for m in GRAPH[module] if inside(m, f"envs.{two}")]
                    seen += [m for m in GRAPH[module] if inside(m, f"experiments.domains.{two}")]
                    assert not seen, f"{module} imports {seen}"


def test_samplers_and_learners_never_know_each_other():
    pair = ("roml_jax.samplers", "roml_jax.learners")
    for own, other in (pair, pair[::-1]):
        for module in GRAPH:
            if inside(module, own):
                assert not [m for m in GRAPH[module] if inside(m, other)], module
    assert not [m for m in GRAPH["roml_jax.train"] if inside(m, *pair, "roml_jax.methods")]
    assert not [m for m in GRAPH if inside(m, pair[1]) and "roml_jax.methods" in GRAPH[m]]


@pytest.mark.parametrize("module", [m for m in FILES if inside(m, *GENERIC)])
def test_generic_code_names_no_environment(module):
    """In names and strings; docstrings may give examples."""
    tree = ast.parse(FILES[module].read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            text = node.id
        elif isinstance(node, ast.Attribute):
            text = node.attr
        elif isinstance(node, ast.alias):
            text = node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = "" if id(node) in docstrings else node.value
        else:
            continue
        assert not ENVIRONMENTS.search(text), f"{module}:{node.lineno} names {text!r}"


@pytest.mark.parametrize("module", sorted(m for m in FILES if not m.startswith("roml_jax")))
def test_files_are_utf8_whatever_the_locale(module):
    """Every text file is opened, read and written with an encoding."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        binary = any(isinstance(word, str) and "b" in word for word in words)
        named = any(keyword.arg == "encoding" for keyword in node.keywords)
        outside = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "os"
        if name in ("open", "read_text", "write_text", "fdopen") and not (binary or outside):
            assert named, ast.unparse(node)
