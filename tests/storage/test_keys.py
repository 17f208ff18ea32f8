"""Public signing keys and their lives."""

from __future__ import annotations

import asyncio

import pytest
from tests.storage.ledger import commit, hashes, pending

from signet.receipts.canonical import content_id
from signet.storage.database import Database
from signet.storage.errors import IntegrityViolated
from signet.storage.keys import (
    Countersigned,
    StoredKey,
    begin,
    countersign,
    countersignatures,
    publish,
    published,
    retire,
    revoke,
    take_turn,
)
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


def stored(kid: str, created_us: int = 1) -> StoredKey:
    """A key without any end."""
    return StoredKey(kid, kid.encode().ljust(32, b"."), kid, created_us, None, None, None, None)


async def test_publish_once(db: Database) -> None:
    """Several nodes may publish one key; the first row stands."""
    assert await db.transact(publish, stored("k1"))
    assert not await db.transact(publish, stored("k1", created_us=9))
    assert await db.read(published) == [stored("k1")]


async def test_oldest_first(db: Database) -> None:
    """Keys are listed in the order they were made."""
    for kid, created_us in [("b", 2), ("c", 3), ("a", 1)]:
        await db.transact(publish, stored(kid, created_us))
    assert [key.kid for key in await db.read(published)] == ["a", "b", "c"]


async def test_retire_and_revoke(db: Database) -> None:
    """A key ends once in each way, and its ends are kept."""
    await db.transact(publish, stored("k1"))
    assert await db.transact(lambda tx: retire(tx, "k1", retired_us=5, exp_us=10))
    assert not await db.transact(lambda tx: retire(tx, "k1", retired_us=6))
    assert await db.transact(revoke, "k1", 7)
    assert not await db.transact(revoke, "k1", 8)
    assert not await db.transact(revoke, "unknown", 8)
    [key] = await db.read(published)
    assert (key.retired_us, key.exp_us, key.revoked_us) == (5, 10, 7)


async def test_public_key_has_32_bytes(db: Database) -> None:
    """What cannot be an Ed25519 public key is refused by the schema."""
    with pytest.raises(IntegrityViolated):
        await db.transact(publish, stored("k1")._replace(public=b"short"))


async def test_an_alias_stays_with_its_first_key(db: Database) -> None:
    """Two keys never claim one name, and a key that was known keeps its own."""
    await db.transact(publish, stored("k1")._replace(alias="mine"))
    assert await db.transact(publish, stored("k2", created_us=2)._replace(alias="mine"))
    assert not await db.transact(publish, stored("k1")._replace(alias="mine"))
    assert [key.alias for key in await db.read(published)] == ["mine", None]


async def test_a_known_key_learns_its_webhook_key(db: Database) -> None:
    """A row that an older release wrote is completed, and then stays."""
    await db.transact(publish, stored("k1"))
    for webhook in (b"w" * 32, b"v" * 32):
        assert not await db.transact(publish, stored("k1")._replace(webhook=webhook))
        [key] = await db.read(published)
        assert key.webhook == b"w" * 32


async def test_a_key_begins_once(db: Database) -> None:
    """When it signs is decided once, and never for a key that has ended."""
    for kid in ("k1", "k2", "k3"):
        await db.transact(publish, stored(kid))
    assert await db.transact(lambda tx: begin(tx, "k1", signs_from_us=5))
    assert not await db.transact(lambda tx: begin(tx, "k1", signs_from_us=6))
    await db.transact(lambda tx: retire(tx, "k2", retired_us=5))
    await db.transact(revoke, "k3", 5)
    for kid in ("k2", "k3", "unknown"):
        assert not await db.transact(lambda tx, kid=kid: begin(tx, kid, signs_from_us=6))
    assert [key.signs_from_us for key in await db.read(published)] == [5, None, None]


async def test_changes_come_one_after_another(db: Database) -> None:
    """Of two that read and then write, the second sees what the first wrote."""

    async def add(tx: Tx) -> None:
        await take_turn(tx)
        count = len(await published(tx))
        await publish(tx, stored(f"k{count}"))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(8):
            tasks.create_task(db.transact(add))
    assert sorted(key.kid for key in await db.read(published)) == [f"k{n}" for n in range(8)]


async def test_countersignatures_of_one_chain(db: Database) -> None:
    """They are found by the chain and the hop of the receipt that they belong to."""
    log = [pending(name, trace="log") for name in ("one", "two", "three")]
    first, _, third, other = hashes(await commit(db, *log, pending("four", trace="other")))
    for receipt_hash, jws in ((first, "a"), (third, "c"), (other, "o")):
        await db.transact(countersign, receipt_hash, jws)
    await db.transact(countersign, content_id(b"of no receipt"), "n")
    found = await db.read(lambda tx: countersignatures(tx, "acme", "log", upto_hop=3))
    assert found == [Countersigned(1, "a"), Countersigned(3, "c")]
    found = await db.read(lambda tx: countersignatures(tx, "acme", "log", upto_hop=2))
    assert found == [Countersigned(1, "a")]
    assert await db.read(lambda tx: countersignatures(tx, "globex", "log", upto_hop=3)) == []
