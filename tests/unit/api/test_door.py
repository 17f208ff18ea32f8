"""The door of a real server, from raw sockets: slow, huge, many, and all at once."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.fleet import metric
from tests.inprocess import invoice
from tests.live import Live, exchange_headers, live, until

SHORT = {"SP_HEADER_SECONDS": "1", "SP_BODY_SECONDS": "1"}
LONG = {"SP_HEADER_SECONDS": "300", "SP_BODY_SECONDS": "300"}
PLACES = 24
ENDLESS = 64 << 20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway that has few places, and time for callers on a busy machine."""
    directory = tmp_path_factory.mktemp("door")
    with live(directory, SP_MAX_CONNECTIONS=str(PLACES), SP_HEADER_BYTES="4096", **LONG) as up:
        yield up


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A gateway that waits for nothing longer than it must."""
    with live(tmp_path_factory.mktemp("hurried"), **SHORT) as up:
        yield up


def opened(gateway: Live) -> socket.socket:
    """A connection on which nothing has been said."""
    return socket.create_connection(("127.0.0.1", gateway.port), timeout=300)


def said(connection: socket.socket) -> bytes:
    """Everything that comes until the server closes."""
    heard = bytearray()
    while piece := connection.recv(65536):
        heard += piece
    return bytes(heard)


def taken(connection: socket.socket) -> int:
    """How much of something endless is sent before the connection is gone."""
    sent = 0
    with suppress(OSError):
        while sent < ENDLESS:
            sent += connection.send(b"x" * 65536)
    return sent


def problem_in(answer: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the problem of an answer that is one, and closes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head.lower()
    assert b"connection: close" in head.lower()
    document = json.loads(body)
    status = int(head.split()[1])
    assert document["status"] == status
    return status, document


def head_of(key: str, length: int) -> bytes:
    """The head of an exchange whose body has this length."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in exchange_headers(key).items())
    head = f"POST /v1/exchange HTTP/1.1\r\nHost: s\r\nContent-Length: {length}\r\n{headers}\r\n"
    return head.encode()


def served(gateway: Live, key: str) -> bool:
    """Whether others are served: the probe, and an exchange."""
    probe = gateway.get("/healthz").status
    return (probe, gateway.exchange(invoice(), key=key).status) == (200, 200)


def test_slow_headers_are_answered_408(hurried: Live) -> None:
    """A head that comes byte by byte has as long as one that stalls."""
    with closing(opened(hurried)) as connection:
        connection.settimeout(0.2)
        heard = b""
        started = time.monotonic()
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: s\r\nX-Slow: ")
        while time.monotonic() - started < 25 and not heard:
            try:
                connection.sendall(b"a")
                heard = connection.recv(65536)
            except TimeoutError:
                continue
        connection.settimeout(30)
        status, document = problem_in(heard + said(connection))
    assert (status, document["code"]) == (408, "request_timeout")
    assert time.monotonic() - started > 1


def test_empty_lines_do_not_keep_a_connection(hurried: Live) -> None:
    """Line ends before a request, which HTTP allows, are a request that does not arrive."""
    with closing(opened(hurried)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: s\r\n\r\n")
        heard = connection.recv(65536)
        assert heard.startswith(b"HTTP/1.1 200")
        connection.sendall(b"\r\n")
        assert problem_in(said(connection))[0] == 408


def test_a_slow_body_is_answered_408(hurried: Live) -> None:
    """A body that stalls ends its request; nothing of it is kept, and its key is as new."""
    body = json.dumps(invoice()).encode()
    with closing(opened(hurried)) as connection:
        connection.sendall(head_of("stalls", len(body)) + body[:40])
        status, document = problem_in(said(connection))
    assert (status, document["code"], document["retry"]) == (408, "request_timeout", "same_key")
    assert hurried.exchange(invoice(), key="stalls").status == 200


def test_a_body_that_nobody_wants_is_not_waited_for(hurried: Live) -> None:
    """After an early answer the rest of the body has its deadline all the same."""
    with closing(opened(hurried)) as connection:
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: s\r\nContent-Length: 9999\r\n\r\n{")
        heard = said(connection)
    assert heard.startswith(b"HTTP/1.1 404")
    assert heard.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: s\r\nX: " + b"x" * 5000, id="one"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: s\r\nX: " + b"x" * 300_000, id="megabytes"),
        pytest.param(b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: s", id="target"),
        pytest.param(
            b"GET /healthz HTTP/1.1\r\nHost: s" + b"".join(b"\r\nX%d: x" % n for n in range(150)),
            id="many",
        ),
    ],
)
def test_large_heads_are_answered_431(gateway: Live, head: bytes) -> None:
    """Too many bytes and too many headers; a limit in reserve lets the same size pass."""
    with closing(opened(gateway)) as connection:
        connection.sendall(head + b"\r\n\r\n")
        status, document = problem_in(said(connection))
    assert (status, document["code"]) == (431, "headers_too_large")


def test_a_head_without_an_end_is_not_collected(gateway: Live) -> None:
    """A value that never ends is refused when it is too large, not when memory is full."""
    with closing(opened(gateway)) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: s\r\nX: ")
        assert taken(connection) < ENDLESS


def test_trailers_are_no_headers(gateway: Live) -> None:
    """What follows a body is not believed, and one without an end is not collected."""
    body = json.dumps(invoice()).encode()
    head = head_of("trailers", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    head = head.replace(b"X-SIGNET-Idempotency-Key: trailers\r\n", b"")
    chunked = head + b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    with closing(opened(gateway)) as connection:
        closing_head = chunked.replace(b"Host: s\r\n", b"Host: s\r\nConnection: close\r\n")
        connection.sendall(closing_head + b"X-SIGNET-Idempotency-Key: late\r\n\r\n")
        heard = said(connection)
    assert b"idempotency_key_missing" in heard
    with closing(opened(gateway)) as connection:
        connection.sendall(chunked + b"X: ")
        assert taken(connection) < ENDLESS


def test_the_largest_request_passes(gateway: Live) -> None:
    """Just within every limit, in one piece or in small ones, a request is served."""
    head = b"GET /healthz HTTP/1.1\r\nHost: s\r\n"
    head += b"".join(b"X%d: x\r\n" % n for n in range(96))
    head += b"Connection: close\r\n"
    head += b"Y: " + b"y" * (4000 - len(head)) + b"\r\n\r\n"
    for size in (len(head), 100):
        with closing(opened(gateway)) as connection:
            for start in range(0, len(head), size):
                connection.sendall(head[start : start + size])
            assert said(connection).startswith(b"HTTP/1.1 200")


def test_small_chunks_pass(gateway: Live) -> None:
    """A body in chunks of eight bytes is mostly framing, and is no attack."""
    body = json.dumps(invoice(trace_id="t" * 100)).encode().ljust(20_000)
    head = head_of("chunks", 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    pieces = [body[start : start + 8] for start in range(0, len(body), 8)]
    with closing(opened(gateway)) as connection:
        connection.sendall(head)
        for start in range(0, len(pieces), 50):
            group = pieces[start : start + 50]
            connection.sendall(b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in group))
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_are_answered_in_order(gateway: Live) -> None:
    """Some requests at once get as many answers; a thousand do not pile up."""
    one = b"GET /healthz HTTP/1.1\r\nHost: s\r\n\r\n"
    last = b"GET /nothing HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"
    with closing(opened(gateway)) as connection:
        connection.sendall(one * 9 + last)
        answers = re.findall(rb"HTTP/1.1 (\d+)", said(connection))
    assert answers == [b"200"] * 9 + [b"404"]
    with closing(opened(gateway)) as connection:
        connection.sendall(one * 1000)
        answers = re.findall(rb"HTTP/1.1 (\d+)", said(connection))
    assert 1 <= len(answers) < 100
    assert set(answers) == {b"200"}


def test_what_is_no_http_is_a_problem(gateway: Live) -> None:
    """A request that cannot be read is answered 400 as every other error is."""
    for text in (b"\x16\x03\x01\x02\x00\x01", b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        with closing(opened(gateway)) as connection:
            connection.sendall(text)
            status, document = problem_in(said(connection))
        assert (status, document["code"]) == (400, "http_malformed")


def test_a_bad_request_behind_a_good_one_takes_nothing_away(gateway: Live) -> None:
    """The answer that is due is given; then the connection is closed."""
    body = json.dumps(invoice()).encode()
    with closing(opened(gateway)) as connection:
        connection.sendall(head_of("good", len(body)) + body + b"NO HTTP\r\n\r\n")
        heard = said(connection)
    assert heard.startswith(b"HTTP/1.1 200")
    assert heard.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"", id="silent"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nX: ", id="headers"),
        pytest.param(head_of("flood", 99) + b"{", id="bodies"),
        pytest.param(head_of("flood", 99).replace(b"acme-key", b"nobody") + b"{", id="strangers"),
    ],
)
def test_a_flood_starves_nobody(gateway: Live, start: bytes) -> None:
    """Far more connections than there are places, all of them stalling: others are served."""
    with ExitStack() as stack:
        for _ in range(3 * PLACES):
            connection = stack.enter_context(closing(opened(gateway)))
            if start:
                connection.sendall(start)
        for number in range(5):
            assert served(gateway, f"{len(start)}-{number}")
        text = gateway.get("/metrics").body.decode()
        assert 'signet_http_connections_closed_total{reason="evicted"}' in text
    until(lambda: metric(gateway, "signet_http_connections") <= 2)


def test_no_place_is_taken_from_who_is_served(tmp_path: Path) -> None:
    """While every place has an exchange in progress, one more is told to come again: 503."""
    body = json.dumps(invoice()).encode()
    with live(tmp_path, SP_MAX_CONNECTIONS="8") as gateway, ExitStack() as stack:
        with locked(tmp_path):
            busy = [stack.enter_context(closing(opened(gateway))) for _ in range(8)]
            for number, connection in enumerate(busy):
                connection.sendall(head_of(f"busy-{number}", len(body)) + body)
            until(lambda: waiting(gateway) == 8)
            refused = [stack.enter_context(closing(opened(gateway))) for _ in range(3)]
            for connection in refused:
                status, document = problem_in(said(connection))
                assert (status, document["code"]) == (503, "too_many_connections")
        for connection in busy:  # 503 where all this took longer than the writer waits for a lock
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200") or b"not_acknowledged" in answer


def test_an_idle_connection_is_closed_in_the_end(tmp_path: Path) -> None:
    """A connection that was kept for more requests is kept as long as the setting says."""
    with live(tmp_path, SP_KEEP_ALIVE_SECONDS="1") as gateway, closing(opened(gateway)) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: s\r\n\r\n")
        assert said(idle).startswith(b"HTTP/1.1 200")


def test_an_exchange_outlives_its_request(tmp_path: Path) -> None:
    """A request over its deadline is answered 503; its exchange is committed, and replayed."""
    body = json.dumps(invoice()).encode()
    with live(tmp_path, SP_REQUEST_SECONDS="1") as gateway:
        # On a busy machine the writer may stop waiting for the lock before the deadline has passed.
        for number in range(20):
            key = f"outlives-{number}"
            with locked(tmp_path), closing(opened(gateway)) as connection:
                connection.sendall(head_of(key, len(body)) + body)
                status, document = problem_in(said(connection))
            if document["code"] != "not_acknowledged":
                break
        assert (status, document["code"], document["retry"]) == (
            503,
            "deadline_exceeded",
            "same_key",
        )
        until(lambda: metric(gateway, "signet_exchanges_total") == 1)
        again = gateway.exchange(invoice(), key=key)
        assert again.status == 200
        assert again.headers["x-signet-idempotency-hit"] == "1"


def test_an_answer_that_nobody_reads_is_not_kept(tmp_path: Path) -> None:
    """A caller that asks for much and reads nothing loses its connection."""
    with live(tmp_path, **SHORT) as gateway, closing(opened(gateway)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one = b"GET /openapi.json HTTP/1.1\r\nHost: s\r\n\r\n"
        with suppress(OSError):
            for _ in range(100):
                connection.sendall(one * 8)
                time.sleep(0.02)
        text = 'signet_http_connections_closed_total{reason="not_read"} 1.0'
        until(lambda: text in gateway.get("/metrics").body.decode())


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep the writer waiting: somebody else writes to its database."""
    with closing(sqlite3.connect(directory / "data" / "signet.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def waiting(gateway: Live) -> int:
    """How many connections are in use, as the kernel tells it."""
    table = Path(f"/proc/{gateway.process.pid}/net/tcp").read_text("ascii").splitlines()[1:]
    local = f"0100007F:{gateway.port:04X}"
    return sum(line.split()[1] == local and line.split()[3] == "01" for line in table)
