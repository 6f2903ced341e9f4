"""Values as other tools write them, in the words of the command line.

Sweep tools, YAML and JSON have ``--strict=True``, ``--batch=null`` and ``--layers=[40, 40]``; ours
are ``--strict``, ``--batch None`` and ``--layers 40 40``.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
_NOTHING = {"none", "null", "nil"}
_BRACKETS = re.compile(r"^\s*[\[(](.*)[\])]\s*$", re.DOTALL)


def in_our_words(argv: Sequence[str], kinds: Mapping[str, Any]) -> list[str]:
    """The same arguments in our spelling; what is of no known flag stays as it is.

    Args:
      argv: arguments.
      kinds: the type of each flag, ``--policy.layers`` for instance.
    """
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        kind = kinds.get(flag.replace("_", "-")) if word.startswith("--") else None
        if kind is None:
            words.append(word)
            continue
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        words += _spelt(flag, values, kind)
    return words


def _spelt(flag: str, values: list[str], kind: Any) -> list[str]:
    """A flag with its values."""
    first = values[0].lower() if len(values) == 1 else ""
    if kind is bool and first in _TRUE | _FALSE:
        lead, _, last = flag.rpartition("." if "." in flag else "--")
        lead += "." if "." in flag else "--"
        return [flag if first in _TRUE else f"{lead}no-{last}"]
    if first in _NOTHING and _may_be(kind, type(None)):
        return [flag, "None"]
    if _holds_numbers(kind):
        text = " ".join(values)
        inside = _BRACKETS.match(text)
        return [flag, *(inside[1] if inside else text).replace(",", " ").split()]
    return [flag, *values]


def _may_be(kind: Any, wanted: type) -> bool:
    """Whether a type is, or may be, another one."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(_may_be(part, wanted) for part in typing.get_args(kind))
    return kind is wanted or typing.get_origin(kind) is wanted


def _holds_numbers(kind: Any) -> bool:
    """Whether a type is a tuple of numbers, or may be one."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(map(_holds_numbers, typing.get_args(kind)))
    parts = [part for part in typing.get_args(kind) if part is not Ellipsis]
    return typing.get_origin(kind) is tuple and all(part in (int, float) for part in parts)
