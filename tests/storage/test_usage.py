"""Metering: totals are sums over receipts, and the receipts behind them can be listed."""

from __future__ import annotations

import pytest
from tests.storage.ledger import TENANT, commit, hashes, pending, seal

from signet.storage.database import Database
from signet.storage.exchanges import commit_exchanges
from signet.storage.usage import billed_receipts, totals

pytestmark = pytest.mark.anyio


async def test_no_usage(db: Database) -> None:
    """A period without usage has no totals and no receipts."""
    assert await db.read(totals, TENANT, "2026-11") == []
    assert await db.read(billed_receipts, TENANT, "2026-11") == []


async def test_billed_receipts_are_those_that_metered(db: Database) -> None:
    """Listed are the tenant's receipts of the period with any unit, in the order written."""
    results = await commit(
        db,
        pending("a"),
        pending("b", vex_units=0, outcome="denied"),
        pending("c", vex_units=0, fu_tokens=9, outcome="failed"),
        pending("d", period="2026-12"),
        pending("e", tenant="other"),
        pending("f"),
    )
    names = hashes(results)
    billed = await db.read(billed_receipts, TENANT, "2026-11")
    assert [b.receipt_hash for b in billed] == [names[0], names[2], names[5]]
    assert [(b.vex_units, b.fu_tokens, b.outcome) for b in billed] == [
        (1, 0, "allowed"),
        (0, 9, "failed"),
        (1, 0, "allowed"),
    ]


async def test_billed_receipts_page(db: Database) -> None:
    """Paging by number gives every receipt once."""
    names = hashes(await commit(db, *(pending(f"a{i}") for i in range(10))))
    seen: list[str] = []
    after = 0
    while page := await db.read(
        lambda tx, after=after: billed_receipts(tx, TENANT, "2026-11", after=after, limit=3)
    ):
        seen += [b.receipt_hash for b in page]
        after = page[-1].number
    assert seen == names


async def test_totals_are_summed_over_processes(db: Database) -> None:
    """Processes count in different places; a total is the sum."""
    for shard in range(3):
        item = pending(f"a{shard}", fu_tokens=shard)
        await db.transact(lambda tx, i=item, s=shard: commit_exchanges(tx, [i], seal, shard=s))
    found = {total.meter: total.units for total in await db.read(totals, TENANT, "2026-11")}
    assert found == {"vex": 3, "fu": 3}
