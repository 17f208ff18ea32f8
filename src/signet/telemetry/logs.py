"""Structured logs: one JSON object a line, on standard error, never a secret or a payload."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, Final, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def build_logger(level: str) -> FilteringBoundLogger:
    """Return the process's logger; nothing global is configured."""
    return cast(
        FilteringBoundLogger,
        structlog.wrap_logger(
            structlog.BytesLogger(sys.stderr.buffer),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                cast(Callable[[WrappedLogger, str, EventDict], bytes], _as_json),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
            cache_logger_on_first_use=True,
        ),
    )


def _as_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    said = cast(dict[str, Any], event)
    try:
        return orjson.dumps(said, default=repr)
    except orjson.JSONEncodeError:
        # A path that is no UTF-8, or an integer of 100 digits: saying it must not fail.
        return json.dumps(said, default=repr, skipkeys=True).encode("ascii")
