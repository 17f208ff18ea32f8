"""What was metered. The receipt row is the usage row; totals per period run along with it."""

from __future__ import annotations

from typing import NamedTuple

from signet.storage.tx import ReadTx


class Total(NamedTuple):
    """Units of one meter in one billing period."""

    meter: str
    period: str
    units: int


class BilledReceipt(NamedTuple):
    """One receipt with what it metered."""

    receipt_hash: str
    ts_us: int
    kind: str
    outcome: str
    vex_units: int
    fu_tokens: int


async def totals(tx: ReadTx, tenant: str, period: str) -> list[Total]:
    """The running totals ("vex", "fu") of a period: a few indexed rows, never a scan."""
    raise NotImplementedError


async def billed_receipts(
    tx: ReadTx, tenant: str, period: str, *, after: int = 0, limit: int = 1000
) -> list[BilledReceipt]:
    """A tenant's receipts that metered anything in a period, in the order they were written."""
    raise NotImplementedError
