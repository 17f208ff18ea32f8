"""Run-time types and mappings: immutable versions, global and per tenant."""

from __future__ import annotations

import pytest
from tests.storage.ledger import TENANT, text

from signet.storage.database import Database
from signet.storage.registry import StoredDocument, documents, put, revision

pytestmark = pytest.mark.anyio


def document(name: str, body: bytes = b"{}", tenant: str = TENANT) -> StoredDocument:
    """A schema document."""
    return StoredDocument(tenant, "schema", name, body, text(body), 1)


async def test_versions_are_immutable(db: Database) -> None:
    """The same document again is the same; another one under the name is a conflict."""
    assert await db.transact(put, document("a.v1")) == "stored"
    assert await db.transact(put, document("a.v1")) == "same"
    assert await db.transact(put, document("a.v1", b"[]")) == "conflict"
    assert await db.read(documents, TENANT) == [document("a.v1")]


async def test_tenants_see_the_global_and_their_own(db: Database) -> None:
    """A tenant's documents are its own; global ones serve everyone."""
    for item in [document("a.v1", tenant=""), document("a.v1"), document("a.v1", tenant="other")]:
        assert await db.transact(put, item) == "stored"
    assert [d.tenant for d in await db.read(documents, TENANT)] == ["", TENANT]
    assert [d.tenant for d in await db.read(documents, "third")] == [""]


async def test_revision_grows(db: Database) -> None:
    """Every added document changes the revision, and nothing else does."""
    assert await db.read(revision) == 0
    await db.transact(put, document("a.v1"))
    first = await db.read(revision)
    await db.transact(put, document("a.v1"))
    assert await db.read(revision) == first
    await db.transact(put, document("b.v1"))
    assert await db.read(revision) > first
