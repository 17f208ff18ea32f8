"""Payloads that are erased, by their owner's wish or because of their age; receipts stand.

A payload, its salt and the stored answer that carries it go together, in one transaction.
"""

from __future__ import annotations

from typing import NamedTuple

from signet.storage.hashes import digest
from signet.storage.tx import PerRow, ReadTx, Tx


class Held(NamedTuple):
    """How many receipts name a payload, and how many of them still have it."""

    receipts: int
    live: int


async def held(tx: ReadTx, tenant: str, cid: str) -> Held:
    """What a tenant holds under a CID. Raises ValueError for a malformed one."""
    found = await tx.one(
        Held,
        """
        SELECT count(*), count(body) FROM payloads WHERE tenant = :tenant AND cid = :cid
        """,
        tenant=tenant,
        cid=digest(cid),
    )
    assert found is not None, "an aggregate has one row"
    return found


async def intents(tx: ReadTx, tenant: str, limit: int) -> list[bytes]:
    """What a tenant's exchanges under way have written down: each may hold a payload."""
    return await tx.all(
        bytes,
        "SELECT intent FROM claims WHERE tenant = :tenant ORDER BY key_hash LIMIT :limit",
        tenant=tenant,
        limit=limit,
    )


async def next_tenant(tx: ReadTx, after: str) -> str | None:
    """The first tenant behind `after`, by code points, that has payloads; None: there is none."""
    return await tx.one(
        str,
        """
        SELECT tenant FROM payloads WHERE tenant > :after AND body IS NOT NULL
        ORDER BY tenant, ts_us LIMIT 1
        """,
        after=after,
    )


async def expire(tx: Tx, tenant: str, *, before_us: int, limit: int) -> int:
    """Erase up to `limit` of a tenant's payloads older than a time; how many went."""
    old = await tx.all(
        int,
        """
        SELECT receipt FROM payloads
        WHERE tenant = :tenant AND ts_us < :before_us AND body IS NOT NULL
        ORDER BY ts_us LIMIT :limit
        """,
        tenant=tenant,
        before_us=before_us,
        limit=limit,
    )
    rows = [(receipt,) for receipt in sorted(old)]
    await tx.execute_each(_ERASED_ANSWERS, rows)
    return await tx.execute_each(_ERASED_PAYLOADS, rows)


_ERASED_ANSWERS = PerRow(
    sqlite="UPDATE answers SET body = NULL WHERE receipt = ?",
    postgres="UPDATE answers SET body = NULL WHERE receipt = ANY ($1::bigint[])",
)
_ERASED_PAYLOADS = PerRow(
    sqlite="""
        UPDATE payloads SET body = NULL, salt = NULL WHERE receipt = ? AND body IS NOT NULL
    """,
    postgres="""
        UPDATE payloads SET body = NULL, salt = NULL
        WHERE receipt = ANY ($1::bigint[]) AND body IS NOT NULL
    """,
)
