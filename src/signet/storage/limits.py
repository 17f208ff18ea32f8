"""Rate-limit buckets that all processes and nodes share, without a durable commit for a request.

What is here may be lost with the host, at the price of one burst: PostgreSQL keeps it in an
unlogged table, SQLite in a side file that is never synced. The rule is `core.ratelimit`, `take` and
then `lend`, said in SQL so that many buckets take one statement; a test holds the two against each
other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, LiteralString, NamedTuple

from signet.core.ratelimit import HOLD_US, LENT_PART, SETBACK_US
from signet.storage.tx import PerRow, ReadTx, Tx

SIDE_SCHEMA: Final[LiteralString] = """
CREATE TABLE IF NOT EXISTS rate_limits (
    bucket TEXT PRIMARY KEY,
    arrival_us INTEGER NOT NULL,
    at_us INTEGER NOT NULL,
    interval_us INTEGER NOT NULL,
    full_us INTEGER NOT NULL,
    wanted INTEGER NOT NULL,
    granted INTEGER NOT NULL
) WITHOUT ROWID, STRICT
"""
"""The side file of SQLite. On PostgreSQL a migration makes the same table."""


class Want(NamedTuple):
    """So many units of a bucket that has this rate, and of what is then left so many ahead."""

    bucket: str
    units: int
    interval_us: int
    burst: int
    ahead: int = 0


class Bucket(NamedTuple):
    """A bucket after it was asked: what it granted and lent, and its theoretical arrival time."""

    name: str
    granted: int
    arrival_us: int
    now_us: int
    lent: int = 0


# `excluded` is the bucket as a new one would be, which lends nothing. Every argument is in its
# columns: `granted` is what is waited for, which beyond a burst makes no difference, and `wanted`
# that and what is wanted ahead. Releases that did not lend wrote the same columns, so they may run
# beside this one.
_TAKE: Final = PerRow(
    sqlite="""
        INSERT INTO rate_limits AS r
            (bucket, arrival_us, at_us, interval_us, full_us, wanted, granted)
        VALUES (?1, ?6 + min(?2, ?4) * ?3, ?6, ?3, ?6 + ?4 * ?3, min(?2, ?4) + ?5, min(?2, ?4))
        ON CONFLICT (bucket) DO UPDATE SET (arrival_us, granted) = (
            SELECT CASE WHEN lent > 0 THEN lends_us + lent * excluded.interval_us ELSE taken_us END,
                units + lent
            FROM (SELECT units, taken_us, lends_us,
                    max(0, min(excluded.wanted - excluded.granted, (excluded.at_us
                        + (excluded.full_us - excluded.at_us) / 8 - lends_us)
                        / excluded.interval_us)) AS lent
                FROM (SELECT units, taken_us, max(taken_us, excluded.at_us + 50000) AS lends_us
                    FROM (SELECT units, start_us + units * excluded.interval_us AS taken_us
                        FROM (SELECT start_us, max(0, min(excluded.granted,
                                (excluded.full_us - start_us) / excluded.interval_us)) AS units
                            FROM (SELECT CASE WHEN r.arrival_us > excluded.full_us + 60000000
                                THEN excluded.full_us ELSE max(r.arrival_us, excluded.at_us) END
                                AS start_us)))))
        ), at_us = excluded.at_us
        RETURNING bucket, granted, arrival_us, at_us
    """,
    postgres="""
        INSERT INTO rate_limits AS r
            (bucket, arrival_us, at_us, interval_us, full_us, wanted, granted)
        SELECT bucket, now_us + least(units, burst) * every_us, now_us, every_us,
            now_us + burst * every_us, least(units, burst) + ahead, least(units, burst)
        FROM unnest(CAST($1 AS text[]), CAST($2 AS bigint[]), CAST($3 AS bigint[]),
                CAST($4 AS bigint[]), CAST($5 AS bigint[]))
                AS w (bucket, units, every_us, burst, ahead),
            (SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS bigint)) AS n (now_us)
        ON CONFLICT (bucket) DO UPDATE SET (arrival_us, granted) = (
            SELECT CASE WHEN lent > 0 THEN lends_us + lent * excluded.interval_us ELSE taken_us END,
                units + lent
            FROM (SELECT units, taken_us, lends_us,
                    greatest(0, least(excluded.wanted - excluded.granted, (excluded.at_us
                        + (excluded.full_us - excluded.at_us) / 8 - lends_us)
                        / excluded.interval_us)) AS lent
                FROM (SELECT units, taken_us, greatest(taken_us, excluded.at_us + 50000) AS lends_us
                    FROM (SELECT units, start_us + units * excluded.interval_us AS taken_us
                        FROM (SELECT start_us, greatest(0, least(excluded.granted,
                                (excluded.full_us - start_us) / excluded.interval_us)) AS units
                            FROM (SELECT CASE WHEN r.arrival_us > excluded.full_us + 60000000
                                THEN excluded.full_us ELSE greatest(r.arrival_us, excluded.at_us)
                                END AS start_us) AS a) AS b) AS c) AS d) AS e
        ), at_us = excluded.at_us
        RETURNING bucket, granted, arrival_us, at_us
    """,
)
assert (SETBACK_US, HOLD_US, LENT_PART) == (60_000_000, 50_000, 8), "both statements say them"


async def take(tx: Tx, wants: Sequence[Want]) -> list[Bucket]:
    """Take from every bucket as much of what is wanted as it has, by the database's clock.

    A bucket may be named once. Each is taken from by itself: it is no harm if only some are.
    """
    ordered: list[tuple[str | int, ...]] = [*sorted(wants)]  # all lock in the same order
    if tx.engine == "sqlite":
        now_us = await tx.now_us()
        ordered = [(*want, now_us) for want in ordered]
    waited_for = {want.bucket: want.units for want in wants}

    def bucket(name: str, units: int, arrival_us: int, now_us: int) -> Bucket:
        granted = min(units, waited_for[name])
        return Bucket(name, granted, arrival_us, now_us, units - granted)

    return await tx.each(bucket, _TAKE, ordered)


async def take_in_turn(
    tx: Tx, first: Sequence[Want], then: Callable[[Sequence[Bucket]], Sequence[Want]]
) -> list[Bucket]:
    """Take of the `first`, and of others what `then` makes of that; all buckets that were asked.

    If it fails between the two, what was granted is granted to nobody: less, and never more.
    """
    granted = await take(tx, first) if first else []
    wants = then(granted)
    return [*granted, *await take(tx, wants)] if wants else granted


async def look(tx: ReadTx, names: Sequence[str]) -> list[Bucket]:
    """Return the buckets of these names that there are, as they are now; nothing is taken."""
    now_us = await tx.now_us()
    rows: list[tuple[str]] = [(name,) for name in names]
    found = await tx.each(_Arrival, _LOOK, rows)
    return [Bucket(name, 0, arrival_us, now_us) for name, arrival_us in found]


async def forget_full(tx: Tx) -> int:
    """Remove the buckets that have been full for an hour: a new one is just the same."""
    return await tx.execute(
        "DELETE FROM rate_limits WHERE arrival_us < :before",
        before=await tx.now_us() - 3_600_000_000,
    )


class _Arrival(NamedTuple):
    name: str
    arrival_us: int


_LOOK: Final = PerRow(
    sqlite="SELECT bucket, arrival_us FROM rate_limits WHERE bucket = ?",
    postgres="SELECT bucket, arrival_us FROM rate_limits WHERE bucket = ANY(CAST($1 AS text[]))",
)
