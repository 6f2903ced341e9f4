"""What is told to the user on a line of its own."""

from __future__ import annotations

import sys


class UserError(Exception):
    """Something that the user can put right; shown as one line, exit code 2."""


def warn(text: str) -> None:
    """Tells the user something on a line of its own, also above a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"warning: {' '.join(text.split())}", file=sys.stderr)
