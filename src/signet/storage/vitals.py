"""The database's state in a few numbers, each from an index or a small table: a scrape is cheap."""

from __future__ import annotations

from typing import Final, LiteralString, NamedTuple

from signet.storage import outbox
from signet.storage.tx import Engine, ReadTx
from signet.telemetry.vitals import Vitals

_SIZE: Final[dict[Engine, LiteralString]] = {
    "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
    "postgres": "SELECT pg_database_size(current_database())",
}


class _Counts(NamedTuple):
    schema_version: int
    last_receipt: int
    counted_receipt: int
    claims: int
    overdue: int
    lanes: int
    periods: int
    entries: int
    keys: int
    signs_from_us: int | None


class _Holds(NamedTuple):
    unsettled: int
    tokens: int


async def read_vitals(tx: ReadTx) -> Vitals:
    """Return what the gauges of the database say now."""
    now_us = await tx.now_us()
    size = await tx.one(int, _SIZE[tx.engine])
    counts = await tx.one(
        _Counts,
        """SELECT
            (SELECT coalesce(max(version), 0) FROM schema_migrations),
            (SELECT coalesce(max(id), 0) FROM receipts),
            (SELECT receipt FROM billing_cursor),
            (SELECT count(*) FROM claims),
            (SELECT count(*) FROM claims WHERE lease_until_us <= :now),
            (SELECT count(*) FROM billing_lanes WHERE stopped IS NOT NULL),
            (SELECT count(*) FROM billing_periods WHERE closed_us IS NULL),
            (SELECT CAST(coalesce(sum(seq), 0) AS bigint) FROM audit_heads),
            (SELECT count(*) FROM signing_keys
                WHERE (retired_us IS NULL OR retired_us > :now) AND revoked_us IS NULL),
            (SELECT max(CASE WHEN signs_from_us = 0 THEN created_us ELSE signs_from_us END)
                FROM signing_keys WHERE signs_from_us <= :now)""",
        now=now_us,
    )
    holds = await tx.one(
        _Holds,
        """SELECT count(*), CAST(coalesce(sum(tokens), 0) AS bigint)
        FROM fu_holds WHERE settled_us IS NULL""",
    )
    depth = await outbox.depth(tx)
    assert size is not None, "one row"
    assert counts is not None, "one row"
    assert holds is not None, "one row"
    oldest_us = 0 if depth.oldest_due_us is None else max(now_us - depth.oldest_due_us, 0)
    return Vitals(
        schema_version=counts.schema_version,
        database_bytes=size,
        receipts_last_number=counts.last_receipt,
        billing_uncounted_receipts=max(counts.last_receipt - counts.counted_receipt, 0),
        open_claims=counts.claims,
        overdue_claims=counts.overdue,
        fallback_open_holds=holds.unsettled,
        fallback_held_tokens=holds.tokens,
        outbox_waiting_windows=depth.waiting,
        outbox_oldest_seconds=oldest_us // 1_000_000,
        outbox_held_windows=depth.held,
        outbox_dead_windows=depth.dead,
        billing_stopped_lanes=counts.lanes,
        billing_open_periods=counts.periods,
        audit_entries=counts.entries,
        signing_keys_active=counts.keys,
        signing_key_age_seconds=max(now_us - (counts.signs_from_us or now_us), 0) // 1_000_000,
    )
