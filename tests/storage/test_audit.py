"""The audit chains: complete, in order, however many append at once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from tests.storage.ledger import TENANT, commit, entries_of, pending

from signet.core.audit import PRUNED, SYSTEM, Change, Entry
from signet.core.ids import TenantId
from signet.storage.audit import append, page, prune, record_change, with_older
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


async def numbers(db: Database, **wanted: Any) -> tuple[list[int], int | None]:
    """The numbers on a page, and where the next begins."""
    found = await db.read_current(page, ACME, **wanted)
    return [seq for seq, _ in found.entries], found.next_after


async def test_pages_are_in_order_and_complete(db: Database) -> None:
    """Following `next_after` gives every entry once."""
    await db.transact(append, [entry(f"e{n}", ts_us=n) for n in range(25)])
    seen: list[int] = []
    after: int | None = 0
    while after is not None:
        got, after = await numbers(db, after=after, limit=10)
        seen += got
    assert seen == list(range(1, 26))
    assert await numbers(db, after=25) == ([], None)
    assert (await db.read_current(page, OTHER)).entries == []


async def test_a_page_between_two_times_has_no_gap(db: Database) -> None:
    """A late entry of a slow clock stands where the chain had already got to."""
    for ts_us in (100, 200, 150, 300, 400):
        await db.transact(append, [entry(ts_us=ts_us)])
    assert await numbers(db, from_us=200) == ([2, 3, 4, 5], None)
    assert await numbers(db, from_us=200, to_us=400) == ([2, 3, 4], None)
    assert await numbers(db, from_us=120, limit=1) == ([2], 2)
    assert await numbers(db, from_us=401) == ([], None)


async def test_a_search_ends_in_bounded_time(db: Database) -> None:
    """A rare action is found over several pages, of which some are empty."""
    await db.transact(append, [entry(str(n)) for n in range(4500)])
    await db.transact(append, [replace(entry("it"), action="rare")])
    assert await numbers(db, action="rare") == ([], 2000)
    assert await numbers(db, action="rare", after=4000) == ([4501], None)
    assert await numbers(db, action="never", after=4000) == ([], None)


async def test_pruning_leaves_an_anchor(db: Database) -> None:
    """The oldest entries go, and an entry at the end names the last of them."""
    for ts_us in (100, 200, 300, 400):
        await db.transact(append, [entry(ts_us=ts_us)])
    [_, last, *_] = await entries_of(db)
    assert await db.read_current(with_older, 300, 10) == [ACME]
    assert await db.transact(prune, ACME, before_us=300, limit=100) == 2
    found = (await db.read_current(page, ACME)).entries
    assert [seq for seq, _ in found] == [3, 4, 5]
    anchor = json.loads(found[-1].body)
    assert (anchor["action"], anchor["actor"]) == (PRUNED, "_retention")
    assert anchor["object"] == "1-2"
    assert anchor["after"] == {"through_seq": 2, "entry_hash": last["entry_hash"]}
    assert await db.transact(prune, ACME, before_us=300, limit=100) == 0
    assert await db.read_current(with_older, 300, 10) == []


async def test_pruning_goes_on_where_it_stopped(db: Database) -> None:
    """A chain that is pruned whole, in steps, keeps its numbers and its last anchor."""
    await db.transact(append, [entry(ts_us=100) for _ in range(5)])
    gone = [await db.transact(prune, ACME, before_us=200, limit=2) for _ in range(4)]
    assert gone == [2, 2, 1, 0]
    found = (await db.read_current(page, ACME)).entries
    assert [json.loads(body)["object"] for _, body in found] == ["1-2", "3-4", "5-5"]
    await db.transact(append, [entry("after")])
    assert [seq for seq, _ in (await db.read_current(page, ACME)).entries] == [6, 7, 8, 9]


async def test_two_prune_at_once(config: SqliteConfig | PostgresConfig) -> None:
    """Nothing is removed twice, and each removal has its anchor."""
    async with open_database(config) as one, open_database(config) as two:
        await one.transact(append, [entry(ts_us=100) for _ in range(60)])
        async with asyncio.TaskGroup() as tasks:
            done = [
                tasks.create_task(db.transact(prune, ACME, before_us=200, limit=7))
                for db in (one, two) * 6
            ]
        assert sum(task.result() for task in done) == 60
        objects = [
            json.loads(body)["object"] for _, body in (await one.read_current(page, ACME)).entries
        ]
    ranges = [tuple(map(int, text.split("-"))) for text in objects]
    assert ranges[0][0] == 1
    assert all(later[0] == earlier[1] + 1 for earlier, later in pairwise(ranges))
    assert ranges[-1][1] == 60
