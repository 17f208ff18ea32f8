"""Auditing a live database: is every chain whole, every hash right, every unit accounted for?

Four walks, each page by page in bounded memory, while gateways go on writing:

1. every receipt: its bytes hash to its name, carry its signature, follow the receipt before, and
   say what its columns say;
2. every head: it points at the last receipt of its chain;
3. every month: its running totals are the sums over its receipts;
4. every entry of the audit log: its bytes hash to its hash, it follows the entry before, and each
   tenant's chain begins where it was pruned and ends where its head says.

What a chain cannot tell is that its newest receipts are gone together with their head and units;
an export that a client kept, or a transparency log, tells that.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from signet.receipts.audit import PRUNED
from signet.receipts.canonical import Json, canonicalize, content_id, parse_for_verification
from signet.receipts.errors import CanonicalError, KeyFormatError, ParseError
from signet.receipts.keys import KeySet, PublicKey, b64url, from_b64url
from signet.storage import chains as log
from signet.storage import keys as stored_keys
from signet.storage import usage
from signet.storage.chains import EntryRow, HeadRow, LogRow, Month
from signet.storage.database import Database
from signet.storage.hashes import hash_text
from signet.storage.tx import ReadTx

FlawKind = Literal[
    "receipt_unreadable",
    "receipt_hash",
    "receipt_columns",
    "receipt_signature",
    "chain_hop",
    "chain_link",
    "chain_owner",
    "head_missing",
    "head_wrong",
    "usage_drift",
    "audit_entry",
    "audit_link",
    "audit_head",
]
FLAW_KINDS: Final[Sequence[FlawKind]] = FlawKind.__args__

_METERED_PAGE: Final = 5_000  # integers from an index, so a page costs little


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """Something that does not hold. `subject` is a trace with its hop, a billing period or an audit
    entry."""

    kind: FlawKind
    tenant: str
    subject: str
    detail: str


@dataclass(slots=True)
class Progress:
    """What has been looked at so far."""

    receipts: int = 0
    chains: int = 0
    heads: int = 0
    months: int = 0
    entries: int = 0
    flaws: int = 0


class _Walk(Protocol):
    async def step(self, database: Database, progress: Progress, page: int) -> list[Flaw] | None:
        """Look at the next page; None: there is none left."""
        ...


class Audit:
    """One pass over the whole database. A step that fails can be taken again."""

    def __init__(self, database: Database, *, page: int) -> None:
        self.progress = Progress()
        self._database = database
        self._page = page
        self._walks: deque[_Walk] = deque((_Receipts(), _Heads(), _Months(), _Entries()))

    async def step(self) -> list[Flaw] | None:
        """Look at one page and return what is wrong with it; None once everything was seen."""
        while self._walks:
            flaws = await self._walks[0].step(self._database, self.progress, self._page)
            if flaws is not None:
                self.progress.flaws += len(flaws)
                return flaws
            self._walks.popleft()
        return None


async def audit(
    database: Database, *, page: int = 256
) -> AsyncIterator[tuple[Progress, list[Flaw]]]:
    """Go through everything; yield the progress and the flaws of each page."""
    whole = Audit(database, page=page)
    while (flaws := await whole.step()) is not None:
        yield whole.progress, flaws


class _Receipts:
    """Walk 1. Remembers the last receipt seen, which the next one must follow."""

    def __init__(self) -> None:
        self._keys: KeySet | None = None
        self._before: tuple[LogRow, dict[str, Json]] | None = None
        self._after = (0, 0)

    async def step(self, database: Database, progress: Progress, page: int) -> list[Flaw] | None:
        rows, keys, heads = await database.read_current(self._read, page)
        if not rows:
            return None
        flaws: list[Flaw] = []
        before = self._before
        for row, members in rows:
            begins = before is None or before[0].trace != row.trace
            flaws += _receipt_flaws(row, members, keys)
            flaws += _chain_flaws(None if begins else before, row, members)
            if begins:
                progress.chains += 1
                flaws += _without_head(row, members, heads)
            before = (row, members)
        self._before = before
        self._after = (rows[-1][0].trace, rows[-1][0].hop)
        progress.receipts += len(rows)
        return flaws

    async def _read(
        self, tx: ReadTx, page: int
    ) -> tuple[
        list[tuple[LogRow, dict[str, Json]]], KeySet, dict[tuple[str, str], tuple[int, int]]
    ]:
        rows = [(row, _members(row)) for row in await log.log_page(tx, self._after, page)]
        keys = KeySet.of(
            PublicKey(raw=key.public, alias=key.alias)
            for key in await stored_keys.published(tx)
            if rows
        )
        names = sorted({(row.tenant, trace_id) for row, m in rows if (trace_id := _trace_id(m))})
        return rows, keys, await log.heads_of(tx, names)


class _Heads:
    """Walk 2."""

    def __init__(self) -> None:
        self._after = ("", "")

    async def step(self, database: Database, progress: Progress, page: int) -> list[Flaw] | None:
        rows = await database.read_current(log.heads_page, self._after, page)
        if not rows:
            return None
        self._after = (rows[-1].tenant, rows[-1].trace_id)
        progress.heads += len(rows)
        return [flaw for row in rows for flaw in _head_flaws(row)]


class _Months:
    """Walk 3. Of each month, first what is settled is added up, then the rest beside the totals."""

    def __init__(self) -> None:
        self._month = Month("", "")
        self._settled = 0
        self._after = 0
        self._vex = 0
        self._fu = 0
        self._under_way = False

    async def step(self, database: Database, progress: Progress, page: int) -> list[Flaw] | None:
        if not self._under_way:
            month = await database.read_current(log.next_month, self._month)
            if month is None:
                return None
            # In a transaction of its own: nothing can appear at or below it any more.
            self._settled = await database.read_current(usage.settled)
            self._month, self._after, self._vex, self._fu = month, 0, 0, 0
            self._under_way = True
        part = await database.read_current(
            log.metered_page,
            self._month,
            after=self._after,
            upto=self._settled,
            limit=_METERED_PAGE,
        )
        if part.last is not None:
            self._vex, self._fu, self._after = self._vex + part.vex, self._fu + part.fu, part.last
            return []
        flaws = await database.read_current(self._compare)
        self._under_way = False
        progress.months += 1
        return flaws

    async def _compare(self, tx: ReadTx) -> list[Flaw]:
        """Compare the totals with all receipts of one snapshot; only the newest are read here."""
        newest = await log.metered_page(
            tx, self._month, after=self._settled, upto=None, limit=2**31
        )
        found = {total.meter: total.units for total in await usage.totals(tx, *self._month)}
        expected = {"vex": self._vex + newest.vex, "fu": self._fu + newest.fu}
        return [
            Flaw(
                kind="usage_drift",
                tenant=self._month.tenant,
                subject=self._month.period,
                detail=f"the receipts metered {expected.get(meter, 0)} {meter},"
                f" the totals say {found.get(meter, 0)}",
            )
            for meter in sorted(expected.keys() | found.keys())
            if expected.get(meter, 0) != found.get(meter, 0)
        ]


class _Entries:
    """Walk 4. Remembers the last entry seen, and what its chain's beginning must be pruned by."""

    def __init__(self) -> None:
        self._after = ("", 0)
        self._last: EntryRow | None = None
        self._last_hash: Json = None
        self._began_behind: tuple[Json, Json] | None = None
        self._is_over = False

    async def step(self, database: Database, progress: Progress, page: int) -> list[Flaw] | None:
        if self._is_over:
            return None
        rows = await database.read_current(log.entries_page, self._after, page)
        if not rows:
            self._is_over = True
            empty = await database.read_current(log.empty_audit_chains)
            gone = [
                _entry_flaw("audit_head", name, 0, "all its entries are gone") for name in empty
            ]
            return [*self._chain_end(), *gone]
        flaws: list[Flaw] = []
        for row in rows:
            if self._last is None or self._last.tenant != row.tenant:
                flaws += self._chain_end()
                self._last = None
            flaws += self._entry(row)
        self._after = (rows[-1].tenant, rows[-1].seq)
        progress.entries += len(rows)
        return flaws

    def _entry(self, row: EntryRow) -> Iterator[Flaw]:
        members = _parsed(row.body)
        rest = {name: value for name, value in members.items() if name != "entry_hash"}
        said = (members.get("tenant"), members.get("seq"))
        if not _is_named(rest, members.get("entry_hash"), members, row.body) or said != row[:2]:
            yield _entry_flaw("audit_entry", *row[:2], "its bytes are not what was written")
        previous = members.get("prev_entry_hash")
        if self._last is None:
            # What was pruned is named by a later entry of the same chain.
            self._began_behind = (row.seq - 1, previous) if row.seq > 1 else None
            if row.seq == 1 and previous is not None:
                yield _entry_flaw("audit_link", *row[:2], "the first entry follows another one")
        elif row.seq != self._last.seq + 1:
            yield _entry_flaw("audit_link", *row[:2], f"entry {self._last.seq + 1} is missing")
        elif previous != self._last_hash:
            yield _entry_flaw("audit_link", *row[:2], "it does not name the entry before it")
        after = members.get("after")
        if (
            members.get("action") == PRUNED
            and isinstance(after, dict)
            and self._began_behind == (after.get("through_seq"), after.get("entry_hash"))
        ):
            self._began_behind = None
        self._last, self._last_hash = row, members.get("entry_hash")

    def _chain_end(self) -> Iterator[Flaw]:
        """What is wrong once a chain's last entry has been seen."""
        row = self._last
        if row is None:
            return
        if self._began_behind is not None:
            yield _entry_flaw("audit_link", *row[:2], "the chain's beginning is gone, not pruned")
        if row.head_seq != row.seq:
            yield _entry_flaw("audit_head", *row[:2], f"the head says {row.head_seq}")
        elif row.head_hash is None or hash_text(row.head_hash) != self._last_hash:
            yield _entry_flaw("audit_head", *row[:2], "the head names another entry")


def _entry_flaw(kind: FlawKind, tenant: str, seq: int, detail: str) -> Flaw:
    return Flaw(kind=kind, tenant=tenant, subject=f"audit entry {seq}", detail=detail)


def _is_named(
    hashed: dict[str, Json], name: Json, members: dict[str, Json], content: bytes
) -> bool:
    """Whether `content` is the canonical form of `members`, and `name` the hash of `hashed`."""
    try:
        return content_id(canonicalize(hashed)) == name and canonicalize(members) == content
    except CanonicalError:
        return False


def _members(row: LogRow) -> dict[str, Json]:
    """What the receipt says; nothing where it cannot be read, which is told as a flaw."""
    return _parsed(row.canonical)


def _parsed(content: bytes) -> dict[str, Json]:
    try:
        document = parse_for_verification(content)
    except ParseError:
        return {}
    return document if isinstance(document, dict) else {}


def _trace_id(members: dict[str, Json]) -> str | None:
    trace_id = members.get("trace_id")
    return trace_id if isinstance(trace_id, str) else None


def _receipt_flaws(row: LogRow, members: dict[str, Json], keys: KeySet) -> Iterator[Flaw]:
    """What is wrong with one receipt by itself."""
    if not members:
        yield _flaw("receipt_unreadable", row, members, "its bytes are no JSON object")
        return
    stored = hash_text(row.receipt_hash)
    rest = {name: value for name, value in members.items() if name != "receipt_hash"}
    named = _is_named(rest, stored, members, row.canonical)
    if not named or members.get("receipt_hash") != stored:
        yield _flaw("receipt_hash", row, members, f"its bytes do not hash to {stored}")
    counts = row.kind == "exchange" and row.outcome == "allowed"
    # A receipt of another kind than an exchange need not say that it meters nothing.
    said = (
        ("hop", row.hop, None),
        ("tenant", row.tenant, None),
        ("kind", row.kind, None),
        ("outcome", row.outcome, row.outcome),
        ("vex_units", row.vex_units, 0),
        ("fu_tokens", row.fu_tokens, 0),
    )
    for name, column, unsaid in said:
        if members.get(name, unsaid) != column:
            yield _flaw("receipt_columns", row, members, f"it says another {name} than its row")
    if row.vex_units != int(counts):
        yield _flaw("receipt_columns", row, members, f"it meters {row.vex_units} exchanges")
    if (detail := _unsigned(row, keys)) is not None:
        yield _flaw("receipt_signature", row, members, detail)


def _unsigned(row: LogRow, keys: KeySet) -> str | None:
    """Why no published key vouches for these bytes; None if one does (RFC 7515 §5.2)."""
    payload = b64url(row.canonical)
    try:
        header, carried, signature = row.jws.split(".")
        kid = json.loads(from_b64url(header))["kid"]
        raw = from_b64url(signature)
    except (KeyFormatError, ValueError, KeyError, TypeError):
        return "its signature cannot be read"
    key = keys.find(kid) if isinstance(kid, str) else None
    if key is None:
        return "its key was never published here"
    if carried not in ("", payload) or not key.verify(raw, f"{header}.{payload}".encode()):
        return "its signature is not of these bytes"
    return None


def _chain_flaws(
    before: tuple[LogRow, dict[str, Json]] | None, row: LogRow, members: dict[str, Json]
) -> Iterator[Flaw]:
    """What is wrong with a receipt's place behind `before`, None where it begins a chain."""
    hop = before[0].hop + 1 if before else 1
    if row.hop != hop:
        yield _flaw("chain_hop", row, members, f"hop {hop} is missing")
        return
    previous = hash_text(before[0].receipt_hash) if before else None
    if members and members.get("prev_receipt_hash") != previous:
        yield _flaw("chain_link", row, members, "it does not name the receipt before it")
    if before and members and before[1]:
        ours, theirs = (members, row.tenant), (before[1], before[0].tenant)
        if (_trace_id(ours[0]), ours[1]) != (_trace_id(theirs[0]), theirs[1]):
            yield _flaw("chain_owner", row, members, "the receipt before it is of another trace")


def _without_head(
    row: LogRow, members: dict[str, Json], heads: dict[tuple[str, str], tuple[int, int]]
) -> Iterator[Flaw]:
    trace_id = _trace_id(members)
    if trace_id is None:
        return
    place = heads.get((row.tenant, trace_id))
    if place is None:
        yield _flaw("head_missing", row, members, "its chain has no head")
    elif place[0] != row.trace:
        yield _flaw("head_missing", row, members, "its trace has another chain as well")


def _head_flaws(row: HeadRow) -> Iterator[Flaw]:
    detail = None
    if row.found_hash is None:
        detail = "the receipt that it points at is missing"
    elif row.found_hash != row.receipt_hash:
        detail = "it names another receipt than the one at its hop"
    elif row.next_hop is not None:
        detail = "the chain goes on behind it"
    if detail is not None:
        subject = f"{row.trace_id} head at hop {row.hop}"
        yield Flaw(kind="head_wrong", tenant=row.tenant, subject=subject, detail=detail)


def _flaw(kind: FlawKind, row: LogRow, members: dict[str, Json], detail: str) -> Flaw:
    name = _trace_id(members) or f"(chain {row.trace})"
    return Flaw(kind=kind, tenant=row.tenant, subject=f"{name} hop {row.hop}", detail=detail)
