"""Every receipt is counted once and every unit lies in one window, whatever the order of things."""

from __future__ import annotations

import json

import pytest
from tests.billing import HOUR_US, START_US, TENANT, Month, by_item, plan
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures

from signet.core.ids import TenantId
from signet.core.pricing import allocate
from signet.gateway.metering import PeriodClosed, PeriodUnknown, overage_by_item
from signet.storage import billing, outbox
from signet.storage.database import Database
from signet.storage.tx import ReadTx, Tx

pytestmark = pytest.mark.anyio

MONTH = "2026-11"


@pytest.fixture
def month(db: Database) -> Month:  # noqa: F811
    """A month under a plan with two tiers."""
    return Month(db, {TENANT: plan()})


async def windows(month: Month, period: str = MONTH) -> dict[tuple[str, int], int]:
    """The month's windows: units by item and hours since its start."""
    found = await month.db.read_current(outbox.windows_of_period, TENANT, period)
    return {(w.key.item, (w.key.hour * 10**6 - START_US) // HOUR_US): w.window.value for w in found}


async def test_overage_lies_in_the_windows_of_its_hours(month: Month) -> None:
    """The reserve fills first; then each tier's units stand in the hour they were used in."""
    for _ in range(4):
        await month.exchange(4)
        await month.count()
        month.now_us += HOUR_US
    assert await windows(month) == {("si_t1", 2): 2, ("si_t1", 3): 3, ("si_t2", 3): 1}
    assert month.told.units == {
        (TENANT, "vex", 0): 10,
        (TENANT, "vex", 1): 5,
        (TENANT, "vex", 2): 1,
    }


async def test_fallback_units_count_whatever_the_outcome(month: Month) -> None:
    """Spent tokens of a failed exchange are fallback units, and it is no VEx."""
    await month.exchange(2, fu=75, vex=0, outcome="failed")
    await month.count()
    assert await windows(month) == {("si_fu", 0): 50}
    stored = await month.db.read_current(billing.find_period, TENANT, MONTH)
    assert stored is not None
    assert (stored.vex, stored.fu) == (0, 150)


@pytest.mark.parametrize("batches", [(16,), (1,) * 16, (5, 11), (11, 5), (3, 3, 10)])
async def test_batches_do_not_matter(month: Month, batches: tuple[int, ...]) -> None:
    """The same units in any batches, counted at any moments, give the same totals."""
    for size in batches:
        await month.exchange(size)
        await month.count()
    found = await month.db.read_current(outbox.windows_of_period, TENANT, MONTH)
    assert by_item(found) == {"si_t1": 5, "si_t2": 1}
    assert by_item(found) == overage_by_item(plan(), "vex", 16)


async def test_counting_again_changes_nothing(month: Month) -> None:
    """The cursor remembers what was counted."""
    await month.exchange(16)
    await month.count()
    before = await month.db.read_current(outbox.windows_of_period, TENANT, MONTH)
    await month.count()
    assert await month.db.read_current(outbox.windows_of_period, TENANT, MONTH) == before


async def test_a_failed_step_leaves_nothing(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last statement of a step fails, neither hours nor windows nor cursor moved."""
    await month.exchange(16)

    async def broken(tx: Tx, receipt: int) -> None:
        raise RuntimeError("the machine stops here")

    with monkeypatch.context() as patch:
        patch.setattr(billing, "move_cursor", broken)
        with pytest.raises(RuntimeError):
            await month.metering.count_once()
    assert await windows(month) == {}
    assert await month.db.read_current(billing.find_period, TENANT, MONTH) is None
    await month.count()
    assert await windows(month) == {("si_t1", 0): 5, ("si_t2", 0): 1}


async def test_young_receipts_wait(month: Month) -> None:
    """The cursor never passes a receipt that is younger than the settling time."""
    await month.exchange(11)
    metering = month.metering
    patient = type(metering)(
        database=month.db,
        plan_of=metering.plan_of,
        fu_limit_of=metering.fu_limit_of,
        observer=month.told,
        clock=metering.clock,
        settle_us=1_000_000,
    )
    assert await patient.count_once() == 0
    month.now_us += 1_000_000
    assert await patient.count_once() == 11


async def test_months_are_the_tenants_own(db: Database) -> None:  # noqa: F811
    """At a month's end in Berlin the reserve begins anew, an hour before it does in London."""
    month = Month(db, {TENANT: plan(timezone="Europe/Berlin")})
    month.now_us = START_US - HOUR_US - 1  # the last microsecond of October in Berlin
    await month.exchange(11)
    month.now_us += 1
    await month.exchange(12)
    await month.count()
    october = await db.read_current(outbox.windows_of_period, TENANT, "2026-10")
    november = await db.read_current(outbox.windows_of_period, TENANT, MONTH)
    assert by_item(october) == {"si_t1": 1}
    assert by_item(november) == {"si_t1": 2}


async def test_two_months_may_share_an_hour(db: Database) -> None:  # noqa: F811
    """Kolkata's month begins inside a UTC hour, and each month has its own window of it."""
    month = Month(db, {TENANT: plan(timezone="Asia/Kolkata", vex_reserved=0)})
    begin = START_US - 5 * HOUR_US - HOUR_US // 2
    await month.exchange(1, at_us=begin - 1)
    await month.exchange(2, at_us=begin)
    await month.count()
    october = await db.read_current(outbox.windows_of_period, TENANT, "2026-10")
    november = await db.read_current(outbox.windows_of_period, TENANT, MONTH)
    assert [w.key.hour for w in october] == [begin // 10**6 - 1800]
    assert [w.key.hour for w in november] == [begin // 10**6]


async def test_late_units_raise_the_version_of_their_own_hour(month: Month) -> None:
    """A unit that comes late stands in the hour it was used in, as a later version of it."""
    await month.exchange(12)
    await month.count()
    month.now_us += 5 * HOUR_US
    await month.exchange(1, at_us=START_US)
    await month.count()
    (found,) = await month.db.read_current(outbox.windows_of_period, TENANT, MONTH)
    assert (found.window.value, found.window.version) == (3, 2)


async def test_a_month_keeps_the_plan_of_its_first_unit(month: Month) -> None:
    """A reload holds for months that begin later, and not for one that has begun."""
    await month.exchange(12)
    await month.count()
    month.plans[TENANT] = plan(vex_reserved=0)
    await month.exchange(1)
    await month.count()
    assert await windows(month) == {("si_t1", 0): 3}
    month.now_us += 31 * 24 * HOUR_US
    await month.exchange(1)
    await month.count()
    assert by_item(await month.db.read_current(outbox.windows_of_period, TENANT, "2026-12")) == {
        "si_t1": 1
    }


async def test_repricing_allocates_the_whole_month_anew(month: Month) -> None:
    """Every window comes to say what the new plan says; a dropped item's windows say nothing."""
    await month.exchange(12)
    month.now_us += HOUR_US
    await month.exchange(5)
    await month.count()
    assert await windows(month) == {("si_t1", 0): 2, ("si_t1", 1): 3, ("si_t2", 1): 2}
    tier = {"threshold": 1, "price_per_unit": 0.01, "stripe_item": "si_new"}
    month.plans[TENANT] = plan(vex_reserved=4, vex_overage_tiers=[tier])
    changes = await month.metering.reprice(TENANT, MONTH, actor="env_1")
    assert changes == {"si_new": 13, "si_t1": -5, "si_t2": -2}
    assert await windows(month) == {
        ("si_t1", 0): 0, ("si_t1", 1): 0, ("si_t2", 1): 0, ("si_new", 0): 8, ("si_new", 1): 5,
    }  # fmt: skip
    assert await month.metering.reprice(TENANT, MONTH, actor="env_1") == {}
    await month.exchange(1)
    await month.count()
    assert (await windows(month))["si_new", 1] == 6
    (event,) = [
        e for e in await month.db.read_current(billing.events, TENANT, after=0, limit=99)
        if e.kind == "billing.repriced" and json.loads(e.document)["changes"]
    ]  # fmt: skip
    assert json.loads(event.document)["changes"] == changes


async def test_what_cannot_be_repriced(month: Month) -> None:
    """A month without units is unknown, and one with a statement is closed."""
    with pytest.raises(PeriodUnknown):
        await month.metering.reprice(TENANT, MONTH, actor="env_1")
    with pytest.raises(PeriodUnknown):
        await month.metering.recount(TENANT, MONTH)
    await month.exchange(1)
    await month.count()

    async def close(tx: Tx) -> None:
        await billing.keep_statement(
            tx, TENANT, MONTH, revision=1, upto=1, now_us=1, document=b"{}"
        )

    await month.db.transact(close)
    with pytest.raises(PeriodClosed):
        await month.metering.reprice(TENANT, MONTH, actor="env_1")


async def test_recounting_mends_what_was_lost(month: Month) -> None:
    """From the receipts alone, a month's hours, totals and windows can be made again."""
    await month.exchange(12)
    month.now_us += HOUR_US
    await month.exchange(5, fu=30)
    await month.count()
    before = await windows(month)

    async def damage(tx: Tx) -> None:
        await tx.execute("UPDATE billing_hours SET units = 1")
        await tx.execute("UPDATE billing_periods SET vex = 1, fu = 7")
        await tx.execute("UPDATE billing_windows SET value = value + 3")

    await month.db.transact(damage)
    await month.metering.recount(TENANT, MONTH)
    assert await windows(month) == before
    stored = await month.db.read_current(billing.find_period, TENANT, MONTH)
    assert stored is not None
    assert (stored.vex, stored.fu) == (17, 150)


async def test_volume_moves_the_whole_overage(month: Month) -> None:
    """In volume mode the tier that was reached takes all units, and the one below gives them up."""
    month.plans[TENANT] = plan(tier_mode="volume")
    await month.exchange(14)
    await month.count()
    assert await windows(month) == {("si_t1", 0): 4}
    month.now_us += HOUR_US
    await month.exchange(4)
    await month.count()
    assert by_item(await month.db.read_current(outbox.windows_of_period, TENANT, MONTH)) == {
        "si_t1": 0,
        "si_t2": 8,
    }


async def test_every_month_under_way_is_priced_anew(month: Month) -> None:
    """Of those whose plan is another than the one in force, once, and on record."""
    other = TenantId("beta")
    await month.exchange(12)
    await month.exchange(7, tenant=other)
    await month.count()
    assert await month.metering.reprice_current(actor="env_1") == {}
    month.plans[TENANT] = plan(vex_reserved=4)
    assert await month.metering.reprice_current(actor="env_1") == {TENANT: {"si_t1": 3, "si_t2": 3}}
    assert await month.metering.reprice_current(actor="env_1") == {}

    async def entries(tx: ReadTx) -> list[bytes]:
        return await tx.all(bytes, "SELECT body FROM audit_entries WHERE tenant = :t", t=TENANT)

    (entry,) = map(json.loads, await month.db.read_current(entries))
    assert (entry["actor"], entry["action"], entry["object"]) == ("env_1", "billing.reprice", MONTH)
    assert entry["after"]["plan"] == month.plans[TENANT].cid


async def test_a_replaced_plan_is_remembered(month: Month) -> None:
    """Its items hold windows that must become nothing, also after a restart."""
    await month.exchange(12)
    await month.count()
    before = month.plans[TENANT]
    month.plans[TENANT] = plan(vex_reserved=4)
    await month.metering.reprice(TENANT, MONTH, actor="env_1")
    kept = await month.db.read_current(billing.recent_plans, ended_after_us=month.now_us)
    assert sorted(kept) == sorted([before.document, month.plans[TENANT].document])
    later = month.now_us + 40 * 24 * 3_600_000_000
    assert await month.db.read_current(billing.recent_plans, ended_after_us=later) == []


async def test_marks_of_reserve_and_quota_are_told_once(month: Month) -> None:
    """At 50, 80 and 100 percent the tenant is told, once a month, and by no other step."""
    month.limits[TENANT] = 200
    for _ in range(12):
        await month.exchange(1, fu=10)
        await month.count()
    found = await month.db.read_current(billing.events, TENANT, after=0, limit=99)
    told = [(e.kind, json.loads(e.document)) for e in found]
    marks = {(kind, d["meter"], d["percent"]): d["used"] for kind, d in told}
    assert marks == {
        ("usage.reserve", "vex", 50): 5, ("usage.reserve", "vex", 80): 8,
        ("usage.reserve", "vex", 100): 10, ("usage.reserve", "fu", 50): 50,
        ("usage.reserve", "fu", 80): 80, ("usage.reserve", "fu", 100): 100,
        ("usage.quota", "fu", 50): 100,
    }  # fmt: skip
    assert len(told) == len(marks)
    assert [e.id for e in found] == sorted(e.id for e in found)


async def test_tenants_are_kept_apart(month: Month) -> None:
    """Each tenant has its own months, plan and events; one without a plan is counted too."""
    other = TenantId("beta")
    await month.exchange(12)
    await month.exchange(7, tenant=other)
    await month.count()
    stored = await month.db.read_current(billing.find_period, other, MONTH)
    assert stored is not None
    assert stored.vex == 7
    assert await month.db.read_current(outbox.windows_of_period, other, MONTH) == []
    assert by_item(await month.db.read_current(outbox.windows_of_period, TENANT, MONTH)) == {
        "si_t1": 2
    }


async def test_the_months_own_totals_agree(month: Month) -> None:
    """What was counted is what the exchanges themselves kept as running totals."""
    await month.exchange(12, fu=3)
    await month.count()
    kept = await month.db.read_current(billing.month_total, TENANT, MONTH)
    assert {entry.meter: entry.units for entry in kept} == {"vex": 12, "fu": 36}
    assert sum(allocate(plan().vex, 12)) == 12
