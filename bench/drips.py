"""What a hundred receivers that answer a byte at a time do to everybody else.

Run `python -m bench.drips`. Two gateways of the same stack, one process each; one of them has a
hundred forwards under way, over TLS, to receivers that send a byte every tenth of a second. Both
are asked in turns by another tenant's callers and for `/healthz`, three rounds each, and the drips
stand still (SIGSTOP) while the other gateway is asked. The best round of each counts: whatever else
the machine does only ever makes it worse.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop
from tests.egress.stage import PUBLIC_IP, Authority, LoopbackDialler, StaticNames
from tests.fleet import post
from tests.inprocess import invoice

from bench.exchange import body, listen
from bench.load import TOOL, drive
from signet.app import open_gateway
from signet.egress import EgressClient, Limits
from signet.settings import read_settings

DRIPS: Final = 100
ROUNDS: Final = 3
SECONDS: Final = 2.0
CALLERS: Final = 4
PROBES: Final = 400
HOSTS: Final = [f"h{number}.example.com" for number in range(DRIPS)]
# The first is the tenant of the forwards, as `tests.fleet.post` sends them.
KEYS: Final = {"acme-key": {"tenant": "acme"}, "bench-key": {"tenant": "bench"}}
FORWARD_S: Final = 120


class Dripping(asyncio.Protocol):
    """Begins an answer to whatever comes, and goes on with a byte at a time.

    A byte into `told` says that one has begun.
    """

    def __init__(self, told: int) -> None:
        self._told = told

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._began = False

    def data_received(self, data: bytes) -> None:
        if not self._began:
            self._began = True
            os.write(self._told, b".")
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
            self._drip()

    def _drip(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"x")
            asyncio.get_running_loop().call_later(0.1, self._drip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receivers:
    """A child process that drips. `begun` is where a byte comes for each answer that has begun."""

    port: int
    pid: int
    begun: int


@contextmanager
def receivers(context: ssl.SSLContext) -> Iterator[Receivers]:
    """Drip until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    begun, told = os.pipe()
    child = os.fork()
    if child == 0:

        async def drip() -> None:
            loop = asyncio.get_running_loop()
            server = await loop.create_server(lambda: Dripping(told), sock=listener, ssl=context)
            await server.serve_forever()

        asyncio.run(drip())
    port = listener.getsockname()[1]
    listener.close()
    os.close(told)
    try:
        yield Receivers(port=port, pid=child, begun=begun)
    finally:
        os.close(begun)
        os.kill(child, signal.SIGCONT)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


async def serve(directory: str, port: int, authority: str) -> None:
    """A gateway whose forwards end at the receivers, by the seams of the egress client."""
    environ = {
        "SP_DATA_DIR": directory,
        "SP_API_KEYS": json.dumps(KEYS),
        "SP_LOG_LEVEL": "error",
        "SP_HEL_ALLOWLIST": "*.example.com",
        "SP_FORWARD_SECONDS": str(FORWARD_S),
    }
    dialler = LoopbackDialler()
    dialler.ports[PUBLIC_IP, 443] = port
    client = EgressClient(
        resolver=StaticNames({host: [PUBLIC_IP] for host in HOSTS}),
        dialler=dialler,
        trust=authority,
        limits=Limits(deadline_s=FORWARD_S),
    )
    async with client, open_gateway(read_settings(environ).settings, sender=client) as gateway:
        await listen(gateway.asgi, socket.create_server(("127.0.0.1", 0), backlog=512))


@contextmanager
def gateway(directory: Path, port: int, authority: Path) -> Iterator[str]:
    """The same in a process of its own; where it listens."""
    directory.mkdir()
    command = [sys.executable, "-m", "bench.drips", str(directory), str(port), str(authority)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()  # a hundred forwards have minutes to go


@asynccontextmanager
async def forwards(url: str, begun: int) -> AsyncGenerator[None]:
    """A hundred forwards, all under way when the block begins."""
    port = urlsplit(url).port
    assert port is not None
    async with asyncio.TaskGroup() as tasks:
        under_way = [
            tasks.create_task(
                post(port, invoice(forward_url=f"https://{host}/x"), host, wait_s=FORWARD_S)
            )
            for host in HOSTS
        ]
        await asyncio.to_thread(count, begun)
        try:
            yield
        finally:
            assert not any(task.done() for task in under_way)
            for task in under_way:
                task.cancel()


def count(begun: int) -> None:
    """Wait until every answer has begun."""
    for _ in range(DRIPS):
        assert os.read(begun, 1), "the receivers have died"


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """The 99th percentiles of one round, in microseconds."""

    exchange_us: float
    healthz_us: float


def ask(url: str) -> Latencies:
    """Another tenant's exchanges, then the probe of the load balancer."""
    load = drive(
        f"{url}/v1/exchange", concurrency=CALLERS, seconds=SECONDS, body=body(), api_key="bench-key"
    )
    assert load.errors == 0, load
    times: list[float] = []
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)) as connection:
        for _ in range(PROBES):
            began = time.perf_counter()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            times.append(time.perf_counter() - began)
    return Latencies(exchange_us=load.p99_us, healthz_us=sorted(times)[-PROBES // 100] * 1e6)


async def measure(scratch: Path) -> dict[str, list[Latencies]]:
    """Ask both gateways in turns."""
    authority = Authority()
    file = scratch / "authority.pem"
    file.write_text(authority.pem)
    rounds: dict[str, list[Latencies]] = {"quiet": [], "dripping": []}
    with ExitStack() as stack:
        drips = stack.enter_context(receivers(authority.issue(["*.example.com"])))
        quiet = stack.enter_context(gateway(scratch / "quiet", drips.port, file))
        dripping = stack.enter_context(gateway(scratch / "dripping", drips.port, file))
        async with forwards(dripping, drips.begun):
            for _ in range(ROUNDS):
                os.kill(drips.pid, signal.SIGSTOP)
                rounds["quiet"].append(await asyncio.to_thread(ask, quiet))
                os.kill(drips.pid, signal.SIGCONT)
                rounds["dripping"].append(await asyncio.to_thread(ask, dripping))
    return rounds


def main() -> None:
    """Print the latencies and their ratios in one run."""
    with tempfile.TemporaryDirectory(prefix="signet-bench-") as scratch:
        rounds = asyncio.run(measure(Path(scratch)))
    print(f"drips: {DRIPS} receivers, a byte each 100 ms; c={CALLERS}, load from {TOOL}")
    for what in ("exchange", "healthz"):
        quiet, dripping = (
            min(getattr(latencies, f"{what}_us") for latencies in rounds[name])
            for name in ("quiet", "dripping")
        )
        print(
            f"  {what:9} p99 {quiet:8.0f} us without, {dripping:8.0f} us with: "
            f"{dripping / quiet:.2f} x"
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        uvloop.run(serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]).read_text()))
    else:
        main()
