"""Quota holds: never past the limit, settled once."""

from __future__ import annotations

import asyncio

import pytest
from tests.storage.ledger import TENANT

from signet.storage.database import Database
from signet.storage.quota import (
    ExpiredHold,
    Held,
    QuotaExceeded,
    Standing,
    expired,
    held_under,
    hold,
    purge_settled,
    settle,
    standing,
)
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

PERIOD = "2026-11"


async def take(
    db: Database,
    hold_id: str,
    tokens: int,
    *,
    limit: int = 1000,
    ttl_us: int = 60_000_000,
    tenant: str = TENANT,
    period: str = PERIOD,
) -> Held | QuotaExceeded:
    """One hold."""

    async def holding(tx: Tx) -> Held | QuotaExceeded:
        return await hold(
            tx,
            hold_id=hold_id,
            tenant=tenant,
            period=period,
            tokens=tokens,
            limit=limit,
            ttl_us=ttl_us,
        )

    return await db.transact(holding)


async def end(db: Database, hold_id: str, used: int, *, estimated: bool = False) -> bool:
    """Settle one hold."""
    return await db.transact(lambda tx: settle(tx, hold_id, used=used, estimated=estimated))


async def test_hold_and_settle(db: Database) -> None:
    """A hold reserves, settling turns it into what was really used."""
    assert await take(db, "h1", 300) == Held(hold_id="h1")
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(0, 300)
    assert await end(db, "h1", 120)
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(120, 0)


async def test_limit_is_inclusive(db: Database) -> None:
    """Exactly the limit can be held, one more cannot, and the refusal says what is left."""
    assert await take(db, "h1", 999) == Held(hold_id="h1")
    assert await take(db, "h2", 2) == QuotaExceeded(available=1)
    assert await take(db, "h3", 1) == Held(hold_id="h3")
    assert await take(db, "h4", 1) == QuotaExceeded(available=0)


async def test_first_hold_over_the_limit(db: Database) -> None:
    """A period without any usage refuses what is over the limit as well."""
    assert await take(db, "h1", 1001) == QuotaExceeded(available=1000)
    assert await take(db, "h1", 1000) == Held(hold_id="h1")


async def test_limit_that_was_lowered(db: Database) -> None:
    """With more used than the limit now allows, nothing is available, and never less."""
    await take(db, "h1", 900)
    assert await take(db, "h2", 1, limit=500) == QuotaExceeded(available=0)


async def test_two_hundred_callers_never_pass_the_limit(db: Database) -> None:
    """However many hold at once, together they stay within the limit."""
    results = await asyncio.gather(*(take(db, f"h{i}", 7) for i in range(200)))
    assert sum(isinstance(result, Held) for result in results) == 1000 // 7
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(0, 1000 // 7 * 7)


async def test_same_id_again(db: Database) -> None:
    """The same hold again changes nothing."""
    await take(db, "h1", 600)
    assert await take(db, "h1", 600) == Held(hold_id="h1")
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(0, 600)


async def test_settling_twice(db: Database) -> None:
    """Only the first settlement counts; an unknown id settles nothing."""
    await take(db, "h1", 600)
    assert await end(db, "h1", 100)
    assert not await end(db, "h1", 500)
    assert not await end(db, "h9", 500)
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(100, 0)


async def test_spent_is_spent(db: Database) -> None:
    """Usage beyond what was held counts in full, even past the limit."""
    await take(db, "h1", 1000)
    assert await end(db, "h1", 1200)
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(1200, 0)
    assert await take(db, "h2", 1) == QuotaExceeded(available=0)


async def test_tenants_and_periods_apart(db: Database) -> None:
    """Each tenant and each period has its own quota."""
    await take(db, "h1", 1000)
    assert await take(db, "h2", 1000, period="2026-12") == Held(hold_id="h2")
    assert await take(db, "h3", 1000, tenant="other") == Held(hold_id="h3")


async def test_expired_holds_are_listed_until_settled(db: Database) -> None:
    """A hold past its time stays reserved until it is settled as an estimate."""
    await take(db, "late", 300, ttl_us=0)
    await take(db, "fresh", 300)
    assert await db.read_current(expired, 10) == [ExpiredHold("late", TENANT, PERIOD, 300)]
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(0, 600)
    assert await end(db, "late", 300, estimated=True)
    assert await db.read_current(expired, 10) == []
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(300, 300)


async def test_settled_holds_are_purged(db: Database) -> None:
    """Old settled holds go, open ones stay, and the quota is untouched."""
    for i in range(3):
        await take(db, f"h{i}", 10)
    await end(db, "h0", 10)
    await end(db, "h1", 10)
    assert await db.transact(purge_settled, 5_000_000_000_000_000, 1) == 1
    assert await db.transact(purge_settled, 5_000_000_000_000_000, 10) == 1
    assert await end(db, "h2", 10)
    assert await db.read_current(standing, TENANT, PERIOD) == Standing(30, 0)


async def test_the_holds_of_one_exchange_are_found(db: Database) -> None:
    """Only open holds whose id begins so are listed, whatever stands around them."""
    for hold_id in ("ab@acme", "ab@acme/key", "a@acme", "ac@acme", "ab~"):
        await take(db, hold_id, 1)
    await end(db, "ab@acme/key", 1)
    found = await db.read_current(held_under, "ab", 10)
    assert [hold.hold_id for hold in found] == ["ab@acme", "ab~"]
