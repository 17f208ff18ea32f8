"""What the audit log and the metrics cost: an exchange with both, without the log, with neither.

Run `python -m bench.audit`. Three gateways on SQLite are asked in turns at c=64; the metrics of the
last are there and count nothing. What is printed is CPU for each exchange, and the median of the
ratios of neighbouring rounds: whatever else the machine does meanwhile, such as filling the caches,
it does to all. Where that is much, the entry by itself is the better figure.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from bench.exchange import API_KEY, body, served
from bench.load import drive
from signet.core.audit import Entry
from signet.core.ids import TenantId
from signet.storage.audit import append
from signet.storage.database import SqliteConfig, open_database

WHAT: Final = ("exchange", "unaudited", "bare")
ROUNDS: Final = 12
BATCHES: Final = 300
SECONDS: Final = 2.0


async def entry_us() -> float:
    """The CPU of one entry in a batch of 64: sealed, inserted, and its share of the commit."""
    entry = Entry(
        tenant=TenantId("bench"),
        ts_us=1_700_000_000_000_000,
        actor="env_0123456789abcdef",
        action="exchange",
        object="0190a0a0-0000-7000-8000-000000000000",
        receipt_hash="sha256:" + "a" * 64,
        latency_us=1234,
        request_id="0123456789abcdef",
        address="127.0.0.1",
    )
    with tempfile.TemporaryDirectory(prefix="signet-bench-") as directory:
        async with open_database(SqliteConfig(path=Path(directory) / "signet.db")) as database:
            started_s = time.process_time()
            for _ in range(BATCHES):
                await database.transact(append, [entry] * 64)
            return (time.process_time() - started_s) / BATCHES / 64 * 1e6


def main() -> None:
    """Print CPU per entry and per exchange, and what they are to each other."""
    alone_us = asyncio.run(entry_us())
    request = body()
    cpu_us: dict[str, list[float]] = {what: [] for what in WHAT}
    with ExitStack() as stack:
        servers = {what: stack.enter_context(served(what)) for what in WHAT}
        for what in WHAT:
            drive(servers[what].url, concurrency=64, seconds=1, body=request, api_key=API_KEY)
        for _ in range(ROUNDS):
            for what in WHAT:
                before_s = servers[what].cpu_s
                load = drive(
                    servers[what].url,
                    concurrency=64,
                    seconds=SECONDS,
                    body=request,
                    api_key=API_KEY,
                )
                assert load.errors == 0, f"{what}: {load}"
                cpu_us[what].append((servers[what].cpu_s - before_s) / load.count * 1e6)
    whole, unaudited, bare = (median(cpu_us[what]) for what in WHAT)
    print(
        f"audit: CPU for each exchange {whole:.0f} us, without the log {unaudited:.0f} us,"
        f" without metrics as well {bare:.0f} us"
    )
    print(f"  an entry by itself {alone_us:.0f} us: {alone_us / bare:.1%} of that")
    for what, without in (("the log costs", "unaudited"), ("log and metrics cost", "bare")):
        pairs = zip(cpu_us["exchange"], cpu_us[without], strict=True)
        low, middle, high = quantiles([with_it / less for with_it, less in pairs], n=4)
        print(
            f"  {what} {middle - 1:.1%}, half of the rounds {low - 1:.1%} to {high - 1:.1%}"
            f"{' (to reach: 10 %)' if without == 'bare' else ''}"
        )


if __name__ == "__main__":
    main()
