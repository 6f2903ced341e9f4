"""Standard output and errors that cannot cost a run: whatever becomes of who reads them."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

# What a terminal of another encoding gets, where it cannot show our own characters.
_PLAIN = {
    **{"\N{MINUS SIGN}": "-", "\N{EN DASH}": "-", "\N{MULTIPLICATION SIGN}": "x", "±": "+/-"},
    **{"≥": ">=", "≤": "<=", "→": "->", "…": "...", "█": "#", "²": "^2", "³": "^3"},
    **{"\N{GREEK SMALL LETTER ALPHA}": "alpha", "β": "beta", "φ": "phi", "λ": "lambda"},
    **{"\N{GREEK SMALL LETTER NU}": "nu", "\N{GREEK SMALL LETTER GAMMA}": "gamma"},
    **dict.fromkeys("╭╮╰╯├┤┬┴┼┌┐└┘", "+"),
    **dict.fromkeys("─━═", "-"),
    **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("₀₁₂₃₄₅₆₇₈₉", ""),
}
_GONE = {errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO, errno.ESHUTDOWN}


def _in_plain_words(error: UnicodeError) -> tuple[str, int]:
    """What cannot be encoded, in characters that can, or question marks."""
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_PLAIN.get(char, "?") for char in text), error.end


codecs.register_error("roml-plain", _in_plain_words)


class Steady:
    """A stream that swallows what it cannot write: a full disk, a reader that has gone.

    Everything else is as in the stream below.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's."""
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, or does not; says that it has."""
        with self._or_not():
            self._stream.write(text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Writes line by line."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes, or does not."""
        with self._or_not():
            self._stream.flush()

    def settle(self) -> None:
        """The last that is done here: what still waits will not fail when the process ends."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._leave()

    def _leave(self) -> None:
        """Leads the stream nowhere, so that nothing that is buffered fails again."""
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())

    @contextlib.contextmanager
    def _or_not(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in _GONE:  # for good
                self._leave()
        except ValueError:  # the stream is closed
            pass


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """While entered, nothing that is printed can fail, in any encoding."""
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="roml-plain")
    sys.stdout, sys.stderr = (None if s is None else Steady(s) for s in before)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, Steady):
                stream.settle()
        sys.stdout, sys.stderr = before
