"""Claims: at most one owner at a time, and a lost fence writes nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.storage.ledger import TENANT, commit, count, hashes, pending, receipts_of, text

from signet.storage.database import Database
from signet.storage.exchanges import (
    Committed,
    Erased,
    FenceLost,
    InFlight,
    KeyReused,
    KeySpent,
    PendingExchange,
    Replay,
)
from signet.storage.idempotency import (
    Claim,
    Claimed,
    Orphan,
    claim,
    lookup,
    owners,
    purge_answers,
    release,
    renew,
    take_expired,
)
from signet.storage.receipts import erase_payload
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

HOUR_US = 3_600_000_000


def wish(
    item: PendingExchange, *, owner: str = "host/1/1", lease_us: int = HOUR_US, forward: bool = True
) -> Claim:
    """A wish to act for an exchange."""
    assert item.key_hash is not None
    return Claim(
        tenant=item.tenant,
        trace_id=item.trace_id,
        key_hash=item.key_hash,
        fingerprint=item.fingerprint,
        owner=owner,
        lease_us=lease_us,
        intent=b"intent",
        spends_key=forward,
    )


async def claimed(db: Database, item: PendingExchange, **more: Any) -> PendingExchange:
    """The exchange with the fence of a claim that must succeed."""
    result = await db.transact(claim, wish(item, **more))
    assert isinstance(result, Claimed)
    return replace(item, fence=result.fence)


async def test_claim_then_commit(db: Database) -> None:
    """The exchange that claimed its key commits under its fence, and the claim is gone."""
    mine = await claimed(db, pending("a"))
    [result] = await commit(db, mine)
    assert isinstance(result, Committed)
    assert await db.read_current(owners) == []
    [again] = await commit(db, replace(mine, fence=None))
    assert isinstance(again, Replay)


async def test_second_claim_waits(db: Database) -> None:
    """While a claim is open, the same call is in flight for everybody else, until its lease."""
    item = pending("a")
    await claimed(db, item)
    second = await db.transact(claim, wish(item, owner="host/2/2"))
    assert isinstance(second, InFlight)
    assert 3500 < second.retry_after_s <= 3600
    [unclaimed] = await commit(db, item)
    assert isinstance(unclaimed, InFlight)
    assert item.key_hash is not None
    known = await db.read_current(lookup, item.tenant, item.key_hash, item.fingerprint)
    assert isinstance(known, InFlight)
    assert await db.read_current(count) == 0


async def test_lease_that_ended_has_nothing_left(db: Database) -> None:
    """A claim past its lease is still in flight until recovery decides; there is nothing to wait
    for but recovery."""
    item = pending("a")
    await claimed(db, item, lease_us=0)
    assert await db.transact(claim, wish(item)) == InFlight(retry_after_s=0)


async def test_other_body_while_in_flight(db: Database) -> None:
    """Another body under a claimed key is refused as such, not told to wait."""
    await claimed(db, pending("a"))
    assert await db.transact(claim, wish(pending("a", body=b"other"))) == KeyReused()


async def test_claim_of_an_answered_key(db: Database) -> None:
    """A key that was answered replays instead of being claimed."""
    [first] = await commit(db, pending("a"))
    assert isinstance(first, Committed)
    again = await db.transact(claim, wish(pending("a")))
    assert isinstance(again, Replay)
    assert again.answer == first.sealed.answer


async def test_hundred_claims_at_once(db: Database) -> None:
    """Of many that claim one key at once exactly one gets it."""
    results = await asyncio.gather(*(db.transact(claim, wish(pending("a"))) for _ in range(100)))
    assert [type(result) for result in results].count(Claimed) == 1
    assert [type(result) for result in results].count(InFlight) == 99


async def test_released_key_is_free(db: Database) -> None:
    """A key that was given back can be claimed anew, under a fence never issued before."""
    mine = await claimed(db, pending("a"))
    assert mine.key_hash is not None
    assert mine.fence is not None
    assert await db.transact(release, TENANT, mine.key_hash, mine.fence)
    assert not await db.transact(release, TENANT, mine.key_hash, mine.fence)
    again = await claimed(db, pending("a"))
    assert again.fence != mine.fence
    assert await commit(db, mine) == [FenceLost(receipt_hash=None)]


async def test_release_after_the_answer_changes_nothing(db: Database) -> None:
    """An answered key cannot be given back."""
    mine = await claimed(db, pending("a"))
    await commit(db, mine)
    assert mine.key_hash is not None
    assert mine.fence is not None
    assert not await db.transact(release, TENANT, mine.key_hash, mine.fence)
    [again] = await commit(db, pending("a"))
    assert isinstance(again, Replay)


async def test_renewed_lease_is_not_taken(db: Database) -> None:
    """An owner that renews in time keeps its claim."""
    mine = await claimed(db, pending("a"), lease_us=0)
    assert mine.key_hash is not None
    assert mine.fence is not None
    assert await db.transact(renew, TENANT, mine.key_hash, mine.fence, HOUR_US)
    assert await take(db) == []
    assert not await db.transact(renew, TENANT, mine.key_hash, mine.fence + 1, HOUR_US)


async def take(db: Database, *dead: str, limit: int = 100) -> list[Orphan]:
    """One round of recovery."""

    async def taking(tx: Tx) -> list[Orphan]:
        return await take_expired(tx, owner="recovery", lease_us=HOUR_US, limit=limit, dead=dead)

    return await db.transact(taking)


async def test_recovery_takes_an_expired_claim(db: Database) -> None:
    """Recovery gets the intent under a new fence; the late owner writes nothing and is told the
    recovered receipt."""
    mine = await claimed(db, pending("a"), lease_us=0)
    [orphan] = await take(db)
    assert orphan.intent == b"intent"
    assert (orphan.tenant, orphan.trace_id) == (mine.tenant, mine.trace_id)
    assert (orphan.key_hash, orphan.fingerprint) == (mine.key_hash, mine.fingerprint)
    assert mine.fence is not None
    assert orphan.fence > mine.fence
    assert await commit(db, mine) == [FenceLost(receipt_hash=None)]
    [recovered] = hashes(await commit(db, replace(mine, fence=orphan.fence)))
    assert await commit(db, mine) == [FenceLost(receipt_hash=recovered)]
    [retry] = await commit(db, pending("a"))
    assert isinstance(retry, Replay)
    assert len(await receipts_of(db, "trace-1")) == 1


async def test_late_owner_in_the_same_batch_as_recovery(db: Database) -> None:
    """The same, when both reach the database in one batch."""
    mine = await claimed(db, pending("a"), lease_us=0)
    [orphan] = await take(db)
    results = await commit(db, replace(mine, fence=orphan.fence), mine)
    assert isinstance(results[0], Committed)
    assert results[1] == FenceLost(receipt_hash=results[0].sealed.receipt_hash)


async def test_recovery_leaves_the_living_alone(db: Database) -> None:
    """A claim within its lease is taken only when its owner is proven dead."""
    await claimed(db, pending("a"), owner="host/1/1")
    await claimed(db, pending("b"), owner="host/2/2")
    assert await db.read_current(owners) == ["host/1/1", "host/2/2"]
    assert await take(db) == []
    [orphan] = await take(db, "host/2/2")
    assert orphan.key_hash == pending("b").key_hash
    assert await db.read_current(owners) == ["host/1/1", "recovery"]


async def test_recovery_is_bounded_and_complete(db: Database) -> None:
    """However many orphans there are, each round takes a bounded number and none twice."""
    for i in range(7):
        await claimed(db, pending(f"a{i}"), lease_us=0)
    rounds = [await take(db, limit=3) for _ in range(4)]
    assert [len(orphans) for orphans in rounds] == [3, 3, 1, 0]
    assert len({orphan.key_hash for orphans in rounds for orphan in orphans}) == 7


async def test_two_recoverers_at_once(db: Database) -> None:
    """No orphan is given to two recoverers."""
    for i in range(10):
        await claimed(db, pending(f"a{i}"), lease_us=0, owner="host/9/9")
    taken = await asyncio.gather(*(take(db, "host/9/9") for _ in range(4)))
    keys = [orphan.key_hash for orphans in taken for orphan in orphans]
    assert sorted(keys) == sorted(set(keys))
    assert len(keys) == 10


async def test_batch_of_claimed_and_fresh(db: Database) -> None:
    """Claimed, fresh and replayed exchanges share a batch and chain in order."""
    mine = await claimed(db, pending("b"))
    await commit(db, pending("a"))
    results = await commit(db, pending("c"), mine, pending("a"), pending("d"))
    assert [type(result) for result in results] == [Committed, Committed, Replay, Committed]
    assert len(await receipts_of(db, "trace-1")) == 4


async def test_expired_answer_frees_the_key(db: Database) -> None:
    """After retention the answer is gone and the key of a call without effect is free again."""
    [first] = hashes(await commit(db, pending("a", ts_us=100)))
    await commit(db, pending("b", ts_us=300))
    assert await db.transact(purge_answers, 200, 10) == 1
    [again] = await commit(db, pending("a", ts_us=400))
    assert isinstance(again, Committed)
    assert again.sealed.receipt_hash != first
    [kept] = await commit(db, pending("b"))
    assert isinstance(kept, Replay)


async def test_forwarded_key_is_spent_for_ever(db: Database) -> None:
    """A key that claimed a forward never acts again, whatever has expired."""
    mine = await claimed(db, pending("a", ts_us=100))
    [receipt_hash] = hashes(await commit(db, mine))
    assert await db.transact(purge_answers, 200, 10) == 1
    spent = KeySpent(receipt_hash=receipt_hash)
    assert await commit(db, pending("a")) == [spent]
    assert await db.transact(claim, wish(pending("a"))) == spent
    assert await commit(db, pending("a", body=b"other")) == [KeyReused()]


async def test_claim_without_forward_does_not_spend_the_key(db: Database) -> None:
    """A key that only claimed a repair is free after its answer has expired."""
    mine = await claimed(db, pending("a", ts_us=100), forward=False)
    await commit(db, mine)
    await db.transact(purge_answers, 200, 10)
    [again] = await commit(db, pending("a"))
    assert isinstance(again, Committed)


async def test_purge_is_bounded_and_oldest_first(db: Database) -> None:
    """Each purge takes the oldest answers, at most as many as asked."""
    await commit(db, *(pending(f"a{i}", ts_us=100 - i) for i in range(5)))
    assert await db.transact(purge_answers, 1000, 2) == 2
    [oldest, newest] = await commit(db, pending("a4"), pending("a0"))
    assert isinstance(oldest, Committed)
    assert isinstance(newest, Replay)
    assert await db.transact(purge_answers, 1000, 100) == 3


async def test_erased_then_expired(db: Database) -> None:
    """An erased answer of a forwarded key ends as a spent key, never as a free one."""
    mine = await claimed(db, pending("a", ts_us=100))
    await commit(db, mine)
    await db.transact(erase_payload, TENANT, text(b"payload of a"))
    [erased] = await commit(db, pending("a"))
    assert isinstance(erased, Erased)
    await db.transact(purge_answers, 200, 10)
    [spent] = await commit(db, pending("a"))
    assert isinstance(spent, KeySpent)
