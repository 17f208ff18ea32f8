"""What a proof says: its numbered steps, its levels, and a report of what was proven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from signet.receipts.value import Json


class Level(IntEnum):
    """How much is proven, each including the one before. Below them all is INVALID: an error."""

    INTEGRITY = 1  # hashes and links hold; no signature was checked against a pinned key
    SIGNED = 2  # and a key that the caller pinned signed all of it
    LOGGED = 3  # and it is included in a transparency log
    WITNESSED = 4  # and outside witnesses have seen that log


class Step(IntEnum):
    """The numbered steps of the proof."""

    TEXT = 1
    SHAPE = 2
    RECEIPTS = 3
    HASHES = 4
    CHAIN = 5
    CONTENT = 6
    RECEIPT_SIGNATURES = 7
    DOCUMENT_SIGNATURES = 8
    LEVEL = 9

    @property
    def claim(self) -> str:
        """What holds once the step is done."""
        return _CLAIMS[self]


_CLAIMS: Mapping[Step, str] = {
    Step.TEXT: "the document is one I-JSON value, with no name twice and nothing after it",
    Step.SHAPE: "the document has the members of its kind",
    Step.RECEIPTS: "every receipt has the members of its kind, well formed",
    Step.HASHES: "every receipt hashes to its receipt_hash",
    Step.CHAIN: "the receipts are one unbroken chain from hop 1, of one trace and one tenant",
    Step.CONTENT: "the document's hashes and sums are those of what it holds",
    Step.RECEIPT_SIGNATURES: "every receipt is signed by a trusted key, during that key's life",
    Step.DOCUMENT_SIGNATURES: "the document is signed by a trusted key, during that key's life",
    Step.LEVEL: "the level that was asked for is reached",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was proven. It is only ever returned when the asked level was reached.

    `signed_by` holds the thumbprints of the trusted keys whose signatures were checked.
    """

    document: str
    level: Level
    trace_id: str
    tenant: str
    hops: int
    head: str
    first_ts: str
    last_ts: str
    signed_by: tuple[str, ...]
    limits: tuple[str, ...]

    def as_json(self) -> dict[str, Json]:
        """The report as `signet verify --json` prints it."""
        return {
            "verdict": self.level.name,
            "document": self.document,
            "trace_id": self.trace_id,
            "tenant": self.tenant,
            "hops": self.hops,
            "head": self.head,
            "first_ts": self.first_ts,
            "last_ts": self.last_ts,
            "signed_by": list(self.signed_by),
            "limits": list(self.limits),
        }

    def as_text(self) -> str:
        """The report for a person."""
        hops = f"{self.hops} receipt" + ("s" if self.hops != 1 else "")
        lines = [
            f"{self.level.name}: {self.document} of trace {self.trace_id}, tenant {self.tenant}",
            f"  {hops}, {self.first_ts} to {self.last_ts}",
            f"  head {self.head}",
            *(f"  signed by {kid}" for kid in self.signed_by),
            *(f"  not proven: {limit}" for limit in self.limits),
        ]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementReport:
    """What was proven of a billing statement. `receipts` is how many it says it lists."""

    level: Level
    tenant: str
    period: str
    revision: int
    currency: str
    total: str
    lines: int
    receipts: int
    statement_hash: str
    signed_by: tuple[str, ...]
    limits: tuple[str, ...]

    def as_json(self) -> dict[str, Json]:
        """The report as `signet verify --json` prints it."""
        return {
            "verdict": self.level.name,
            "document": "statement",
            "tenant": self.tenant,
            "period": self.period,
            "revision": self.revision,
            "currency": self.currency,
            "total": self.total,
            "lines": self.lines,
            "receipts": self.receipts,
            "statement_hash": self.statement_hash,
            "signed_by": list(self.signed_by),
            "limits": list(self.limits),
        }

    def as_text(self) -> str:
        """The report for a person."""
        lines = [
            f"{self.level.name}: statement {self.revision} of {self.period}, tenant {self.tenant}",
            f"  {self.lines} lines of {self.receipts} receipts, {self.total} {self.currency}",
            f"  hash {self.statement_hash}",
            *(f"  signed by {kid}" for kid in self.signed_by),
            *(f"  not proven: {limit}" for limit in self.limits),
        ]
        return "\n".join(lines)


AnyReport = Report | StatementReport
