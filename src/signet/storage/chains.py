"""Walking through the whole log, page by page, while others go on writing to it.

Every page is one short snapshot. What a page shows of a chain never changes afterwards, because
receipts are append-only; what is appended behind the walk is seen by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from signet.storage.tx import PerRow, ReadTx


class LogRow(NamedTuple):
    """A receipt as the log holds it, with the columns that repeat what its bytes say."""

    trace: int
    hop: int
    tenant: str
    kind: str
    outcome: str
    vex_units: int
    fu_tokens: int
    receipt_hash: bytes
    jws: str
    canonical: bytes


class HeadRow(NamedTuple):
    """A chain's head, with the receipt that it points at, and whether another one follows that."""

    tenant: str
    trace_id: str
    trace: int
    hop: int
    receipt_hash: bytes
    found_hash: bytes | None
    next_hop: int | None


class EntryRow(NamedTuple):
    """An entry of the audit log, and where its tenant's chain ended in the same snapshot."""

    tenant: str
    seq: int
    body: bytes
    head_seq: int | None
    head_hash: bytes | None


class Usage(NamedTuple):
    """What receipts metered: whole sums, or those of a page that ends at `last`."""

    vex: int
    fu: int
    last: int | None


class Month(NamedTuple):
    """A tenant's billing period."""

    tenant: str
    period: str


async def log_page(tx: ReadTx, after: tuple[int, int], limit: int) -> list[LogRow]:
    """Receipts chain by chain, in the order of their hops, behind (trace, hop)."""
    return await tx.all(
        LogRow,
        """
        SELECT trace, hop, tenant, kind, outcome, vex_units, fu_tokens,
            receipt_hash, jws, canonical
        FROM receipts WHERE (trace, hop) > (:trace, :hop) ORDER BY trace, hop LIMIT :limit
        """,
        trace=after[0],
        hop=after[1],
        limit=limit,
    )


async def heads_of(
    tx: ReadTx, names: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Where the chains called (tenant, trace_id) are and end: their trace and hop."""
    rows = await tx.each(_head_place, _HEAD_PLACES, names)
    return {(tenant, trace_id): (trace, hop) for tenant, trace_id, trace, hop in rows}


async def heads_page(tx: ReadTx, after: tuple[str, str], limit: int) -> list[HeadRow]:
    """Heads behind (tenant, trace_id), in that order."""
    return await tx.all(
        HeadRow,
        """
        SELECT h.tenant, h.trace_id, h.trace, h.hop, h.receipt_hash, r.receipt_hash, n.hop
        FROM heads h
        LEFT JOIN receipts r ON r.trace = h.trace AND r.hop = h.hop
        LEFT JOIN receipts n ON n.trace = h.trace AND n.hop = h.hop + 1
        WHERE (h.tenant, h.trace_id) > (:tenant, :trace_id)
        ORDER BY h.tenant, h.trace_id LIMIT :limit
        """,
        tenant=after[0],
        trace_id=after[1],
        limit=limit,
    )


async def entries_page(tx: ReadTx, after: tuple[str, int], limit: int) -> list[EntryRow]:
    """Entries of the audit log behind (tenant, seq), in that order."""
    return await tx.all(
        EntryRow,
        """
        SELECT e.tenant, e.seq, e.body, h.seq, h.entry_hash
        FROM audit_entries e LEFT JOIN audit_heads h ON h.tenant = e.tenant
        WHERE (e.tenant, e.seq) > (:tenant, :seq) ORDER BY e.tenant, e.seq LIMIT :limit
        """,
        tenant=after[0],
        seq=after[1],
        limit=limit,
    )


async def empty_audit_chains(tx: ReadTx) -> list[str]:
    """Tenants whose audit chain has an end and no entry at all."""
    return await tx.all(
        str,
        """
        SELECT h.tenant FROM audit_heads h WHERE NOT EXISTS (
            SELECT 1 FROM audit_entries e WHERE e.tenant = h.tenant
        ) ORDER BY h.tenant
        """,
    )


async def next_month(tx: ReadTx, after: Month) -> Month | None:
    """The first month behind `after` that has receipts or totals; None: there is none."""
    metered = await tx.one(
        Month,
        """
        SELECT tenant, period FROM receipts
        WHERE (tenant, period) > (:tenant, :period) AND (vex_units > 0 OR fu_tokens > 0)
        ORDER BY tenant, period LIMIT 1
        """,
        tenant=after.tenant,
        period=after.period,
    )
    totalled = await tx.one(
        Month,
        """
        SELECT tenant, period FROM usage_totals
        WHERE (tenant, period) > (:tenant, :period) ORDER BY tenant, period LIMIT 1
        """,
        tenant=after.tenant,
        period=after.period,
    )
    return min((month for month in (metered, totalled) if month), key=_code_points, default=None)


async def metered_page(
    tx: ReadTx, month: Month, *, after: int, upto: int | None, limit: int
) -> Usage:
    """The sums over the month's next receipts by id, at most `limit` and none above `upto`."""
    found = await tx.one(
        Usage,
        """
        SELECT CAST(coalesce(sum(vex_units), 0) AS BIGINT),
            CAST(coalesce(sum(fu_tokens), 0) AS BIGINT), max(id)
        FROM (
            SELECT id, vex_units, fu_tokens FROM receipts
            WHERE tenant = :tenant AND period = :period AND id > :after AND id <= :upto
                AND (vex_units > 0 OR fu_tokens > 0)
            ORDER BY id LIMIT :limit
        ) AS metered
        """,
        tenant=month.tenant,
        period=month.period,
        after=after,
        upto=_EVER if upto is None else upto,
        limit=limit,
    )
    assert found is not None, "an aggregate has one row"
    return found


_EVER = 2**63 - 1


def _head_place(tenant: str, trace_id: str, trace: int, hop: int) -> tuple[str, str, int, int]:
    return tenant, trace_id, trace, hop


def _code_points(month: Month) -> tuple[bytes, bytes]:
    """Both engines order text by its UTF-8 bytes."""
    return month.tenant.encode(), month.period.encode()


_HEAD_PLACES = PerRow(
    sqlite="SELECT tenant, trace_id, trace, hop FROM heads WHERE tenant = ? AND trace_id = ?",
    postgres="""
        SELECT h.tenant, h.trace_id, h.trace, h.hop
        FROM unnest($1::text[], $2::text[]) AS k (tenant, trace_id)
        JOIN heads h ON h.tenant = k.tenant AND h.trace_id = k.trace_id
    """,
)
