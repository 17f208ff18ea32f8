"""What metering and billing cost, as ratios taken in one run.

    python -m bench.pricing [--receipts N] [--latency-ms MS]

1. Allocation: one unit into a plan of three tiers, against adding two integers.
2. Metering: what a unit adds to committing its receipt, and counting it into its window, against a
   whole exchange.
3. Sending: 1,000 windows of 125 lanes at a Stripe that takes so many milliseconds for each call,
   by four workers in two processes, against as many calls one after the other, as the same worker
   makes them in one lane. Never two at once in a lane, so no plan beats eight calls in a row.
4. A month's running total among many rows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from operator import sub
from pathlib import Path

from tests.billing import HOUR_US, START_US, Month
from tests.drills.billing import double, state_of
from tests.faults.lanes import HOURS, NOW_US, drain, enqueue, plan, start
from tests.storage.ledger import pending, seal

from bench.exchange import API_KEY, body, served
from bench.load import drive
from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan, moved
from signet.storage import billing
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.exchanges import commit_exchanges

LANES = 125
WINDOWS = 8
ROUNDS = 3
BATCH = 64


@contextlib.contextmanager
def stopwatch(times: list[float]) -> Iterator[None]:
    """Append how long the block took."""
    begun = time.perf_counter()
    yield
    times.append(time.perf_counter() - begun)


def best(call: Callable[[], object], repeats: int = 20_000) -> float:
    """Seconds for one call: the best of five rounds."""
    rounds: list[float] = []
    for _ in range(5):
        with stopwatch(rounds):
            for _ in range(repeats):
                call()
    return min(rounds) / repeats


def allocation() -> None:
    """Section 1."""
    of = plan("t", "si_x").vex
    one, two = 12345, 1
    base = best(lambda: one + two)
    cost = best(lambda: moved(of, 150, 151))
    print(
        f"allocate one unit over three tiers: {cost * 1e6:.1f} us, {cost / base:.0f} x an addition"
    )


def exchange_cpu_us() -> float:
    """What a whole exchange costs the server, from the socket to the socket; the best of three."""
    with served("exchange") as server:
        costs: list[float] = []
        for _ in range(ROUNDS + 1):
            before_s = server.cpu_s
            load = drive(server.url, concurrency=64, seconds=1, body=body(), api_key=API_KEY)
            costs.append((server.cpu_s - before_s) / load.count * 1e6)
        return min(costs[1:])


async def counting(db: Database, receipts: int) -> None:
    """Sections 2 and 4."""
    tenant = TenantId("acme")
    month = Month(db, {tenant: plan(tenant, "si_x")}, now_us=START_US)
    times: dict[int, list[float]] = {0: [], 1: []}
    for first in range(0, receipts, BATCH):
        # In turns, so that both meet the same machine.
        for units, taken in times.items():
            batch = [
                pending(
                    f"e{units}-{n}", trace=f"t{units}-{n}", ts_us=START_US + n * HOUR_US // BATCH,
                    vex_units=units,
                )
                for n in range(first, min(first + BATCH, receipts))
            ]  # fmt: skip
            with stopwatch(taken):
                await db.transact(commit_exchanges, batch, seal)
    month.now_us = START_US + 31 * 24 * HOUR_US
    counting: list[float] = []
    seen = 1
    while seen:
        with stopwatch(counting):
            seen = await month.metering.count_once()
        if seen < month.metering.batch:
            counting.pop()
    # Of pairs that were taken together the median difference, so that it holds on a busy machine.
    # Every second receipt metered nothing, and was looked at all the same.
    count_us = statistics.median(counting) / month.metering.batch * 2e6
    without_us = statistics.median(times[0]) / BATCH * 1e6
    unit_us = statistics.median(map(sub, times[1], times[0])) / BATCH * 1e6
    print(
        f"commit a receipt in batches of {BATCH}: {without_us:.0f} us, with its unit "
        f"{unit_us:.0f} us more; count it into its window: {count_us:.0f} us"
    )
    whole_us = exchange_cpu_us()
    added_us = unit_us + count_us
    share = added_us / (whole_us - added_us)
    print(f"  an exchange takes {whole_us:.0f} us of processor: metering adds {share:.1%} to it")
    reads: list[float] = []
    for _ in range(200):
        with stopwatch(reads):
            await db.read(billing.month_total, tenant, "2026-11")
    print(f"a month's running total among {receipts} receipts: {min(reads) * 1e6:.0f} us")


def sending(scratch: Path, latency_s: float) -> None:
    """Section 3."""
    plans = [plan(f"tenant{n}", f"si_window_t1_{n}") for n in range(1, LANES + 1)]
    arguments = ("--tenants", str(LANES + 1), "--latency", str(latency_s))
    many, single = min(
        drained(scratch / f"many{n}.db", plans, WINDOWS, 2, arguments) for n in range(ROUNDS)
    )
    alone, _ = drained(scratch / "alone.db", plans[:1], HOURS, 1, arguments)
    each, together = alone / HOURS, many / (LANES * WINDOWS)
    print(
        f"send {LANES * WINDOWS} windows of {LANES} lanes at {latency_s * 1e3:.0f} ms a call, 4 "
        f"workers in 2 processes: {many:.2f} s; one by one {each * 1e3:.1f} ms each, "
        f"{each / together:.0f} x faster\n"
        f"  {single * 1e3:.2f} ms of processor a message, the loopback Stripe's included: "
        f"{single / together:.1f} of {os.cpu_count()} processors were ours, and they bound it; "
        f"eight calls in a row would take {WINDOWS * latency_s:.1f} s"
    )


def drained(
    path: Path, plans: Sequence[TenantPlan], hours: int, processes: int, arguments: Sequence[str]
) -> tuple[float, float]:
    """Send what was put there by so many processes; seconds, and processor seconds a message."""
    config, landmark = SqliteConfig(path=path), path.with_suffix(".sends")
    sent = asyncio.run(enqueue(config, plans, hours))
    times: list[float] = []
    before = os.times()
    with double("--now", str(NOW_US // 10**6), *arguments) as url:
        with stopwatch(times):
            children = [
                start(lambda: drain(config, landmark, url, plans)) for _ in range(processes)
            ]
            assert not any(os.waitpid(child, 0)[1] for child in children)
        told = state_of(url)
    after = os.times()
    assert told["events"] == sent
    assert told["collisions"] == 0
    user = after.children_user - before.children_user
    return times[0], (user + after.children_system - before.children_system) / sent


async def measure(path: Path, receipts: int) -> None:
    """The sections that need one database."""
    async with open_database(SqliteConfig(path=path)) as db:
        await counting(db, receipts)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--receipts", type=int, default=20_000)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    args = parser.parse_args()
    allocation()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(measure(Path(scratch) / "count.db", args.receipts))
        sending(Path(scratch), args.latency_ms / 1e3)


if __name__ == "__main__":
    main()
