"""Windows of many lanes in the outbox, and worker processes that send them, side by side."""

from __future__ import annotations

import asyncio
import json
import os
import time
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import uvloop
from tests.billing import HOUR_US, START_US

from signet.core.billing import Route
from signet.core.pricing import TenantPlan, load_reserved
from signet.gateway.billing import Dispatch, Router
from signet.providers.stripe import StripeBiller
from signet.storage import outbox
from signet.storage.database import PostgresConfig, SqliteConfig, open_database
from signet.storage.landmark import Landmark
from signet.storage.outbox import Gain, Outlet, WindowKey
from signet.storage.tx import Tx

HOURS = 40
NOW_US = START_US + HOURS * HOUR_US
"""As many hours can lie behind each lane; the loopback Stripe is told this time with `--now`."""

Config = SqliteConfig | PostgresConfig


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


async def enqueue(config: Config, plans: Sequence[TenantPlan], hours: int) -> int:
    """Put the windows into the outbox; how many there are."""
    gains = [
        Gain(WindowKey(of.tenant, item_of(of), START_US // 10**6 + h * 3600, "2026-11"), "vex", 7)
        for of in plans
        for h in range(hours)
    ]

    async def put(tx: Tx) -> None:
        await outbox.gain(tx, gains, due_us=NOW_US)

    async with open_database(config) as db:
        await db.transact(put)
    return len(gains)


def item_of(of: TenantPlan) -> str:
    """The item of the plan's last tier."""
    return of.vex.tiers[-1].item or ""


async def drain(config: Config, landmark: Path, url: str, plans: Sequence[TenantPlan]) -> None:
    """Two workers in this process, until nothing waits."""
    async with open_database(config) as db:
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
                landmark=Landmark(landmark), lanes_at_once=len(plans) // 4 + 1,
            )
            for n in range(2)
        ]  # fmt: skip

        async def work(worker: Dispatch) -> None:
            while (await db.read_current(outbox.depth)).waiting:
                await worker.send_once()

        await asyncio.gather(*map(work, workers))
        await biller.aclose()


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
