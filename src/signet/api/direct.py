"""What is whole goes past ASGI's messages: a body that has come, and an answer that is ready.

ASGI hands a body over message by message and takes an answer in two, and uvicorn gives each of the
two to the kernel by itself, so that the caller is woken twice. Where the server is not ours, or
something is not whole, nothing here applies and the messages do it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast
from weakref import ref

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

_PLACE: Final = "signet.cycle"
_HARMLESS: Final = bytes({*range(256)} - {*range(32), 127} | {9})
"""All that a header's value may hold (RFC 9110, 5.5)."""


def allow_direct(cycle: RequestResponseCycle) -> None:
    """Let the application at the request's own cycle.

    The cycle holds the scope, so the scope must not hold the cycle: every request would be left to
    the garbage collector.
    """
    cast(Scope, cycle.scope)[_PLACE] = ref(cycle)


def body_at_hand(scope: Scope) -> bytes | None:
    """Return the body if all of it has come; None where it must be received."""
    cycle = _cycle(scope)
    if cycle is None or cycle.more_body or cycle.disconnected or cycle.response_started:
        return None
    cycle.flow.resume_reading()
    cycle.message_event.clear()
    body = bytes(cycle.body)
    cycle.body = bytearray()
    return body


def answer_at_once(
    scope: Scope, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bool:
    """Write a whole answer, whose `headers` tell its length; False where it must be sent."""
    cycle = _cycle(scope)
    if cycle is None or cycle.response_started or cycle.flow.write_paused:
        return False
    if scope["method"] == "HEAD":
        return False  # its answer has no body, whatever the length says
    if cycle.disconnected:
        return True
    lines = [b"%b: %b\r\n" % header for header in (*cycle.default_headers, *headers)]
    if not cycle.keep_alive:
        lines.append(b"connection: close\r\n")
    head = b"".join(lines)
    if head.translate(None, _HARMLESS) != b"\r\n" * len(lines):
        return False  # a header in a header: uvicorn tells what is wrong
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()
    return True


def _cycle(scope: Scope) -> RequestResponseCycle | None:
    known: ref[RequestResponseCycle] | None = scope.get(_PLACE)
    return None if known is None else known()
