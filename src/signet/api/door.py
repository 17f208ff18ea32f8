"""The door: what a connection may cost before anybody knows whose it is.

Neither uvicorn nor its parser bounds a request's headers, and neither closes a connection that
stalls. So every connection is looked at once a second, instead of having a timer for each request:
headers, body and answer each have a deadline, and what arrives without making anything whole has a
size. When all places are taken, whoever has kept one waiting longest gives it up.

A request that is out of time loses its connection, not its work: what has begun goes on, and is
answered when its idempotency key comes again.
"""

from __future__ import annotations

import asyncio
from asyncio import Transport
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from http import HTTPStatus
from itertools import count
from operator import itemgetter
from time import monotonic
from typing import Any, ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from signet.api.direct import allow_direct
from signet.api.problems import MEDIA_TYPE, PROBLEMS, problem
from signet.api.turns import Turns
from signet.telemetry.metrics import Metrics

_LOOK_S: Final = 1.0
_MOST_LATE_S: Final = 2.0
_LINGER_S: Final = 2.0
_MOST_WAITING: Final = 16
_MOST_SEARCHES: Final = 50
_MOST_THROWN_AWAY: Final = 1 << 20

_BEGUN_NOW: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorLimits:
    """How large, how slow and how many. A deadline is never early, and two seconds late at most."""

    header_bytes: int
    header_count: int
    header_s: float
    body_s: float
    answer_s: float
    keep_alive_s: float
    connections: int


class _Phase(IntEnum):
    """What a connection waits for, seen from where its bytes come in."""

    SILENT = 0
    """Connected; not one byte came."""
    HEADERS = 1
    BODY = 2
    WHOLE = 3
    """Nothing: the last request is complete."""
    REFUSED = 4
    """That the caller closes; what it still sends is thrown away."""


class Door:
    """All connections of a process. Whoever is set as `tell` hears each time how many they are."""

    def __init__(self, limits: DoorLimits, metrics: Metrics) -> None:
        self.limits = limits
        self.metrics = metrics
        self.tell: Callable[[int], object] = _nobody
        self.connections: set[GuardedProtocol] = set()
        self.now_s = 0.0
        self.numbers = count()
        self.turns = Turns()
        self._idle: list[GuardedProtocol] = []
        self._searches = 0

    @property
    def protocol(self) -> type[GuardedProtocol]:
        """What to give uvicorn as its protocol."""
        return type("GuardedProtocol", (GuardedProtocol,), {"door": self})

    async def watch(self) -> None:
        """Look at every connection once a second, until cancelled."""
        before_s = monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = monotonic()
            # Time in which this process did not run is not held against callers: what they have
            # sent meanwhile is only read after this.
            self.look(min(now_s - before_s, _MOST_LATE_S))
            before_s = now_s

    def look(self, passed_s: float) -> None:
        """Let time pass, and close what is over its deadline."""
        self.now_s += passed_s
        self._idle.clear()
        self._searches = 0
        for connection in tuple(self.connections):
            connection.look(self.now_s)
        self.metrics.connections.set(len(self.connections))

    def make_room(self) -> bool:
        """Close the connection that has kept its place waiting longest; False if none does."""
        while self._idle or self._find_idle():
            connection = self._idle.pop()
            if connection.waits_since is not None:
                self.refused("evicted")
                connection.transport.abort()
                self.discard(connection)
                return True
        return False

    def add(self, connection: GuardedProtocol) -> None:
        """Count a connection in."""
        self.connections.add(connection)
        self.tell(len(self.connections))

    def discard(self, connection: GuardedProtocol) -> None:
        """Count a connection out, if it is in."""
        self.connections.discard(connection)
        self.tell(len(self.connections))

    def _find_idle(self) -> bool:
        """Line up who waits, the longest last. Often in a second only if it led to something."""
        if self._searches >= _MOST_SEARCHES:
            return False
        self._searches += 1
        waiting = [(c.waits_since, c) for c in self.connections if c.waits_since is not None]
        waiting.sort(key=itemgetter(0), reverse=True)
        self._idle = [connection for _, connection in waiting]
        return bool(waiting)

    def refused(self, reason: str) -> None:
        """Count a connection that was closed."""
        self.metrics.connections_closed.labels(reason).inc()


class GuardedProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, held to the limits of a door."""

    door: ClassVar[Door]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.SILENT
        self._since_s = self.door.now_s
        self._number = next(self.door.numbers)
        # Bytes that came and made nothing whole: the parser keeps them, and asks for no limit.
        self._loose_bytes = 0
        self._why: tuple[str, str] | None = None
        self._running: RequestResponseCycle | None = None
        self._running_since_s = 0.0
        self._stuck_since_s: float | None = None

    @property
    def waits_since(self) -> tuple[float, int] | None:
        """Since when this connection waits for its caller; None while its caller waits for it.

        Of those that began to wait in the same second, who was connected first waits longest.
        """
        running = self._running
        if running is not None and not running.response_complete:
            needs_body = self._phase is _Phase.BODY and self.cycle is running
            if not needs_body or running.response_started:
                return None
        return self._since_s, self._number

    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - as in uvicorn
        """Take a place; where there is none, say so and close."""
        door = self.door
        super().connection_made(transport)
        if len(door.connections) >= door.limits.connections and not door.make_room():
            door.refused("too_many_connections")
            transport.write(_answer("too_many_connections", "all connections are in use"))
            transport.close()
            self._phase = _Phase.REFUSED
        door.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.door.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, and see that it leads somewhere."""
        phase = self._phase
        if phase is _Phase.REFUSED:
            self._throw_away(len(data))
            return
        if phase is _Phase.SILENT:
            self._phase = _Phase.HEADERS
        elif phase is _Phase.WHOLE:
            self._phase = _Phase.HEADERS
            self._since_s = self.door.now_s
        super().data_received(data)
        if self._loose_bytes == _BEGUN_NOW:
            self._loose_bytes = 0
        elif self._phase is not _Phase.WHOLE:
            self._loose_bytes += len(data)
            if self._loose_bytes > self.door.limits.header_bytes:
                self._refuse(*self._too_large())

    def on_message_begin(self) -> None:
        """Begin to wait for the headers."""
        super().on_message_begin()
        if self._phase is not _Phase.HEADERS:  # it follows another in the same piece
            self._phase = _Phase.HEADERS
            self._since_s = self.door.now_s
        self._loose_bytes = _BEGUN_NOW

    def on_headers_complete(self) -> None:
        """Hold the headers to their limits, and begin to wait for the body."""
        limits, headers = self.door.limits, self.headers
        size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in headers])
        if size > limits.header_bytes or len(headers) > limits.header_count:
            self._stop_parsing(*self._too_large())
        if len(self.pipeline) >= _MOST_WAITING:
            self._stop_parsing("http_malformed", "too many requests before the first was answered")
        super().on_headers_complete()
        # What comes behind the body as if it were a header never joins those that were judged
        # (RFC 9110, 6.5.1).
        self.headers = []
        self._phase = _Phase.BODY
        self._since_s = self.door.now_s
        self._loose_bytes = _BEGUN_NOW

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        self._loose_bytes = _BEGUN_NOW
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for nothing."""
        super().on_message_complete()
        self._phase = _Phase.WHOLE
        self._since_s = self.door.now_s
        self._loose_bytes = _BEGUN_NOW

    def on_response_complete(self) -> None:
        """Begin to wait for the next request, or with the next that waits.

        Uvicorn's own would set a timer here, and cancel it with the next request.
        """
        if self._phase is _Phase.WHOLE:
            self._since_s = self.door.now_s
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser cannot read, or what `_stop_parsing` stopped it at."""
        self._refuse(*(self._why or ("http_malformed", "this is not HTTP/1.1")))

    def look(self, now_s: float) -> None:
        """Close the connection if something is over its deadline."""
        now_s -= _LOOK_S  # what began between two looks bears the time of the first
        limits, waited_s = self.door.limits, now_s - self._since_s
        running = self._running
        if running is not None and running.response_complete:
            running = self._running = None
        if self.transport.is_closing() or self.flow.write_paused:
            # Somebody does not read what is sent. At the end of this even closing waits for it.
            self._stuck_since_s = now_s if self._stuck_since_s is None else self._stuck_since_s
            if now_s - self._stuck_since_s > limits.body_s:
                self.door.refused("not_read")
                self.transport.abort()
            return
        self._stuck_since_s = None
        if self._phase is _Phase.SILENT and waited_s > limits.header_s:
            self.door.refused("silent")
            self.transport.close()
        elif self._phase is _Phase.HEADERS and waited_s > limits.header_s:
            self._refuse("request_timeout", f"the headers took more than {limits.header_s:g} s")
        elif self._phase is _Phase.WHOLE and running is None and waited_s > limits.keep_alive_s:
            self.transport.close()
        elif self._phase is _Phase.BODY and waited_s > limits.body_s:
            self._refuse("request_timeout", f"the body took more than {limits.body_s:g} s")
        elif self._phase is _Phase.REFUSED and running is None and waited_s > _LINGER_S:
            self.transport.close()
        elif (
            running is not None
            and not running.response_started
            and now_s - self._running_since_s > limits.answer_s
        ):
            if self._phase is _Phase.REFUSED:
                self.transport.close()
                return
            detail = f"no answer within {limits.answer_s:g} s; what was begun goes on"
            self._refuse("deadline_exceeded", detail)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._running_since_s = self.door.now_s
        allow_direct(cycle)
        self.door.turns.take(self.loop, partial(super()._start_asgi_task, cycle, app))

    def _throw_away(self, count: int) -> None:
        """Read on for a while, so that the caller can hear its answer; not for ever."""
        self._loose_bytes += count
        if self._loose_bytes > _MOST_THROWN_AWAY:
            if self._running is None:
                self.transport.close()
            else:  # an answer is due, and closes
                self.flow.pause_reading()

    def _too_large(self) -> tuple[str, str]:
        limits = self.door.limits
        detail = f"{limits.header_bytes} bytes and {limits.header_count} headers at most"
        return "headers_too_large", detail

    def _stop_parsing(self, code: str, detail: str) -> None:
        """Leave the parser by an error, which uvicorn answers by `send_400_response`."""
        self._why = (code, detail)
        raise ValueError(code)

    def _refuse(self, code: str, detail: str) -> None:
        """Answer with a problem if an answer is due, and take nothing more."""
        if self._phase is _Phase.REFUSED:
            return
        running, receiving = self._running, self._phase in (_Phase.SILENT, _Phase.HEADERS)
        at_fault = code == "deadline_exceeded" or not receiving
        self._phase, self._since_s = _Phase.REFUSED, self.door.now_s
        self.door.refused(code)
        self.pipeline.clear()
        if running is not None and not running.response_complete:
            if running.response_started or not at_fault or self.cycle is not running:
                # It asked in order, or hears already: nothing can be put in between.
                running.keep_alive = False
                return
            # The application sees that its caller has left, which does no harm.
            running.disconnected = True
            running.message_event.set()
            self._running = None
        elif not receiving:
            self.transport.close()  # the answer went out before the body had come
            return
        self.transport.write(_answer(code, detail))
        # A close with bytes unread would be a reset, and take the answer with it: stop sending,
        # throw away what comes, and close when the caller does, or a moment later.
        if self.transport.can_write_eof():
            self.transport.write_eof()


def _nobody(count: int) -> None:
    """Nobody wants to hear how many there are."""


def _answer(code: str, detail: str) -> bytes:
    status = HTTPStatus(PROBLEMS[code].status)
    body = problem(code, detail)
    retry = "Retry-After: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body
