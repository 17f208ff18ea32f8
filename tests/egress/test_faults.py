"""Hostile and broken peers over real TLS: each ends in the right outcome, in time, at little cost.

Every case is bounded by the deadline plus one second, 32 MB of memory and half a second of CPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import psutil
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.egress.peers import Conversation, Peer, Script
from tests.egress.stage import HOST, PUBLIC_IP, URL, Authority, LoopbackDialler, StaticNames

from signet.egress import (
    EgressClient,
    Indeterminate,
    IndeterminateCode,
    Limits,
    NotSent,
    NotSentCode,
    Outcome,
    Refused,
    Responded,
    parse_target,
)

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
MOST_CPU_S = 5.0
"""Half a second is promised on an idle machine; tests share theirs, where all work takes longer."""
OK_HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
WHOLE = OK_HEAD + b"Content-Length: 2\r\n\r\n{}"

C, N = IndeterminateCode, NotSentCode


@contextlib.asynccontextmanager
async def within_bounds(deadline_s: float) -> AsyncIterator[None]:
    """Fail if the block takes too long, or costs this thread too much CPU or the process memory."""
    process = psutil.Process()
    rss_before = rss_peak = process.memory_info().rss
    over = asyncio.Event()

    async def watch() -> None:
        nonlocal rss_peak
        while not over.is_set():
            rss_peak = max(rss_peak, process.memory_info().rss)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.02)

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        started, cpu_before = time.monotonic(), time.thread_time()
        yield
        elapsed_s, cpu_s = time.monotonic() - started, time.thread_time() - cpu_before
        over.set()
    assert elapsed_s < deadline_s + 15.0
    assert cpu_s < MOST_CPU_S
    assert rss_peak - rss_before < 32 * MIB


def answer(data: bytes) -> Script:
    """Return a script that answers one request with `data` and waits for the client to go."""

    def script(conversation: Conversation) -> None:
        conversation.read_request()
        conversation.send(data)
        with contextlib.suppress(OSError):
            conversation.sock.recv(1)

    return script


def script(*steps: Callable[[Conversation], object]) -> Script:
    """Return a script of these steps after one request."""

    def run(conversation: Conversation) -> None:
        conversation.read_request()
        for step in steps:
            step(conversation)

    return run


def send(data: bytes) -> Callable[[Conversation], object]:
    return lambda conversation: conversation.send(data)


def forever(data: bytes, pause_s: float = 0.0) -> Callable[[Conversation], object]:
    return lambda conversation: conversation.send_forever(data, pause_s=pause_s)


silence, reset, close_notify = Conversation.wait, Conversation.reset, Conversation.close_notify


def small_records(conversation: Conversation) -> None:
    """Send a body in TLS records of one byte each."""
    conversation.send(OK_HEAD + b"Content-Length: 1000000\r\n\r\n")
    while not conversation.stopped.is_set():
        conversation.send(b"a")


def slowly(data: bytes, pause_s: float = 0.1) -> Callable[[Conversation], object]:
    def step(conversation: Conversation) -> None:
        for byte in data:
            if conversation.stopped.wait(pause_s):
                return
            conversation.send(bytes([byte]))

    return step


@dataclass(frozen=True, kw_only=True)
class Case:
    """What the peer does with a request, and how the request must end."""

    script: Script
    code: IndeterminateCode | None = None
    status: int | None = 200
    size: int | None = None
    timed: bool = False
    body: bytes = field(default=b"{}", repr=False)


TIMED_S = (0.6, 6.0, 60.0)
"""Deadlines that are to pass. The next is tried where a machine was too busy to come as far as the
peer's slowness within one."""
LONG_S = 30.0
"""A deadline that is not to pass."""

RESPONSES = {
    # Slow peers.
    "slow head": Case(
        script=script(slowly(OK_HEAD + b"a: b\r\n" * 999)), code=C.DEADLINE, status=None, timed=True
    ),
    "slow body": Case(
        script=script(send(OK_HEAD + b"Content-Length: 9999\r\n\r\n"), slowly(b"a" * 9999)),
        code=C.DEADLINE,
        timed=True,
    ),
    "slow chunks": Case(
        script=script(send(CHUNKED), forever(b"1\r\na\r\n", 0.05)),
        code=C.DEADLINE,
        timed=True,
    ),
    "slow trailers": Case(
        script=script(send(CHUNKED + b"0\r\n"), forever(b"a: b\r\n", 0.05)),
        code=C.DEADLINE,
        timed=True,
    ),
    "slow interim responses": Case(
        script=script(forever(b"HTTP/1.1 100 Continue\r\n\r\n", 0.05)),
        code=C.DEADLINE,
        status=None,
        timed=True,
    ),
    "silence": Case(script=script(silence), code=C.DEADLINE, status=None, timed=True),
    "silence after the head": Case(
        script=script(send(OK_HEAD + b"Content-Length: 5\r\n\r\n"), silence),
        code=C.DEADLINE,
        timed=True,
    ),
    "silence before the end": Case(
        script=script(send(CHUNKED + b"1\r\na\r\n0\r\n"), silence),
        code=C.DEADLINE,
        timed=True,
    ),
    "a request never read": Case(
        script=silence, code=C.DEADLINE, status=None, timed=True, body=b"a" * (8 * MIB)
    ),
    # Endless peers.
    "endless body": Case(
        script=script(send(OK_HEAD + b"\r\n"), forever(b"a" * 65536)), code=C.BODY_TOO_LARGE
    ),
    "endless chunks": Case(
        script=script(send(CHUNKED), forever(b"1000\r\n" + b"a" * 4096 + b"\r\n")),
        code=C.BODY_TOO_LARGE,
    ),
    "endless chunk": Case(
        script=script(send(CHUNKED + b"ffffffffff\r\n"), forever(b"a" * 65536)),
        code=C.BODY_TOO_LARGE,
    ),
    "endless chunk extension": Case(
        script=script(send(CHUNKED + b"1;a="), forever(b"a" * 65536)), code=C.BODY_TOO_LARGE
    ),
    "endless chunk extensions": Case(
        script=script(send(CHUNKED + b"1"), forever(b";a=b" * 9000)), code=C.BODY_TOO_LARGE
    ),
    "endless one-byte chunks": Case(
        script=script(send(CHUNKED), forever(b"1\r\na\r\n" * 9000)), code=C.BODY_TOO_LARGE
    ),
    "endless one-byte chunks with extensions": Case(
        script=script(send(CHUNKED), forever((b"1;" + b"e" * 90 + b"\r\na\r\n") * 900)),
        code=C.BODY_TOO_LARGE,
    ),
    "endless trailers": Case(
        script=script(send(CHUNKED + b"0\r\n"), forever(b"a: b\r\n" * 9000)),
        code=C.BODY_TOO_LARGE,
    ),
    "endless chunk size": Case(
        script=script(send(CHUNKED), forever(b"0" * 65536)), code=C.BODY_TOO_LARGE
    ),
    "endless fields": Case(
        script=script(send(OK_HEAD), forever(b"a: b\r\n" * 9000)),
        code=C.HEAD_TOO_LARGE,
        status=None,
    ),
    "endless field": Case(
        script=script(send(OK_HEAD + b"a: "), forever(b"b" * 65536)),
        code=C.HEAD_TOO_LARGE,
        status=None,
    ),
    "endless reason": Case(
        script=script(send(b"HTTP/1.1 200 "), forever(b"b" * 65536)),
        code=C.HEAD_TOO_LARGE,
        status=None,
    ),
    "endless interim responses": Case(
        script=script(forever(b"HTTP/1.1 100 Continue\r\n\r\n" * 2000)),
        code=C.HEAD_TOO_LARGE,
        status=None,
    ),
    "endless one-byte records": Case(script=script(small_records), code=C.BODY_TOO_LARGE),
    # Too large.
    "a length over 1 MiB": Case(
        script=answer(OK_HEAD + b"Content-Length: 1048577\r\n\r\n"),
        code=C.BODY_TOO_LARGE,
        size=0,
    ),
    "over 1 MiB in chunks": Case(
        script=answer(CHUNKED + b"100001\r\n" + b"a" * (MIB + 1) + b"\r\n0\r\n\r\n"),
        code=C.BODY_TOO_LARGE,
    ),
    "over 1 MiB until close": Case(
        script=answer(OK_HEAD + b"\r\n" + b"a" * (MIB + 1)), code=C.BODY_TOO_LARGE
    ),
    "1 MiB by length": Case(
        script=answer(OK_HEAD + b"Content-Length: 1048576\r\n\r\n" + b"a" * MIB), size=MIB
    ),
    "1 MiB in chunks": Case(
        script=answer(CHUNKED + b"100000\r\n" + b"a" * MIB + b"\r\n0\r\n\r\n"), size=MIB
    ),
    "1 MiB until close": Case(
        script=script(send(OK_HEAD + b"\r\n" + b"a" * MIB), close_notify), size=MIB
    ),
    "a head over 64 KiB": Case(
        script=answer(OK_HEAD + b"a: " + b"b" * 70000 + b"\r\nContent-Length: 0\r\n\r\n"),
        code=C.HEAD_TOO_LARGE,
        status=None,
    ),
    # Coded.
    "gzip bomb": Case(
        script=answer(
            OK_HEAD
            + b"Content-Encoding: gzip\r\nContent-Length: 20000\r\n\r\n"
            + gzip.compress(b"\0" * (16 * MIB))
        ),
        code=C.CODING_REFUSED,
        status=None,
    ),
    "gzip bomb as transfer coding": Case(
        script=answer(OK_HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
        code=C.CODING_REFUSED,
        status=None,
    ),
    "deflate": Case(
        script=answer(OK_HEAD + b"Content-Encoding: deflate\r\nContent-Length: 1\r\n\r\na"),
        code=C.CODING_REFUSED,
        status=None,
    ),
    "gzip that is not declared": Case(
        script=answer(
            OK_HEAD + b"Content-Length: %d\r\n\r\n" % len(b := gzip.compress(b"\0" * MIB)) + b
        ),
        size=len(gzip.compress(b"\0" * MIB)),
    ),
    # Cut.
    "cut with close_notify": Case(
        script=script(send(OK_HEAD + b"Content-Length: 9\r\n\r\nabc"), close_notify),
        code=C.TRUNCATED,
    ),
    "cut without close_notify": Case(
        script=script(send(OK_HEAD + b"Content-Length: 9\r\n\r\nabc")), code=C.TRUNCATED
    ),
    "cut between chunks": Case(
        script=script(send(CHUNKED + b"1\r\na\r\n"), close_notify), code=C.TRUNCATED
    ),
    "cut in a chunk": Case(
        script=script(send(CHUNKED + b"9\r\na"), close_notify), code=C.TRUNCATED
    ),
    "cut in the head": Case(
        script=script(send(OK_HEAD), close_notify), code=C.TRUNCATED, status=None
    ),
    "cut body until close": Case(script=script(send(OK_HEAD + b"\r\nabc")), code=C.TRUNCATED),
    "whole body until close": Case(script=script(send(OK_HEAD + b"\r\nabc"), close_notify), size=3),
    "nothing, properly closed": Case(
        script=script(close_notify), code=C.CONNECTION_LOST, status=None
    ),
    "nothing, just closed": Case(script=script(), code=C.CONNECTION_LOST, status=None),
    "reset before the answer": Case(script=script(reset), code=C.CONNECTION_LOST, status=None),
    "reset in the body": Case(
        script=script(
            send(OK_HEAD + b"Content-Length: 9\r\n\r\nabc"), lambda c: c.wait(0.5), reset
        ),
        code=C.CONNECTION_LOST,
        size=3,
    ),
    # Malformed.
    "bad chunk size": Case(script=answer(CHUNKED + b"zz\r\n"), code=C.MALFORMED),
    "bad chunk end": Case(script=answer(CHUNKED + b"1\r\naXX"), code=C.MALFORMED),
    "chunk size overflow": Case(script=answer(CHUNKED + b"f" * 17 + b"\r\n"), code=C.MALFORMED),
    "two lengths": Case(
        script=answer(OK_HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        code=C.MALFORMED,
        status=None,
    ),
    "length and chunks": Case(
        script=answer(OK_HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
        code=C.MALFORMED,
        status=None,
    ),
    "another protocol": Case(
        script=answer(b"220 mail.example.com ESMTP\r\n"), code=C.MALFORMED, status=None
    ),
    "HTTP/2": Case(
        script=answer(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"), code=C.MALFORMED, status=None
    ),
    "an upgrade nobody asked for": Case(
        script=answer(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"
        ),
        code=C.UPGRADE_REFUSED,
        status=None,
    ),
    "a bare 101": Case(
        script=answer(b"HTTP/1.1 101 Go\r\n\r\n" + WHOLE), code=C.UPGRADE_REFUSED, status=None
    ),
    # Answers like any other.
    "redirect to metadata": Case(
        script=answer(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\n"
            b"Content-Length: 0\r\n\r\n"
        ),
        status=302,
        size=0,
    ),
    "redirect that keeps the method": Case(
        script=answer(
            b"HTTP/1.1 307 Away\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"
        ),
        status=307,
    ),
    "refresh by header": Case(
        script=answer(OK_HEAD + b"Refresh: 0; url=http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n")
    ),
    "server error": Case(
        script=answer(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"), status=500
    ),
    "proxy authentication": Case(
        script=answer(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n"), status=407
    ),
    "interim, then final": Case(script=answer(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE), size=2),
    "extra bytes": Case(script=answer(WHOLE + b"GARBAGE"), size=2),
    "two answers at once": Case(
        script=answer(WHOLE + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), size=2
    ),
}


def client_of(authority: Authority, dialler: LoopbackDialler, deadline_s: float) -> EgressClient:
    return EgressClient(
        resolver=StaticNames({HOST: [PUBLIC_IP], "deep.api.example.com": [PUBLIC_IP]}),
        dialler=dialler,
        trust=authority.pem,
        limits=Limits(deadline_s=deadline_s),
    )


async def run(
    authority: Authority,
    script: Script,
    tls: ssl.SSLContext | None,
    *,
    deadline_s: float = LONG_S,
    url: str = URL,
    body: bytes = b"{}",
) -> tuple[Outcome, Peer]:
    dialler = LoopbackDialler()
    with Peer(script, tls) as peer:
        target = parse_target(url)
        dialler.ports[PUBLIC_IP, target.port] = peer.port
        async with client_of(authority, dialler, deadline_s) as client, within_bounds(deadline_s):
            outcome = await client.send(target, body, {}, None)
    return outcome, peer


@pytest.mark.parametrize("name", RESPONSES)
async def test_every_answer_ends_in_its_outcome(authority: Authority, name: str) -> None:
    """The outcome, its code, the status and the counted size are right, within all bounds."""
    case = RESPONSES[name]
    for deadline_s in TIMED_S if case.timed else (LONG_S,):
        outcome, peer = await run(
            authority, case.script, authority.issue(), deadline_s=deadline_s, body=case.body
        )
        if isinstance(outcome, Indeterminate) and outcome.status == case.status:
            break
    if case.code is None:
        assert isinstance(outcome, Responded)
    else:
        assert isinstance(outcome, Indeterminate)
        assert outcome.code is case.code
    assert outcome.status == case.status
    assert outcome.pinned_ip == PUBLIC_IP
    if case.size is not None:
        assert outcome.response_size == case.size
    assert outcome.response_size <= 2 * MIB
    assert peer.connections == 1
    assert len(peer.requests) <= 1


def test_there_are_enough_faults() -> None:
    """At least 45 cases of answers and certificates."""
    assert len(RESPONSES) + len(CERTIFICATES) + len(HANDSHAKES) >= 45


Issue = Callable[[Authority], ssl.SSLContext]

CERTIFICATES: dict[str, tuple[Issue, str]] = {
    "expired": (lambda a: a.issue(not_before_days=-30, not_after_days=-1), URL),
    "not yet valid": (lambda a: a.issue(not_before_days=2), URL),
    "for another host": (lambda a: a.issue(["other.example.com"]), URL),
    "for the parent": (lambda a: a.issue(["example.com"]), URL),
    "for a longer name": (lambda a: a.issue(["api.example.com.evil.com"]), URL),
    "common name only": (lambda a: a.issue([], common_name=HOST), URL),
    "common name beside other names": (lambda a: a.issue(["x.example"], common_name=HOST), URL),
    "self-signed": (lambda a: a.issue(self_signed=True), URL),
    "of an unknown authority": (lambda _: Authority("Evil CA").issue(), URL),
    "of an impostor of the authority": (lambda _: Authority().issue(), URL),
    "for clients": (lambda a: a.issue(usage=ExtendedKeyUsageOID.CLIENT_AUTH), URL),
    "for the address, not the name": (lambda a: a.issue([PUBLIC_IP]), URL),
    "a wildcard one label too high": (
        lambda a: a.issue(["*.example.com"]),
        "https://deep.api.example.com/",
    ),
    "a wildcard within a label": (lambda a: a.issue(["a*.example.com"]), URL),
    "a wildcard for everything": (lambda a: a.issue(["*"]), URL),
    "the name, not the address": (lambda a: a.issue([HOST]), f"https://{PUBLIC_IP}/"),
    "another address": (lambda a: a.issue(["93.184.215.15"]), f"https://{PUBLIC_IP}/"),
    "the address as a name": (
        lambda a: a.issue([], common_name=PUBLIC_IP),
        f"https://{PUBLIC_IP}/",
    ),
}


@pytest.mark.parametrize("name", CERTIFICATES)
async def test_bad_certificates_get_no_byte(authority: Authority, name: str) -> None:
    """With a certificate that does not prove the host, no byte of the request leaves."""
    issue, url = CERTIFICATES[name]
    outcome, peer = await run(authority, answer(WHOLE), issue(authority), url=url)
    assert outcome == NotSent(code=N.CERTIFICATE_INVALID, host=parse_target(url).host)
    assert peer.requests == []


@pytest.mark.parametrize(
    ("names", "url"),
    [([HOST], URL), (["*.example.com"], URL), ([PUBLIC_IP], f"https://{PUBLIC_IP}/")],
)
async def test_good_certificates_prove_the_host(
    authority: Authority, names: list[str], url: str
) -> None:
    """The exact name, a wildcard of one label, and an address by its own kind are proof."""
    outcome, _ = await run(authority, answer(WHOLE), authority.issue(names), url=url)
    assert isinstance(outcome, Responded)


def _drip(conversation: Conversation) -> None:
    slowly(b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc" * 100, 0.05)(conversation)


HANDSHAKES: dict[str, tuple[Script, NotSentCode, float]] = {
    "silence": (silence, N.DEADLINE, TIMED_S[0]),
    "a slow drip": (_drip, N.DEADLINE, TIMED_S[0]),
    "closed at once": (lambda _: None, N.TLS_FAILED, LONG_S),
    "plain HTTP": (send(WHOLE), N.TLS_FAILED, LONG_S),
    "garbage": (forever(b"\xff" * 65536), N.TLS_FAILED, LONG_S),
    "an endless record": (forever(b"\x16\x03\x03\x40\x00" + b"\0" * 16384), N.TLS_FAILED, LONG_S),
    "an alert": (send(b"\x15\x03\x03\x00\x02\x02\x28"), N.TLS_FAILED, LONG_S),
    "endless alerts": (forever(b"\x15\x03\x03\x00\x02\x01\x5a" * 1000), N.TLS_FAILED, LONG_S),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_broken_handshakes_get_no_byte(authority: Authority, name: str) -> None:
    """Without a finished handshake nothing is sent, whatever the peer does instead."""
    script, code, deadline_s = HANDSHAKES[name]
    outcome, peer = await run(authority, script, None, deadline_s=deadline_s)
    assert outcome == NotSent(code=code, host=HOST)
    assert peer.requests == []


async def test_a_reset_at_once_gets_no_byte(authority: Authority) -> None:
    """Before or in the handshake is a race; nothing is sent either way."""
    outcome, peer = await run(authority, reset, None)
    assert isinstance(outcome, NotSent)
    assert outcome.code in {N.TLS_FAILED, N.CONNECT_FAILED}
    assert peer.requests == []


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.MINIMUM_SUPPORTED:DeprecationWarning")
async def test_old_tls_is_refused(authority: Authority) -> None:
    """A server that speaks TLS 1.1 at most gets no byte."""
    old = authority.issue(maximum=ssl.TLSVersion.TLSv1_1)
    outcome, peer = await run(authority, answer(WHOLE), old)
    assert outcome == NotSent(code=N.TLS_FAILED, host=HOST)
    assert peer.requests == []


async def test_tls_1_2_is_still_spoken(authority: Authority) -> None:
    """A server without TLS 1.3 is reached."""
    context = authority.issue()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    outcome, _ = await run(authority, answer(WHOLE), context)
    assert isinstance(outcome, Responded)


async def test_session_keys_are_never_written(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSLKEYLOGFILE does not make the client betray what it sends."""
    path = tmp_path_factory.mktemp("keys") / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(path))
    outcome, _ = await run(authority, answer(WHOLE), authority.issue())
    assert isinstance(outcome, Responded)
    assert not path.exists()


@pytest.mark.parametrize(
    "lie",
    [
        ("127.0.0.1", 443),
        ("93.184.215.15", 443),
        (PUBLIC_IP, 8443),
        ("::ffff:93.184.215.14", 443),
        ("", 443),
        ("fe80::1%eth0", 443),
        ("not an address", 443),
    ],
)
async def test_a_dialler_that_reached_another_peer_is_refused(
    authority: Authority, lie: tuple[str, int]
) -> None:
    """If the socket does not end where it was sent, nothing is sent through it."""
    dialler = LoopbackDialler()
    dialler.lie = lie
    with Peer(answer(WHOLE), authority.issue()) as peer:
        dialler.ports[PUBLIC_IP, 443] = peer.port
        async with client_of(authority, dialler, LONG_S) as client:
            outcome = await client.send(parse_target(URL), b"{}", {}, None)
    assert isinstance(outcome, Refused)
    assert outcome.code == "HEL_PEER_MISMATCH"
    assert peer.requests == []
