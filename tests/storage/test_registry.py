"""Run-time types and mappings: immutable versions, global and per tenant."""

from __future__ import annotations

import asyncio

import pytest
from tests.storage.ledger import TENANT, text

from signet.storage.database import Database
from signet.storage.registry import (
    EVERYONE,
    Bounds,
    Changed,
    Kept,
    StoredDocument,
    changes,
    deprecate,
    documents,
    kept,
    put,
    revision,
)

pytestmark = pytest.mark.anyio

WIDE = Bounds(documents=1_000, size_bytes=1 << 20)


def document(name: str, body: bytes = b"{}", tenant: str = TENANT) -> StoredDocument:
    """A schema document."""
    return StoredDocument(tenant, "type", name, body, text(body), 1)


async def test_versions_are_immutable(db: Database) -> None:
    """The same document again is the same; another one under the name is a conflict."""
    assert await db.transact(put, document("a.v1"), WIDE, beside=0) == "stored"
    assert await db.transact(put, document("a.v1"), WIDE, beside=0) == "same"
    assert await db.transact(put, document("a.v1", b"[]"), WIDE, beside=0) == "conflict"
    assert await db.read(documents, TENANT) == [document("a.v1")]


async def test_each_owner_has_its_own(db: Database) -> None:
    """One name may be everyone's, and each tenant's, with other content."""
    for item in [document("a.v1", tenant=EVERYONE), document("a.v1"), document("a.v1", b"[]", "b")]:
        assert await db.transact(put, item, WIDE, beside=0) == "stored"
    assert await db.read(documents, TENANT) == [document("a.v1")]
    assert await db.read(documents, "b") == [document("a.v1", b"[]", "b")]
    assert await db.read(documents, "third") == []


async def test_an_owner_keeps_no_more_than_its_bounds(db: Database) -> None:
    """Neither more documents nor more bytes; what is there already may be said again."""
    two = Bounds(documents=2, size_bytes=5)
    assert await db.transact(put, document("a.v1"), two, beside=0) == "stored"
    assert await db.transact(put, document("b.v1", b"[ ] "), two, beside=0) == "full"
    assert await db.transact(put, document("b.v1", b"[ ]"), two, beside=1) == "stored"
    assert await db.transact(put, document("c.v1", b""), two, beside=0) == "full"
    assert await db.transact(put, document("a.v1"), two, beside=0) == "same"
    assert await db.transact(put, document("c.v1", tenant="other"), two, beside=0) == "stored"
    assert await db.read(kept, TENANT) == Kept(2, 5)


async def test_the_bounds_hold_among_many_at_once(db: Database) -> None:
    """Whoever comes at the same time waits, and counts what the others have written."""
    few = Bounds(documents=3, size_bytes=1 << 20)

    async def register(number: int) -> str:
        for beside in range(8):
            put_so = await db.transact(put, document(f"d{number}.v1"), few, beside=beside)
            if put_so != "moved":
                return put_so
        return "moved"

    results = await asyncio.gather(*map(register, range(8)))
    assert sorted(set(results)) == ["full", "stored"]
    assert results.count("stored") == 3


async def test_what_was_checked_beside_others_is_not_stored_beside_more(db: Database) -> None:
    """A document that came between sends the other one back to its check."""
    assert await db.transact(put, document("a.v1"), WIDE, beside=0) == "stored"
    assert await db.transact(put, document("b.v1"), WIDE, beside=0) == "moved"
    assert await db.transact(put, document("b.v1"), WIDE, beside=1) == "stored"


async def test_a_version_is_deprecated_and_not_removed(db: Database) -> None:
    """It keeps its content and first time; what is said of it may be said anew, or withdrawn."""
    await db.transact(put, document("a.v1"), WIDE, beside=0)
    said = {"deprecated_us": 5, "deprecation": "{}"}
    before = await db.transact(deprecate, TENANT, "type", "a.v1", **said)
    assert before == document("a.v1")
    again = {"deprecated_us": 9, "deprecation": '{"detail":"x"}'}
    await db.transact(deprecate, TENANT, "type", "a.v1", **again)
    (found,) = await db.read(documents, TENANT)
    assert (found.deprecated_us, found.deprecation) == (5, '{"detail":"x"}')
    await db.transact(deprecate, TENANT, "type", "a.v1", deprecated_us=None, deprecation=None)
    assert await db.read(documents, TENANT) == [document("a.v1")]


async def test_nobody_deprecates_what_is_not_theirs(db: Database) -> None:
    """Another owner's document, or none, is not found and not changed."""
    await db.transact(put, document("a.v1", tenant=EVERYONE), WIDE, beside=0)
    said = {"deprecated_us": 5, "deprecation": "{}"}
    assert await db.transact(deprecate, TENANT, "type", "a.v1", **said) is None
    assert await db.read(documents, EVERYONE) == [document("a.v1", tenant=EVERYONE)]


async def test_every_change_can_be_followed(db: Database) -> None:
    """Whoever asks for what came after the revision they saw is told every owner that changed."""
    assert await db.read(revision) == 0
    assert await db.read(changes, 0) == []
    await db.transact(put, document("a.v1"), WIDE, beside=0)
    await db.transact(put, document("a.v1", tenant=EVERYONE), WIDE, beside=0)
    seen = await db.read(revision)
    assert {change.tenant for change in await db.read(changes, 0)} == {TENANT, EVERYONE}
    assert await db.read(changes, seen) == []
    await db.transact(deprecate, TENANT, "type", "a.v1", deprecated_us=5, deprecation="{}")
    assert await db.read(changes, seen) == [Changed(TENANT, await db.read(revision))]
