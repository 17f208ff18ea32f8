"""What goes past ASGI's messages is to the byte what the messages would have sent."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from signet.api.direct import allow_direct, answer_at_once, body_at_hand

pytestmark = pytest.mark.anyio

DATE = (b"date", b"Thu, 26 Nov 2026 04:00:00 GMT")
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.pieces.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Request:
    """One request as uvicorn holds it, on a wire of its own."""

    def __init__(self, *, body: bytes = b"", whole: bool = True, keep_alive: bool = True) -> None:
        self.wire = Wire()
        self.answered = 0
        self.scope: Scope = {"type": "http", "method": "POST"}
        self.cycle = RequestResponseCycle(
            scope=self.scope,  # type: ignore[arg-type]
            transport=self.wire,
            flow=FlowControl(self.wire),
            logger=logging.getLogger("unused"),
            access_logger=logging.getLogger("unused"),
            access_log=False,
            default_headers=[DATE],
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._done,
        )
        self.cycle.body += body
        self.cycle.more_body = not whole
        allow_direct(self.cycle)

    def _done(self) -> None:
        self.answered += 1

    def answer(self, headers: list[tuple[bytes, bytes]] = HEADERS, body: bytes = b"{}") -> bool:
        """Answer at once."""
        return answer_at_once(self.scope, 200, headers, body)


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_it_is_what_the_messages_send(keep_alive: bool) -> None:
    """The same bytes in one piece, and the same state of the connection afterwards."""
    direct, messages = Request(keep_alive=keep_alive), Request(keep_alive=keep_alive)
    assert direct.answer()
    start: Any = {"type": "http.response.start", "status": 200, "headers": HEADERS}
    await messages.cycle.send(start)
    await messages.cycle.send({"type": "http.response.body", "body": b"{}", "more_body": False})
    assert direct.wire.pieces == [b"".join(messages.wire.pieces)]
    assert len(messages.wire.pieces) == 2
    for one in (direct, messages):
        assert one.cycle.response_started
        assert one.cycle.response_complete
        assert one.answered == 1
        assert one.wire.closed is not keep_alive


@given(st.binary(max_size=20))
def test_no_header_hides_in_a_header(value: bytes) -> None:
    """What uvicorn would not put in a header is left to it: it says why."""
    request = Request()
    harmless = not any((byte < 32 and byte != 9) or byte == 127 for byte in value)
    assert request.answer([*HEADERS, (b"x-told", value)]) is harmless
    assert bool(request.wire.pieces) is harmless
    assert request.cycle.response_started is harmless


async def test_a_caller_that_left_is_told_nothing() -> None:
    """There is nobody to write to, and nothing left to do."""
    request = Request()
    request.cycle.disconnected = True
    assert request.answer()
    assert not request.wire.pieces


async def test_who_does_not_read_is_waited_for() -> None:
    """A full buffer is the messages' business, which can wait."""
    request = Request()
    request.cycle.flow.pause_writing()
    assert not request.answer()
    assert not request.wire.pieces


async def test_a_head_has_no_body() -> None:
    """What would be sent for GET is left to the messages, which leave the body out."""
    request = Request()
    request.scope["method"] = "HEAD"
    assert not request.answer()
    assert not request.wire.pieces


async def test_one_answer() -> None:
    """What has been answered is not answered again."""
    request = Request()
    assert request.answer()
    assert not request.answer()
    assert request.answered == len(request.wire.pieces) == 1


async def test_a_whole_body_is_at_hand_once() -> None:
    """It is taken, as a message takes it."""
    request = Request(body=b"[1]")
    assert body_at_hand(request.scope) == b"[1]"
    assert body_at_hand(request.scope) == b""
    assert request.answer()
    assert body_at_hand(request.scope) is None


async def test_half_a_body_is_not() -> None:
    """What has not come, or will not come any more, is left to the messages."""
    half, left = Request(body=b"[1", whole=False), Request(body=b"[1]")
    left.cycle.disconnected = True
    assert body_at_hand(half.scope) is None
    assert body_at_hand(left.scope) is None
    assert half.cycle.body == b"[1"


async def test_another_server_does_without() -> None:
    """Where there is no cycle, nothing applies."""
    assert body_at_hand({"type": "http"}) is None
    assert not answer_at_once({"type": "http"}, 200, HEADERS, b"{}")


async def test_the_scope_does_not_keep_the_request() -> None:
    """Who holds only the scope holds no connection: nothing is left to the garbage collector."""
    request = Request(body=b"[1]")
    del request.cycle
    assert body_at_hand(request.scope) is None
