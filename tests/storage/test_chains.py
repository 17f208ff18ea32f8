"""Walking through the log finds its pages by index, and months in the order of bytes."""

from __future__ import annotations

import pytest
from tests.storage.ledger import commit, pending
from tests.storage.test_plans import Explained, Explaining, fill, scans, statistics

from signet.storage.chains import Month, heads_of, heads_page, log_page, metered_page, next_month
from signet.storage.database import Database
from signet.storage.tx import Tx

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("plans")]


async def walk(tx: Tx) -> list[str]:
    """Every statement of the walk, somewhere in the middle; their plans."""
    explaining = Explaining(tx)
    page = await log_page(explaining, (5_000, 1), 20)
    assert len(page) == 20
    assert page[0].trace == 5_001
    heads = await heads_page(explaining, ("t3", "5"), 20)
    assert len(heads) == 20
    assert heads[0].found_hash == heads[0].receipt_hash
    names = [(head.tenant, head.trace_id) for head in heads]
    assert len(await heads_of(explaining, names)) == 20
    assert await next_month(explaining, Month("t3", "2026-11")) == Month("t30", "2026-11")
    usage = await metered_page(explaining, Month("t3", "2026-11"), after=100, upto=9_000, limit=50)
    assert (usage.vex, usage.fu) == (50, 0)
    return explaining.plans


async def test_no_page_scans(db: Database) -> None:
    """With and without statistics, no page reads a large table from end to end."""
    await db.transact(fill)
    for analyzed in (False, True):
        if analyzed:
            await db.transact(statistics)

        async def explained(tx: Tx) -> None:
            raise Explained(await walk(tx))

        with pytest.raises(Explained) as caught:
            await db.transact(explained)
        assert len(caught.value.plans) == 6
        bad = [plan for plan in caught.value.plans if scans(plan)]
        assert not bad, f"statistics: {analyzed}\n\n" + "\n\n".join(bad)


async def test_months(db: Database) -> None:
    """Every month with receipts or totals comes once, in the order of its bytes."""
    for number, tenant in enumerate(("b", "a", "B", "a-b", "a.b", "aB")):
        await commit(db, pending(f"x{number}", tenant=tenant, trace=f"t{number}"))
        await commit(db, pending(f"y{number}", tenant=tenant, trace=f"t{number}", period="2026-12"))
    found: list[Month] = []
    month: Month | None = Month("", "")
    while month := await db.read_current(next_month, month):
        found.append(month)
    tenants = sorted(["b", "a", "B", "a-b", "a.b", "aB"])
    assert found == [Month(t, p) for t in tenants for p in ("2026-11", "2026-12")]
