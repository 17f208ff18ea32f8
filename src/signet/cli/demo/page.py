"""What the demo prints: headings, tables, commands with their output, 100 columns wide.

On a terminal it has colour and rules; in a pipe, or under an encoding that is not UTF-8, it is
plain ASCII.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, Literal, TextIO

from signet.cli.terminal import has_colour, is_terminal

Tone = Literal["plain", "bold", "dim", "good", "refused"]

WIDTH: Final = 100
_INDENT: Final = "  "
_GAP: Final = "  "
_SGR: Final[dict[Tone, str]] = {
    "plain": "",
    "bold": "1",
    "dim": "2",
    "good": "32",
    "refused": "33",
}


class Page:
    """Writes to `stream`, line by line, so that a person can follow."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._colour = has_colour(stream)
        self._ascii = not is_terminal(stream) or "utf" not in (stream.encoding or "").lower()

    def heading(self, text: str) -> None:
        """Begin a chapter."""
        text = self._spelt(text)
        rule = ("-" if self._ascii else "─") * (WIDTH - len(text) - 1)
        self._line("")
        self._line(f"{self._toned(text, 'bold')} {self._toned(rule, 'dim')}")

    def say(self, text: str, tone: Tone = "plain") -> None:
        """A paragraph."""
        for line in textwrap.wrap(self._spelt(text), WIDTH - len(_INDENT)):
            self._line(_INDENT + self._toned(line, tone))

    def gap(self) -> None:
        """An empty line."""
        self._line("")

    def command(self, line: str) -> None:
        """A command, as one would type it."""
        self._line("")
        self._line(_INDENT + self._toned(f"$ {self._spelt(line)}", "bold"))

    def output(self, text: str, tone: Tone = "plain") -> None:
        """What a command printed, its long lines continued on indented ones."""
        for line in self._spelt(text).splitlines():
            shown = [line]
            if len(line) > WIDTH - len(_INDENT):
                shown = textwrap.wrap(line, WIDTH - len(_INDENT), subsequent_indent="  ")
            for part in shown:
                self._line(_INDENT + self._toned(part, tone))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows under a head; the last column is wrapped, a column of three digits is a status."""
        rows = [[self._spelt(cell) for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns) - 1)]
        taken = len(_INDENT) + sum(width + len(_GAP) for width in widths)
        self._line("")
        self._row(columns, widths, [columns[-1]], taken, head=True)
        for row in rows:
            self._row(row, widths, textwrap.wrap(row[-1], WIDTH - taken) or [""], taken)

    def _row(
        self,
        row: Sequence[str],
        widths: Sequence[int],
        last: Sequence[str],
        taken: int,
        *,
        head: bool = False,
    ) -> None:
        cells = [
            self._toned(f"{cell:<{width}}", "dim" if head else _tone_of(cell))
            for cell, width in zip(row[:-1], widths, strict=True)
        ]
        first, *more = last
        shown = self._toned(first, "dim") if head else first
        self._line(_INDENT + _GAP.join([*cells, shown]))
        for line in more:
            self._line(" " * taken + line)

    def _toned(self, text: str, tone: Tone) -> str:
        if not self._colour or not _SGR[tone]:
            return text
        return f"\x1b[{_SGR[tone]}m{text}\x1b[0m"

    def _spelt(self, text: str) -> str:
        """The text in characters that the stream has; the widths are counted after this."""
        return text.encode("ascii", "backslashreplace").decode() if self._ascii else text

    def _line(self, text: str) -> None:
        print(text.rstrip(), file=self._stream, flush=True)


def _tone_of(cell: str) -> Tone:
    if len(cell) == 3 and cell.isdecimal():
        return "good" if cell.startswith("2") else "refused"
    return "plain"
