"""Reading what the log holds. Receipts are append-only, so pages of one chain never change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.exchanges import Head
from signet.storage.hashes import digest, hash_text
from signet.storage.splicing import attach
from signet.storage.tx import ReadTx, Tx


class StoredReceipt(NamedTuple):
    """A receipt as it was signed. `jws` carries `canonical`."""

    hop: int
    receipt_hash: str
    canonical: bytes
    jws: str


class StoredPayload(NamedTuple):
    """A payload with its salt, if its hashes are salted; both None once erased."""

    body: bytes | None
    salt: bytes | None


async def head(tx: ReadTx, tenant: str, trace_id: str) -> Head | None:
    """The end of a chain; None: this tenant has no such trace."""
    return await tx.one(
        _head,
        "SELECT hop, receipt_hash FROM heads WHERE tenant = :tenant AND trace_id = :trace_id",
        tenant=tenant,
        trace_id=trace_id,
    )


async def by_hash(tx: ReadTx, tenant: str, receipt_hash: str) -> StoredReceipt | None:
    """One receipt of this tenant; None also for another tenant's and for a malformed hash."""
    try:
        wanted = digest(receipt_hash)
    except ValueError:
        return None
    return await tx.one(
        _receipt,
        """
        SELECT hop, receipt_hash, canonical, jws FROM receipts
        WHERE receipt_hash = :wanted AND tenant = :tenant
        """,
        wanted=wanted,
        tenant=tenant,
    )


async def chain(
    tx: ReadTx, tenant: str, trace_id: str, *, from_hop: int = 1, limit: int = 256
) -> list[StoredReceipt]:
    """Up to `limit` receipts from `from_hop` on, in order; empty: no such trace or past its end."""
    return await tx.all(
        _receipt,
        """
        SELECT r.hop, r.receipt_hash, r.canonical, r.jws
        FROM heads h JOIN receipts r ON r.trace = h.trace
        WHERE h.tenant = :tenant AND h.trace_id = :trace_id AND r.hop >= :from_hop
        ORDER BY r.hop LIMIT :limit
        """,
        tenant=tenant,
        trace_id=trace_id,
        from_hop=from_hop,
        limit=limit,
    )


async def iter_chain(
    db: Database, tenant: str, trace_id: str, *, upto_hop: int, page: int = 256
) -> AsyncIterator[StoredReceipt]:
    """Hops 1 to `upto_hop` in bounded memory.

    Take `upto_hop` from `head` once and iterate as often as needed: what is at or below it never
    changes, so every pass sees the same bytes without a transaction held open for a slow reader.
    Raises `StorageError` if a hop is missing.
    """
    hop = 1
    while hop <= upto_hop:
        # A replica may not have the newest hops yet, and this must not miss one.
        receipts = await db.read_current(
            chain, tenant, trace_id, from_hop=hop, limit=min(page, upto_hop - hop + 1)
        )
        for receipt in receipts:
            if receipt.hop != hop:
                break
            yield receipt
            hop += 1
        else:
            if receipts:
                continue
        raise StorageError(f"Hop {hop} of this chain is missing.")


async def payload(tx: ReadTx, tenant: str, cid: str) -> StoredPayload | None:
    """A payload by its CID; None: never stored here, or expired."""
    try:
        wanted = digest(cid)
    except ValueError:
        return None
    return await tx.one(
        StoredPayload,
        # Of several, retention leaves the youngest longest.
        """
        SELECT body, salt FROM payloads WHERE tenant = :tenant AND cid = :cid
        ORDER BY receipt DESC LIMIT 1
        """,
        tenant=tenant,
        cid=wanted,
    )


async def erase_payload(tx: Tx, tenant: str, cid: str) -> int:
    """Erase a payload, its salt and every stored answer that carries it; how many receipts it
    concerned. Their replays are `Erased` from then on."""
    try:
        wanted = digest(cid)
    except ValueError:
        return 0
    await tx.execute(
        """
        UPDATE answers SET body = NULL
        WHERE receipt IN (SELECT receipt FROM payloads WHERE tenant = :tenant AND cid = :cid)
        """,
        tenant=tenant,
        cid=wanted,
    )
    return await tx.execute(
        """
        UPDATE payloads SET body = NULL, salt = NULL
        WHERE tenant = :tenant AND cid = :cid AND body IS NOT NULL
        """,
        tenant=tenant,
        cid=wanted,
    )


def _head(hop: int, receipt_hash: bytes) -> Head:
    return Head(hop=hop, receipt_hash=hash_text(receipt_hash))


def _receipt(hop: int, receipt_hash: bytes, canonical: bytes, jws: str) -> StoredReceipt:
    return StoredReceipt(hop, hash_text(receipt_hash), canonical, attach(jws, canonical))
