"""Puts in the account that hosts a copy: ``python docs/owner.py ACCOUNT``, or ACCOUNT/REPOSITORY.

Badges, the first cells of the notebooks and the links of the site then lead to that copy. The one
place that says whose it is now is ``[project.urls]`` in ``pyproject.toml``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_HOST = "https://github.com/"
_SLUG = re.compile(r"[\w.-]+/[\w.-]+")


def owner(root: Path = ROOT) -> str:
    """ACCOUNT/REPOSITORY, as ``[project.urls]`` has it."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return text.split(f'Repository = "{_HOST}', 1)[1].split('"', 1)[0]


def set_owner(name: str, root: Path = ROOT) -> list[Path]:
    """Writes another one into all files that name it, and returns these.

    Raises:
      ValueError: the name is neither an account nor ACCOUNT/REPOSITORY.
    """
    before = owner(root)
    after = name if "/" in name else f"{name}/{before.partition('/')[2]}"
    if not _SLUG.fullmatch(after):
        raise ValueError(f"{name!r} is neither ACCOUNT nor ACCOUNT/REPOSITORY")
    notebooks = sorted((root / "experiments" / "notebooks").glob("*.ipynb"))
    changed = []
    for path in (root / "pyproject.toml", root / "README.md", *notebooks):
        text = path.read_text(encoding="utf-8")
        if before in text:
            path.write_text(text.replace(before, after), encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        print(*set_owner(sys.argv[1]), sep="\n")
    except ValueError as error:
        sys.exit(f"error: {error}")
