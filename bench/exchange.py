"""Exchanges per second of the running server, next to a null route and to itself without a commit.

Run `python -m bench.exchange [--profile | --filled [ROWS]]`. The server that `signet serve` runs
(uvicorn, uvloop, httptools, the door in front), one process each, asked in turns by a load tool in
another process, so that the ratios hold while the machine is busy with something else:

    null         a raw ASGI application that takes in the body and answers `{}`
    doorless     the same without the door: what uvicorn alone can do
    exchange     the gateway, SQLite with synchronous=FULL, 2 KB bodies, a fresh key each
    uncommitted  the same gateway, its receipts built and signed, but written nowhere
"""

from __future__ import annotations

import asyncio
import cProfile
import json
import os
import pstats
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn
import uvloop
from prometheus_client.metrics import MetricWrapperBase
from starlette.types import ASGIApp, Receive, Scope, Send

from bench.load import TOOL, Load, drive
from bench.storage import settle
from signet.api.door import Door, DoorLimits
from signet.app import gateway as composition
from signet.app import open_gateway, settle_memory
from signet.gateway import sealing
from signet.gateway.sealing import Sealer
from signet.settings import read_settings
from signet.storage.database import Database
from signet.storage.exchanges import Committed, PendingExchange, Seal
from signet.telemetry.metrics import Metrics
from signet.telemetry.tally import Count, Tally

CONCURRENCIES: Final = (64, 16, 1)
ROUNDS: Final = 3
SECONDS: Final = 2.0
API_KEY: Final = "bench-key"
BODY_BYTES: Final = 2048
WHAT: Final = ("null", "doorless", "exchange", "uncommitted")


def body() -> bytes:
    """An invoice of the mission, with a description that makes it 2 KB."""

    def exchange(description: str) -> bytes:
        arguments = {
            "invoice_id": "INV-2026-0001",
            "amount": "1234.50",
            "currency": "EUR",
            "customer_name": "ACME GmbH",
            "description": description,
        }
        function = {"name": "create_invoice", "arguments": json.dumps(arguments)}
        call = {"type": "function", "function": function}
        document = {
            "payload_type": "openai.tooluse.invoice.v1",
            "target_type": "invoice.iso20022.v1",
            "payload": {"tool_calls": [call]},
        }
        return json.dumps(document).encode()

    return exchange("x" * (BODY_BYTES - len(exchange(""))))


async def null(scope: Scope, receive: Receive, send: Send) -> None:
    """Take in the body and answer `{}`."""
    assert scope["type"] == "http"
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


class Uncommitted:
    """Stands where the committer stands: seals each exchange as hop 1 and stores nothing."""

    waiting = 0

    def __init__(self, seal: Seal) -> None:
        self._seal = seal

    async def commit(self, pending: PendingExchange) -> Committed:
        """Build and sign the receipt."""
        return Committed(sealed=self._seal(pending, None))


class Silent:
    """Stands where a metric stands, and counts nothing."""

    def labels(self, *_values: str) -> Silent:
        """Itself."""
        return self

    def inc(self, _amount: float = 1) -> None:
        """Nothing; so are the other ways to tell a metric something."""

    dec = set = observe = add = inc

    def pour(self) -> None:
        """Nothing waits."""


class Unmeasured(Metrics):
    """Every family is there, and none is told anything."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in vars(self).items():
            if isinstance(value, MetricWrapperBase | Tally | Count):
                setattr(self, name, Silent())
        self.phases = dict.fromkeys(self.phases, Silent())  # type: ignore[arg-type]


@asynccontextmanager
async def uncommitted(
    _database: Database, seal: Sealer, **_options: object
) -> AsyncGenerator[Uncommitted]:
    """Replace `open_committer`."""
    yield Uncommitted(seal)


async def listen(asgi: ASGIApp, listener: socket.socket, *, guarded: bool = True) -> None:
    """Serve on a socket, once its port is printed, as `signet serve` does."""
    limits = DoorLimits(
        header_bytes=32 << 10,
        header_count=100,
        header_s=10.0,
        body_s=60.0,
        answer_s=60.0,
        keep_alive_s=60.0,
        connections=1000,
    )
    door = Door(limits, Metrics())
    config = uvicorn.Config(
        asgi,
        http=door.protocol if guarded else "httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    config.load()
    server = uvicorn.Server(config)
    settle_memory()
    print(listener.getsockname()[1], flush=True)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(door.watch())
        await server.serve([listener])
        watching.cancel()


async def _serve(what: str, directory: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    if what in ("null", "doorless"):
        await listen(null, listener, guarded=what == "null")
        return
    if what == "uncommitted":
        composition.open_committer = uncommitted  # type: ignore[assignment]
    if what in ("unaudited", "bare"):
        sealing._entry = lambda *_decided: None  # type: ignore[assignment]
    if what == "bare":
        composition.Metrics = Unmeasured  # type: ignore[misc]
    keys = json.dumps({API_KEY: {"tenant": "bench"}})
    environ = {"SP_DATA_DIR": directory, "SP_API_KEYS": keys, "SP_LOG_LEVEL": "warning"}
    async with open_gateway(read_settings(environ).settings) as gateway:
        if what.startswith("filled-"):
            await settle(gateway.database, int(what.removeprefix("filled-")))
        await listen(gateway.asgi, listener)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that listens."""

    url: str
    pid: int

    @property
    def cpu_s(self) -> float:
        """The CPU time that it has used so far (proc(5): utime and stime)."""
        stat = Path(f"/proc/{self.pid}/stat").read_text("latin-1").rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One load, and the CPU that each of its requests cost the server."""

    load: Load
    cpu_us: float


@contextmanager
def served(what: str, *, profile: Path | None = None) -> Iterator[Server]:
    """Run one of the servers in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="signet-bench-") as directory:
        environ = os.environ | ({} if profile is None else {"BENCH_PROFILE": str(profile)})
        command = [sys.executable, "-m", "bench.exchange", "serve", what, directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
            try:
                assert process.stdout is not None
                port = process.stdout.readline().strip()
                yield Server(url=f"http://127.0.0.1:{port}/v1/exchange", pid=process.pid)
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()


def fsync_us() -> float:
    """The median time of one fsync of 4 KB, in the directory that the databases are in."""
    with tempfile.NamedTemporaryFile(prefix="signet-bench-") as file:
        times: list[float] = []
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _best(rounds: list[Measured], figure: Callable[[Measured], float]) -> float:
    """The best of the rounds: whatever else the machine does only ever makes it worse."""
    return min(map(figure, rounds))


def _rate(rounds: list[Measured]) -> float:
    return -_best(rounds, lambda measured: -measured.load.rate)


def measure() -> dict[str, dict[int, list[Measured]]]:
    """Ask the servers in turns."""
    request = body()
    rounds: dict[str, dict[int, list[Measured]]] = {what: {} for what in WHAT}
    with ExitStack() as stack:
        servers = {what: stack.enter_context(served(what)) for what in WHAT}
        for what in WHAT:
            drive(servers[what].url, concurrency=16, seconds=1, body=request, api_key=API_KEY)
        for concurrency in CONCURRENCIES:
            for _ in range(ROUNDS):
                for what in WHAT:
                    cpu_s = servers[what].cpu_s
                    load = drive(
                        servers[what].url,
                        concurrency=concurrency,
                        seconds=SECONDS,
                        body=request,
                        api_key=API_KEY,
                    )
                    assert load.errors == 0, f"{what}: {load}"
                    cost_us = (servers[what].cpu_s - cpu_s) / load.count * 1e6
                    measured = Measured(load=load, cpu_us=cost_us)
                    rounds[what].setdefault(concurrency, []).append(measured)
    return rounds


def main() -> None:
    """Print rates, latencies, CPU and ratios of one run."""
    print(f"exchange: {BODY_BYTES} bytes, fresh keys, load from {TOOL}")
    fsync = fsync_us()
    rounds = measure()
    columns = ("c", "req/s", "p50 us", "p99 us", "cpu us", "of null")
    print(f"{'':14}{columns[0]:>4}" + "".join(f"{name:>10}" for name in columns[1:]))
    for concurrency in reversed(CONCURRENCIES):
        for what in WHAT:
            of = rounds[what][concurrency]
            p50, p99 = _best(of, lambda m: m.load.p50_us), _best(of, lambda m: m.load.p99_us)
            cpu = _best(of, lambda m: m.cpu_us)
            share = _rate(of) / _rate(rounds["null"][concurrency])
            print(
                f"  {what:12}{concurrency:4}{_rate(of):10.0f}{p50:10.0f}{p99:10.0f}{cpu:10.0f}"
                f"{share:10.1%}"
            )
    rate = {what: _rate(rounds[what][64]) for what in WHAT}
    cpu = {what: _best(rounds[what][64], lambda m: m.cpu_us) for what in WHAT}
    alone = {what: _best(rounds[what][1], lambda m: m.load.p50_us) for what in WHAT}
    bound = 6 * alone["null"] + 2 * fsync
    print(
        f"  c=64, of the null route: {rate['exchange'] / rate['null']:.1%} of its rate,"
        f" {cpu['null'] / cpu['exchange']:.1%} by CPU (to reach: 9 %);"
        f" of one without the door: {rate['exchange'] / rate['doorless']:.1%},"
        f" {cpu['doorless'] / cpu['exchange']:.1%}"
    )
    print(
        f"  c=64, of itself uncommitted: {rate['exchange'] / rate['uncommitted']:.1%} of its rate,"
        f" {cpu['uncommitted'] / cpu['exchange']:.1%} by CPU (to reach: 50 %)"
    )
    print(
        f"  c=1: p50 {alone['exchange']:.0f} us;"
        f" 6 x null + 2 fsyncs of {fsync:.0f} us = {bound:.0f} us"
    )


def _filled(rows: int) -> None:
    """Print what an exchange costs with `rows` receipts stored, next to one with none."""
    request = body()
    rounds: dict[str, list[Measured]] = {"exchange": [], f"filled-{rows}": []}
    with ExitStack() as stack:
        servers = {what: stack.enter_context(served(what)) for what in rounds}
        for _ in range(ROUNDS + 1):  # the first warms up: a full table is read from the disk
            for what, server in servers.items():
                cpu_s = server.cpu_s
                load = drive(
                    server.url, concurrency=64, seconds=SECONDS, body=request, api_key=API_KEY
                )
                assert load.errors == 0, f"{what}: {load}"
                cost_us = (server.cpu_s - cpu_s) / load.count * 1e6
                rounds[what].append(Measured(load=load, cpu_us=cost_us))
    for what, of in rounds.items():
        del of[0]
        cpu = _best(of, lambda m: m.cpu_us)
        print(f"  {what:18}{_rate(of):8.0f} req/s{cpu:8.0f} us CPU")
    empty, full = rounds.values()
    cpu = _best(full, lambda m: m.cpu_us) / _best(empty, lambda m: m.cpu_us)
    print(f"  with / without: {_rate(empty) / _rate(full):.2f} wall, {cpu:.2f} CPU (to keep: 1.3)")


def _profiled() -> None:
    """Profile the exchange at c=64 and print its hot spots."""
    with tempfile.TemporaryDirectory() as directory:
        stats = Path(directory) / "stats"
        with served("exchange", profile=stats) as server:
            drive(server.url, concurrency=64, seconds=5, body=body(), api_key=API_KEY)
        pstats.Stats(str(stats)).sort_stats("tottime").print_stats(40)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", what, directory]:
            profiler = cProfile.Profile() if "BENCH_PROFILE" in os.environ else None
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            if profiler is not None:
                profiler.enable()
            with suppress(KeyboardInterrupt):
                runner.run(_serve(what, directory))
            if profiler is not None:
                profiler.dump_stats(os.environ["BENCH_PROFILE"])
        case ["--profile"]:
            _profiled()
        case ["--filled", *rows]:
            _filled(int(rows[0]) if rows else 1_000_000)
        case _:
            main()
