"""The wire: HTTP/1.1 on loopback, with the faults that networks and services really have."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from signet.cli.demo.stripe_double.ledger import Ledger, Refused, Request, Response, error_response

Fault = Literal[
    "lost",  # carried out, and the connection closes without an answer
    "reset",  # not carried out, and the connection is reset
    "cut",  # carried out, and the answer ends in its middle
    "stuck",  # carried out, and no answer comes at all
    "500",  # not carried out, and the failure is kept for the idempotency key
    "500_taken",  # carried out, and answered as a failure
    "503",
    "429",
    "409",
    "401",
    "403",
    "page",  # a proxy's page of good news
    "odd",  # good news in JSON that speaks of nothing
    "redirect",
    "bomb",  # an answer without end
]


class StripeDouble:
    """A Stripe on `url`. `faults` is asked for each usage call; `latency_s` passes in each call."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.latency_s = 0.0
        self.plan: deque[Fault | None] = deque()
        self.faults: Callable[[Request], Fault | None] = self._planned
        self.url = ""
        self.seen: list[Request] = []
        self._connections: set[asyncio.Task[None]] = set()

    def _planned(self, request: Request) -> Fault | None:
        return self.plan.popleft() if self.plan and request.method == "POST" else None

    @asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncGenerator[StripeDouble]:
        """Serve until the block ends."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(await _read(reader), writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side hung up, or the double is closing
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _exchange(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False ends the connection."""
        self.seen.append(request)
        fault = self.faults(request)
        if fault == "reset":
            # Linger of zero seconds turns the close into a reset.
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        response = await self._carry_out(request, fault)
        wire = _spell(response)
        match fault:
            case "lost":
                return False
            case "cut":
                writer.write(wire[: len(wire) // 2])
                await writer.drain()
                return False
            case "stuck":
                await asyncio.Event().wait()
                return False
            case "bomb":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
                    await writer.drain()
            case _:
                writer.write(wire)
                await writer.drain()
                return True

    async def _carry_out(self, request: Request, fault: Fault | None) -> Response:
        try:
            lane = self.ledger.begin(request)
        except Refused as refused:
            return error_response(refused, **{"stripe-should-retry": "true"})
        try:
            await asyncio.sleep(self.latency_s)
            return self._answer(request, fault)
        finally:
            self.ledger.end(lane)

    def _answer(self, request: Request, fault: Fault | None) -> Response:
        match fault:
            case "401":
                return error_response(Refused(401, "Invalid API Key provided."))
            case "403":
                return error_response(Refused(403, "The key does not have the permission."))
            case "409":
                return error_response(
                    Refused(409, "Another request uses this key.", kind="idempotency_error")
                )
            case "429":
                refused = Refused(429, "Too many requests.", code="rate_limit")
                return error_response(refused, **{"retry-after": "7"})
            case "500" | "503":
                response = error_response(Refused(int(fault), "Something broke.", kind="api_error"))
                key = request.headers.get("idempotency-key")
                if key and fault == "500":
                    self.ledger.keep(key, request, response)
                return response
            case "500_taken":
                self.ledger.answer(request)
                return error_response(Refused(500, "Something broke.", kind="api_error"))
            case "page":
                return Response(status=200, body=b"<html>Welcome to the hotel</html>")
            case "odd":
                return Response(status=200, body=b'{"status": "ok"}')
            case "redirect":
                return Response(status=302, body=b"", headers={"location": "http://127.0.0.1:1/"})
            case _:
                return self.ledger.answer(request)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    method, target, _ = line.split(" ")
    headers = {
        name.lower(): value.strip()
        for name, _, value in (text.partition(":") for text in fields if text)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    parts = urlsplit(target)
    pairs = parse_qsl(parts.query) + parse_qsl(body.decode(), keep_blank_values=True)
    return Request(method=method, path=unquote(parts.path), params=dict(pairs), headers=headers)


def _spell(response: Response) -> bytes:
    headers = {
        "content-type": "application/json",
        "content-length": str(len(response.body)),
        "request-id": "req_double",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {response.status} Answer\r\n{lines}\r\n".encode() + response.body
