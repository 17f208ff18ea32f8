"""A hundred thousand requests of every kind to one gateway on SQLite: does its memory stay?

    python -m tests.drills.soak [--requests N]

Callers keep their connections and send exchanges that are allowed, repaired, denied, failed,
replayed and refused, and read what there is to read. Every answer must have the status that its
request earns. Memory is what the kernel says the process has resident, after the first tenth of the
requests, when every cache and code path is warm, and after the last.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
from tests.drills.evidence import Evidence
from tests.fleet import gateway, metric
from tests.inprocess import KEYS, invoice

REQUESTS: Final = 100_000
CALLERS: Final = 16
MOST_GROWTH_BYTES: Final = 20_000_000

_KEYS: Final = {**KEYS, "slow-key": {"tenant": "slow", "rate_per_minute": 1, "rate_burst": 1}}
_WAIT_S: Final = 120.0
_SINGLE_QUOTES: Final = (
    "{'invoice_id': 'INV-1', 'amount': 123.45, 'currency': 'EUR',"
    " 'customer_name': 'ACME GmbH', 'description': 'Consulting',}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent, and the statuses that it may earn."""

    kind: str
    statuses: tuple[int, ...]
    path: str
    api_key: str = "acme-key"
    key: str | None = None
    body: bytes | None = None

    def wire(self) -> bytes:
        """The bytes of it."""
        lines = [
            f"{'GET' if self.body is None else 'POST'} {self.path} HTTP/1.1",
            "Host: signet",
            f"X-SIGNET-API-Key: {self.api_key}",
        ]
        if self.key is not None:
            lines.append(f"X-SIGNET-Idempotency-Key: {self.key}")
        body = self.body or b""
        if self.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join((*lines, "", "")).encode() + body


def _exchange(
    kind: str, status: int, body: object, *, api_key: str = "acme-key", key: str | None = None
) -> Callable[[int], Request]:
    """An exchange under an idempotency key of its own, or one of a few that begin with `key`."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def make(number: int) -> Request:
        own = f"{kind.replace(' ', '-')}-{number}"
        return Request(
            kind=kind,
            statuses=(status,),
            path="/v1/exchange",
            api_key=api_key,
            key=own if key is None else f"{key}-{number % 40}",
            body=content,
        )

    return make


def _read(path: str, *statuses: int, api_key: str = "every-key") -> Callable[[int], Request]:
    return lambda _number: Request(kind=path, statuses=statuses, path=path, api_key=api_key)


_ALLOWED: Final = _exchange("allowed", 200, invoice())
MIX: Final[Sequence[Callable[[int], Request]]] = (
    *(_ALLOWED,) * 6,
    lambda number: _exchange("traced", 200, invoice(trace_id=f"t-{number % 97}"))(number),
    _exchange("other tenant", 200, invoice(), api_key="globex-key"),
    _exchange("sealed", 200, invoice(), api_key="sealed-key"),
    _exchange("repaired", 200, invoice(_SINGLE_QUOTES)),
    _exchange("replayed", 200, invoice(), key="again"),
    _exchange("denied", 403, invoice(forward_url="https://127.0.0.1/in")),
    _exchange("invalid", 422, invoice({})),
    _exchange("unreadable", 422, invoice("{")),
    _exchange("not JSON", 400, b'{"payload": '),
    _exchange("no key", 401, invoice(), api_key="nobody-s"),
    _read("/v1/receipts/chain/no-such-trace", 404),
    _read("/no/such/page", 404),
    _read("/v1/limits", 200, 429, 503, api_key="slow-key"),  # 503 where the machine stands still
    _read("/v1/limits", 200),
    _read("/v1/usage", 200),
    _read("/v1/audit?limit=10", 200),
    _read("/v1/admin/tenants", 200),
    _read("/v1/registry", 200),
    _read("/.well-known/jwks.json", 200),
    _read("/metrics", 200),
)


def receipts_due(requests: int) -> int:
    """How many receipts so many requests leave: one for each key of an exchange that is read."""
    sent = (MIX[number % len(MIX)](number) for number in range(requests))
    decided = {200, 403, 422}
    return len({one.key for one in sent if one.key is not None and decided & {*one.statuses}})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a soak."""

    requests: int
    answers: dict[str, int]
    unexpected: dict[str, int]
    errors_logged: int
    receipts: int
    receipts_due: int
    resident_bytes: dict[int, int]
    """By how many requests had been answered."""

    @property
    def growth_bytes(self) -> int:
        """From the first sample, when everything was warm, to the last."""
        samples = list(self.resident_bytes.values())
        return samples[-1] - samples[0]

    @property
    def right(self) -> bool:
        """Whether every request was answered as it should be."""
        whole = sum(self.answers.values()) == self.requests and self.receipts == self.receipts_due
        return whole and not self.unexpected and self.errors_logged == 0


async def _caller(
    port: int, numbers: Iterator[int], heard: Counter[str], unexpected: Counter[str]
) -> None:
    """Send one request after another, on one connection for as long as it is kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for number in numbers:
            request = MIX[number % len(MIX)](number)
            async with asyncio.timeout(_WAIT_S):
                writer.write(request.wire())
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
                answer = await reader.readexactly(int(length))
            status = int(head.split(b" ", 2)[1])
            heard[str(status)] += 1
            if status not in request.statuses:
                unexpected[f"{request.kind}: {status} {answer[:200].decode()}"] += 1
            if b"connection: close" in head:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
    finally:
        writer.close()


async def _ask(port: int, numbers: range, heard: Counter[str], unexpected: Counter[str]) -> None:
    shared = iter(numbers)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(CALLERS):
            tasks.create_task(_caller(port, shared, heard, unexpected))


def soak(directory: Path, requests: int) -> Result:
    """Send so many requests, and look at the memory of the gateway ten times meanwhile."""
    heard: Counter[str] = Counter()
    unexpected: Counter[str] = Counter()
    resident_bytes: dict[int, int] = {}
    marks = [requests * tenth // 10 for tenth in range(11)]
    patient = {"SP_KEEP_ALIVE_SECONDS": "300"}  # callers on a busy machine may pause
    with gateway(directory, SP_API_KEYS=json.dumps(_KEYS), **patient) as live:
        process = psutil.Process(live.process.pid)
        for first, beyond in itertools.pairwise(marks):
            asyncio.run(_ask(live.port, range(first, beyond), heard, unexpected))
            resident_bytes[beyond] = process.memory_info().rss
            print(f"  {beyond:,}: {resident_bytes[beyond] / 1e6:.1f} MB", flush=True)
        receipts = metric(live, "signet_exchanges_total")
        errors = live.errors.read_text().count('"level":"error"')
    return Result(
        requests=requests,
        answers=dict(sorted(heard.items())),
        unexpected=dict(unexpected.most_common(10)),
        errors_logged=errors,
        receipts=round(receipts),
        receipts_due=receipts_due(requests),
        resident_bytes=resident_bytes,
    )


def main() -> int:
    """Soak once; 0 if every answer was right and the memory has stayed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.soak")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    args = parser.parse_args()
    began = time.time()
    with tempfile.TemporaryDirectory(prefix="signet-drill-") as directory:
        result = soak(Path(directory), args.requests)
    holds = result.right and result.growth_bytes <= MOST_GROWTH_BYTES
    shown = {**asdict(result), "growth_bytes": result.growth_bytes}
    Evidence("soak").add("soak", times=args.requests, holds=holds, began=began, result=shown)
    print(f"{json.dumps(shown)}\ngrowth {result.growth_bytes / 1e6:.1f} MB", flush=True)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
