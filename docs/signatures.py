"""How a signature reads in the reference: as in the source, not as it is evaluated.

Shapes then stand as they were written, ``Float[Array, 'n D']``, whatever the modules' annotations
evaluate to. What fields and constants say in comments becomes their description.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import tokenize

import api

_LONGEST_VALUE = 72  # of a constant that is shown with its value


@functools.cache
def _comments(module: str) -> dict[int, tuple[str, bool]]:
    """By line: the text of a comment, and whether it has the line for itself."""
    source = api.path_of(module).read_text(encoding="utf-8")
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = re.sub(r"#?\s*(type: ignore|noqa)\S*(: \S+)?", "", token.string)
            found[token.start[0]] = text.strip("# "), not token.line[: token.start[1]].strip()
    return {line: told for line, told in found.items() if told[0]}


def comment(module: str, node: ast.stmt) -> str:
    """What is written beside a statement, or right above it where nothing is beside it."""
    comments = _comments(module)
    for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
        if line in comments and not comments[line][1]:
            return comments[line][0]
    lines, line = [], node.lineno - 1
    while line in comments and comments[line][1]:
        lines.insert(0, comments[line][0])
        line -= 1
    return " ".join(lines)


def _readable(text: str) -> str:
    """Without the space that keeps linters from taking ``" D"`` for a name."""
    text = re.sub(r"\bself, |\bself\b", "", text, count=1) if text.startswith("(self") else text
    return re.sub(r"(\[[\w.]+, )' (\w+)'", r"\1'\2'", text)


def of_function(node: ast.FunctionDef) -> tuple[str, str | None]:
    """``(arguments)`` and what is returned, or None."""
    returns = None if node.returns is None else _readable(ast.unparse(node.returns))
    return _readable(f"({ast.unparse(node.args)})"), returns


def fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The annotated fields of a class: of a NamedTuple, a dataclass, a Flax module."""
    return [
        line
        for line in node.body
        if isinstance(line, ast.AnnAssign) and not ast.unparse(line.target).startswith("_")
    ]


def _arguments(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    """What a class is made from: the fields of the classes above it, and its own."""
    known = {name.name: name.node for names in api.public().values() for name in names}
    found = {}
    for base in node.bases:
        if isinstance(above := known.get(ast.unparse(base)), ast.ClassDef):
            found |= _arguments(above)
    own = {ast.unparse(field.target): field for field in fields(node)}
    return {
        name: field
        for name, field in (found | own).items()
        if not ast.unparse(field.annotation).startswith("ClassVar")
    }


def of_class(node: ast.ClassDef) -> str:
    """The fields of a class, with their types and defaults."""
    parts = []
    for field in _arguments(node).values():
        default = "" if field.value is None else f" = {_default(field.value)}"
        parts.append(f"{ast.unparse(field.target)}: {ast.unparse(field.annotation)}{default}")
    return _readable(f"({', '.join(parts)})") if parts else ""


def _default(value: ast.expr) -> str:
    """``dataclasses.field(default_factory=Config)`` is ``Config()``."""
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
        for word in value.keywords:
            if word.arg == "default_factory":
                made = word.value
                return ast.unparse(made.body if isinstance(made, ast.Lambda) else made) + (
                    "" if isinstance(made, ast.Lambda) else "()"
                )
    return ast.unparse(value)


def attributes(module: str, node: ast.ClassDef) -> list[str]:
    """The section "Attributes" that a docstring lacks, from the comments beside the fields."""
    told = {ast.unparse(field.target): comment(module, field) for field in fields(node)}
    if not any(told.values()):
        return []
    return ["Attributes:", *(f"  {name}: {text}" for name, text in told.items() if text), ""]


def value(node: ast.Assign | ast.AnnAssign) -> str | None:
    """The value of a constant if it is one name's own, and short."""
    if node.value is None or (
        isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple)
    ):
        return None
    text = _readable(ast.unparse(node.value))
    return text if len(text) <= _LONGEST_VALUE else None
