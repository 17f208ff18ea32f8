"""Reading the log: tenant by tenant, page by page, and what erasure leaves."""

from __future__ import annotations

import pytest
from tests.storage.ledger import TENANT, commit, hashes, pending, text

from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.exchanges import Committed
from signet.storage.receipts import (
    StoredPayload,
    by_hash,
    chain,
    erase_payload,
    head,
    iter_chain,
    payload,
)
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


async def test_by_hash_returns_the_signed_bytes(db: Database) -> None:
    """A receipt comes back exactly as it was sealed."""
    [result] = await commit(db, pending("a"))
    assert isinstance(result, Committed)
    sealed = result.sealed
    found = await db.read(by_hash, TENANT, sealed.receipt_hash)
    assert found == (1, sealed.receipt_hash, sealed.canonical, sealed.jws)


async def test_another_tenants_receipt_is_not_found(db: Database) -> None:
    """Receipts, chains, heads and payloads of another tenant do not exist."""
    [receipt_hash] = hashes(await commit(db, pending("a")))
    assert await db.read(by_hash, "other", receipt_hash) is None
    assert await db.read(chain, "other", "trace-1") == []
    assert await db.read(head, "other", "trace-1") is None
    assert await db.read(payload, "other", text(b"payload of a")) is None
    assert await db.transact(erase_payload, "other", text(b"payload of a")) == 0


@pytest.mark.parametrize(
    "wrong",
    ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "g" * 64, "sha256:" + " 0" * 32, "é" * 71],
)
async def test_malformed_hash_is_not_found(db: Database, wrong: str) -> None:
    """What is no hash text is simply not found, never an error."""
    await commit(db, pending("a"))
    assert await db.read(by_hash, TENANT, wrong) is None
    assert await db.read(payload, TENANT, wrong) is None
    assert await db.transact(erase_payload, TENANT, wrong) == 0


async def test_chain_pages(db: Database) -> None:
    """Pages begin where asked, are in order and bounded; past the end there is nothing."""
    await commit(db, *(pending(f"a{i}") for i in range(10)))
    assert [r.hop for r in await db.read(chain, TENANT, "trace-1")] == list(range(1, 11))

    async def page(tx: Tx) -> list[int]:
        found = await chain(tx, TENANT, "trace-1", from_hop=4, limit=3)
        return [r.hop for r in found]

    assert await db.read(page) == [4, 5, 6]
    assert await db.read(lambda tx: chain(tx, TENANT, "trace-1", from_hop=11)) == []


@pytest.mark.parametrize("page", [1, 3, 10, 256])
async def test_iteration_covers_every_hop_once(db: Database, page: int) -> None:
    """Whatever the page size, iteration gives each hop once and stops where asked."""
    await commit(db, *(pending(f"a{i}") for i in range(10)))
    hops = [r.hop async for r in iter_chain(db, TENANT, "trace-1", upto_hop=10, page=page)]
    assert hops == list(range(1, 11))
    hops = [r.hop async for r in iter_chain(db, TENANT, "trace-1", upto_hop=7, page=page)]
    assert hops == list(range(1, 8))


async def test_two_passes_see_the_same_bytes(db: Database) -> None:
    """Appends between two passes over one range change nothing in it."""
    await commit(db, *(pending(f"a{i}") for i in range(5)))
    first = [r async for r in iter_chain(db, TENANT, "trace-1", upto_hop=5)]
    await commit(db, *(pending(f"b{i}") for i in range(5)))
    assert [r async for r in iter_chain(db, TENANT, "trace-1", upto_hop=5)] == first


async def test_missing_hop_is_an_error(db: Database) -> None:
    """A chain with a hole, or shorter than said, is never passed off as whole."""
    await commit(db, *(pending(f"a{i}") for i in range(5)))
    with pytest.raises(StorageError, match="Hop 6"):
        [r async for r in iter_chain(db, TENANT, "trace-1", upto_hop=6)]

    async def tear(tx: Tx) -> None:
        await tx.execute("DELETE FROM receipts WHERE hop = 3")

    await db.transact(tear)
    with pytest.raises(StorageError, match="Hop 3"):
        [r async for r in iter_chain(db, TENANT, "trace-1", upto_hop=5)]


async def test_payload_until_erased(db: Database) -> None:
    """A payload is found by its CID until it is erased; erasing again concerns nothing."""
    await commit(db, pending("a", payload=b"secret"), pending("b", payload=b"secret"))
    cid = text(b"secret")
    assert await db.read(payload, TENANT, cid) == StoredPayload(b"secret", None)
    assert await db.transact(erase_payload, TENANT, cid) == 2
    assert await db.read(payload, TENANT, cid) == StoredPayload(None, None)
    assert await db.transact(erase_payload, TENANT, cid) == 0


async def test_erasure_spares_other_tenants(db: Database) -> None:
    """The same content of two tenants is two payloads."""
    await commit(db, pending("a", payload=b"same"), pending("a", tenant="other", payload=b"same"))
    await db.transact(erase_payload, TENANT, text(b"same"))
    assert await db.read(payload, "other", text(b"same")) == StoredPayload(b"same", None)
