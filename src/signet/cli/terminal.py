"""What a person at a terminal sees more of than a pipe: progress, colour, box characters."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def is_terminal(stream: TextIO) -> bool:
    """Whether a person is likely to watch `stream`."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def has_colour(stream: TextIO) -> bool:
    """Whether colour is welcome (https://no-color.org)."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR")


class Progress:
    """One line that is written over; in a pipe, nothing at all.

    Use it as a context manager: at the end, however it comes, the line is gone.
    """

    def __init__(self, label: str, *, stream: TextIO | None = None) -> None:
        self._label = label
        self._stream = stream or sys.stderr
        self._shown = is_terminal(self._stream)

    def show(self, text: str) -> None:
        """Replace what is shown."""
        if self._shown:
            self._stream.write(f"\r\x1b[K{self._label}: {text}")
            self._stream.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()


def bytes_text(size: int) -> str:
    """A size for people: `512 B`, `1.4 MB` (powers of ten)."""
    if size < 1000:
        return f"{size} B"
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 1000:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"
