"""What metering and billing cost, as ratios taken in one run.

    python -m bench.pricing [--receipts N] [--latency-ms MS]

1. Allocation: one unit into a plan of three tiers, against adding two integers.
2. Counting: a receipt from the log into its window, against committing it in batches of 64.
3. Sending: 1,000 windows of 125 lanes at a Stripe that takes so many milliseconds for each call,
   by four workers in two processes, against as many calls one after the other, as the same worker
   makes them in one lane. Never two at once in a lane, so no plan beats eight calls in a row.
4. A month's running total among many rows.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import uvloop
from tests.billing import HOUR_US, START_US, Month
from tests.drills.billing import double, state_of
from tests.storage.ledger import pending, seal

from signet.core.billing import Route
from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan, load_reserved, moved
from signet.gateway.billing import Dispatch, Router
from signet.providers.stripe import StripeBiller
from signet.storage import billing, outbox
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.exchanges import commit_exchanges
from signet.storage.landmark import Landmark
from signet.storage.outbox import Gain, Outlet, WindowKey
from signet.storage.tx import Tx

LANES = 125
HOURS = 8
ONE_BY_ONE = 40
ROUNDS = 3
NOW_US = START_US + ONE_BY_ONE * HOUR_US


@contextlib.contextmanager
def stopwatch(times: list[float]) -> Iterator[None]:
    """Append how long the block took."""
    begun = time.perf_counter()
    yield
    times.append(time.perf_counter() - begun)


def plan(tenant: str, item: str) -> TenantPlan:
    """A plan of three tiers whose last has an item."""
    tiers = [
        {"threshold": 100, "price_per_unit": "0.01"},
        {"threshold": 200, "price_per_unit": "0.008"},
        {"threshold": 500, "price_per_unit": "0.005", "stripe_item": item},
    ]
    document = {"tenant": tenant, "vex_reserved": 10, "vex_overage_tiers": tiers}
    (loaded,) = load_reserved(json.dumps(document)).values()
    return loaded


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


async def counting(db: Database, receipts: int) -> None:
    """Sections 2 and 4."""
    tenant = TenantId("acme")
    month = Month(db, {tenant: plan(tenant, "si_x")}, now_us=START_US)
    times: list[float] = []
    with stopwatch(times):
        for first in range(0, receipts, 64):
            batch = [
                pending(f"e{n}", trace=f"t{n}", ts_us=START_US + n * HOUR_US // 64)
                for n in range(first, min(first + 64, receipts))
            ]
            await db.transact(commit_exchanges, batch, seal)
    month.now_us = START_US + 31 * 24 * HOUR_US
    with stopwatch(times):
        await month.count()
    committing, count = (seconds / receipts for seconds in times)
    print(
        f"count a receipt into its window: {count * 1e6:.0f} us, "
        f"{count / committing:.1%} of committing it in batches of 64 ({committing * 1e6:.0f} us)"
    )
    reads: list[float] = []
    for _ in range(200):
        with stopwatch(reads):
            await db.read(billing.month_total, tenant, "2026-11")
    print(f"a month's running total among {receipts} receipts: {min(reads) * 1e6:.0f} us")


async def enqueue(path: Path, plans: Sequence[TenantPlan], hours: int) -> int:
    """Put the windows into the outbox; how many there are."""
    gains = [
        Gain(WindowKey(of.tenant, item_of(of), START_US // 10**6 + h * 3600, "2026-11"), "vex", 7)
        for of in plans
        for h in range(hours)
    ]

    async def put(tx: Tx) -> None:
        await outbox.gain(tx, gains, due_us=NOW_US)

    async with open_database(SqliteConfig(path=path)) as db:
        await db.transact(put)
    return len(gains)


def item_of(of: TenantPlan) -> str:
    """The item of the plan's last tier."""
    return of.vex.tiers[-1].item or ""


async def drain(path: Path, url: str, plans: Sequence[TenantPlan]) -> None:
    """Two workers in this process, until nothing waits."""
    async with open_database(SqliteConfig(path=path)) as db:
        biller = StripeBiller("sk_test_double", origin=url)
        router = Router(biller=biller, clock=lambda: NOW_US)
        router.routes = {
            Outlet(of.tenant, item_of(of)): Route(
                item=item_of(of), mode="window", customer=f"cus_{n}", meter="mtr_window_t1",
                event_name="window_t1", customer_key="stripe_customer_id", value_key="value",
            )
            for n, of in enumerate(plans, start=1)
        }  # fmt: skip
        workers = [
            Dispatch(
                database=db, biller=biller, router=router, owner=f"{os.getpid()}.{n}",
                is_dead=lambda _: False, clock=lambda: NOW_US, monotonic=time.monotonic,
                dice=os.urandom, heard=lambda _: None,
                landmark=Landmark(path.with_suffix(".sends")), lanes_at_once=LANES // 4 + 1,
            )
            for n in range(2)
        ]  # fmt: skip

        async def work(worker: Dispatch) -> None:
            while (await db.read_current(outbox.depth)).waiting:
                await worker.send_once()

        await asyncio.gather(*map(work, workers))
        await biller.aclose()


def sending(scratch: Path, latency_s: float) -> None:
    """Section 3."""
    plans = [plan(f"tenant{n}", f"si_window_t1_{n}") for n in range(1, LANES + 1)]
    arguments = (
        "--now",
        str(NOW_US // 10**6),
        "--tenants",
        str(LANES + 1),
        "--latency",
        str(latency_s),
    )
    many, single = min(
        drained(scratch / f"many{n}.db", plans, HOURS, 2, arguments) for n in range(ROUNDS)
    )
    alone, _ = drained(scratch / "alone.db", plans[:1], ONE_BY_ONE, 1, arguments)
    each, together = alone / ONE_BY_ONE, many / (LANES * HOURS)
    print(
        f"send {LANES * HOURS} windows of {LANES} lanes at {latency_s * 1e3:.0f} ms a call, 4 "
        f"workers in 2 processes: {many:.2f} s; one by one {each * 1e3:.1f} ms each, "
        f"{each / together:.0f} x faster\n"
        f"  {single * 1e3:.2f} ms of processor a message, the loopback Stripe's included: "
        f"{single / together:.1f} of {os.cpu_count()} processors were ours, and they bound it; "
        f"eight calls in a row would take {HOURS * latency_s:.1f} s"
    )


def drained(
    path: Path, plans: Sequence[TenantPlan], hours: int, processes: int, arguments: Sequence[str]
) -> tuple[float, float]:
    """Send what was put there by so many processes; seconds, and processor seconds a message."""
    sent = asyncio.run(enqueue(path, plans, hours))
    times: list[float] = []
    before = os.times()
    with double(*arguments) as url:
        with stopwatch(times):
            children = [start(lambda: drain(path, url, plans)) for _ in range(processes)]
            assert not any(os.waitpid(child, 0)[1] for child in children)
        told = state_of(url)
    after = os.times()
    assert told["events"] == sent
    assert told["collisions"] == 0
    user = after.children_user - before.children_user
    return times[0], (user + after.children_system - before.children_system) / sent


def start(function: Callable[[], Coroutine[object, None, None]]) -> int:
    """Run a coroutine in a forked process; its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            uvloop.run(function())  # as `signet serve` does
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


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
