"""Counting, months and statements find their rows by an index, on tables of real size."""

from __future__ import annotations

import pytest
from tests.storage.test_plans import Explained, Explaining, fill, statistics

from signet.storage import billing, outbox
from signet.storage.billing import HourUnits
from signet.storage.database import Database
from signet.storage.errors import IntegrityViolated
from signet.storage.outbox import Gain, Outlet, WindowKey
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

MONTH = "2026-11"
LARGE = ("billing_windows", "billing_hours", "billing_lanes", "receipts", "tenant_events")
ROWS = 20_000
# Few of many windows are due or stuck, as in a deployment that keeps up.
_MORE = (
    """INSERT INTO billing_windows (tenant, item, hour, period, meter, value, version, sent_value,
        sent_version, dead_version, tries, due_us, settled_us)
    SELECT 't' || (i % 50), 'si_' || (i % 150), i, '2026-11', 'vex', i, 1, i, 1, 0, 0,
        CASE WHEN i % 1000 = 0 THEN i END, i FROM n WHERE i <= :rows""",
    """INSERT INTO billing_lanes (lane, owner, fence, lease_until_us)
    SELECT 'lane' || i, 'o' || (i % 7), 1, 0 FROM n WHERE i <= :rows""",
    """INSERT INTO billing_hours (tenant, period, meter, hour, units)
    SELECT 't' || (i % 50), '2026-' || (i % 12), 'vex', i, 1 FROM n WHERE i <= :rows""",
    """INSERT INTO tenant_events (tenant, kind, mark, at_us, document)
    SELECT 't' || (i % 50), 'usage', 'mark' || i, i, h FROM n WHERE i <= :rows""",
)


async def fill_more(tx: Tx) -> None:
    """The log's rows, and billing's."""
    await fill(tx)
    for statement in _MORE:
        await tx.execute(statement, rows=ROWS)


async def everything(tx: Tx) -> list[str]:
    """Every statement of billing that meets a large table, once; their plans."""
    explaining = Explaining(tx)
    key = WindowKey("t1", "si_1", 10**6, MONTH)
    cursor = await billing.lock_cursor(explaining)
    await billing.uncounted(explaining, 90_000, 100)
    await billing.add_hours(explaining, [HourUnits("t1", MONTH, "vex", 0, 1)])
    await billing.hours(explaining, "t1", MONTH)
    await billing.month_total(explaining, "t1", MONTH)
    await billing.move_cursor(explaining, 99_000)
    await billing.uncounted_units(explaining, "t1", MONTH)
    await billing.metered_receipts(explaining, "t1", MONTH, after=50_000, upto=60_000, limit=10)
    await billing.events(explaining, "t1", after=cursor, limit=10)
    await billing.tell(explaining, "t1", "usage", "mark51", at_us=1, document=b"{}")
    await outbox.gain(explaining, [Gain(key, "vex", 1)], due_us=1)
    await outbox.due_outlets(explaining, 10**6, 100)
    await outbox.due_windows(explaining, Outlet("t1", "si_1"), 10**6, 10)
    await outbox.windows_of_outlet(explaining, Outlet("t1", "si_1"), 0, 100)
    await outbox.claim_lane(explaining, "lane7", owner="me", lease_us=1)
    await outbox.keep_lane(explaining, "lane7", 2, lease_us=1)
    await outbox.lane_owners(explaining)
    await outbox.stuck_windows(explaining, 10)
    await outbox.depth(explaining)
    await outbox.hold_back(explaining, key, "x")
    await outbox.adopt(explaining, key, held=1, now_us=1)
    return explaining.plans


def scans(plan: str) -> list[str]:
    """The lines of a plan that read a large table from end to end."""
    lines = plan.partition("->\n")[2].splitlines()
    return [
        line
        for line in lines
        for table in LARGE
        if (line.strip().startswith(f"SCAN {table}") and "USING" not in line)
        or f"Seq Scan on {table}" in line
    ]


@pytest.mark.xdist_group("plans")
async def test_no_statement_scans(db: Database) -> None:
    """With statistics as a running deployment has them, nothing is read from end to end."""
    await db.transact(fill_more)
    await db.transact(statistics)

    async def explained(tx: Tx) -> list[str]:
        raise Explained(await everything(tx))

    with pytest.raises(Explained) as caught:
        await db.transact(explained)
    assert len(caught.value.plans) > 15
    bad = [plan for plan in caught.value.plans if scans(plan)]
    assert not bad, "\n\n".join(bad)


async def test_an_event_is_told_once(db: Database) -> None:
    """The same mark a second time changes nothing; another tenant's is its own."""

    async def tell(tx: Tx) -> None:
        for tenant in ("a", "a", "b"):
            await billing.tell(tx, tenant, "usage", "m", at_us=1, document=b"{}")

    await db.transact(tell)
    for tenant in ("a", "b"):
        found = await db.read_current(billing.events, tenant, after=0, limit=9)
        assert len(found) == 1
        assert await db.read_current(billing.events, tenant, after=found[0].id, limit=9) == []


async def test_statements_are_kept_side_by_side(db: Database) -> None:
    """A revision never replaces another, and the newest is found without a number."""

    async def keep(tx: Tx) -> None:
        for revision in (1, 2):
            await billing.keep_statement(
                tx,
                "a",
                MONTH,
                revision=revision,
                upto=revision,
                now_us=7,
                document=f"{revision}".encode(),
            )

    await db.transact(keep)
    latest = await db.read_current(billing.find_statement, "a", MONTH, revision=None)
    first = await db.read_current(billing.find_statement, "a", MONTH, revision=1)
    assert latest is not None
    assert first is not None
    assert (latest.document, first.document) == (b"2", b"1")
    assert await db.read_current(billing.find_statement, "b", MONTH, revision=None) is None
    with pytest.raises(IntegrityViolated):
        await db.transact(keep)
