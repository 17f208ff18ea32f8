"""Connections to the address that was validated, and to no other.

A dialler opens the socket and says who is at its other end; here that is compared with what was
asked for, and TLS is spoken with the *host's* name for SNI and certificate (RFC 9525: subject
alternative names only). TLS runs over memory buffers, so that every byte of the wire is counted,
and a peer cannot make us decrypt without end.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Final, Protocol, cast
from weakref import WeakValueDictionary

from signet.egress.http1 import ResponseReader
from signet.egress.limits import Limits
from signet.egress.outcome import IndeterminateCode, NotSentCode
from signet.egress.target import IPAddress, Target
from signet.egress.verdict import Verdict

Peer = tuple[str, int]
Place = tuple[str, str, int]
_TLS_RECORD: Final = 16 * 1024


class ConnectionFailed(Exception):
    """No connection came about; nothing of a request was sent."""

    def __init__(self, reason: NotSentCode | Verdict) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Dialler(Protocol):
    """Opens a TCP connection to exactly this address and port.

    Returns the connected, non-blocking socket and its peer as (address, port); raises `OSError`.
    The caller bounds the time and checks the peer.
    """

    async def __call__(self, address: IPAddress, port: int) -> tuple[socket.socket, Peer]: ...


async def dial(address: IPAddress, port: int) -> tuple[socket.socket, Peer]:
    """Connect with the operating system's own means; the peer is what the kernel says it is."""
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
        host, peer_port = sock.getpeername()[:2]
    except BaseException:
        sock.close()
        raise
    return sock, (host, peer_port)


def leads_home(address: IPAddress) -> bool:
    """Return True if `address` belongs to an interface of this machine.

    Connecting a datagram socket sends nothing, but makes the kernel choose the source address:
    towards an address of its own that is the address itself. Asked anew for every name, as
    interfaces come and go.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((str(address), 9))
            source = ip_address(sock.getsockname()[0])
        except OSError:
            return False  # no route there, so certainly not here
    return source == address


def tls_context(trust: str | None) -> ssl.SSLContext:
    """Return the one TLS configuration of a client.

    `trust` is PEM text of the certificate authorities to trust; None means the system's. Built by
    hand, because `ssl.create_default_context` obeys SSLKEYLOGFILE and would write session keys
    wherever the environment says.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificates and host names
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    if trust is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cadata=trust)
    return context


async def connect(
    target: Target, address: IPAddress, dialler: Dialler, tls: ssl.SSLContext, limits: Limits
) -> Connection:
    """Return an open connection to `target` at `address`. Raises `ConnectionFailed`."""
    try:
        sock, peer = await dialler(address, target.port)
    except OSError as error:
        raise ConnectionFailed(NotSentCode.CONNECT_FAILED) from error
    try:
        if not _is_peer(peer, address, target.port):
            raise ConnectionFailed(Verdict.PEER_MISMATCH)
        connection = Connection(str(address), limits)
        await asyncio.get_running_loop().create_connection(lambda: connection, sock=sock)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError):
            raise ConnectionFailed(NotSentCode.CONNECT_FAILED) from error
        raise
    if target.scheme == "https":
        try:
            await connection.start_tls(tls, target.host)
        except BaseException:
            connection.abort()
            raise
    return connection


def _is_peer(peer: Peer, address: IPAddress, port: int) -> bool:
    try:
        return ip_address(peer[0]) == address and peer[1] == port
    except ValueError:
        return False


class Connection(asyncio.Protocol):
    """One TCP connection, with TLS unless plain http was asked for; one request at a time."""

    def __init__(self, pinned_ip: str, limits: Limits) -> None:
        self.pinned_ip = pinned_ip
        self.closed = False
        self.on_close: Callable[[Connection], None] | None = None
        self.idle_until = 0.0
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self.opened_at = self._loop.time()
        self._transport: asyncio.Transport | None = None
        self._tls: ssl.SSLObject | None = None
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._handshake: asyncio.Future[None] | None = None
        self._response: ResponseReader | None = None
        self._done: asyncio.Future[None] | None = None
        self._bytes_left = self._reads_left = 0
        self._refill()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Shake hands as a client of `host`. Raises `ConnectionFailed`."""
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._handshake = self._loop.create_future()
        self._advance_handshake()
        await self._handshake

    async def exchange(self, request: bytes, response: ResponseReader) -> None:
        """Write `request` and read until `response` is finished; the caller bounds the time."""
        self._refill()
        self._response = response
        self._done = self._loop.create_future()
        self._write(request)
        try:
            if not response.finished:
                await self._done
        finally:
            self._response = self._done = None

    @property
    def reusable(self) -> bool:
        """False if the connection is closed, or bytes of the last request are still unsent.

        A server may answer before it has read a request; the rest would precede the next one.
        """
        transport = self._transport
        if self.closed or transport is None or transport.is_closing():
            return False
        return not transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close without waiting for anyone."""
        self.closed = True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.closed:
            return
        self._bytes_left -= len(data)
        self._reads_left -= 1
        if self._bytes_left < 0 or self._reads_left < 0:
            self._fail(IndeterminateCode.BODY_TOO_LARGE)
        elif self._tls is None:
            self._deliver(data)
        else:
            self._incoming.write(data)
            if self._handshake is not None:
                self._advance_handshake()
            if self._handshake is None:
                self._decrypt()

    def eof_received(self) -> None:
        self._end(clean=self._tls is None)  # with TLS, only close_notify is a clean end

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(IndeterminateCode.CONNECTION_LOST)
        if self.on_close is not None:
            self.on_close(self)

    def _refill(self) -> None:
        self._bytes_left = self._limits.max_wire
        self._reads_left = self._limits.max_reads

    def _advance_handshake(self) -> None:
        assert self._tls is not None
        assert self._handshake is not None
        failure: NotSentCode | None = None
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLCertVerificationError:
            failure = NotSentCode.CERTIFICATE_INVALID
        except ssl.SSLError:
            failure = NotSentCode.TLS_FAILED
        self._flush()
        handshake, self._handshake = self._handshake, None
        if handshake.done():
            return
        if failure is None:
            handshake.set_result(None)
        else:
            handshake.set_exception(ConnectionFailed(failure))

    def _decrypt(self) -> None:
        assert self._tls is not None
        plain: list[bytes] = []
        ended = broken = False
        try:
            while data := self._tls.read(_TLS_RECORD):
                plain.append(data)
            ended = True  # close_notify
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            broken = True
        self._flush()  # an answer to a KeyUpdate, or an alert
        if plain:
            self._deliver(b"".join(plain))
        if ended:
            self._end(clean=True)
        elif broken:
            self._fail(IndeterminateCode.CONNECTION_LOST)

    def _deliver(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.abort()  # nobody asked; a kept connection that speaks unasked is not to be trusted
            return
        response.feed(data)
        if response.finished:
            self._finish()

    def _end(self, *, clean: bool) -> None:
        if self._handshake is not None:
            self._fail(IndeterminateCode.CONNECTION_LOST)
            return
        if self._response is not None:
            self._response.feed_eof(clean=clean)
            self._finish()
        self.abort()

    def _fail(self, code: IndeterminateCode) -> None:
        self.abort()
        if self._handshake is not None:
            handshake, self._handshake = self._handshake, None
            if not handshake.done():
                handshake.set_exception(ConnectionFailed(NotSentCode.TLS_FAILED))
        if self._response is not None:
            self._response.fail(code)
            self._finish()

    def _finish(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        if self._tls is None:
            self._transport.write(data)
            return
        try:
            self._tls.write(data)
        except ssl.SSLError:
            self._fail(IndeterminateCode.CONNECTION_LOST)
            return
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and self._transport is not None:
            self._transport.write(self._outgoing.read())


class Pool:
    """Idle connections by (scheme, host, port), never by address; bounded in age and number."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._by_place: dict[Place, list[Connection]] = {}
        # In the order of their return, which is nearly the order of their expiry.
        self._places: dict[Connection, Place] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(self, target: Target) -> Connection | None:
        """Return the most recently used connection to `target` that is fit for use."""
        now = asyncio.get_running_loop().time()
        place = _place(target)
        while connections := self._by_place.get(place):
            connection = connections[-1]
            self._forget(connection)
            if connection.idle_until > now and connection.reusable:
                return connection
            connection.abort()
        return None

    def give(self, target: Target, connection: Connection) -> None:
        """Keep `connection` for the next request to `target`, or close it."""
        loop = asyncio.get_running_loop()
        place = _place(target)
        idle_until = min(
            loop.time() + self._limits.idle_s, connection.opened_at + self._limits.max_age_s
        )
        connections = self._by_place.setdefault(place, [])
        if idle_until <= loop.time() or len(connections) >= self._limits.max_idle_per_host:
            connection.abort()
            if not connections:
                del self._by_place[place]
            return
        connection.idle_until = idle_until
        connection.on_close = self._forget
        connections.append(connection)
        self._places[connection] = place
        if len(self._places) > self._limits.max_idle:
            oldest = next(iter(self._places))
            self._forget(oldest)
            oldest.abort()
        if self._timer is None:
            self._timer = loop.call_later(self._limits.idle_s, self._sweep)

    def close(self) -> None:
        """Close every idle connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in list(self._places):
            self._forget(connection)
            connection.abort()

    def _forget(self, connection: Connection) -> None:
        place = self._places.pop(connection, None)
        connection.on_close = None
        if place is not None:
            connections = self._by_place[place]
            connections.remove(connection)
            if not connections:
                del self._by_place[place]

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for connection in list(self._places):
            if connection.idle_until > loop.time():
                self._timer = loop.call_at(connection.idle_until, self._sweep)
                return
            self._forget(connection)
            connection.abort()


class Slots:
    """At most so many requests to one place at a time; the others wait within their deadline."""

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.max_per_host
        # Semaphores live as long as someone holds or awaits one.
        self._slots: WeakValueDictionary[Place, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, target: Target) -> asyncio.Semaphore:
        """Return the semaphore of `target`'s place; enter it with `async with`."""
        place = _place(target)
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = asyncio.Semaphore(self._limit)
        return slot


def _place(target: Target) -> Place:
    return target.scheme, target.host, target.port
