"""What was metered. The receipt row is the usage row; totals per period run along with it."""

from __future__ import annotations

from typing import NamedTuple

from signet.storage.hashes import hash_text
from signet.storage.tx import ReadTx


class Total(NamedTuple):
    """Units of one meter in one billing period."""

    meter: str
    period: str
    units: int


class BilledReceipt(NamedTuple):
    """One receipt with what it metered; `number` grows in the order of writing."""

    number: int
    receipt_hash: str
    ts_us: int
    kind: str
    outcome: str
    vex_units: int
    fu_tokens: int


async def totals(tx: ReadTx, tenant: str, period: str) -> list[Total]:
    """The running totals ("vex", "fu") of a period: a few indexed rows, never a scan."""
    return await tx.all(
        Total,
        """
        SELECT meter, period, CAST(sum(units) AS BIGINT) FROM usage_totals
        WHERE tenant = :tenant AND period = :period GROUP BY period, meter ORDER BY period, meter
        """,
        tenant=tenant,
        period=period,
    )


async def settled(tx: ReadTx) -> int:
    """The receipt number up to which the log is complete: none will appear at or below it.

    Whoever follows the log by number must not go beyond. Ask in a transaction of its own and read
    the receipts in a later one; a snapshot taken before could lack some of them.
    """
    if tx.engine == "sqlite":
        return await tx.one(int, "SELECT coalesce(max(id), 0) FROM receipts") or 0
    return await tx.one(int, "SELECT receipts_settled()") or 0


async def billed_receipts(
    tx: ReadTx, tenant: str, period: str, *, after: int = 0, limit: int = 1000
) -> list[BilledReceipt]:
    """A tenant's receipts that metered anything in a period, in the order they were written.

    Page on with `after` set to the last `number` seen.
    """
    return await tx.all(
        _billed,
        """
        SELECT id, receipt_hash, ts_us, kind, outcome, vex_units, fu_tokens FROM receipts
        WHERE tenant = :tenant AND period = :period AND id > :after
            AND (vex_units > 0 OR fu_tokens > 0)
        ORDER BY id LIMIT :limit
        """,
        tenant=tenant,
        period=period,
        after=after,
        limit=limit,
    )


def _billed(
    number: int,
    receipt_hash: bytes,
    ts_us: int,
    kind: str,
    outcome: str,
    vex_units: int,
    fu_tokens: int,
) -> BilledReceipt:
    return BilledReceipt(
        number, hash_text(receipt_hash), ts_us, kind, outcome, vex_units, fu_tokens
    )
