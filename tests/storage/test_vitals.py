"""The gauges of the database say what is in it, on every engine."""

from __future__ import annotations

import pytest

from signet.storage import keys, outbox, quota
from signet.storage.database import Database
from signet.storage.keys import StoredKey
from signet.storage.outbox import Gain, WindowKey
from signet.storage.tx import Tx
from signet.storage.vitals import read_vitals

pytestmark = pytest.mark.anyio


async def test_an_empty_database_has_a_size_and_a_version(db: Database) -> None:
    """Everything else is zero, not absent."""
    vitals = await db.read_current(read_vitals)
    assert vitals.schema_version == db.schema_version >= 2
    assert vitals.database_bytes > 0
    assert vitals.receipts_last_number == 0
    assert vitals.outbox_oldest_seconds == 0
    assert (vitals.signing_keys_active, vitals.signing_key_age_seconds) == (0, 0)


async def test_what_waits_is_counted(db: Database) -> None:
    """Windows by their age and state, open holds with their tokens; settled ones are gone."""

    async def fill(tx: Tx) -> None:
        now_us = await tx.now_us()
        for item, due_us in (("old", now_us - 90_000_000), ("later", now_us + 90_000_000)):
            key = WindowKey("acme", item, 3600, "2026-11")
            await outbox.gain(tx, [Gain(key, "vex", 5)], due_us=due_us)
        stuck = WindowKey("acme", "stuck", 3600, "2026-11")
        await outbox.gain(tx, [Gain(stuck, "vex", 5)], due_us=now_us)
        await outbox.hold_back(tx, stuck, "test")
        for hold_id, tokens in (("a", 30), ("b", 12), ("c", 7)):
            await quota.hold(
                tx,
                hold_id=hold_id,
                tenant="acme",
                period="2026-11",
                tokens=tokens,
                limit=100,
                ttl_us=60_000_000,
            )
        await quota.settle(tx, "c", used=1)

    await db.transact(fill)
    vitals = await db.read_current(read_vitals)
    assert vitals.outbox_waiting_windows == 2
    assert 90 <= vitals.outbox_oldest_seconds < 900
    assert vitals.outbox_held_windows == 1
    assert vitals.outbox_dead_windows == 0
    assert (vitals.fallback_open_holds, vitals.fallback_held_tokens) == (2, 42)


async def test_a_claim_past_its_lease_is_overdue(db: Database) -> None:
    """Open claims are counted, and among them those that recovery should have taken."""

    async def fill(tx: Tx) -> None:
        for name, until_us in (("open", 2**52), ("overdue", 1)):
            await tx.execute(
                """INSERT INTO claims (tenant, key_hash, trace_id, owner, fence, claimed_us,
                    lease_until_us, intent)
                VALUES ('acme', :key, :name, 'o', 1, 0, :until_us, :key)""",
                key=name.encode(),
                name=name,
                until_us=until_us,
            )

    await db.transact(fill)
    vitals = await db.read_current(read_vitals)
    assert (vitals.open_claims, vitals.overdue_claims) == (2, 1)


async def test_the_key_that_signs_has_an_age(db: Database) -> None:
    """It counts from when the key began; one that only retires later is still active."""

    async def fill(tx: Tx) -> None:
        now_us = await tx.now_us()
        for kid, begun_us in (("old", 0), ("new", now_us - 90_000_000), ("next", None)):
            made_us = now_us - 900_000_000
            row = StoredKey(kid, kid.encode().ljust(32, b"."), None, made_us, *[None] * 4)
            await keys.publish(tx, row._replace(signs_from_us=begun_us))
        await keys.retire(tx, "old", retired_us=now_us - 90_000_000)
        await keys.retire(tx, "new", retired_us=now_us + 900_000_000)

    await db.transact(fill)
    vitals = await db.read_current(read_vitals)
    assert vitals.signing_keys_active == 2
    assert 90 <= vitals.signing_key_age_seconds < 800
