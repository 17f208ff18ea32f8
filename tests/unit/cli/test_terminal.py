"""What a terminal sees and a pipe does not."""

from __future__ import annotations

import io
from contextlib import suppress

import pytest

from signet.cli.terminal import Progress, bytes_text, has_colour, is_terminal


class Terminal(io.StringIO):
    """A stream that a person watches."""

    def isatty(self) -> bool:
        return True


def test_progress_is_for_terminals() -> None:
    """On a terminal progress is one line that is gone at the end; in a pipe there is none."""
    watched, piped = Terminal(), io.StringIO()
    for stream in (watched, piped):
        with Progress("export", stream=stream) as progress:
            progress.show("1 kB")
            progress.show("2 kB")
    assert piped.getvalue() == ""
    assert watched.getvalue() == "\r\x1b[Kexport: 1 kB\r\x1b[Kexport: 2 kB\r\x1b[K"


def test_progress_is_gone_after_a_failure() -> None:
    """The line does not stay in front of an error."""
    watched = Terminal()
    with suppress(OSError), Progress("export", stream=watched) as progress:
        progress.show("1 kB")
        raise OSError
    assert watched.getvalue().endswith("\r\x1b[K")


def test_colour_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and a dumb terminal are honoured."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert has_colour(Terminal())
    assert not has_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not has_colour(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not is_terminal(Terminal())


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (10**9, "1.0 GB"),
        (10**15, "1000.0 TB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    """Sizes are told in powers of ten."""
    assert bytes_text(size) == text
