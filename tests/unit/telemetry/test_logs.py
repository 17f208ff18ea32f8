"""Logs: one JSON object a line."""

from __future__ import annotations

import json

import pytest

from signet.telemetry.logs import build_logger


def _lines(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_line_is_an_object(capfd: pytest.CaptureFixture[str]) -> None:
    """Event, level and time in UTC, and what was said."""
    build_logger("info").info("request", status=200, path="/a\nb")
    (line,) = _lines(capfd)
    assert line["event"] == "request"
    assert line["level"] == "info"
    assert line["path"] == "/a\nb"
    assert str(line["timestamp"]).endswith("Z")


def test_less_than_the_level_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """A level is the least that is said."""
    log = build_logger("warning")
    log.info("no")
    log.warning("yes")
    assert [line["event"] for line in _lines(capfd)] == ["yes"]


def test_a_traceback_stays_on_its_line(capfd: pytest.CaptureFixture[str]) -> None:
    """An exception is told whole, as one member."""
    log = build_logger("error")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    (line,) = _lines(capfd)
    assert "ValueError: why" in str(line["exception"])


def test_anything_can_be_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """What JSON does not know is shown as its repr; a log line never raises."""
    build_logger("info").info("odd", value={1, 2}, kind=ValueError, big=1 << 80, text="\ud800")
    assert len(_lines(capfd)) == 1
