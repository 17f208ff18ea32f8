"""The committer's promises: batches form by themselves, and nobody pays for a neighbour."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import combinations
from typing import Any

import pytest
from tests.storage.ledger import TENANT, count, hashes, pending, receipts_of, seal

from signet.storage.committer import open_committer
from signet.storage.database import Database
from signet.storage.errors import IntegrityViolated, StorageBusy, StorageUnavailable
from signet.storage.exchanges import Committed, PendingExchange, Replay, Result

pytestmark = pytest.mark.anyio


class FaultyDatabase:
    """A real database whose next transactions fail, before or after the commit."""

    def __init__(self, inner: Database, *, persist: bool, failures: int) -> None:
        self._inner = inner
        self._persist = persist
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(
        self, f: Callable[..., Coroutine[object, None, Any]], /, *args: Any, **kwargs: Any
    ) -> Any:
        if self._failures:
            self._failures -= 1
            if self._persist:
                await self._inner.transact(f, *args, **kwargs)
            raise StorageUnavailable("The commit was not confirmed.")
        return await self._inner.transact(f, *args, **kwargs)


class WatchedDatabase:
    """A real database that keeps what was being committed at the same time."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self._running: list[Sequence[PendingExchange]] = []
        self.at_once: list[list[Sequence[PendingExchange]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(
        self, f: Callable[..., Coroutine[object, None, Any]], batch: Any, /, *args: Any, **how: Any
    ) -> Any:
        self._running.append(batch)
        self.at_once.append(list(self._running))
        try:
            await asyncio.sleep(0.01)  # so that whoever may go on beside it does
            return await self._inner.transact(f, batch, *args, **how)
        finally:
            self._running.remove(batch)


class HeldDatabase:
    """A real database whose transactions wait until they may begin."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.may_begin = asyncio.Event()
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def transact(
        self, f: Callable[..., Coroutine[object, None, Any]], batch: Any, /, *args: Any, **how: Any
    ) -> Any:
        self.batches.append(len(batch))
        await self.may_begin.wait()
        return await self._inner.transact(f, batch, *args, **how)


async def _all(
    commit: Callable[[PendingExchange], Coroutine[Any, Any, Result]], items: list[PendingExchange]
) -> list[Result | BaseException]:
    return await asyncio.gather(*(commit(item) for item in items), return_exceptions=True)


async def test_twenty_at_once_on_one_trace(db: Database) -> None:
    """Twenty parallel exchanges on one trace are twenty consecutive hops and no conflict."""
    async with open_committer(db, seal) as committer:
        results = await _all(committer.commit, [pending(f"a{i}") for i in range(20)])
    assert all(isinstance(result, Committed) for result in results)
    assert len(await receipts_of(db, "trace-1")) == 20


async def test_a_thousand_at_once_with_one_key(db: Database) -> None:
    """A thousand parallel calls with one key make one receipt and 999 replays of it."""
    async with open_committer(db, seal) as committer:
        results = await _all(committer.commit, [pending("a") for _ in range(1000)])
    assert [type(result) for result in results].count(Committed) == 1
    assert [type(result) for result in results].count(Replay) == 999
    assert await db.read_current(count) == 1


async def test_the_guilty_fails_alone(db: Database) -> None:
    """One exchange that cannot be sealed or stored fails for its own caller only."""
    items = [pending(f"a{i}", trace=f"t{i % 3}") for i in range(20)]
    items[7] = pending("bad", trace="t1", fault="no key")
    items[13] = pending("worse", trace="t1", hop=99)
    async with open_committer(db, seal) as committer:
        results = await _all(committer.commit, items)
    assert isinstance(results[7], RuntimeError)
    assert isinstance(results[13], IntegrityViolated)
    others = [r for i, r in enumerate(results) if i not in (7, 13)]
    assert all(isinstance(result, Committed) for result in others)
    assert await db.read_current(count) == 18
    for i in range(3):
        await receipts_of(db, f"t{i}")


@pytest.mark.parametrize("persist", [False, True])
async def test_unconfirmed_commit(db: Database, persist: bool) -> None:
    """A failed commit is "not acknowledged" for the whole batch; retries give one receipt each.

    Both when nothing was persisted and when everything was but the answer got lost.
    """
    faulty = FaultyDatabase(db, persist=persist, failures=1)
    items = [pending(f"a{i}") for i in range(10)]
    async with open_committer(faulty, seal) as committer:
        refused = await _all(committer.commit, items)
        assert all(isinstance(result, StorageUnavailable) for result in refused)
        retried = await _all(committer.commit, items)
    expected = Replay if persist else Committed
    assert all(isinstance(result, expected) for result in retried)
    assert len(await receipts_of(db, "trace-1")) == 10
    assert len({*hashes([r for r in retried if not isinstance(r, BaseException)])}) == 10


async def test_cancelled_caller_does_no_harm(db: Database) -> None:
    """A caller that goes away leaves its neighbours alone, and its own retry is one receipt."""
    async with open_committer(db, seal) as committer, asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(committer.commit(pending("gone")))
        stays = tasks.create_task(committer.commit(pending("stays")))
        await asyncio.sleep(0)
        gone.cancel()
        assert isinstance(await stays, Committed)
        await committer.commit(pending("gone"))
    assert len(await receipts_of(db, "trace-1")) == 2


async def test_too_many_waiting(db: Database) -> None:
    """A full queue refuses at once and says that nothing was written."""
    async with open_committer(db, seal, queue_limit=5) as committer:
        results = await _all(committer.commit, [pending(f"a{i}") for i in range(8)])
    refused = [result for result in results if isinstance(result, StorageBusy)]
    assert len(refused) == 3
    assert await db.read_current(count) == 5


async def test_batches_are_bounded(db: Database) -> None:
    """More than one batch's worth of waiting exchanges is committed in several."""
    async with open_committer(db, seal, max_batch=3) as committer:
        assert committer.waiting == 0
        results = await _all(committer.commit, [pending(f"a{i}") for i in range(10)])
    assert all(isinstance(result, Committed) for result in results)


async def test_two_batches_at_once(db: Database) -> None:
    """PostgreSQL is given the next batch while it commits one; SQLite has one writer."""
    watched = WatchedDatabase(db)
    async with open_committer(watched, seal, max_batch=10) as committer:
        items = [pending(f"a{i}", trace=f"t{i}") for i in range(60)]
        results = await _all(committer.commit, items)
    assert all(isinstance(result, Committed) for result in results)
    assert max(map(len, watched.at_once)) == (2 if db.kind == "postgres" else 1)


async def test_a_second_batch_is_as_large_as_the_first(db: Database) -> None:
    """A batch beside another is begun for as many as that one has, and for eight at least."""
    if db.kind == "sqlite":
        return  # it has one writer
    for first, enough in ((1, 8), (20, 20)):
        held = HeldDatabase(db)
        async with open_committer(held, seal) as committer, asyncio.TaskGroup() as tasks:

            async def arrive(names: range, held: HeldDatabase = held, first: int = first) -> None:
                for n in names:
                    name = f"{first}/{n}"
                    tasks.create_task(committer.commit(pending(name, trace=name)))
                for _ in range(20):  # nobody but these has anything to do
                    await asyncio.sleep(0)

            await arrive(range(first))
            await arrive(range(first, first + enough - 1))
            assert held.batches == [first]
            await arrive(range(first + enough - 1, first + enough))
            assert held.batches == [first, enough]
            held.may_begin.set()
        assert await db.read_current(count) >= first + enough


async def test_no_chain_and_no_key_in_two_batches_at_once(db: Database) -> None:
    """What one batch writes is held back from the other, in its order, and nothing is forgotten."""
    watched = WatchedDatabase(db)
    items = [
        pending(f"a{i}", trace=f"t{i}" if i % 3 else "hot", keyed=bool(i % 5)) for i in range(90)
    ]
    items += [pending(f"a{i}", trace=f"again{i}") for i in range(90) if i % 5]
    async with open_committer(watched, seal, max_batch=10) as committer:
        results = await _all(committer.commit, items)
    assert [type(result) for result in results] == [Committed] * 90 + [Replay] * 72
    for together in watched.at_once:
        for one, other in combinations(together, 2):
            assert not {item.trace_id for item in one} & {item.trace_id for item in other}
            keys = [{i.key_hash for i in batch if i.key_hash is not None} for batch in (one, other)]
            assert not keys[0] & keys[1]
    hops = [result.sealed.hop for result in results[:90:3] if isinstance(result, Committed)]
    assert hops == list(range(1, 31))


async def test_closing_commits_what_waits(db: Database) -> None:
    """What was taken before the end is committed; what comes after it is refused."""
    async with asyncio.TaskGroup() as tasks:
        async with open_committer(db, seal) as committer:
            waiting = [tasks.create_task(committer.commit(pending(f"a{i}"))) for i in range(5)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting)
    assert all(isinstance(result, Committed) for result in results)
    with pytest.raises(StorageUnavailable):
        await committer.commit(pending("late"))


async def test_an_error_in_the_block_is_not_wrapped(db: Database) -> None:
    """Whoever uses the committer sees their own exception, not a group of one."""

    async def fails() -> None:
        async with open_committer(db, seal) as committer:
            await committer.commit(pending("a"))
            raise KeyError

    with pytest.raises(KeyError):
        await fails()
    assert len(await receipts_of(db, "trace-1", TENANT)) == 1
