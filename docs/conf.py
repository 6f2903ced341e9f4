"""Settings of the documentation site: ``sphinx-build -W --keep-going docs build/docs``.

The pages are the Markdown files of this folder as GitHub shows them. What GitHub resolves and
Sphinx does not is rewritten as they are read: links out of this folder, and blocks ``{api}``.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.nodes import make_refnode

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

import api  # noqa: E402
import signatures  # noqa: E402

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # importing may find no accelerator in use

with open(ROOT / "pyproject.toml", "rb") as file:
    _project = tomllib.load(file)["project"]

project = _project["name"]
release = version = _project["version"]
author = copyright = f"the {project} authors"
REPOSITORY = _project["urls"]["Repository"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/.ipynb_checkpoints"]
nitpicky = True

html_theme = "furo"
html_title = project
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}
html_show_copyright = False
html_copy_source = False

nb_execution_mode = "off"  # notebooks show the outputs that are stored in them
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_custom_sections = [("Reference", "References"), ("Attributes", "params_style")]
napoleon_attr_annotations = False  # the signature has them, as they are written
napoleon_use_rtype = False

# ------------------------------------------------------------------ pages as GitHub shows them

COPIES = {  # what stands outside of this folder, and the page of the site that shows it
    "README.md": "index.md",  # not a copy, but it says the same
    "CHANGELOG.md": "changelog.md",
    "experiments/notebooks/khazad_dum.ipynb": "notebooks/khazad_dum.ipynb",
    "experiments/notebooks/lift_a_function.ipynb": "notebooks/lift_a_function.ipynb",
    "experiments/notebooks/sine.ipynb": "notebooks/sine.ipynb",
}
LINK = re.compile(r"(\]\()([^)#\s]+)")


def copy_notebooks(app: Any, config: Any) -> None:
    """Puts notebooks where Sphinx reads them, and leaves those alone that are there already."""
    for source, target in COPIES.items():
        if source.endswith(".ipynb"):
            text = (ROOT / source).read_text(encoding="utf-8")
            copy = DOCS / target
            text = resolve_links(text, (ROOT / source).parent, copy)
            copy.parent.mkdir(exist_ok=True)
            if not copy.exists() or copy.read_text(encoding="utf-8") != text:
                copy.write_text(text, encoding="utf-8")


def resolve_links(text: str, folder: Path, page: Path) -> str:
    """Links of a text in ``folder`` that lead out of ``docs``, as they have to be in ``page``."""

    def replace(link: re.Match[str]) -> str:
        target = link[2]
        path = (folder / target).resolve()
        if ":" in target or not path.exists() or not path.is_relative_to(ROOT):
            return link[0]
        inside = path.relative_to(ROOT).as_posix()
        if inside in COPIES:
            path = DOCS / COPIES[inside]
        elif not path.is_relative_to(DOCS) or path.is_dir() or path.suffix == ".py":
            kind = "tree" if path.is_dir() else "blob"
            return f"{link[1]}{REPOSITORY}/{kind}/main/{inside}"
        return link[1] + os.path.relpath(path, page.parent).replace(os.sep, "/")

    return LINK.sub(replace, text)


def read_page(app: Any, name: str, source: list[str]) -> None:
    """Makes of a page what Sphinx understands."""
    page = Path(app.env.doc2path(name))
    if page.suffix == ".md":
        text = resolve_links(source[0], page.parent, page)
        source[0] = api.API_BLOCK.sub(lambda block: api_of(block[1].split()), text)


def read_included(app: Any, path: Path, page: str, source: list[str]) -> None:
    """The same for a file that a page includes."""
    folder = (DOCS / path).resolve().parent
    source[0] = resolve_links(source[0], folder, Path(app.env.doc2path(page)))


# ------------------------------------------------------------------ the reference


def api_of(modules: list[str]) -> str:
    """A block that shows modules: what each says of itself, and all that is public in it."""
    taken = {f"{name.module}.{name.name}" for names in api.public().values() for name in names}
    lines = ["```{eval-rst}"]
    for module in modules:
        if module not in taken:  # else a function of the package stands in the module's place
            lines += ["", f".. py:module:: {module}"]
        lines += ["", *(ast.get_docstring(api.tree(module)) or "").splitlines(), ""]
        for name in api.public().get(module, ()):
            lines += directive(name)
    return "\n".join([*lines, "```"])


def directive(name: api.Name) -> list[str]:
    """The lines that show one name."""
    match name.node:
        case ast.FunctionDef():
            kind, options = "function", []
        case ast.ClassDef():
            hidden = [ast.unparse(field.target) for field in signatures.fields(name.node)]
            kind, options = "class", ["members:", "special-members: __call__"]
            options += [f"exclude-members: {', '.join(hidden)}"] * bool(hidden)
        case _:
            kind, value = "data", signatures.value(name.node)
            options = ["no-value:" if value is None else f"annotation: = {value}"]
    return [f".. auto{kind}:: {name.module}::{name.name}", *(f"   :{o}" for o in options), ""]


def find(full: str) -> tuple[api.Name, ast.AST] | None:
    """What a full name stands for: a public name, and the statement of it or of its method."""
    for module, names in api.public().items():
        if full.startswith(f"{module}."):
            first, _, method = full.removeprefix(f"{module}.").partition(".")
            for name in names:
                if name.name == first and not method:
                    return name, name.node
                if name.name == first and isinstance(name.node, ast.ClassDef):
                    for node in name.node.body:
                        if isinstance(node, ast.FunctionDef) and node.name == method:
                            return name, node
    return None


def write_signature(
    app: Any, what: str, full: str, obj: Any, options: Any, signature: str, returns: str
) -> tuple[str | None, str | None] | None:
    """A signature as the source has it."""
    match find(full):
        case (_, ast.FunctionDef() as node) if what != "property":
            return signatures.of_function(node)
        case (_, ast.ClassDef() as node):
            return signatures.of_class(node), None
    return None


def write_docstring(
    app: Any, what: str, full: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Adds what comments say of fields, and makes a section of a reference in one line."""
    match find(full):
        case (name, ast.ClassDef() as node):
            if not any(line.strip() == "Attributes:" for line in lines):
                lines += ["", *signatures.attributes(name.defined, node)]
    if what == "property":
        lines[:0] = ["..", ""]  # or napoleon takes ``a: b`` in the first line for a type
    for i, line in enumerate(lines):
        lines[i] = line = re.sub(r"(^|: )([A-Z])\.$", r"\1\2\\.", line)  # else item "K." of a list
        if line.startswith("Reference: "):
            end = lines.index("", i) if "" in lines[i:] else len(lines)
            told = [line.removeprefix("Reference: "), *lines[i + 1 : end]]
            lines[i:end] = ["Reference:", *(f"  {part.strip()}" for part in told)]
            break


def write_constant(
    app: Any, what: str, full: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Says of a constant what its comment says; napoleon would take ``a: b`` for a type."""
    match find(full):
        case (name, ast.Assign() | ast.AnnAssign() as node):
            lines[:] = [signatures.comment(name.defined, node), ""]


def shorten_types(app: Any, doctree: Any) -> None:
    """Properties' types are told as evaluated: ``Array`` is a name of jaxlib's there."""
    for text in list(doctree.findall(nodes.Text)):
        if "jaxlib._jax." in text:
            text.parent.replace(text, nodes.Text(text.replace("jaxlib._jax.", "")))


def resolve_type(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Links a type by its short name, which is one of ours; others are text, as ``Array`` is."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"].rpartition(".")[2]
    owners = [m for m, names in api.public().items() if target in {name.name for name in names}]
    own = [owner for owner in owners if owner == node.get("py:module")] or owners
    domain = env.get_domain("py")
    for owner in own[:1] if len(own) == 1 else []:
        if found := domain.objects.get(f"{owner}.{target}"):
            return make_refnode(app.builder, node["refdoc"], found.docname, found.node_id, content)
    return content if node["reftype"] in ("class", "obj", "data", "exc") else None


def setup(app: Any) -> dict[str, bool]:
    """Registers the above."""
    app.connect("config-inited", copy_notebooks)
    app.connect("source-read", read_page)
    app.connect("include-read", read_included)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-process-docstring", write_docstring, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", write_constant, priority=600)  # after it
    app.connect("doctree-read", shorten_types)
    app.connect("missing-reference", resolve_type)
    return {"parallel_read_safe": True}
