"""How receipts hang together (docs/reference/receipts.md §2): one chain per (tenant, trace_id).

Hop 1 names nothing before it; hop n names the hash of hop n−1. So no receipt can be changed, taken
out, put in or moved without the next one telling. What a chain cannot tell is where it ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from signet.receipts.canonical import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """The first place where a chain does not hold: at which receipt, and which member says so.

    Codes: `chain_empty`, `chain_start`, `chain_fork`, `chain_hop`, `chain_link`, `chain_trace`,
    `chain_tenant`.
    """

    code: str
    detail: str
    hop: int | None = None
    member: str


def first_break(receipts: Iterable[Mapping[str, Json]]) -> Break | None:
    """None if these receipts, in this order, are a whole chain from hop 1 on.

    Takes receipts that are well formed and whose `receipt_hash` has been recomputed.
    """
    before: Mapping[str, Json] | None = None
    continued: set[Json] = set()  # the receipts that have been named as the one before
    for receipt in receipts:
        found = _break_between(before, receipt, continued)
        if found is not None:
            code, member, detail = found
            hop = receipt["hop"]
            return Break(
                code=code, member=member, detail=detail, hop=hop if isinstance(hop, int) else None
            )
        continued.add(receipt["prev_receipt_hash"])
        before = receipt
    if before is None:
        return Break(code="chain_empty", member="chain", detail="The chain has no receipts.")
    return None


def _break_between(
    before: Mapping[str, Json] | None, receipt: Mapping[str, Json], continued: set[Json]
) -> tuple[str, str, str] | None:
    hop, previous = receipt["hop"], receipt["prev_receipt_hash"]
    if before is None:
        if hop != 1:
            return "chain_start", "hop", f"The chain starts at hop {hop}, not at hop 1."
        return None
    if previous in continued:
        return "chain_fork", "prev_receipt_hash", "Two receipts continue the same one."
    if not isinstance(hop, int) or not isinstance(before["hop"], int) or hop != before["hop"] + 1:
        return "chain_hop", "hop", f"Hop {hop} follows hop {before['hop']}."
    if previous != before["receipt_hash"]:
        return "chain_link", "prev_receipt_hash", "It does not name the receipt before it."
    if receipt["trace_id"] != before["trace_id"]:
        return "chain_trace", "trace_id", "It belongs to another trace than the one before it."
    if receipt["tenant"] != before["tenant"]:
        return "chain_tenant", "tenant", "It belongs to another tenant than the one before it."
    return None
