"""The hot path: a batch of exchanges becomes receipts, heads, answers and usage in one go.

Each exchange is written whole or not at all; a conflict or a duplicate is a result for its own
caller and never an error for its neighbours (atomic per exchange, durable per batch).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from signet.core.audit import Entry
from signet.core.values import value_class
from signet.storage.audit import append_behind, ends_of_chains
from signet.storage.errors import IntegrityViolated
from signet.storage.hashes import digest, hash_text
from signet.storage.splicing import attach, cut, detach, paste
from signet.storage.tx import Ask, Engine, PerRow, ReadTx, Tx, Value

ANY_PREV = "any"


@value_class
class PendingExchange:
    """One exchange on its way into the log.

    `key_hash` (32 bytes) and `fingerprint` identify the call for idempotency within `tenant`; both
    None-able: a receipt that nobody can retry, such as a resolution, has no key. `expected_prev` is
    "any", None (it must begin the chain) or the hash the caller saw last. `fence` is the number its
    claim was given, None if it never claimed. `draft` is opaque here and handed to `seal`.
    """

    tenant: str
    trace_id: str
    kind: str = "exchange"
    key_hash: bytes | None
    fingerprint: bytes = b""
    expected_prev: str | None = ANY_PREV
    fence: int | None = None
    draft: object = None


@value_class
class Head:
    """The newest receipt of a chain."""

    hop: int
    receipt_hash: str


@value_class
class Answer:
    """What the caller is told, byte for byte, now and at every replay."""

    status: int
    content_type: str
    body: bytes


@value_class
class Sealed:
    """A receipt with everything that becomes durable together with it.

    `canonical` are the signed bytes. `jws` is a compact JWS that carries exactly these: it is kept
    detached, and read back whole. `period` is the billing period that `vex_units` and `fu_tokens`
    count in. `payload` is kept under (tenant, `payload_cid`) so that it can be erased while the
    receipt stands; `payload_salt` is kept and erased with it. `audit` becomes an entry of the
    tenant's audit chain.
    """

    hop: int
    ts_us: int
    receipt_hash: str
    canonical: bytes
    jws: str
    kind: str
    outcome: str
    vex_units: int
    fu_tokens: int
    period: str
    answer: Answer
    payload_cid: str | None = None
    payload: bytes | None = None
    payload_salt: bytes | None = None
    audit: Entry | None = None


Seal = Callable[[PendingExchange, Head | None], Sealed]
"""Builds, hashes and signs the receipt that follows `head` (None: hop 1). Pure: it may be called
again for the same exchange with another head when a transaction is repeated."""


@value_class
class Committed:
    """It is durable, and this is the only receipt of its key."""

    sealed: Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The same call was answered before; this is that answer."""

    answer: Answer
    receipt_hash: str
    trace_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyReused:
    """The key belongs to a call with another fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """The same call is being carried out; its claim ends in `retry_after_s` at the latest."""

    retry_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpent:
    """The key once claimed a forward and its answer has expired: it never acts again."""

    receipt_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """The call was answered before, but its content has been erased; the receipt stands."""

    receipt_hash: str
    canonical: bytes
    jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainMoved:
    """The chain does not end where `expected_prev` says; `head` is where it ends."""

    head: Head | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceLost:
    """Recovery took the claim over; nothing was written. `receipt_hash` is the recovered receipt,
    if there is one by now."""

    receipt_hash: str | None


Known = Replay | KeyReused | InFlight | KeySpent | Erased
"""What can already be known about an idempotency key."""

Result = Committed | Known | ChainMoved | FenceLost


async def commit_exchanges(
    tx: Tx, batch: Sequence[PendingExchange], seal: Seal, *, shard: int = 0
) -> list[Result]:
    """Write a batch; the results stand in the order of `batch`.

    The same key twice in one batch: the later one replays the first. Several exchanges of one trace
    chain in the order given. `shard` is where this process counts usage, so that no two processes
    wait for one total. Raises `Raced` when another process was first with a key or a new chain;
    the engine then runs the function again.
    """
    # PostgreSQL locks the heads here. What was written to a key while it waited for one shows
    # when the key is written.
    heads = Ask(_HeadRow, _HEADS, sorted({(p.tenant, p.trace_id) for p in batch}))
    keys = Ask(
        _KeyRow, _KEYS, sorted({(p.tenant, p.key_hash) for p in batch if p.key_hash is not None})
    )
    ids = Ask(int, _FREE_IDS, [(len(batch),)])
    await tx.ask(heads, keys, ids)
    work = _Work(
        seal=seal,
        now_us=await tx.now_us() if any(row.receipt is None for row in keys.found) else 0,
        ids=_ids(tx.engine, ids.found, len(batch)),
        heads={(row.tenant, row.trace_id): row for row in heads.found},
        keys={(row.tenant, row.key_hash): row for row in keys.found},
    )
    results = [work.decide(pending) for pending in batch]
    if work.receipts:
        await work.write(tx, shard)
    return await _read_stored(tx, results)


async def read_known(tx: ReadTx, tenant: str, key_hash: bytes, fingerprint: bytes) -> Known | None:
    """What is known about one key; None: it is free."""
    for row in await tx.each(_KeyRow, _KEYS, [(tenant, key_hash)]):
        if row.fingerprint != fingerprint:
            return KeyReused()
        if row.receipt is None:
            return _in_flight(row, await tx.now_us())
        return (await _stored_answers(tx, {row.receipt}))[row.receipt]
    return None


class _HeadRow(NamedTuple):
    tenant: str
    trace_id: str
    trace: int
    hop: int
    receipt_hash: bytes


class _KeyRow(NamedTuple):
    tenant: str
    key_hash: bytes
    fingerprint: bytes
    receipt: int | None
    fence: int | None
    lease_until_us: int | None


class _Stored(NamedTuple):
    """Stands among the results until the answer of this receipt has been read."""

    receipt: int
    fence_lost: bool


class _Chain:
    """A chain while the batch grows it."""

    __slots__ = ("began_at_hop", "head", "trace")

    def __init__(self, row: _HeadRow | None) -> None:
        self.trace = row.trace if row else 0
        self.began_at_hop = row.hop if row else 0
        self.head = Head(hop=row.hop, receipt_hash=hash_text(row.receipt_hash)) if row else None


class _Work:
    """A batch in memory: what was read, what was decided, and the rows that follow from it."""

    def __init__(
        self,
        *,
        seal: Seal,
        now_us: int,
        ids: Sequence[int],
        heads: Mapping[tuple[str, str], _HeadRow],
        keys: Mapping[tuple[str, bytes], _KeyRow],
    ) -> None:
        self._seal = seal
        self._now_us = now_us
        self._ids = ids
        self._heads = heads
        self._keys = keys
        self._chains: dict[tuple[str, str], _Chain] = {}
        self._answered: dict[tuple[str, bytes], tuple[PendingExchange, Sealed]] = {}
        self._usage: Counter[tuple[str, str, str]] = Counter()
        self._new_keys: list[tuple[Value, ...]] = []
        self._claimed_keys: list[tuple[Value, ...]] = []
        self._closed_claims: list[tuple[Value, ...]] = []
        self._answers: list[tuple[Value, ...]] = []
        self._payloads: list[tuple[Value, ...]] = []
        self._entries: list[Entry] = []
        self.receipts: list[tuple[Value, ...]] = []

    def decide(self, pending: PendingExchange) -> Result | _Stored:
        """Seal the exchange and note its rows, or say why it has none."""
        key_row = None
        if pending.key_hash is not None:
            key = (pending.tenant, pending.key_hash)
            if earlier := self._answered.get(key):
                return _answered_in_batch(pending, *earlier)
            key_row = self._keys.get(key)
            if (known := self._known(pending, key_row)) is not None:
                return known
        chain = self._chain(pending)
        if pending.expected_prev != ANY_PREV:
            last = chain.head.receipt_hash if chain.head else None
            if pending.expected_prev != last:
                return ChainMoved(head=chain.head)
        sealed = self._seal(pending, chain.head)
        self._append(pending, sealed, chain, claimed=key_row is not None)
        return Committed(sealed=sealed)

    def _known(self, pending: PendingExchange, row: _KeyRow | None) -> Result | _Stored | None:
        """What the key's stored row says against writing; None: nothing."""
        if row is None:
            # A claim that is gone was released or purged by someone who held a later fence.
            return None if pending.fence is None else FenceLost(receipt_hash=None)
        if row.fingerprint != pending.fingerprint:
            return KeyReused()
        if row.receipt is not None:
            return _Stored(row.receipt, pending.fence is not None)
        if pending.fence is None:
            return _in_flight(row, self._now_us)
        return None if pending.fence == row.fence else FenceLost(receipt_hash=None)

    def _chain(self, pending: PendingExchange) -> _Chain:
        name = (pending.tenant, pending.trace_id)
        chain = self._chains.get(name)
        if chain is None:
            chain = self._chains[name] = _Chain(self._heads.get(name))
        return chain

    def _append(
        self, pending: PendingExchange, sealed: Sealed, chain: _Chain, *, claimed: bool
    ) -> None:
        hop = chain.head.hop + 1 if chain.head else 1
        if sealed.hop != hop:
            raise IntegrityViolated(f"Sealed as hop {sealed.hop}, but the chain is at {hop - 1}.")
        tenant = pending.tenant
        row_id = self._ids[len(self.receipts)]
        if hop == 1:
            chain.trace = row_id
        chain.head = Head(hop=hop, receipt_hash=sealed.receipt_hash)
        self.receipts.append(
            (
                row_id,
                chain.trace,
                hop,
                tenant,
                sealed.kind,
                sealed.outcome,
                sealed.ts_us,
                sealed.period,
                sealed.vex_units,
                sealed.fu_tokens,
                digest(sealed.receipt_hash),
                detach(sealed.jws),
                sealed.canonical,
            )
        )
        if pending.key_hash is not None:
            self._answered[tenant, pending.key_hash] = (pending, sealed)
            if claimed:
                self._claimed_keys.append((tenant, pending.key_hash, row_id))
                self._closed_claims.append((tenant, pending.key_hash, pending.fence))
            else:
                self._new_keys.append((tenant, pending.key_hash, pending.fingerprint, row_id))
            answer = sealed.answer
            pieces = (sealed.payload or b"", sealed.canonical, sealed.jws.encode("ascii"))
            body, places = cut(answer.body, pieces)
            self._answers.append(
                (
                    row_id,
                    tenant,
                    pending.key_hash,
                    pending.trace_id,
                    sealed.ts_us,
                    answer.status,
                    answer.content_type,
                    body,
                    places,
                )
            )
        if sealed.payload_cid is not None and sealed.payload is not None:
            cid = digest(sealed.payload_cid)
            self._payloads.append(
                (row_id, tenant, cid, sealed.ts_us, sealed.payload, sealed.payload_salt)
            )
        if sealed.audit is not None:
            self._entries.append(sealed.audit)
        if sealed.vex_units:
            self._usage[tenant, sealed.period, "vex"] += sealed.vex_units
        if sealed.fu_tokens:
            self._usage[tenant, sealed.period, "fu"] += sealed.fu_tokens

    async def write(self, tx: Tx, shard: int) -> None:
        """Every row of the batch, keys in order so that two processes lock in the same order."""
        new_heads: list[tuple[Value, ...]] = []
        moved_heads: list[tuple[Value, ...]] = []
        for (tenant, trace_id), chain in sorted(self._chains.items()):
            if chain.head is None or chain.head.hop == chain.began_at_hop:
                continue
            last = digest(chain.head.receipt_hash)
            if chain.began_at_hop == 0:
                new_heads.append((tenant, trace_id, chain.trace, chain.head.hop, last))
            else:
                moved_heads.append((tenant, trace_id, chain.head.hop, last, chain.began_at_hop))
        # Another process may have been first with a key or a chain. Whoever has to wait for it
        # does so before it has locked what is hot.
        guards: Sequence[tuple[PerRow, Sequence[tuple[Value, ...]]]] = (
            (_NEW_HEADS, new_heads),
            (_MOVED_HEADS, moved_heads),
            (_NEW_KEYS, sorted(self._new_keys)),
            (_CLOSED_CLAIMS, self._closed_claims),
            (_CLAIMED_KEYS, self._claimed_keys),
        )
        rows: Sequence[tuple[PerRow, Sequence[tuple[Value, ...]]]] = (
            (_RECEIPTS, self.receipts),
            (_ANSWERS, self._answers),
            (_PAYLOADS, self._payloads),
            # Totals and the ends of the audit chains last: they are the hottest rows, and stay
            # locked until the commit.
            (_TOTALS, [(*t, shard, units) for t, units in sorted(self._usage.items())]),
        )
        ends = ends_of_chains(self._entries)
        await tx.execute_all((*guards, *rows), ends, guards=len(guards))
        if self._entries:
            await append_behind(tx, ends, self._entries)


def _answered_in_batch(pending: PendingExchange, first: PendingExchange, sealed: Sealed) -> Result:
    if first.fingerprint != pending.fingerprint:
        return KeyReused()
    if pending.fence is not None:
        return FenceLost(receipt_hash=sealed.receipt_hash)
    return Replay(answer=sealed.answer, receipt_hash=sealed.receipt_hash, trace_id=first.trace_id)


def _in_flight(row: _KeyRow, now_us: int) -> InFlight:
    left_us = (row.lease_until_us or now_us) - now_us
    return InFlight(retry_after_s=max(left_us, 0) / 1_000_000)


class _StoredRow(NamedTuple):
    receipt: int
    receipt_hash: bytes
    answer: int | None
    trace_id: str | None
    status: int | None
    content_type: str | None
    body: bytes | None
    places: str | None
    payload: bytes | None
    canonical: bytes | None
    jws: str | None

    def whole_body(self) -> bytes | None:
        """The answer as it was told; None where it, or the payload in it, has been erased."""
        if self.body is None or self.places is None:  # cut since migration 9 only
            return self.body
        assert self.canonical is not None
        assert self.jws is not None
        jws = attach(self.jws, self.canonical)
        return paste(self.body, self.places, (self.payload, self.canonical, jws.encode("ascii")))


async def _stored_answers(tx: ReadTx, receipts: set[int]) -> dict[int, Replay | Erased | KeySpent]:
    """What each of these receipts' keys answers from now on."""
    rows = await tx.each(_StoredRow, _STORED, [(receipt,) for receipt in sorted(receipts)])
    return {row.receipt: _stored_answer(row) for row in rows}


def _stored_answer(row: _StoredRow) -> Replay | Erased | KeySpent:
    receipt_hash = hash_text(row.receipt_hash)
    if (body := row.whole_body()) is not None:
        assert row.status is not None
        assert row.content_type is not None
        assert row.trace_id is not None
        return Replay(
            answer=Answer(status=row.status, content_type=row.content_type, body=body),
            receipt_hash=receipt_hash,
            trace_id=row.trace_id,
        )
    if row.answer is None:
        return KeySpent(receipt_hash=receipt_hash)
    assert row.canonical is not None
    assert row.jws is not None
    jws = attach(row.jws, row.canonical)
    return Erased(receipt_hash=receipt_hash, canonical=row.canonical, jws=jws)


def _ids(engine: Engine, found: Sequence[int], count: int) -> Sequence[int]:
    """As many ids as were asked for, growing."""
    return range(found[0] - count + 1, found[0] + 1) if engine == "sqlite" else sorted(found)


async def _read_stored(tx: ReadTx, results: Sequence[Result | _Stored]) -> list[Result]:
    """Put the stored answers where the batch found that a key had been answered before."""
    wanted = {result.receipt for result in results if isinstance(result, _Stored)}
    if not wanted:
        return [result for result in results if not isinstance(result, _Stored)]
    stored = await _stored_answers(tx, wanted)
    complete: list[Result] = []
    for result in results:
        if not isinstance(result, _Stored):
            complete.append(result)
        elif result.fence_lost:
            complete.append(FenceLost(receipt_hash=stored[result.receipt].receipt_hash))
        else:
            complete.append(stored[result.receipt])
    return complete


_HEADS = PerRow(
    sqlite="""
        WITH k (tenant, trace_id) AS (VALUES (?, ?))
        SELECT h.tenant, h.trace_id, h.trace, h.hop, h.receipt_hash
        FROM k CROSS JOIN heads h ON h.tenant = k.tenant AND h.trace_id = k.trace_id
    """,
    postgres="""
        SELECT h.tenant, h.trace_id, h.trace, h.hop, h.receipt_hash
        FROM unnest($1::text[], $2::text[]) AS k (tenant, trace_id)
        JOIN heads h ON h.tenant = k.tenant AND h.trace_id = k.trace_id
        ORDER BY h.tenant, h.trace_id FOR UPDATE OF h
    """,
)
_KEYS = PerRow(
    sqlite="""
        WITH k (tenant, key_hash) AS (VALUES (?, ?))
        SELECT i.tenant, i.key_hash, i.fingerprint, i.receipt, c.fence, c.lease_until_us
        FROM k CROSS JOIN idempotency i ON i.tenant = k.tenant AND i.key_hash = k.key_hash
        LEFT JOIN claims c ON i.receipt IS NULL
            AND c.tenant = i.tenant AND c.key_hash = i.key_hash
    """,
    postgres="""
        SELECT i.tenant, i.key_hash, i.fingerprint, i.receipt, c.fence, c.lease_until_us
        FROM unnest($1::text[], $2::bytea[]) AS k (tenant, key_hash)
        JOIN idempotency i ON i.tenant = k.tenant AND i.key_hash = k.key_hash
        LEFT JOIN claims c ON i.receipt IS NULL
            AND c.tenant = i.tenant AND c.key_hash = i.key_hash
    """,
)
# As many receipt ids as asked for, never given out before; on SQLite, where they follow each other,
# the last of them.
_FREE_IDS = PerRow(
    sqlite="SELECT coalesce(max(id), 0) + ? FROM receipts",
    postgres="SELECT id FROM receipt_ids(($1::bigint[])[1]) AS id",
)
_STORED = PerRow(
    sqlite="""
        SELECT r.id, r.receipt_hash, a.receipt, a.trace_id, a.status, a.content_type, a.body,
            a.places, p.body, r.canonical, r.jws
        FROM receipts r LEFT JOIN answers a ON a.receipt = r.id
        LEFT JOIN payloads p ON p.receipt = r.id WHERE r.id = ?
    """,
    postgres="""
        SELECT r.id, r.receipt_hash, a.receipt, a.trace_id, a.status, a.content_type, a.body,
            a.places, p.body, r.canonical, r.jws
        FROM unnest($1::bigint[]) AS k (id)
        JOIN receipts r ON r.id = k.id LEFT JOIN answers a ON a.receipt = r.id
        LEFT JOIN payloads p ON p.receipt = r.id
    """,
)
_NEW_HEADS = PerRow(
    sqlite="""
        INSERT INTO heads (tenant, trace_id, trace, hop, receipt_hash) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT DO NOTHING
    """,
    postgres="""
        INSERT INTO heads (tenant, trace_id, trace, hop, receipt_hash)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[])
        ON CONFLICT DO NOTHING
    """,
)
_MOVED_HEADS = PerRow(
    sqlite="""
        UPDATE heads SET hop = ?3, receipt_hash = ?4
        WHERE tenant = ?1 AND trace_id = ?2 AND hop = ?5
    """,
    postgres="""
        UPDATE heads h SET hop = k.hop, receipt_hash = k.receipt_hash
        FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[])
            AS k (tenant, trace_id, hop, receipt_hash, seen)
        WHERE h.tenant = k.tenant AND h.trace_id = k.trace_id AND h.hop = k.seen
    """,
)
_NEW_KEYS = PerRow(
    sqlite="""
        INSERT INTO idempotency (tenant, key_hash, fingerprint, receipt, spent)
        VALUES (?, ?, ?, ?, 0) ON CONFLICT DO NOTHING
    """,
    postgres="""
        INSERT INTO idempotency (tenant, key_hash, fingerprint, receipt, spent)
        SELECT *, 0 FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::bigint[])
        ON CONFLICT DO NOTHING
    """,
)
_CLAIMED_KEYS = PerRow(
    sqlite="""
        UPDATE idempotency SET receipt = ?3
        WHERE tenant = ?1 AND key_hash = ?2 AND receipt IS NULL
    """,
    postgres="""
        UPDATE idempotency i SET receipt = k.receipt
        FROM unnest($1::text[], $2::bytea[], $3::bigint[]) AS k (tenant, key_hash, receipt)
        WHERE i.tenant = k.tenant AND i.key_hash = k.key_hash
            -- Only open claims. Said of the row alone, the planner would begin with all such rows.
            AND (i.receipt IS NULL) = (k.receipt IS NOT NULL)
    """,
)
_CLOSED_CLAIMS = PerRow(
    sqlite="DELETE FROM claims WHERE tenant = ? AND key_hash = ? AND fence = ?",
    postgres="""
        DELETE FROM claims c
        USING unnest($1::text[], $2::bytea[], $3::bigint[]) AS k (tenant, key_hash, fence)
        WHERE c.tenant = k.tenant AND c.key_hash = k.key_hash AND c.fence = k.fence
    """,
)
_RECEIPTS = PerRow(
    sqlite="""
        INSERT INTO receipts (id, trace, hop, tenant, kind, outcome, ts_us, period,
            vex_units, fu_tokens, receipt_hash, jws, canonical)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    """,
    postgres="""
        INSERT INTO receipts (id, trace, hop, tenant, kind, outcome, ts_us, period,
            vex_units, fu_tokens, receipt_hash, jws, canonical)
        SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[],
            $6::text[], $7::bigint[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[],
            $12::text[], $13::bytea[])
    """,
)
_ANSWERS = PerRow(
    sqlite="""
        INSERT INTO answers (receipt, tenant, key_hash, trace_id, ts_us, status, content_type, body,
            places)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    """,
    postgres="""
        INSERT INTO answers (receipt, tenant, key_hash, trace_id, ts_us, status, content_type, body,
            places)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::text[], $5::bigint[],
            $6::bigint[], $7::text[], $8::bytea[], $9::text[])
    """,
)
_PAYLOADS = PerRow(
    sqlite="""
        INSERT INTO payloads (receipt, tenant, cid, ts_us, body, salt) VALUES (?, ?, ?, ?, ?, ?)
    """,
    postgres="""
        INSERT INTO payloads (receipt, tenant, cid, ts_us, body, salt)
        SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bytea[],
            $6::bytea[])
    """,
)
_TOTALS = PerRow(
    sqlite="""
        INSERT INTO usage_totals (tenant, period, meter, shard, units) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (tenant, period, meter, shard) DO UPDATE SET units = units + excluded.units
    """,
    postgres="""
        INSERT INTO usage_totals AS t (tenant, period, meter, shard, units)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
        ON CONFLICT (tenant, period, meter, shard) DO UPDATE SET units = t.units + excluded.units
    """,
)
