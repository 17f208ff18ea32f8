"""The audit chains: complete, in order, however many append at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.storage.ledger import TENANT, commit, entries_of, pending

from signet.core.audit import SYSTEM, Change, Entry
from signet.core.ids import TenantId
from signet.storage.audit import append, record_change
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.errors import IntegrityViolated
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

ACME = TenantId("acme")
OTHER = TenantId("other")


def entry(name: str = "x", tenant: TenantId = ACME, ts_us: int = 1_000_000, **rest: Any) -> Entry:
    """An entry about the object called `name`."""
    return Entry(tenant=tenant, ts_us=ts_us, actor="env_1", action="test", object=name, **rest)


async def test_entries_chain_per_tenant(db: Database) -> None:
    """Each tenant has a chain of its own, in the order given, over any number of batches."""
    await db.transact(append, [entry("a"), entry("b", OTHER), entry("c")])
    await db.transact(append, [entry("d"), entry("e", SYSTEM)])
    assert [e["object"] for e in await entries_of(db)] == ["a", "c", "d"]
    assert [e["object"] for e in await entries_of(db, OTHER)] == ["b"]
    assert [e["object"] for e in await entries_of(db, SYSTEM)] == ["e"]


async def test_nothing_to_append(db: Database) -> None:
    """No entries make no chain."""
    await db.transact(append, [])
    assert await entries_of(db) == []


async def test_a_change_and_its_entry_are_one(db: Database) -> None:
    """What is rolled back leaves no entry, and what is committed leaves one."""

    async def change(tx: Tx, fault: bool) -> None:
        await record_change(
            tx,
            Change(actor="env_1", tenant=ACME, action="tenant.create", object="acme", after={}),
        )
        if fault:
            raise IntegrityViolated("a later statement")

    with pytest.raises(IntegrityViolated):
        await db.transact(change, True)
    assert await entries_of(db) == []
    await db.transact(change, False)
    [made] = await entries_of(db)
    assert (made["action"], made["after"], made["before"]) == ("tenant.create", {}, None)


async def test_two_changes_in_one_transaction(db: Database) -> None:
    """The second entry of a transaction follows its first."""

    async def change(tx: Tx) -> None:
        for name in ("a", "b"):
            await record_change(tx, Change(actor="k", tenant=ACME, action="x.y", object=name))

    await db.transact(change)
    assert [e["object"] for e in await entries_of(db)] == ["a", "b"]


async def test_many_append_at_once(config: SqliteConfig | PostgresConfig) -> None:
    """Two processes' worth of writers on one new chain: no entry lost, no number twice."""
    async with open_database(config) as one, open_database(config) as two:
        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                for name, db in (("one", one), ("two", two)):
                    tasks.create_task(db.transact(append, [entry(f"{name}-{number}")] * 3))
        objects = [e["object"] for e in await entries_of(one)]
    assert len(objects) == 240
    assert {objects.count(o) for o in objects} == {3}


async def test_a_receipt_and_its_entry_are_one(db: Database) -> None:
    """Each receipt of a batch has its entry, a replay has none, and the batch moves the head."""
    made = [pending(name, audit=entry(name)) for name in "abc"]
    await commit(db, *made, pending("x", tenant="other", audit=entry("x", OTHER)))
    await commit(db, made[0], pending("d", audit=entry("d")))
    assert [e["object"] for e in await entries_of(db)] == ["a", "b", "c", "d"]
    assert [e["object"] for e in await entries_of(db, "other")] == ["x"]


async def test_no_receipt_no_entry(db: Database) -> None:
    """An exchange whose seal fails takes its entry with it."""
    with pytest.raises(RuntimeError):
        await commit(db, pending("a", audit=entry("a")), pending("b", fault="no"))
    assert await entries_of(db, TENANT) == []
