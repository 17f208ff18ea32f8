"""The audit log's entries and heads: one hash chain per tenant, appended to and pruned, never
changed.

The head row is locked before the entries are hashed and moved once per call, so any number of
processes append to one chain. Whoever appends in a larger transaction does it last: the lock is
held until the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from signet.core.audit import Change, Entry, pruned, seal_entry
from signet.core.ids import TenantId
from signet.storage.hashes import digest, hash_text
from signet.storage.tx import Ask, PerRow, ReadTx, Tx, Value


async def append(tx: Tx, entries: Sequence[Entry]) -> None:
    """Give each entry its place at the end of its tenant's chain, in the order given.

    Raises `Raced` when another process began one of the chains first.
    """
    ends = ends_of_chains(entries)
    await tx.ask(ends)
    await append_behind(tx, ends, entries)


def ends_of_chains(entries: Sequence[Entry]) -> Ask[EndOfChain]:
    """Ask where the entries' chains end, which locks them until the commit."""
    names = sorted({entry.tenant for entry in entries})
    return Ask(EndOfChain, _HEADS, [(name,) for name in names])


async def append_behind(tx: Tx, ends: Ask[EndOfChain], entries: Sequence[Entry]) -> None:
    """Do what `append` does, where the ends of the chains have been asked for already."""
    chains = {row.tenant: _chain(row) for row in ends.found}
    known = frozenset(chains)
    written: list[tuple[Value, ...]] = []
    for entry in entries:
        chain = chains.setdefault(entry.tenant, _Chain(began_at=0))
        prev = chain.entry_hash
        body, chain.entry_hash = seal_entry(entry, seq=chain.seq + 1, prev_entry_hash=prev)
        chain.seq += 1
        chain.reached_us = max(chain.reached_us, entry.ts_us)
        written.append((entry.tenant, chain.seq, chain.reached_us, entry.action, body))
    new: list[tuple[Value, ...]] = []
    moved: list[tuple[Value, ...]] = []
    for name, chain in sorted(chains.items()):
        assert chain.entry_hash is not None, "an entry was appended"
        place = (name, chain.seq, digest(chain.entry_hash), chain.reached_us)
        if name in known:
            moved.append((*place, chain.began_at))
        else:
            new.append(place)
    steps = ((_NEW_HEADS, new), (_MOVED_HEADS, moved), (_ENTRIES, written))
    await tx.execute_all(steps, guards=len(steps))


async def record_change(tx: Tx, change: Change) -> None:
    """Append the entry of an administrative change: both become durable together, or neither."""
    await append(tx, [change.entry(await tx.now_us())])


class Head(NamedTuple):
    """Where a chain ends."""

    seq: int
    entry_hash: bytes


class Numbered(NamedTuple):
    """An entry's number and its canonical bytes."""

    seq: int
    body: bytes


class Page(NamedTuple):
    """Some entries in order; `next_after` goes on behind them, None where nothing is left."""

    entries: list[Numbered]
    next_after: int | None


async def head(tx: ReadTx, tenant: str) -> Head | None:
    """The end of a tenant's chain; None: it has none."""
    return await tx.one(
        Head, "SELECT seq, entry_hash FROM audit_heads WHERE tenant = :tenant", tenant=tenant
    )


async def page(
    tx: ReadTx,
    tenant: str,
    *,
    after: int = 0,
    from_us: int | None = None,
    to_us: int | None = None,
    action: str | None = None,
    limit: int = 100,
) -> Page:
    """Up to `limit` entries behind number `after`, in order.

    `from_us` and `to_us` cut the chain by the time that it had reached, so what is between them has
    no gap. A search for an `action` looks through a bounded part of the chain: a page may have few
    entries, or none, and still a `next_after`.
    """
    if from_us is not None:
        first = await first_since(tx, tenant, from_us)
        if first is None:
            return Page([], None)
        after = max(after, first - 1)
    looked = await tx.one(
        _Looked,
        """
        SELECT count(*), max(seq) FROM (
            SELECT seq FROM audit_entries
            WHERE tenant = :tenant AND seq > :after AND reached_us < :until
            ORDER BY seq LIMIT :most
        ) AS looked
        """,
        tenant=tenant,
        after=after,
        until=_EVER if to_us is None else to_us,
        most=_LOOKED_THROUGH,
    )
    if looked is None or looked.last is None:
        return Page([], None)
    entries = await tx.all(
        Numbered,
        """
        SELECT seq, body FROM audit_entries
        WHERE tenant = :tenant AND seq > :after AND seq <= :last
            AND (:action = '' OR action = :action)
        ORDER BY seq LIMIT :limit
        """,
        tenant=tenant,
        after=after,
        last=looked.last,
        action=action or "",
        limit=limit,
    )
    if len(entries) == limit and entries[-1].seq < looked.last:
        return Page(entries, entries[-1].seq)
    return Page(entries, looked.last if looked.rows == _LOOKED_THROUGH else None)


async def first_since(tx: ReadTx, tenant: str, from_us: int) -> int | None:
    """The number of the first entry that the chain reached at or after a time; None: none yet."""
    return await tx.one(
        int,
        """
        SELECT seq FROM audit_entries WHERE tenant = :tenant AND reached_us >= :from_us
        ORDER BY reached_us, seq LIMIT 1
        """,
        tenant=tenant,
        from_us=from_us,
    )


async def with_older(tx: ReadTx, before_us: int, limit: int) -> list[str]:
    """Tenants whose chains have entries that were reached before a time."""
    return await tx.all(
        str,
        """
        SELECT h.tenant FROM audit_heads h WHERE EXISTS (
            SELECT 1 FROM audit_entries e WHERE e.tenant = h.tenant AND e.reached_us < :before_us
        ) ORDER BY h.tenant LIMIT :limit
        """,
        before_us=before_us,
        limit=limit,
    )


async def prune(tx: Tx, tenant: TenantId, *, before_us: int, limit: int) -> int:
    """Remove up to `limit` of the oldest entries reached before a time; how many went.

    An entry at the chain's end then names the last one that was removed.
    """
    # The lock first, so that two processes do not prune the same entries.
    await tx.each(EndOfChain, _HEADS, [(tenant,)])
    old = await tx.one(
        _Old,
        """
        SELECT count(*), min(seq), max(seq) FROM (
            SELECT seq FROM audit_entries WHERE tenant = :tenant AND reached_us < :before_us
            ORDER BY seq LIMIT :limit
        ) AS old
        """,
        tenant=tenant,
        before_us=before_us,
        limit=limit,
    )
    if old is None or old.first is None or old.last is None:
        return 0
    last = await tx.one(
        bytes,
        "SELECT body FROM audit_entries WHERE tenant = :tenant AND seq = :seq",
        tenant=tenant,
        seq=old.last,
    )
    assert last is not None, "it was just found"
    await tx.execute(
        "DELETE FROM audit_entries WHERE tenant = :tenant AND seq <= :seq",
        tenant=tenant,
        seq=old.last,
    )
    await append(tx, [pruned(tenant, old.first, last, await tx.now_us())])
    return old.rows


_LOOKED_THROUGH = 2000
_EVER = 2**63 - 1


class _Looked(NamedTuple):
    rows: int
    last: int | None


class _Old(NamedTuple):
    rows: int
    first: int | None
    last: int | None


class EndOfChain(NamedTuple):
    tenant: str
    seq: int
    entry_hash: bytes
    reached_us: int


@dataclass(slots=True, kw_only=True)
class _Chain:
    """A chain while entries are appended to it."""

    began_at: int
    seq: int = 0
    entry_hash: str | None = None
    reached_us: int = 0


def _chain(row: EndOfChain) -> _Chain:
    return _Chain(
        began_at=row.seq,
        seq=row.seq,
        entry_hash=hash_text(row.entry_hash),
        reached_us=row.reached_us,
    )


_HEADS = PerRow(
    sqlite="SELECT tenant, seq, entry_hash, reached_us FROM audit_heads WHERE tenant = ?",
    postgres="""
        SELECT h.tenant, h.seq, h.entry_hash, h.reached_us
        FROM unnest($1::text[]) AS k (tenant) JOIN audit_heads h ON h.tenant = k.tenant
        ORDER BY h.tenant FOR UPDATE OF h
    """,
)
_NEW_HEADS = PerRow(
    sqlite="""
        INSERT INTO audit_heads (tenant, seq, entry_hash, reached_us) VALUES (?, ?, ?, ?)
        ON CONFLICT DO NOTHING
    """,
    postgres="""
        INSERT INTO audit_heads (tenant, seq, entry_hash, reached_us)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[])
        ON CONFLICT DO NOTHING
    """,
)
_MOVED_HEADS = PerRow(
    sqlite="""
        UPDATE audit_heads SET seq = ?2, entry_hash = ?3, reached_us = ?4
        WHERE tenant = ?1 AND seq = ?5
    """,
    postgres="""
        UPDATE audit_heads h SET seq = k.seq, entry_hash = k.entry_hash, reached_us = k.reached_us
        FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bigint[])
            AS k (tenant, seq, entry_hash, reached_us, seen)
        WHERE h.tenant = k.tenant AND h.seq = k.seen
    """,
)
_ENTRIES = PerRow(
    sqlite="""
        INSERT INTO audit_entries (tenant, seq, reached_us, action, body) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT DO NOTHING
    """,
    postgres="""
        INSERT INTO audit_entries (tenant, seq, reached_us, action, body)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[])
        ON CONFLICT DO NOTHING
    """,
)
