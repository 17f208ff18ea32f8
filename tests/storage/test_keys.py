"""Public signing keys and their lives."""

from __future__ import annotations

import pytest

from signet.storage.database import Database
from signet.storage.errors import IntegrityViolated
from signet.storage.keys import StoredKey, publish, published, retire, revoke

pytestmark = pytest.mark.anyio


def stored(kid: str, created_us: int = 1) -> StoredKey:
    """A key without any end."""
    return StoredKey(kid, kid.encode().ljust(32, b"."), "alias", created_us, None, None, None, None)


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
