"""What the export of a long trace costs the server in memory.

Run `python -m bench.export`. A gateway on SQLite gets a trace of 1,000 hops and one of 10,000, and
exports each several times to a caller that reads as fast as it can, and to one that reads a little
at a time. What is printed is the most memory (VmHWM) that the server's process had during an
export, beyond what it had before: it must not grow with the trace. Each trace is exported once
before, so that SQLite's page cache, which is bounded by itself, does not count.
"""

from __future__ import annotations

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bench.exchange import API_KEY, Server, body, served

HOPS: Final = (1_000, 10_000)
CALLERS: Final = 32
TIMES: Final = 3
PIECE_BYTES: Final = 64 << 10


def main() -> None:
    """Print the growth for each trace and each reader."""
    with served("exchange") as server:
        address = urlsplit(server.url).netloc
        for hops in HOPS:
            fill(address, hops)
        for hops in HOPS:
            export(address, hops, pause_s=0.0)
            for reader, pause_s in (("fast", 0.0), ("slow", 0.01)):
                grown = [growth(server, address, hops, pause_s=pause_s) for _ in range(TIMES)]
                size = grown[0][0] / 1e6
                most = max(kilobytes for _, kilobytes in grown) / 1e3
                print(f"export of {hops:,} hops, {size:.1f} MB, {reader} reader: + {most:.1f} MB")


def fill(address: str, hops: int) -> None:
    """Make a trace of that many exchanges."""
    request = json.dumps(json.loads(body()) | {"trace_id": f"hops-{hops}"}).encode()
    headers = {"Content-Type": "application/json", "X-SIGNET-API-Key": API_KEY}

    def call(count: int) -> None:
        with closing(HTTPConnection(address, timeout=120)) as connection:
            for _ in range(count):
                key = {"X-SIGNET-Idempotency-Key": secrets.token_hex(16)}
                connection.request("POST", "/v1/exchange", request, headers | key)
                response = connection.getresponse()
                response.read()
                assert response.status == 200, response.status

    shares = [hops // CALLERS + (number < hops % CALLERS) for number in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as pool:
        list(pool.map(call, shares))


def export(address: str, hops: int, *, pause_s: float) -> int:
    """Export a trace and throw it away; its size in bytes."""
    with closing(HTTPConnection(address, timeout=120)) as connection:
        path = f"/v1/receipts/export/hops-{hops}"
        connection.request("GET", path, headers={"X-SIGNET-API-Key": API_KEY})
        response = connection.getresponse()
        assert response.status == 200, response.status
        size = 0
        while piece := response.read(PIECE_BYTES):
            size += len(piece)
            time.sleep(pause_s)
        return size


def growth(server: Server, address: str, hops: int, *, pause_s: float) -> tuple[int, int]:
    """Export a trace; its size in bytes, and by how many kB the server grew at most."""
    process = Path(f"/proc/{server.pid}")
    (process / "clear_refs").write_text("5")  # the peak begins anew (proc_pid_clear_refs(5))
    before = _kilobytes(process, "VmRSS")
    size = export(address, hops, pause_s=pause_s)
    return size, max(_kilobytes(process, "VmHWM") - before, 0)


def _kilobytes(process: Path, name: str) -> int:
    lines = (process / "status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
