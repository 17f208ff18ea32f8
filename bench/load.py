"""Load from outside the server's process: `wrk` where it is installed, else a client of our own.

Both post the same bytes over kept-alive connections, each request under an idempotency key that was
never used before. Run as a module this is our own client, in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvloop

WRK: Final = shutil.which("wrk")
TOOL: Final = "wrk" if WRK else "our own client (there is no wrk)"

_SCRIPT: Final = """
local body = io.open("%(body)s", "rb"):read("*a")
local n = 0
wrk.method = "POST"
wrk.body = body
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-SIGNET-API-Key"] = "%(api_key)s"
request = function()
  n = n + 1
  wrk.headers["Idempotency-Key"] = "%(run)s-" .. n
  return wrk.format()
end
done = function(summary, latency, requests)
  local e = summary.errors
  local bad = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format('\\n{"count":%%d,"seconds":%%f,"p50_us":%%f,"p99_us":%%f,"errors":%%d}\\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50), latency:percentile(99), bad))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run measured. Latencies are those of whole requests, as the client saw them."""

    count: int
    seconds: float
    p50_us: float
    p99_us: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.count / self.seconds


def drive(url: str, *, concurrency: int, seconds: float, body: bytes, api_key: str) -> Load:
    """Post `body` to `url` over `concurrency` connections for about `seconds`."""
    with tempfile.TemporaryDirectory() as directory:
        body_file = Path(directory) / "body"
        body_file.write_bytes(body)
        if WRK is None:
            command = [
                *(sys.executable, "-m", "bench.load", url, str(concurrency), str(seconds)),
                *(str(body_file), api_key),
            ]
        else:
            script = Path(directory) / "script.lua"
            names = {"body": body_file, "api_key": api_key, "run": secrets.token_hex(8)}
            script.write_text(_SCRIPT % names)
            command = [
                *(WRK, "-t", "1", "-c", str(concurrency), "-d", f"{max(1, round(seconds))}s"),
                *("--timeout", "20s", "-s", str(script), url),
            ]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Load(**json.loads(done.stdout.strip().splitlines()[-1]))


class _Connection(asyncio.Protocol):
    """Sends the next request when the answer to the last is whole."""

    def __init__(self, head: bytes, body: bytes, run: str, until: float) -> None:
        self._head = head
        self._body = body
        self._run = run
        self._until = until
        self._received = b""
        self._sent_at = 0.0
        self._count = 0
        self.latencies: list[float] = []
        self.errors = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        lower = self._received[:head_end].lower()
        start = lower.index(b"content-length:") + 15
        length = int(lower[start:].split(b"\r\n", 1)[0])
        if len(self._received) < head_end + 4 + length:
            return
        now = time.perf_counter()
        self.latencies.append(now - self._sent_at)
        self.errors += self._received[9:10] != b"2"
        self._received = b""
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        self._count += 1
        key = b"Idempotency-Key: %s-%d\r\n\r\n" % (self._run.encode(), self._count)
        self._sent_at = time.perf_counter()
        self._transport.write(self._head + key + self._body)


async def _drive(url: str, concurrency: int, seconds: float, body: bytes, api_key: str) -> Load:
    place = urlsplit(url)
    head = (
        f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nX-SIGNET-API-Key: {api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    connections: list[_Connection] = []
    for _ in range(concurrency):
        _, connection = await loop.create_connection(
            lambda: _Connection(head, body, secrets.token_hex(8), started + seconds),
            place.hostname,
            place.port,
        )
        connections.append(connection)
    async with asyncio.timeout(seconds + 60):
        for connection in connections:
            await connection.ended
    latencies = sorted(s for connection in connections for s in connection.latencies)
    return Load(
        count=len(latencies),
        seconds=time.perf_counter() - started,
        p50_us=latencies[len(latencies) // 2] * 1e6,
        p99_us=latencies[len(latencies) * 99 // 100] * 1e6,
        errors=sum(connection.errors for connection in connections),
    )


def main() -> None:
    """Run our own client: URL CONCURRENCY SECONDS BODY_FILE API_KEY."""
    url, concurrency, seconds, body_file, api_key = sys.argv[1:]
    load = uvloop.run(
        _drive(url, int(concurrency), float(seconds), Path(body_file).read_bytes(), api_key)
    )
    print(json.dumps(asdict(load)))


if __name__ == "__main__":
    main()
