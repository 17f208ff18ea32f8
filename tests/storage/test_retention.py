"""Erasing payloads: everything that carries them goes, and nothing else."""

from __future__ import annotations

import pytest
from tests.storage.ledger import TENANT, commit, key, pending, receipts_of, text

from signet.storage.database import Database
from signet.storage.exchanges import Erased, Replay
from signet.storage.idempotency import Claim, claim
from signet.storage.receipts import erase_payload, payload
from signet.storage.retention import expire, held, intents, next_tenant

pytestmark = pytest.mark.anyio


async def test_held_counts_what_is_left(db: Database) -> None:
    """All receipts that share a CID, and how many have it; another tenant's are not counted."""
    same = [pending(name, payload=b"same") for name in "abc"]
    await commit(db, *same, pending("x", tenant="other", payload=b"same"))
    assert await db.read_current(held, TENANT, text(b"same")) == (3, 3)
    await db.transact(erase_payload, TENANT, text(b"same"))
    assert await db.read_current(held, TENANT, text(b"same")) == (3, 0)
    assert await db.read_current(held, "other", text(b"same")) == (1, 1)
    assert await db.read_current(held, TENANT, text(b"never")) == (0, 0)


async def test_only_the_old_ones_expire(db: Database) -> None:
    """What is older goes with its answer, a bounded number at a time; what is younger stays."""
    await commit(db, *(pending(str(n), ts_us=n) for n in range(1, 8)))
    await commit(db, pending("x", tenant="other", ts_us=1))
    gone = [await db.transact(expire, TENANT, before_us=6, limit=2) for _ in range(4)]
    assert gone == [2, 2, 1, 0]
    old, young = await commit(db, pending("5"), pending("6"))
    assert isinstance(old, Erased)
    assert isinstance(young, Replay)
    assert await db.read_current(held, "other", text(b"payload of x")) == (1, 1)
    assert len(await receipts_of(db, "trace-1")) == 7


async def test_a_younger_receipt_keeps_the_same_payload(db: Database) -> None:
    """Of two receipts with one CID the older loses its copy; the payload is found by the other."""
    await commit(db, pending("a", payload=b"same", ts_us=1))
    await commit(db, pending("b", payload=b"same", ts_us=9))
    assert await db.transact(expire, TENANT, before_us=5, limit=10) == 1
    found = await db.read_current(payload, TENANT, text(b"same"))
    assert found is not None
    assert found.body == b"same"


async def test_tenants_with_payloads_are_found(db: Database) -> None:
    """Each tenant that has a payload, in order, and none whose payloads are gone."""
    await commit(db, *(pending("a", tenant=name) for name in ("b", "a", "C")))
    await db.transact(erase_payload, "b", text(b"payload of a"))
    names: list[str] = []
    name: str | None = ""
    while name is not None and (name := await db.read_current(next_tenant, name)) is not None:
        names.append(name)
    assert names == ["C", "a"]


async def test_intents_are_the_tenant_s_own(db: Database) -> None:
    """What is under way is shown to its own tenant only, up to a limit."""
    for tenant, name in ((TENANT, "a"), (TENANT, "b"), ("other", "c")):
        wish = Claim(
            tenant=tenant,
            trace_id="t",
            key_hash=key(name),
            fingerprint=b"f",
            owner="o",
            lease_us=1_000_000,
            intent=name.encode(),
            spends_key=True,
        )
        await db.transact(claim, wish)
    assert sorted(await db.read_current(intents, TENANT, 10)) == [b"a", b"b"]
    assert len(await db.read_current(intents, TENANT, 1)) == 1
