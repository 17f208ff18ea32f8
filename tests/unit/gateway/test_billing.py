"""What Stripe holds becomes what the receipts say, whatever answers it gives and whoever dies."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.billing import HOUR_US, START_US, TENANT, Month, plan
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures

from signet.cli.demo.stripe_double.ledger import Ledger, Request
from signet.cli.demo.stripe_double.server import Fault, StripeDouble
from signet.core.billing import UNKNOWN_IS_STALE_US, Answer
from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan, allocate
from signet.gateway.billing import BillingRefused, Dispatch, Router
from signet.providers.operator_http import OperatorLimits
from signet.providers.stripe import StripeBiller
from signet.storage import outbox
from signet.storage.database import Database
from signet.storage.landmark import Landmark
from signet.storage.outbox import Outlet
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

LIMITS = OperatorLimits(deadline_s=600.0, connect_s=600.0)
"""A machine that is busy, or halted, is no Stripe that does not answer."""
LEASE_S = 2 * LIMITS.deadline_s
KINDS = ("window", "sum", "legacy")
SETTLE_S = 600.0


def items_of(kind: str, **changes: Any) -> TenantPlan:
    """The plan whose three items are of one kind."""
    return plan(
        vex_overage_tiers=[
            {"threshold": 5, "price_per_unit": 0.008, "stripe_item": f"si_{kind}_t1"},
            {"threshold": 9, "price_per_unit": 0.006, "stripe_item": f"si_{kind}_t2"},
        ],
        fu_overage_tiers=[
            {"threshold": 1, "price_per_unit": 0.0005, "stripe_item": f"si_{kind}_fu"}
        ],
        **changes,
    )


@dataclass
class World:
    """A month, a Stripe, and workers between them."""

    month: Month
    ledger: Ledger
    double: StripeDouble
    biller: StripeBiller
    router: Router
    landmark: Landmark
    kind: str = "window"
    answers: Counter[str] = field(default_factory=Counter[str])
    owners: Any = field(default_factory=lambda: itertools.count())
    dead: set[str] = field(default_factory=set[str])

    def worker(self, **changes: Any) -> Dispatch:
        """A worker of its own name."""

        def heard(answer: Answer) -> None:
            self.answers[type(answer).__name__] += 1

        made = Dispatch(
            database=self.month.db,
            biller=self.biller,
            router=self.router,
            owner=f"worker-{next(self.owners)}",
            is_dead=self.dead.__contains__,
            clock=lambda: self.month.now_us,
            monotonic=time.monotonic,
            dice=lambda count: bytes(count),
            heard=heard,
            landmark=self.landmark,
            lease_s=LEASE_S,
        )
        return replace(made, **changes)

    async def settle(self, worker: Dispatch | None = None) -> None:
        """Count and send until nothing waits; waits pass at once."""
        worker = worker or self.worker()
        await self.month.count()
        # Bounded in time and not in rounds: a worker whose lanes another one holds has no work.
        async with asyncio.timeout(SETTLE_S):
            while True:
                sent = await worker.send_once()
                found = await self.month.db.read_current(outbox.depth)
                if not found.waiting:
                    return
                if not sent:
                    self.month.now_us += 1_000_000
                    await asyncio.sleep(0.001)

    def held(self, item: str) -> int:
        """What Stripe holds for an item."""
        route = self.router.routes[Outlet(TENANT, item)]
        return self.ledger.units(route.customer, route.meter)

    async def agrees(self, kind: str, total: int, tenant_plan: TenantPlan | None = None) -> bool:
        """Whether Stripe holds what the plan says of this many VEx."""
        of = tenant_plan or items_of(kind)
        bands = zip(of.vex.bands, allocate(of.vex, total), strict=True)
        expected = {band.item: units for band, units in bands if band.item}
        return {item: self.held(item) for item in expected} == expected


@pytest.fixture
async def world(db: Database, tmp_path: Path) -> AsyncGenerator[World]:  # noqa: F811
    """An account with items of every kind, and a month under the window items."""
    month = Month(db, {TENANT: items_of("window")})
    ledger = Ledger(lambda: month.now_us // 1_000_000)
    for kind in KINDS:
        for tier, cents in (("t1", "0.8"), ("t2", "0.6"), ("fu", "0.05")):
            name = f"{kind}_{tier}"
            meter = None
            if kind != "legacy":
                meter = ledger.add_meter(name, window="hour" if kind == "window" else None)
            price = ledger.add_price(name, cents=cents, meter=meter)
            ledger.add_item(name, price=price, customer="cus_acme")
    async with StripeDouble(ledger).serving() as double:
        biller = StripeBiller("sk_test_double", origin=double.url, limits=LIMITS)
        router = Router(biller=biller, clock=lambda: month.now_us)
        await router.resolve([items_of(kind) for kind in KINDS])
        yield World(month, ledger, double, biller, router, Landmark(tmp_path / "stripe-sends"))
        await biller.aclose()


async def use(world: World, kind: str, *counts: int) -> None:
    """Make so many exchanges in each of some hours."""
    world.month.plans[TENANT] = items_of(kind)
    for count in counts:
        await world.month.exchange(count)
        world.month.now_us += HOUR_US


# Sending.


@pytest.mark.parametrize("kind", KINDS)
async def test_stripe_holds_the_overage(world: World, kind: str) -> None:
    """Tier by tier, Stripe comes to hold the overage that the receipts say."""
    await use(world, kind, 4, 9, 6)
    await world.settle()
    assert await world.agrees(kind, 19)
    assert world.ledger.collisions == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_late_units_become_a_later_version(world: World, kind: str) -> None:
    """Units that come after their hour was sent are sent, and the totals agree."""
    await use(world, kind, 12)
    await world.settle()
    await world.month.exchange(4, at_us=START_US)
    await world.settle()
    assert await world.agrees(kind, 16)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fault", ["lost", "cut", "reset", "500", "500_taken", "503", "429", "409", "page", "odd"]
)
async def test_faults_cost_nothing_but_time(world: World, kind: str, fault: Fault) -> None:
    """Whatever goes wrong with every second message, the totals are exact in the end."""
    await use(world, kind, 12, 5)
    turn = itertools.count()

    def every_second(request: Request) -> Fault | None:
        return fault if request.method == "POST" and next(turn) % 2 == 0 else None

    world.double.faults = every_second
    await world.settle()
    assert await world.agrees(kind, 17)
    assert world.answers["Retry"]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_unknown_message_is_settled_before_a_newer_one(world: World, kind: str) -> None:
    """New units do not overtake a message whose fate is unknown."""
    await use(world, kind, 12)
    await world.month.count()
    world.double.plan.append("lost")
    await world.worker().send_once()
    await world.month.exchange(2, at_us=START_US)
    world.double.seen.clear()
    await world.settle()
    assert await world.agrees(kind, 14)
    sent = [r.params.get("payload[value]", r.params.get("quantity")) for r in world.double.seen]
    assert sent == (["2", "2"] if kind == "sum" else ["2", "4"])


async def test_a_refused_key_stops_and_a_mended_one_goes_on(world: World) -> None:
    """After 401 nothing more is sent until an operator resumes; then all of it is."""
    await use(world, "window", 12, 5)
    await world.month.count()
    world.double.plan.extend(["401", "403"])
    worker = world.worker()
    for _ in range(3):
        await worker.send_once()
    assert world.answers == {"LaneStopped": 2}
    assert len(await world.month.db.read_current(outbox.stopped_lanes, 99)) == 2
    assert await world.month.db.transact(outbox.resume_lanes) == 2
    await world.settle()
    assert await world.agrees("window", 17)


@pytest.mark.parametrize("kind", ["window", "sum"])
async def test_a_dead_letter_is_kept_and_replayed(world: World, kind: str) -> None:
    """A refused message is shown with its reason, and goes out again when asked for."""
    await use(world, kind, 12)
    await world.month.count()
    meter = world.ledger.objects[f"mtr_{kind}_t1"]
    meter["status"] = "inactive"
    await world.settle()
    (stuck,) = await world.month.db.read_current(outbox.stuck_windows, 99)
    assert stuck.reason is not None
    assert stuck.reason.startswith("archived_meter")
    meter["status"] = "active"
    assert await world.month.db.transact(outbox.replay, stuck.key, world.month.now_us)
    assert not await world.month.db.transact(outbox.replay, stuck.key, world.month.now_us)
    await world.settle()
    assert await world.agrees(kind, 12)


async def test_units_after_a_dead_letter_carry_its_units(world: World) -> None:
    """A later version of a refused window says the whole total."""
    await use(world, "sum", 12)
    await world.month.count()
    world.ledger.objects["mtr_sum_t1"]["status"] = "inactive"
    await world.settle()
    world.ledger.objects["mtr_sum_t1"]["status"] = "active"
    await world.month.exchange(1, at_us=START_US)
    await world.settle()
    assert await world.agrees("sum", 13)


async def test_an_old_unknown_difference_is_held_back(world: World) -> None:
    """Where Stripe adds up, a message that it may have forgotten is never just sent again."""
    await use(world, "sum", 12)
    await world.month.count()
    world.double.plan.append("lost")
    await world.worker().send_once()
    world.month.now_us += UNKNOWN_IS_STALE_US
    before = len(world.ledger.events)
    await world.worker().send_once()
    assert len(world.ledger.events) == before
    (stuck,) = await world.month.db.read_current(outbox.stuck_windows, 99)
    assert stuck.held == "outcome_unknown"


# Who sends.


async def test_many_workers_never_collide(world: World) -> None:
    """Four workers at once: every unit arrives once, and no lane has two calls in flight."""
    await use(world, "window", *[7] * 12)
    await world.month.count()
    world.double.latency_s = 0.005
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(world.settle(world.worker()))
    assert await world.agrees("window", 84)
    assert world.ledger.collisions == 0


async def test_a_held_lane_is_left_alone(world: World) -> None:
    """While one worker's lease runs, another sends nothing there."""
    await use(world, "window", 12)
    await world.month.count()
    lane = world.router.routes[Outlet(TENANT, "si_window_t1")].lane
    fence = await world.month.db.transact(
        outbox.claim_lane, lane, owner="somebody", lease_us=HOUR_US
    )
    assert fence == 1
    assert await world.worker().send_once() == 0
    assert world.ledger.events == []


async def test_a_dead_workers_lane_is_taken_over(world: World) -> None:
    """The lease of a process that is proven dead need not run out."""
    await use(world, "window", 12)
    await world.month.count()
    lane = world.router.routes[Outlet(TENANT, "si_window_t1")].lane
    await world.month.db.transact(outbox.claim_lane, lane, owner="late", lease_us=HOUR_US)
    world.dead.add("late")
    await world.settle()
    assert await world.agrees("window", 12)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_worker_that_dies_after_sending(world: World, kind: str) -> None:
    """What was sent and not settled is sent again unchanged by the next holder, and counts once."""
    await use(world, kind, 12)
    await world.month.count()
    worker = world.worker()

    class Died(Exception):
        pass

    async def died(*_: object) -> None:
        raise Died

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "settle_delivered", died)
        with pytest.raises(ExceptionGroup):
            await worker.send_once()
    await world.month.exchange(2, at_us=START_US)
    await world.settle()
    assert await world.agrees(kind, 14)


async def test_who_lost_the_lane_writes_nothing(world: World) -> None:
    """A holder that another one has replaced cannot settle, keep or release the lane."""
    transact = world.month.db.transact
    first = await transact(outbox.claim_lane, "lane", owner="a", lease_us=0)
    second = await transact(outbox.claim_lane, "lane", owner="b", lease_us=HOUR_US)
    assert (first, second) == (1, 2)
    assert not await transact(outbox.keep_lane, "lane", 1, lease_us=1)
    await transact(outbox.release_lane, "lane", 1)
    assert await transact(outbox.keep_lane, "lane", 2, lease_us=1)


async def test_a_short_lease_sends_nothing(world: World) -> None:
    """A message never leaves when its sending could outlast the lease."""
    await use(world, "window", 12)
    await world.month.count()
    assert await world.worker(lease_s=LIMITS.deadline_s / 2).send_once() == 0
    assert world.ledger.events == []
    await world.settle()
    assert await world.agrees("window", 12)


# Where.


async def test_items_without_a_route_wait(world: World) -> None:
    """What cannot be resolved is neither sent nor lost."""
    await use(world, "window", 12)
    await world.month.count()
    world.router.routes.clear()
    assert await world.worker().send_once() == 0
    assert (await world.month.db.read_current(outbox.depth)).waiting == 1


async def test_an_unreachable_stripe_parks(world: World) -> None:
    """The gateway starts without Stripe, and the items get their routes later."""
    router = Router(biller=world.biller, clock=lambda: world.month.now_us)
    world.double.faults = lambda _: "503"
    await router.resolve([items_of("window")])
    assert router.routes == {}
    assert len(router.unreachable) == 3
    world.double.faults = lambda _: None
    await router.resolve([items_of("window")])
    assert len(router.routes) == 3
    assert router.unreachable == {}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"currency": "EUR"}, "bills it in USD, the configuration in EUR"),
        ({"timezone": "Asia/Kolkata"}, "begin inside a UTC hour"),
        ({"tier_mode": "volume"}, "only a meter without a time window can follow"),
    ],
)
async def test_a_plan_that_would_bill_wrongly_is_refused(
    world: World, changes: dict[str, str], sentence: str
) -> None:
    """The start fails with a sentence for every item, and nothing of the plan is taken on."""
    router = Router(biller=world.biller, clock=lambda: world.month.now_us)
    with pytest.raises(BillingRefused, match=sentence) as caught:
        await router.resolve([items_of("window", **changes)])
    assert len(caught.value.faults) == 3
    assert router.routes == {}


async def test_what_only_sum_meters_can_serve(world: World) -> None:
    """Half-hour zones and volume pricing are fine with meters that add up."""
    router = Router(biller=world.biller, clock=lambda: world.month.now_us)
    await router.resolve([items_of("sum", timezone="Asia/Kolkata", tier_mode="volume")])
    assert len(router.routes) == 3


async def test_two_tiers_on_one_meter_are_refused(world: World) -> None:
    """Also when two tenants name the same meter in different words."""
    other = plan(
        tenant="beta",
        stripe_customer="cus_acme",
        fu_overage_tiers=[],
        vex_overage_tiers=[
            {"threshold": 1, "price_per_unit": 0.008, "stripe_item": "mtr_window_t1"}
        ],
    )
    router = Router(biller=world.biller, clock=lambda: world.month.now_us)
    with pytest.raises(BillingRefused, match="so does si_window_t1 of acme"):
        await router.resolve([items_of("window"), other])


async def test_a_pinned_plans_price_is_agreed(world: World) -> None:
    """A price that has changed since at Stripe does not stop the month that began before."""
    world.ledger.objects["price_window_t1"]["unit_amount_decimal"] = "0.9"
    router = Router(biller=world.biller, clock=lambda: world.month.now_us)
    await router.resolve([], pinned=[items_of("window")])
    assert len(router.routes) == 3
    with pytest.raises(BillingRefused):
        await router.resolve([items_of("window")])


async def test_repricing_reaches_stripe(world: World) -> None:
    """Old windows become nothing and the new item gets the whole overage."""
    await use(world, "window", 12, 5)
    await world.settle()
    world.month.plans[TENANT] = items_of("sum")
    await world.month.metering.reprice(TENANT, "2026-11", actor="env_1")
    await world.settle()
    assert await world.agrees("sum", 17)
    assert world.held("si_window_t1") == world.held("si_window_t2") == 0


async def test_volume_pricing_ends_in_one_tier(world: World) -> None:
    """With meters that add up, units move from tier to tier at Stripe too."""
    volume = items_of("sum", tier_mode="volume")
    world.month.plans[TENANT] = volume
    for count in (12, 2, 3):
        await world.month.exchange(count)
        await world.settle()
        world.month.now_us += HOUR_US
    assert await world.agrees("sum", 17, volume)
    assert world.held("si_sum_t1") == 0


async def test_what_the_outbox_says_of_itself(world: World) -> None:
    """Depth and age count what waits; dead and held windows are told apart."""
    await use(world, "window", 12, 5)
    await world.month.count()
    found = await world.month.db.read_current(outbox.depth)
    assert (found.waiting, found.held, found.dead) == (3, 0, 0)
    assert found.oldest_due_us is not None

    async def hold(tx: Tx) -> None:
        for stored in await outbox.windows_of_period(tx, TenantId(TENANT), "2026-11"):
            await outbox.hold_back(tx, stored.key, "test")

    await world.month.db.transact(hold)
    assert await world.month.db.read_current(outbox.depth) == (0, None, 3, 0)
