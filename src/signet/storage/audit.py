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

from signet.core.audit import Change, Entry, seal_entry
from signet.storage.errors import Raced
from signet.storage.hashes import digest, hash_text
from signet.storage.tx import PerRow, Tx, Value


async def append(tx: Tx, entries: Sequence[Entry]) -> None:
    """Give each entry its place at the end of its tenant's chain, in the order given.

    Raises `Raced` when another process began one of the chains first.
    """
    names = sorted({entry.tenant for entry in entries})
    rows = await tx.each(_HeadRow, _HEADS, [(name,) for name in names])
    chains = {row.tenant: _chain(row) for row in rows}
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
    for name in names:
        chain = chains[name]
        assert chain.entry_hash is not None, "an entry was appended"
        place = (name, chain.seq, digest(chain.entry_hash), chain.reached_us)
        if name in known:
            moved.append((*place, chain.began_at))
        else:
            new.append(place)
    for statement, places in ((_NEW_HEADS, new), (_MOVED_HEADS, moved)):
        if places and await tx.execute_each(statement, places) != len(places):
            raise Raced("Another process began the same audit chain first.")
    await tx.execute_each(_ENTRIES, written)


async def record_change(tx: Tx, change: Change) -> None:
    """Append the entry of an administrative change: both become durable together, or neither."""
    await append(tx, [change.entry(await tx.now_us())])


class _HeadRow(NamedTuple):
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


def _chain(row: _HeadRow) -> _Chain:
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
    """,
    postgres="""
        INSERT INTO audit_entries (tenant, seq, reached_us, action, body)
        SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::bytea[])
    """,
)
