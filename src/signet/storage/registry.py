"""Types and mappings added while the gateway runs. Versions are immutable."""

from __future__ import annotations

from typing import Literal, NamedTuple

from signet.storage.hashes import digest, hash_text
from signet.storage.tx import ReadTx, Tx


class StoredDocument(NamedTuple):
    """One document; `tenant` is "" when it serves everyone. `kind` is the registry's own word."""

    tenant: str
    kind: str
    name: str
    document: bytes
    cid: str
    created_us: int


async def put(tx: Tx, document: StoredDocument) -> Literal["stored", "same", "conflict"]:
    """Add a document; "same" if this very version is there, "conflict" if the name has another."""
    cid = digest(document.cid)
    stored = await tx.execute(
        """
        INSERT INTO registry_documents (tenant, kind, name, document, cid, created_us)
        VALUES (:tenant, :kind, :name, :document, :cid, :created_us) ON CONFLICT DO NOTHING
        """,
        tenant=document.tenant,
        kind=document.kind,
        name=document.name,
        document=document.document,
        cid=cid,
        created_us=document.created_us,
    )
    if stored:
        return "stored"
    there = await tx.one(
        bytes,
        """
        SELECT cid FROM registry_documents
        WHERE tenant = :tenant AND kind = :kind AND name = :name
        """,
        tenant=document.tenant,
        kind=document.kind,
        name=document.name,
    )
    return "same" if there == cid else "conflict"


async def documents(tx: ReadTx, tenant: str) -> list[StoredDocument]:
    """The global documents and the tenant's own, in the order they were added."""
    return await tx.all(
        _document,
        """
        SELECT tenant, kind, name, document, cid, created_us FROM registry_documents
        WHERE tenant IN ('', :tenant) ORDER BY id
        """,
        tenant=tenant,
    )


async def revision(tx: ReadTx) -> int:
    """Grows with every document added; compare it to know whether to load again."""
    return await tx.one(int, "SELECT coalesce(max(id), 0) FROM registry_documents") or 0


def _document(
    tenant: str, kind: str, name: str, document: bytes, cid: bytes, created_us: int
) -> StoredDocument:
    return StoredDocument(tenant, kind, name, document, hash_text(cid), created_us)
