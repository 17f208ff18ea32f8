"""Types and mappings added while the gateway runs. Versions are immutable."""

from __future__ import annotations

from typing import Literal, NamedTuple

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
    raise NotImplementedError


async def documents(tx: ReadTx, tenant: str) -> list[StoredDocument]:
    """The global documents and the tenant's own, in the order they were added."""
    raise NotImplementedError


async def revision(tx: ReadTx) -> int:
    """Grows with every document added; compare it to know whether to load again."""
    raise NotImplementedError
