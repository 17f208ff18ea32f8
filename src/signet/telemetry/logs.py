"""Structured logs: one JSON object a line, on standard error, never a secret or a payload.

Secrets are taken out twice: members that are called like one, and, whatever they are called, the
values themselves: those of the settings, what a caller presented, and what looks like a key. The
second is done on the finished line, so that nesting, tracebacks and foreign messages hide nothing.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any, Final, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from signet.core.errors import SignetError

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REDACTED: Final = "[redacted]"

_SHORTEST: Final = 6  # a shorter secret protects nothing, and its text is part of other words
_NAMES: Final = re.compile(
    r"(?i)(?:.*[_-])?(?:authorization|cookie|password|passwd|secret|seed|token|api[_-]?key"
    r"|private[_-]?key)"
)
# What a pattern begins with, so that nearly every line is let pass by a few plain searches.
_MARKS: Final = (b"sp_", b"sk_", b"rk_", b"sk-", b"whsec_", b"PRIVATE KEY", b"earer ", b"://")
_LOOKS_SECRET: Final = re.compile(
    rb"sp_[a-z]+_[A-Za-z0-9_-]{8,}"
    rb"|[sr]k_(?:live|test)_[A-Za-z0-9]{8,}"
    rb"|sk-[A-Za-z0-9_-]{16,}"
    rb"|whsec_[A-Za-z0-9+/=_-]{8,}"
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----[^\"]*?(?:-----END [A-Z ]*PRIVATE KEY-----|(?=\")|\Z)"
    rb"|(?i:(?<=bearer ))[A-Za-z0-9._~+/=-]{6,}"
    rb"|(?<=://)[^/\s\"@]*:[^/\s\"@]*(?=@)",
)


class Redactor:
    """Takes secrets out of text. `secrets` are values; their spelling within JSON counts too."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._values = tuple(sorted(_spellings(secrets), key=len, reverse=True))

    def line(self, line: bytes, also: Iterable[str] = ()) -> bytes:
        """Return the bytes without any secret, nor any of the values in `also`."""
        more = tuple(_spellings(also)) if also else ()
        for value in (*self._values, *more):
            if value in line:
                line = line.replace(value, REDACTED.encode())
        if any(mark in line for mark in _MARKS):
            line = _LOOKS_SECRET.sub(REDACTED.encode(), line)
        return line

    def text(self, text: str) -> str:
        """Return the text without any secret."""
        return self.line(text.encode("utf-8", "replace")).decode("utf-8")


def build_logger(level: str, *, secrets: Iterable[str] = ()) -> FilteringBoundLogger:
    """Return the process's logger; nothing global is configured.

    `secrets` never appear in a line. A line's own `presented`, a sequence of texts, is not told but
    taken out of that line as well.
    """
    redactor = Redactor(secrets)

    def as_line(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        presented = cast("tuple[str, ...]", event.pop("presented", ()))
        said = {name: REDACTED if _NAMES.fullmatch(name) else v for name, v in event.items()}
        return redactor.line(_as_json(said), presented)

    return cast(
        FilteringBoundLogger,
        structlog.wrap_logger(
            structlog.BytesLogger(sys.stderr.buffer),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _whole_exception if level == "debug" else _frames,
                cast(Callable[[WrappedLogger, str, EventDict], bytes], as_line),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
            cache_logger_on_first_use=True,
        ),
    )


@contextmanager
def libraries_speak_in(log: FilteringBoundLogger) -> Generator[None]:
    """Let what libraries tell the standard logging come out as lines of ours, from warnings on."""
    root, handler = logging.getLogger(), LibraryHandler(log, "library")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class LibraryHandler(logging.Handler):
    """Tells what a library says as one line of ours, under the name `event`."""

    def __init__(self, log: FilteringBoundLogger, event: str) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        """Say it as a warning; a library's error is not ours, which is told where it is met."""
        said = record.getMessage()[:500]
        self._log.warning(self._event, logger=record.name, said=said, exc_info=record.exc_info)


def _frames(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Tell where an exception came from, and what it says only where we said it ourselves.

    The message of a foreign one may repeat what it choked on, and that is somebody's payload.
    """
    error = _exception(event)
    if error is not None:
        told: list[str] = []
        seen: BaseException | None = error
        while seen is not None and len(told) < 8:
            frames = traceback.extract_tb(seen.__traceback__)
            places = " < ".join(f"{f.filename}:{f.lineno} {f.name}" for f in reversed(frames))
            said = f": {seen}" if isinstance(seen, SignetError) else ""
            told.append(f"{type(seen).__name__}{said} at {places}")
            seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
        event["exception"] = told
    return event


def _whole_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Tell all of an exception: whoever asks for `debug` looks for a fault in our own code."""
    error = _exception(event)
    if error is not None:
        event["exception"] = "".join(traceback.format_exception(error))
    return event


def _exception(event: EventDict) -> BaseException | None:
    given: object = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = cast("tuple[object, ...]", given)[1]
    elif given is True:
        given = sys.exc_info()[1]
    return given if isinstance(given, BaseException) else None


def _as_json(said: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(said, default=repr)
    except orjson.JSONEncodeError:
        # A path that is no UTF-8, or an integer of 100 digits: saying it must not fail.
        return json.dumps(said, default=repr, skipkeys=True).encode("ascii")


def _spellings(secrets: Iterable[str]) -> Iterable[bytes]:
    for secret in secrets:
        plain = secret.strip().encode("utf-8", "replace")
        if len(plain) >= _SHORTEST:
            yield from {plain, json.dumps(secret.strip())[1:-1].encode("ascii")}
