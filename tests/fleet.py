"""Gateways for the fault suites: `signet serve` with workers, on either engine, under load."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.inprocess import KEYS, SEED, invoice
from tests.live import STOP_S, Live, environment, exchange_headers, signet


@contextmanager
def gateway(directory: Path, *, workers: int = 1, **settings: str) -> Iterator[Live]:
    """Run a gateway with its data in `directory` until the block ends, then kill what is left."""
    directory.mkdir(parents=True, exist_ok=True)
    everything = {
        "SP_PORT": "0",
        "SP_DATA_DIR": str(directory / "data"),
        "SP_PRIVATE_KEY_B64": SEED,
        "SP_API_KEYS": json.dumps(KEYS),
        "SP_LOG_LEVEL": "error",
        **settings,
    }
    errors = directory / "errors.log"
    with errors.open("a") as stderr:
        process = subprocess.Popen(
            signet("serve", "--workers", str(workers)),
            cwd=directory,
            env=environment(everything),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the gateway did not start: {errors.read_text()}"
        yield Live(process=process, line=line, errors=errors)
    finally:
        kill_all(process)
        assert process.stdout is not None
        process.stdout.close()


def kill_all(process: subprocess.Popen[str]) -> None:
    """kill -9 the gateway with all its workers, at one blow."""
    for pid in (process.pid, *workers_of(process)):
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait(STOP_S)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The process ids of the workers that run now, oldest first."""
    try:
        tasks = sorted(Path(f"/proc/{process.pid}/task").iterdir())
        listed = " ".join((task / "children").read_text("ascii") for task in tasks)
    except FileNotFoundError:
        return []
    return sorted(int(pid) for pid in listed.split())


def postgres_settings(url: str) -> Mapping[str, str]:
    """What makes a gateway use a PostgreSQL database."""
    return {"SP_STORAGE": "postgres", "SP_POSTGRES_URL": url}


@dataclass(slots=True)
class Heard:
    """What the callers of a load sent under which key, and what they were told."""

    sent: dict[str, object] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)
    doubled: set[str] = field(default_factory=set)
    not_acknowledged: int = 0
    conflicts: int = 0

    @property
    def open(self) -> dict[str, object]:
        """What was sent and never answered in the end; only a retry can tell its fate."""
        answered = self.acknowledged.keys() | self.refused.keys()
        return {key: body for key, body in self.sent.items() if key not in answered}

    async def ask(self, port: int, key: str) -> bool:
        """Send what belongs to a key once; whether that was a final answer."""
        status, answer = 0, b""
        with suppress(OSError, EOFError, TimeoutError):
            status, answer = await post(port, self.sent[key], key)
        if status == 200:
            receipt_hash = json.loads(answer)["receipt"]["receipt_hash"]
            if self.acknowledged.setdefault(key, receipt_hash) != receipt_hash:
                self.doubled.add(key)
            return True
        if status in (0, 409, 503):
            self.not_acknowledged += 1
            self.conflicts += status == 409
            return False
        self.refused[key] = status
        return True


async def load(
    ports: Sequence[int],
    heard: Heard,
    *,
    callers: int = 16,
    trace: str | None = None,
    each: int | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Exchange from `callers` at once until `stop` is set or each has made `each` of them.

    What is not acknowledged is sent again under its key, as an agent would. Half the callers write
    to one of four shared traces, or all of them to `trace`.
    """
    over = stop or asyncio.Event()

    async def caller(number: int) -> None:
        made = 0
        shared = trace or (f"shared-{number % 4}" if number % 2 else None)
        while not over.is_set() and (each is None or made < each):
            made += 1
            key = f"{number}-{made}-{secrets.token_hex(4)}"
            heard.sent[key] = invoice() if shared is None else invoice(trace_id=shared)
            # The condition is the work; there is no event to wait for.
            while not (await heard.ask(ports[number % len(ports)], key) or over.is_set()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for number in range(callers):
            tasks.create_task(caller(number))


@asynccontextmanager
async def under_load(ports: Sequence[int], heard: Heard, **how: Any) -> AsyncIterator[None]:
    """Load for as long as the block takes."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(load(ports, heard, stop=over, **how))
        try:
            yield
        finally:
            over.set()


async def post(port: int, body: object, key: str, *, wait_s: float = 120.0) -> tuple[int, bytes]:
    """Post one exchange on a connection of its own; the status and the body."""
    content = json.dumps(body).encode()
    headers = "".join(f"{name}: {value}\r\n" for name, value in exchange_headers(key).items())
    async with asyncio.timeout(wait_s):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(
                b"POST /v1/exchange HTTP/1.1\r\nHost: signet\r\nConnection: close\r\n"
                + f"{headers}Content-Length: {len(content)}\r\n\r\n".encode()
                + content
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            answer = await reader.readexactly(int(length))
        finally:
            writer.close()
    return int(head.split(b" ", 2)[1]), answer


def half_sent(port: int) -> socket.socket:
    """A connection with an exchange in progress, most of its body still to come."""
    half = socket.create_connection(("127.0.0.1", port), timeout=300)
    names = exchange_headers(f"half-{secrets.token_hex(8)}").items()
    headers = "".join(f"{name}: {value}\r\n" for name, value in names)
    start = f"POST /v1/exchange HTTP/1.1\r\nHost: signet\r\n{headers}Content-Length: 99\r\n\r\n"
    half.sendall(start.encode() + b"{")
    return half


def metric(live: Live, name: str) -> float:
    """The sum over all label sets of one metric, as any worker tells it."""
    text = live.get("/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.partition("{")[0].split(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def ready(live: Live) -> bool:
    """Whether the gateway is ready; False also while nobody answers."""
    try:
        with closing(live.connect()) as connection:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
