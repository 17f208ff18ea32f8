"""What a safe forward costs, next to bare aiohttp, and what a hostile answer costs either.

Run `python -m bench.egress`. A server in a child process answers over TLS on loopback; the figures
are CPU time of this process per forward, medians of rounds taken in turns, so that ratios hold even
while the machine is busy with something else. aiohttp is used as plainly as it can be: own
resolver, no cookies, no decompression, no redirects.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from tests.egress.stage import PUBLIC_IP, Authority, LoopbackDialler, StaticNames

from signet.egress import EgressClient, Limits, Policy, parse_target

_ROUNDS = 7
_FORWARDS = 600
_BODY = b"x" * 1024
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1024\r\n\r\n" + _BODY
)
_HEADERS = {
    "Content-Type": "application/json",
    "Idempotency-Key": "a" * 64,
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
}
_HOSTS = [f"h{number}.example.com" for number in range(300)]
_WILDCARD = "*.example.com"


class _Answering(asyncio.Protocol):
    """Answers every whole request at once; a request for /endless gets a chunk without end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if b"/endless" in self._data:
            self._transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")
            self._pour()
        elif self._data.endswith(_BODY):
            self._data = b""
            self._transport.write(_ANSWER)

    def _pour(self) -> None:
        if not self._transport.is_closing():
            if self._transport.get_write_buffer_size() < 1 << 20:
                self._transport.write(b"e" * 65536)
            asyncio.get_running_loop().call_later(0.0005, self._pour)


@contextlib.contextmanager
def _server(context: ssl.SSLContext) -> Iterator[int]:
    """Serve in a child process; yield the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    child = os.fork()
    if child == 0:

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(_Answering, sock=listener, ssl=context)
            await server.serve_forever()

        asyncio.run(serve())
    port = listener.getsockname()[1]
    listener.close()
    try:
        yield port
    finally:
        os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


class _Loopback(AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[Any]:
        entry = {"hostname": host, "host": "127.0.0.1", "port": port}
        return [entry | {"family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


Send = Callable[[str], Awaitable[None]]


@contextlib.asynccontextmanager
async def _signet(authority: Authority, port: int):
    dialler = LoopbackDialler()
    dialler.ports[PUBLIC_IP, 443] = port
    targets = {host: parse_target(f"https://{host}/hook") for host in _HOSTS}
    policy = Policy.parse([_WILDCARD])
    limits = Limits(idle_s=60.0, max_idle=512)
    names = StaticNames({host: [PUBLIC_IP] for host in _HOSTS})
    async with EgressClient(
        resolver=names, dialler=dialler, trust=authority.pem, limits=limits
    ) as client:

        async def send(host: str) -> None:
            outcome = await client.send(targets[host], _BODY, _HEADERS, policy)
            assert outcome.outcome == "responded"

        yield send


@contextlib.asynccontextmanager
async def _aiohttp(authority: Authority, port: int):
    tls = ssl.create_default_context(cadata=authority.pem)
    connector = aiohttp.TCPConnector(
        ssl=tls, resolver=_Loopback(), limit=512, keepalive_timeout=60, use_dns_cache=True
    )
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        urls = {host: f"https://{host}:{port}/hook" for host in _HOSTS}

        async def send(host: str) -> None:
            async with session.post(
                urls[host], data=_BODY, headers=_HEADERS, allow_redirects=False
            ) as response:
                await response.read()

        yield send


async def _cpu_us(send: Send, hosts: list[str], forwards: int) -> float:
    """Return CPU microseconds of one forward, the hosts taken in turns."""
    started = time.process_time()
    for number in range(forwards):
        await send(hosts[number % len(hosts)])
    return (time.process_time() - started) / forwards * 1e6


async def _compare(authority: Authority, port: int) -> None:
    ours: list[float] = []
    theirs: list[float] = []
    many: list[float] = []
    async with (
        _signet(authority, port) as signet,
        _aiohttp(authority, port) as bare,
    ):
        for host in _HOSTS:  # connections first: a handshake is no forward
            await signet(host)
        await bare(_HOSTS[0])
        for _ in range(_ROUNDS):
            ours.append(await _cpu_us(signet, _HOSTS[:1], _FORWARDS))
            theirs.append(await _cpu_us(bare, _HOSTS[:1], _FORWARDS))
            many.append(await _cpu_us(signet, _HOSTS, _FORWARDS))
    one, bare_us, spread = map(statistics.median, (ours, theirs, many))
    for what, cost_us, ratio in (
        ("bare aiohttp, 1 KB over kept-alive TLS", bare_us, "1.00"),
        ("signet.egress, the same", one, f"{one / bare_us:.2f}"),
        ("signet.egress, 300 hosts in turns", spread, f"{spread / one:.2f} of one host"),
    ):
        print(f"{what:40} {cost_us:6.0f} us CPU   {ratio}")


async def _endless(authority: Authority, port: int) -> None:
    dialler = LoopbackDialler()
    dialler.ports[PUBLIC_IP, 443] = port
    url = f"https://{_HOSTS[0]}/endless"
    deadline_s = 3.0
    started = time.process_time()
    async with EgressClient(
        resolver=StaticNames({_HOSTS[0]: [PUBLIC_IP]}),
        dialler=dialler,
        trust=authority.pem,
        limits=Limits(deadline_s=deadline_s),
    ) as client:
        outcome = await client.send(parse_target(url), _BODY, {}, None)
    ours_s = time.process_time() - started
    tls = ssl.create_default_context(cadata=authority.pem)
    started = time.process_time()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, resolver=_Loopback())
    ) as session:
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        result = "an answer"
        try:
            async with session.post(
                f"https://{_HOSTS[0]}:{port}/endless", data=_BODY, timeout=timeout
            ) as response:
                await response.content.read(1 << 20)
        except (TimeoutError, aiohttp.ClientError) as error:
            result = type(error).__name__
    theirs_s = time.process_time() - started
    print(f"an endless chunk extension, {deadline_s:.0f} s deadline:")
    print(f"  bare aiohttp   {theirs_s:6.2f} s CPU   ends in {result}")
    print(f"  signet.egress  {ours_s:6.2f} s CPU   ends in {getattr(outcome, 'code', outcome)}")


def main() -> None:
    """Print the figures."""
    authority = Authority()
    with _server(authority.issue([_WILDCARD])) as port:
        asyncio.run(_compare(authority, port))
        asyncio.run(_endless(authority, port))


if __name__ == "__main__":
    main()
