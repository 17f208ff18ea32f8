"""What the demo prints fits 100 columns, is plain in a pipe, and has colour for a person."""

from __future__ import annotations

import io

import pytest

from signet.cli.demo.page import WIDTH, Page


class Terminal(io.TextIOWrapper):
    """A UTF-8 stream that a person watches."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", write_through=True)

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        self.seek(0)
        return self.read()


def fill(page: Page) -> None:
    """One of everything, long and not ASCII."""
    page.heading("1  Bäckerei")
    page.say("word " * 60)
    page.table(
        ("who", "HTTP", "what"), [("a", "200", "short"), ("bb", "422", "a long reason; " * 20)]
    )
    page.command("signet verify")
    page.output("x " * 120 + "\nü", "good")
    page.gap()


def test_pipe() -> None:
    """In a pipe all of it is ASCII, without escapes, and at most 100 wide."""
    stream = io.StringIO()
    fill(Page(stream))
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()
    assert all(len(line) <= WIDTH for line in stream.getvalue().splitlines())
    assert all(line == line.rstrip() for line in stream.getvalue().splitlines())


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal success is green, a refusal yellow, and umlauts are themselves."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    fill(Page(stream))
    said = stream.text()
    assert "\x1b[32m200 \x1b[0m" in said
    assert "\x1b[33m422 \x1b[0m" in said
    assert "Bäckerei" in said
    assert "─" in said


def test_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR takes the colour and leaves the rest."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    fill(Page(stream))
    assert "\x1b" not in stream.text()
    assert "─" in stream.text()


def test_columns_stand_below_each_other() -> None:
    """Every row's last column begins where its head does, continued lines included."""
    stream = io.StringIO()
    Page(stream).table(("who", "HTTP", "what"), [("alice", "200", "x"), ("b", "401", "y " * 90)])
    head, *rows = stream.getvalue().splitlines()[1:]
    place = head.index("what")
    assert all(row[place] in "xy" for row in rows)
    assert all(row[place - 1] == " " for row in rows)
