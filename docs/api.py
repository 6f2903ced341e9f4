"""What is public in ``roml_jax`` and ``envs``, and which page of the reference shows it.

``python docs/api.py`` names what has no docstring, and what no page shows.

Modules are read and not imported: nothing has to be installed. A page shows a module by a block
``{api}`` that holds its name, and with it all that is public in it, so that a new function is
shown by being written, and a new module by one line.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
PACKAGES = ("roml_jax", "envs")
API_BLOCK = re.compile(r"^```\{api\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)

Statement = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


class Name(NamedTuple):
    """A public name: where it is imported from, and what stands for it in the source."""

    module: str  # that people import it from, and that shows it
    name: str
    node: Statement
    defined: str  # module that it stands in

    @property
    def has_docstring(self) -> bool:
        """Functions and classes need one; of a constant its value says enough."""
        if isinstance(self.node, ast.Assign | ast.AnnAssign):
            return True
        return ast.get_docstring(self.node) is not None


def _private(dotted: str) -> bool:
    return any(part.startswith("_") for part in dotted.split("."))


@functools.cache
def path_of(module: str) -> Path:
    """The file of a module or package."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@functools.cache
def tree(module: str) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path_of(module).read_text(encoding="utf-8"))


@functools.cache
def modules() -> tuple[str, ...]:
    """All modules of the packages, also those with an underscore, packages before their parts."""
    found = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return tuple(sorted(found))


@functools.cache
def exported(module: str) -> tuple[str, ...] | None:
    """``__all__``, or None where a module has none."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    return None


@functools.cache
def source_of(module: str, name: str) -> str | None:
    """The module that a name of ``module`` is defined in, as its imports say."""
    if name in definitions(module):
        return module
    for node in tree(module).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            origin = node.module or ""
            if node.level:  # relative: only packages have any
                origin = f"{module}.{origin}"
            return source_of(origin, name) if origin in modules() else None
    return None


@functools.cache
def definitions(module: str) -> dict[str, Statement]:
    """What a module defines, in order of its lines; names with an underscore too."""
    found: dict[str, Statement] = {}
    for node in tree(module).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                names = target.elts if isinstance(target, ast.Tuple) else [target]
                found |= {name.id: node for name in names if isinstance(name, ast.Name)}
    return found


def owner(module: str, name: str) -> str:
    """Where a name is imported from: the outermost package above it whose ``__all__`` has it."""
    parts = module.split(".")
    for length in range(1, len(parts)):
        package = ".".join(parts[:length])
        if name in (exported(package) or ()) and source_of(package, name) == module:
            return package
    return module


@functools.cache
def public() -> dict[str, tuple[Name, ...]]:
    """The public names of each module that has any, by the module that shows them."""
    found: dict[str, list[Name]] = {}
    for module in sorted(modules(), key=_private):
        chosen = exported(module)
        for name, node in definitions(module).items():
            shown = owner(module, name)
            outside = chosen is not None and shown == module and name not in chosen
            if not name.startswith("_") and not _private(shown) and not outside:
                found.setdefault(shown, []).append(Name(shown, name, node, module))
    return {module: tuple(names) for module, names in found.items()}


def shown(pages: Path = DOCS) -> list[str]:
    """The modules that the pages' blocks ``{api}`` name."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(pages.rglob("*.md")))
    return [
        module for text in texts for block in API_BLOCK.findall(text) for module in block.split()
    ]


def faults(pages: Path = DOCS) -> list[str]:
    """A line for whatever is public and has no docstring, or is shown by no page or by several."""
    names, blocks = public(), shown(pages)
    return [
        *(
            f"{name.module}.{name.name} has no docstring."
            for module in names
            for name in names[module]
            if not name.has_docstring
        ),
        *(f"No page shows {module}." for module in names if module not in blocks),
        *(
            f"{module} is shown twice."
            for module in sorted(set(blocks))
            if blocks.count(module) > 1
        ),
        *(
            f"A page shows {module}: no such module."
            for module in blocks
            if module not in modules()
        ),
    ]


if __name__ == "__main__":
    sys.exit("\n".join(faults()))
