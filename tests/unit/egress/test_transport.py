"""Sockets, TLS settings and the pool of idle connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from ipaddress import ip_address

import pytest
from tests.egress.stage import HOST, OK, PUBLIC_IP, Authority, answering, read_request, stage

from signet.egress.http1 import ResponseReader
from signet.egress.limits import Limits
from signet.egress.outcome import IndeterminateCode, Outcome, Responded
from signet.egress.policy import Policy
from signet.egress.target import parse_target
from signet.egress.transport import Connection, Slots, dial, leads_home, tls_context

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def test_the_dialler_reports_what_the_kernel_says() -> None:
    """The peer of a dialled socket is its real other end, and the socket does not block."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        sock, peer = await dial(ip_address("127.0.0.1"), port)
        with sock:
            assert peer == ("127.0.0.1", port)
            assert sock.getblocking() is False
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_failed_dial_leaves_no_socket() -> None:
    """A refused connection raises; an unclosed socket would be a warning, an error."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        await dial(ip_address("127.0.0.1"), port)


def own_addresses() -> list[str]:
    """Return the addresses from which this machine would reach the world."""
    found: list[str] = []
    for family, remote in ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                sock.connect((remote, 9))
            except OSError:
                continue
            found.append(sock.getsockname()[0])
    return found


async def test_own_interfaces_are_recognised() -> None:
    """Loopback and every address of an own interface lead home; others do not."""
    for text in ["127.0.0.1", *own_addresses()]:
        assert leads_home(ip_address(text))
    for text in ["8.8.8.8", PUBLIC_IP, "2606:4700::1", "203.0.113.9"]:
        assert not leads_home(ip_address(text))


def test_tls_settings(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS 1.2 or newer, certificates and names checked, names from SAN only, no key log."""
    monkeypatch.setenv("SSLKEYLOGFILE", "/nonexistent/keys.log")
    context = tls_context(authority.pem)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.hostname_checks_common_name
    assert context.keylog_filename is None
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert len(context.get_ca_certs()) == 1


def test_without_a_trust_of_its_own_the_systems_is_used() -> None:
    """None means the authorities that the operating system trusts."""
    assert tls_context(None).verify_mode == ssl.CERT_REQUIRED


async def test_connections_are_kept_and_reused(authority: Authority) -> None:
    """Requests one after another share a connection, and say to whom it is pinned."""
    async with stage(authority) as s:
        await s.serve(answering(OK))
        outcomes = [await s.send() for _ in range(5)]
        assert all(isinstance(o, Responded) and o.pinned_ip == PUBLIC_IP for o in outcomes)
        assert len(s.connections) == 1
        assert len(s.names.asked) == 2


@pytest.mark.parametrize(
    "url", [f"https://{HOST}:8443/", "https://b.example.com/", f"http://{HOST}:443/"]
)
async def test_connections_are_never_shared_between_places(authority: Authority, url: str) -> None:
    """Another port, host or scheme at the same address gets a connection of its own."""
    async with stage(authority, names={HOST: [PUBLIC_IP], "b.example.com": [PUBLIC_IP]}) as s:
        certificate = authority.issue([HOST, "b.example.com"])
        await s.serve(answering(OK), tls=certificate)
        await s.serve(answering(OK), tls=certificate, port=8443)
        policy = Policy.parse([HOST, f"{HOST}:8443", "b.example.com", f"http://{HOST}:443"])
        await s.send(policy=policy)
        await s.send(url, policy=policy)
        assert len(s.dialler.dialled) == 2


@pytest.mark.parametrize("limits", [Limits(idle_s=0.05), Limits(max_age_s=0.05)])
async def test_old_connections_are_not_reused(authority: Authority, limits: Limits) -> None:
    """A connection that was idle or alive too long is closed, and a new one made."""
    async with stage(authority, limits=limits) as s:
        await s.serve(answering(OK))
        await s.send()
        await asyncio.sleep(0.1)
        assert isinstance(await s.send(), Responded)
        assert len(s.connections) == 2


async def test_idle_connections_close_by_themselves(authority: Authority) -> None:
    """Nobody has to come back to a host for its idle connection to go."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        try:
            assert await reader.read() == b""
        finally:
            ended.set()

    async with stage(authority, limits=Limits(idle_s=0.05)) as s:
        await s.serve(handle)
        await s.send()
        async with asyncio.timeout(240):
            await ended.wait()


async def test_the_number_of_idle_connections_is_bounded(authority: Authority) -> None:
    """Beyond the bound for one host, and for all hosts, connections close instead of waiting."""
    hosts = [f"h{i}.example.com" for i in range(6)]
    limits = Limits(max_idle=4, max_idle_per_host=2)
    async with stage(authority, limits=limits, names={h: [PUBLIC_IP] for h in hosts}) as s:
        await s.serve(answering(OK), tls=authority.issue(["*.example.com"]))
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(s.send(f"https://{hosts[0]}/"))
        assert len(s.connections) == 5
        async with asyncio.TaskGroup() as group:
            for _ in range(3):  # two were kept
                group.create_task(s.send(f"https://{hosts[0]}/"))
        assert len(s.connections) == 6
        for host in hosts[1:]:
            await s.send(f"https://{host}/")
        before = len(s.connections)
        await s.send(f"https://{hosts[5]}/")
        assert len(s.connections) == before
        await s.send(f"https://{hosts[0]}/")  # the oldest had to go
        assert len(s.connections) == before + 1


async def test_a_connection_that_the_server_closed_is_not_used(authority: Authority) -> None:
    """The end of a kept connection is noticed before the next request, not by it."""
    async with stage(authority) as s:
        await s.serve(answering(OK, close=True))
        for _ in range(3):
            assert isinstance(await s.send(), Responded)
            await s.deserted()
        assert len(s.connections) == 3


@pytest.mark.parametrize(
    "unasked", [b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL", b"x", b"\r\n"]
)
async def test_a_connection_that_speaks_unasked_is_dropped(
    authority: Authority, unasked: bytes
) -> None:
    """Bytes sent while nobody asked never become the answer to the next request."""
    spoken = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(unasked)
        await writer.drain()
        spoken.set()
        await reader.read()

    async with stage(authority) as s:
        await s.serve(handle)
        await s.send()
        await spoken.wait()
        await asyncio.sleep(0.15)
        outcome = await s.send()
        assert isinstance(outcome, Responded)
        assert outcome.response_size == 2
        assert len(s.connections) == 2


@pytest.mark.parametrize("extra", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL"])
async def test_bytes_behind_an_answer_do_not_reach_the_next_request(
    authority: Authority, extra: bytes
) -> None:
    """A response queued behind another one poisons nothing: the connection is not kept."""
    async with stage(authority) as s:
        await s.serve(answering(OK + extra))
        for _ in range(2):
            outcome = await s.send()
            assert isinstance(outcome, Responded)
            assert outcome.response_size == 2
        assert len(s.connections) == 2


async def test_an_early_answer_ends_the_connection(authority: Authority) -> None:
    """If the server answers before it read the request, the unsent rest must not follow."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.2)

    async with stage(authority) as s:
        await s.serve(handle)
        for _ in range(2):
            outcome = await s.send(body=b"a" * 20_000_000)
            assert isinstance(outcome, Responded)
            assert outcome.status == 413
        assert len(s.connections) == 2


class Wire(asyncio.Transport):
    """The event loop's side of a connection, on which the peer sends what a test hands it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.set()

    def abort(self) -> None:
        """Nothing is open."""


async def test_an_answer_in_countless_pieces_is_too_large() -> None:
    """However few bytes an answer has, each piece costs a turn of the loop, and they are counted.

    Over a socket the kernel joins pieces as it likes, so here they are handed over one by one.
    """
    limits = Limits(max_body=0)
    connection, wire = Connection(PUBLIC_IP, limits), Wire()
    connection.connection_made(wire)
    response = ResponseReader(limits)
    async with asyncio.TaskGroup() as tasks:
        exchange = tasks.create_task(connection.exchange(b"POST", response))
        await wire.written.wait()
        connection.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        for _ in range(limits.max_reads):
            assert not response.finished
            connection.data_received(b"a")
        assert response.failure is IndeterminateCode.BODY_TOO_LARGE
        await exchange


async def test_requests_to_one_place_are_bounded_in_number(authority: Authority) -> None:
    """More requests than slots wait their turn; other places are not held up."""
    now = most = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        while True:
            await read_request(reader)
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1
            writer.write(OK)

    async with stage(authority, limits=Limits(max_per_host=3)) as s:
        await s.serve(handle)
        tasks: list[asyncio.Task[Outcome]] = []
        async with asyncio.TaskGroup() as group:
            tasks.extend(group.create_task(s.send()) for _ in range(12))
        assert all(isinstance(task.result(), Responded) for task in tasks)
        assert most == 3


async def test_slots_are_forgotten_when_nobody_holds_them() -> None:
    """A slot lives while it is used, so naming many hosts costs no memory."""
    slots = Slots(Limits(max_per_host=1))
    target = parse_target("https://a.example/")
    one = slots.of(target)
    async with one:
        assert slots.of(target) is one
        assert slots.of(parse_target("https://a.example:444/")) is not one
        assert one.locked()
    del one
    assert not slots.of(target).locked()
