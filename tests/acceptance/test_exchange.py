"""A real `signet serve`, asked over real sockets by callers who mean it well and by those who do
not."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from tests.inprocess import invoice, signing_key
from tests.live import Live, exchange_headers, live, reply

from signet.receipts.keys import KeySet
from signet.receipts.verify import verify

BODY = json.dumps(invoice()).encode()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One gateway for the module."""
    with live(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def _raw(gateway: Live, data: bytes, *, wait_s: float = 120.0) -> bytes:
    """Send bytes as they are and return what comes back until the other side is done."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=wait_s) as peer:
        peer.sendall(data)
        received = b""
        while piece := peer.recv(65536):
            received += piece
    return received


def _head(*lines: bytes, key: bytes = b"k") -> bytes:
    return b"\r\n".join(
        (
            b"POST /v1/exchange HTTP/1.1",
            b"Host: gateway",
            b"Connection: close",
            b"Content-Type: application/json",
            b"X-SIGNET-API-Key: acme-key",
            b"Idempotency-Key: " + key,
            *lines,
            b"",
            b"",
        )
    )


def _still_serves(gateway: Live) -> None:
    assert gateway.get("/healthz").status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GARBAGE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/exchange HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/exchange HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /v1/exchange HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /healthz HTTP/1.1\r\nX: a\r\n b\r\n c: d\x00\r\n\r\n",
        b"\r\n" * 1000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
    ],
    ids=lambda data: repr(data[:30]),
)
def test_what_is_not_http_harms_nothing(gateway: Live, data: bytes) -> None:
    """Garbage gets an error or a closed connection, never a 5xx, and the gateway goes on."""
    with closing(socket.create_connection(("127.0.0.1", gateway.port), timeout=300)) as peer:
        peer.settimeout(120)
        try:
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
            answer = peer.recv(65536)
        except OSError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1 5")
    _still_serves(gateway)


def test_header_bytes_beyond_latin_1_are_no_surprise(gateway: Live) -> None:
    """Bytes of any value in any header are refused or ignored, and never a 5xx."""
    for name in (b"Idempotency-Key", b"X-SIGNET-API-Key", b"traceparent", b"Content-Type", b"X"):
        line = name + b": \xff\xfe\xc3\xa9\xf0\x9f\x98\x80"
        answer = _raw(gateway, _head(b"Content-Length: %d" % len(BODY), line) + BODY)
        assert answer.startswith((b"HTTP/1.1 2", b"HTTP/1.1 4")), answer[:200]


def test_a_declared_length_beyond_the_limit_is_refused_at_once(gateway: Live) -> None:
    """413 comes before the body does."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=300) as peer:
        peer.sendall(_head(b"Content-Length: 5000000"))
        assert peer.recv(65536).startswith(b"HTTP/1.1 413")


def test_a_chunked_body_beyond_the_limit_is_refused(gateway: Live) -> None:
    """The count of bytes decides where no length was declared."""
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=300) as peer:
        peer.sendall(_head(b"Transfer-Encoding: chunked"))
        answer = b""
        try:
            for _ in range(40):
                peer.sendall(chunk)
            answer = peer.recv(65536)
        except OSError:  # it may close while we still send
            answer = answer or b"HTTP/1.1 413"
    assert answer.startswith(b"HTTP/1.1 413")
    _still_serves(gateway)


def test_a_chunked_body_within_the_limit_is_taken(gateway: Live) -> None:
    """Pieces make the same request."""
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (BODY[:7], BODY[7:8], BODY[8:]))
    head = _head(b"Transfer-Encoding: chunked", key=b"pieces")
    assert _raw(gateway, head + pieces + b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_half_a_body_is_no_request(gateway: Live) -> None:
    """A caller that left half-way left nothing, and its key is free."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=300) as peer:
        peer.sendall(_head(b"Content-Length: %d" % len(BODY), key=b"half") + BODY[:50])
    _still_serves(gateway)
    told = gateway.exchange(invoice(), key="half")
    assert told.status == 200
    assert "x-signet-idempotency-hit" not in told.headers


def test_slow_callers_hold_nobody_up(gateway: Live) -> None:
    """A hundred bodies that never end do not keep others from being served."""
    slow = [socket.create_connection(("127.0.0.1", gateway.port), timeout=300) for _ in range(100)]
    try:
        for number, peer in enumerate(slow):
            peer.sendall(_head(b"Content-Length: 1000", key=b"slow-%d" % number) + b"{")
        started = time.monotonic()
        for number in range(10):
            assert gateway.exchange(invoice(), key=f"beside-{number}").status == 200
        assert time.monotonic() - started < 120
    finally:
        for peer in slow:
            peer.close()


def test_connections_are_kept(gateway: Live) -> None:
    """One connection carries many exchanges, refused ones between them."""
    with closing(gateway.connect()) as connection:
        for number in range(20):
            body = b"{" if number % 3 == 0 else BODY
            headers = exchange_headers(f"kept-{number}")
            connection.request("POST", "/v1/exchange", body, headers)
            assert reply(connection).status == (400 if number % 3 == 0 else 200)


def test_parallel_callers_of_one_trace_chain(gateway: Live) -> None:
    """20 connections at once on one trace: hops 1 to 20, and nobody a 409."""
    with ThreadPoolExecutor(20) as pool:
        told = list(
            pool.map(
                lambda n: gateway.exchange(invoice(trace_id="parallel"), key=f"parallel-{n}"),
                range(20),
            )
        )
    assert {answer.status for answer in told} == {200}
    assert sorted(answer.json["receipt"]["hop"] for answer in told) == list(range(1, 21))
    bundle = gateway.get("/v1/receipts/export/parallel").body
    assert verify(bundle, jwks=KeySet.of([signing_key().public])).hops == 20


def test_parallel_callers_of_one_key_get_one_answer(gateway: Live) -> None:
    """300 requests with one key over 30 connections: one set of bytes, one of them the first."""

    def ask(connection: http.client.HTTPConnection) -> list[tuple[bytes, bool]]:
        answers: list[tuple[bytes, bool]] = []
        for _ in range(10):
            connection.request("POST", "/v1/exchange", BODY, exchange_headers("one-key"))
            told = reply(connection)
            assert told.status == 200
            answers.append((told.body, "x-signet-idempotency-hit" in told.headers))
        connection.close()
        return answers

    connections = [gateway.connect() for _ in range(30)]
    with ThreadPoolExecutor(30) as pool:
        answers = [answer for found in pool.map(ask, connections) for answer in found]
    assert len({body for body, _ in answers}) == 1
    assert sum(not hit for _, hit in answers) == 1


def test_a_long_trace_is_exported_in_bounded_memory(tmp_path: Path) -> None:
    """The export of 3,000 hops, 10 MB, grows the gateway by far less than its size."""
    with live(tmp_path) as gateway:

        def fill(first: int) -> None:
            with closing(gateway.connect()) as connection:
                for number in range(first, first + 300):
                    headers = exchange_headers(f"k-{number}")
                    body = json.dumps(invoice(trace_id="long")).encode()
                    connection.request("POST", "/v1/exchange", body, headers)
                    assert reply(connection).status == 200

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(fill, range(0, 3000, 300)))
        gateway.get("/v1/receipts/export/long?limit=1000")
        process = psutil.Process(gateway.process.pid)
        before = process.memory_info().rss
        with closing(gateway.connect()) as connection:
            path, headers = "/v1/receipts/export/long", {"X-SIGNET-API-Key": "acme-key"}
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            digest, body, most = hashlib.sha256(), b"", before
            while piece := response.read(65536):
                digest.update(piece)
                body += piece
                most = max(most, process.memory_info().rss)
    assert verify(body, jwks=KeySet.of([signing_key().public])).hops == 3000
    assert len(body) > 4_000_000
    assert most - before < 16_000_000
