"""Types, tools and mappings added while the gateway runs. Versions are immutable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from signet.storage.hashes import digest, hash_text
from signet.storage.tx import ReadTx, Tx

EVERYONE: Final = ""
"""The owner of documents that serve every tenant."""


class StoredDocument(NamedTuple):
    """One document; `tenant` is `EVERYONE` when it serves everyone. `kind` is the registry's word.

    `deprecation` is a JSON text that says what to use instead.
    """

    tenant: str
    kind: str
    name: str
    document: bytes
    cid: str
    created_us: int
    deprecated_us: int | None = None
    deprecation: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one owner may keep."""

    documents: int
    size_bytes: int


class Kept(NamedTuple):
    """What an owner keeps."""

    documents: int
    size_bytes: int


class Changed(NamedTuple):
    """An owner whose documents have changed, and the revision of the last change."""

    tenant: str
    revision: int


async def put(
    tx: Tx, document: StoredDocument, bounds: Bounds, *, beside: int
) -> Literal["stored", "same", "conflict", "full", "moved"]:
    """Add a document; "same" if this very version is there, "conflict" if the name has another.

    Nothing is written either when the owner would keep more than `bounds` allow ("full"), or does
    not keep just as many documents as the new one was checked `beside` ("moved").
    """
    revision = await _next_revision(tx)
    there = await _cid(tx, document.tenant, document.kind, document.name)
    if there is not None:
        return "same" if there == digest(document.cid) else "conflict"
    have = await kept(tx, document.tenant)
    size_bytes = have.size_bytes + len(document.document)
    if have.documents >= bounds.documents or size_bytes > bounds.size_bytes:
        return "full"
    if have.documents != beside:
        return "moved"
    await tx.execute(
        """
        INSERT INTO registry_documents
            (tenant, kind, name, document, cid, created_us, revision)
        VALUES (:tenant, :kind, :name, :document, :cid, :created_us, :revision)
        """,
        tenant=document.tenant,
        kind=document.kind,
        name=document.name,
        document=document.document,
        cid=digest(document.cid),
        created_us=document.created_us,
        revision=revision,
    )
    return "stored"


async def deprecate(
    tx: Tx,
    tenant: str,
    kind: str,
    name: str,
    *,
    deprecated_us: int | None,
    deprecation: str | None,
) -> StoredDocument | None:
    """Say that a version is deprecated, or (None) that it is not; return it as it was before.

    None when the owner has no such document. One that is deprecated keeps its first time.
    """
    revision = await _next_revision(tx)
    before = await one(tx, tenant, kind, name)
    if before is None:
        return None
    if deprecated_us is not None and before.deprecated_us is not None:
        deprecated_us = before.deprecated_us
    if (before.deprecated_us, before.deprecation) == (deprecated_us, deprecation):
        return before
    await tx.execute(
        """
        UPDATE registry_documents
        SET deprecated_us = :deprecated_us, deprecation = :deprecation, revision = :revision
        WHERE tenant = :tenant AND kind = :kind AND name = :name
        """,
        deprecated_us=deprecated_us,
        deprecation=deprecation,
        revision=revision,
        tenant=tenant,
        kind=kind,
        name=name,
    )
    return before


async def one(tx: ReadTx, tenant: str, kind: str, name: str) -> StoredDocument | None:
    """The owner's document of this name."""
    return await tx.one(
        _document,
        """
        SELECT tenant, kind, name, document, cid, created_us, deprecated_us, deprecation
        FROM registry_documents WHERE tenant = :tenant AND kind = :kind AND name = :name
        """,
        tenant=tenant,
        kind=kind,
        name=name,
    )


async def documents(tx: ReadTx, tenant: str) -> list[StoredDocument]:
    """The owner's own documents, in the order they were added; `put` has bounded them."""
    return await tx.all(
        _document,
        """
        SELECT tenant, kind, name, document, cid, created_us, deprecated_us, deprecation
        FROM registry_documents WHERE tenant = :tenant ORDER BY id
        """,
        tenant=tenant,
    )


async def kept(tx: ReadTx, tenant: str) -> Kept:
    """How much the owner keeps."""
    found = await tx.one(
        Kept,
        """
        SELECT count(*), coalesce(sum(length(document)), 0)
        FROM registry_documents WHERE tenant = :tenant
        """,
        tenant=tenant,
    )
    assert found is not None, "an aggregate has a row"
    return Kept(int(found.documents), int(found.size_bytes))


async def revision(tx: ReadTx) -> int:
    """Grows with every change; compare it to know whether to ask for `changes`."""
    return await tx.one(int, "SELECT revision FROM registry_revision") or 0


async def changes(tx: ReadTx, after: int) -> list[Changed]:
    """Every owner that has changed something after revision `after`."""
    return await tx.all(
        Changed,
        """
        SELECT tenant, max(revision) FROM (
            SELECT tenant, revision FROM registry_documents WHERE revision > :after
            -- Without the order SQLite would read all documents, by owner.
            ORDER BY revision LIMIT :every
        ) AS changed GROUP BY tenant
        """,
        after=after,
        every=2**62,
    )


async def _next_revision(tx: Tx) -> int:
    """The revision of this transaction; every other change waits until it ends."""
    await tx.execute("UPDATE registry_revision SET revision = revision + 1")
    return await revision(tx)


async def _cid(tx: ReadTx, tenant: str, kind: str, name: str) -> bytes | None:
    return await tx.one(
        bytes,
        """
        SELECT cid FROM registry_documents
        WHERE tenant = :tenant AND kind = :kind AND name = :name
        """,
        tenant=tenant,
        kind=kind,
        name=name,
    )


def _document(
    tenant: str,
    kind: str,
    name: str,
    document: bytes,
    cid: bytes,
    created_us: int,
    deprecated_us: int | None,
    deprecation: str | None,
) -> StoredDocument:
    return StoredDocument(
        tenant, kind, name, document, hash_text(cid), created_us, deprecated_us, deprecation
    )
