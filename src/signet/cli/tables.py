"""Tables of plain text: a head, rows, numbers flush right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_GAP: Final = "  "


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of text; a column whose name begins with `>` is flush right."""
    right = [column.startswith(">") for column in columns]
    head = [column.removeprefix(">") for column in columns]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = zip(row, widths, right, strict=True)
        return _GAP.join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in cells).rstrip()

    return "\n".join(map(line, (head, *rows)))
