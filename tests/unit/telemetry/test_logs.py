"""Logs: one JSON object a line."""

from __future__ import annotations

import json
import logging
from typing import cast

import pytest

from signet.core.errors import SignetError
from signet.telemetry.logs import Redactor, build_logger, libraries_speak_in


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


def test_a_foreign_exception_is_told_by_its_places(capfd: pytest.CaptureFixture[str]) -> None:
    """Its message may repeat a payload; ours may not, and causes are told too."""
    log = build_logger("error")
    try:
        try:
            raise ValueError("the payload")
        except ValueError as error:
            raise SignetError("what we say") from error
    except SignetError:
        log.exception("failed")
    (line,) = _lines(capfd)
    ours, theirs = cast("list[str]", line["exception"])
    assert ours.startswith("SignetError: what we say at ")
    assert theirs.startswith("ValueError at ")
    assert __file__ in theirs
    assert "the payload" not in str(line)


def test_debug_tells_an_exception_whole(capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever asks for it sees the message, on the one line, without the secrets in it."""
    log = build_logger("debug", secrets=["s3cret-value"])
    try:
        raise ValueError("why: s3cret-value")
    except ValueError:
        log.exception("failed")
    (line,) = _lines(capfd)
    assert "ValueError: why: [redacted]" in str(line["exception"])


def test_anything_can_be_logged(capfd: pytest.CaptureFixture[str]) -> None:
    """What JSON does not know is shown as its repr; a log line never raises."""
    build_logger("info").info("odd", value={1, 2}, kind=ValueError, big=1 << 80, text="\ud800")
    assert len(_lines(capfd)) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "Authorization", "password", "db_password", "api_key", "API-Key"),
        *("token", "metrics_token", "seed", "client-secret", "private_key", "cookie"),
    ],
)
def test_by_name(capfd: pytest.CaptureFixture[str], name: str) -> None:
    """What is called like a secret is none of the log's business."""
    build_logger("info").info("x", **{name: "visible"})
    (line,) = _lines(capfd)
    assert line[name] == "[redacted]"


def test_names_that_only_sound_like_it(capfd: pytest.CaptureFixture[str]) -> None:
    """Counts, ids and public names stay."""
    said = {"kid": "k", "key_id": "i", "fu_tokens": 5, "code": "unauthenticated", "tokens": 3}
    build_logger("info").info("x", **said)
    (line,) = _lines(capfd)
    assert {name: line[name] for name in said} == said


@pytest.mark.parametrize(
    "secret",
    ["plain-secret", 'quo"ted\\back', "ümlaut-☃-secret", "two\nlines", "a+b/c=d.e*f[g]"],
)
def test_by_value(capfd: pytest.CaptureFixture[str], secret: str) -> None:
    """A secret goes wherever it stands, in whatever spelling the line has it."""
    log = build_logger("info", secrets=[secret, "short", ""])
    log.info(f"said {secret}", nested={"deep": [f"x{secret}y"]}, odd=ValueError(secret), s="short")
    err = capfd.readouterr().err
    line = json.loads(err)
    for spelling in (secret, json.dumps(secret)[1:-1]):
        assert spelling not in err
    assert line["event"] == "said [redacted]"
    assert line["nested"] == {"deep": ["x[redacted]y"]}
    assert line["s"] == "short"


def test_what_a_caller_presented(capfd: pytest.CaptureFixture[str]) -> None:
    """It goes out of that line, and is not told as a member either."""
    log = build_logger("info")
    log.info("x", error="no key acme-key-1 here", presented=("acme-key-1",))
    log.info("y", error="acme-key-1")
    first, second = _lines(capfd)
    assert first["error"] == "no key [redacted] here"
    assert "presented" not in first
    assert second["error"] == "acme-key-1"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("key sp_live_4f9a_ZmFrZS1zZWNyZXQ is", "key [redacted] is"),
        ("sk_live_4eC39HqLyjWDarjtT1", "[redacted]"),
        ("rk_test_4eC39HqLyjWDarjtT1", "[redacted]"),
        ("sk-proj-abcdefghijklmnop1234", "[redacted]"),
        ("whsec_MDEyMzQ1Njc4OWFi", "[redacted]"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer [redacted]"),
        ("bearer abcdefgh", "bearer [redacted]"),
        ("postgresql://signet:pa55word@db/signet", "postgresql://[redacted]@db/signet"),
        (
            "-----BEGIN PRIVATE KEY-----\nMC4CAQ\n-----END PRIVATE KEY----- rest",
            "[redacted] rest",
        ),
        ("-----BEGIN EC PRIVATE KEY-----\ncut", "[redacted]"),
        ("https://example.com/a:b@c", "https://example.com/a:b@c"),
        ("the bearer of news", "the bearer of news"),
        ("sp_live_ and sk-short", "sp_live_ and sk-short"),
    ],
)
def test_by_looks(text: str, left: str) -> None:
    """What looks like a key is taken for one, and nothing else is."""
    assert Redactor().text(text) == left


def test_a_redacted_line_is_still_json(capfd: pytest.CaptureFixture[str]) -> None:
    """A key in PEM that was cut off takes the rest of the line with it, and yet it parses."""
    build_logger("info").info("x", said="-----BEGIN PRIVATE KEY-----\ncut", more="y")
    (line,) = _lines(capfd)
    assert line["event"] == "x"


def test_libraries_speak_in_lines_of_ours(capfd: pytest.CaptureFixture[str]) -> None:
    """From warnings on, without secrets, and only within the block."""
    log = build_logger("info", secrets=["s3cret-value"])
    with libraries_speak_in(log):
        logging.getLogger("some.library").warning("about %s", "s3cret-value")
        logging.getLogger("some.library").info("chatter")
    (line,) = _lines(capfd)
    assert (line["event"], line["logger"]) == ("library", "some.library")
    assert line["said"] == "about [redacted]"
