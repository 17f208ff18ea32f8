"""The system resolver of the client, asked against a name server of our own on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import cast

import pytest
from tests.egress.stage import LoopbackDialler

from signet.egress import (
    DNSResolver,
    EgressClient,
    Limits,
    LookupFailed,
    NotSent,
    NotSentCode,
    Refused,
    Verdict,
    parse_target,
)
from signet.egress.resolve import Record

pytestmark = pytest.mark.anyio

A, CNAME, AAAA, TXT = 1, 5, 28, 16


def wire_name(name: str) -> bytes:
    labels = name.rstrip(".").split(".")
    return b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"


def record(owner: str, kind: int, data: bytes, ttl_s: int = 60) -> bytes:
    return wire_name(owner) + struct.pack(">HHIH", kind, 1, ttl_s, len(data)) + data


def a(owner: str, address: str, ttl_s: int = 60) -> bytes:
    return record(owner, A, socket.inet_aton(address), ttl_s)


def aaaa(owner: str, address: str) -> bytes:
    return record(owner, AAAA, socket.inet_pton(socket.AF_INET6, address))


class NameServer(asyncio.DatagramProtocol):
    """Answers each question with the records of a table, or a response code, or not at all."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[bytes]] = {}
        self.code = 0
        self.answering = True
        self.garbage: bytes | None = None
        self.questions: list[tuple[str, int]] = []
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        end, labels = 12, list[str]()
        while data[end]:
            labels.append(data[end + 1 : end + 1 + data[end]].decode())
            end += 1 + data[end]
        question = data[12 : end + 5]
        name, kind = ".".join(labels).lower(), int.from_bytes(data[end + 1 : end + 3], "big")
        self.questions.append((name, kind))
        if self.garbage is not None:
            self._transport.sendto(data[:2] + self.garbage, addr)
        elif self.answering:
            answers = self.records.get((name, kind), [])
            flags = 0x8180 | self.code
            head = data[:2] + struct.pack(">HHHHH", flags, 1, len(answers), 0, 0)
            self._transport.sendto(head + question + b"".join(answers), addr)


@contextlib.asynccontextmanager
async def name_server() -> AsyncIterator[tuple[NameServer, DNSResolver]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = DNSResolver(servers=["127.0.0.1"], port=port)
    try:
        yield server, resolver
    finally:
        await resolver.aclose()
        transport.close()
        await asyncio.sleep(0)


async def test_records_come_back_as_they_came() -> None:
    """Addresses, aliases and foreign records are all handed on, with their owners and TTLs."""
    async with name_server() as (server, resolver):
        server.records["a.example", A] = [
            record("a.example", CNAME, wire_name("b.example"), 7),
            a("b.example", "93.184.215.14", 9),
            a("evil.example", "10.0.0.1"),
            record("b.example", TXT, b"\x01x"),
        ]
        records = await resolver.query("a.example", "A")
    assert records == [
        Record(owner="a.example", kind="CNAME", value="b.example", ttl_s=7),
        Record(owner="b.example", kind="A", value="93.184.215.14", ttl_s=9),
        Record(owner="evil.example", kind="A", value="10.0.0.1", ttl_s=60),
    ]


async def test_names_are_asked_as_they_are() -> None:
    """No search list: a short name that does not exist is asked once and not completed."""
    async with name_server() as (server, resolver):
        server.code = 3
        for name in ("intranet", "a.example"):
            assert await resolver.query(name, "A") == ()
    # A question may be put twice when its answer is late.
    assert list(dict.fromkeys(server.questions)) == [("intranet", A), ("a.example", A)]


async def test_a_type_without_records_is_nothing() -> None:
    """NODATA is an empty answer, no failure."""
    async with name_server() as (_, resolver):
        assert list(await resolver.query("a.example", "AAAA")) == []


@pytest.mark.parametrize("code", [1, 2, 4, 5])
async def test_a_server_that_fails_is_a_failure(code: int) -> None:
    """FORMERR, SERVFAIL, NOTIMP and REFUSED say nothing about the name."""
    async with name_server() as (server, resolver):
        server.code = code
        with pytest.raises(LookupFailed) as caught:
            await resolver.query("a.example", "A")
    assert caught.value.code is NotSentCode.RESOLUTION_FAILED


@pytest.mark.parametrize(
    "garbage", [b"", b"\x81\x80", b"\xff" * 10, b"\x81\x80\0\1\0\1\0\0\0\0" + b"\xc0\x0c" * 40]
)
async def test_garbage_and_silence_end_within_the_bound(garbage: bytes) -> None:
    """Whatever a name server sends instead of an answer, the client gives up in time."""
    async with name_server() as (server, resolver):
        server.garbage = garbage
        limits = Limits(resolve_s=0.5)
        async with EgressClient(resolver=resolver, limits=limits) as client, asyncio.timeout(240):
            outcome = await client.send(parse_target("https://a.example/"), b"", {}, None)
    assert outcome == NotSent(code=NotSentCode.RESOLUTION_FAILED, host="a.example")


async def test_the_client_refuses_what_the_name_server_says() -> None:
    """Through real DNS: a name with an alias that leads to metadata is refused, unconnected."""
    dialler = LoopbackDialler()
    async with name_server() as (server, resolver):
        server.records["a.example", A] = [
            record("a.example", CNAME, wire_name("metadata.internal")),
            a("metadata.internal", "169.254.169.254"),
        ]
        server.records["b.example", A] = [a("b.example", "93.184.215.14")]
        server.records["b.example", AAAA] = [aaaa("b.example", "::ffff:10.0.0.1")]
        async with EgressClient(resolver=resolver, dialler=dialler) as client:
            first = await client.send(parse_target("https://a.example/"), b"", {}, None)
            second = await client.send(parse_target("https://b.example/"), b"", {}, None)
    assert first == Refused(code=Verdict.RESOLVED_LINKLOCAL, host="a.example")
    assert second == Refused(code=Verdict.RESOLVED_RESERVED, host="b.example")
    assert dialler.dialled == []


async def test_closing_twice_is_harmless() -> None:
    """A resolver that was never used, or is closed already, closes quietly."""
    resolver = DNSResolver()
    await resolver.aclose()
    await resolver.aclose()
