"""Usage counted from the receipts, the months it belongs to, and their statements.

The receipt is the usage row. Counting reads the log once, in order, by a cursor that moves in the
transaction that writes what was counted: a receipt is counted exactly once, whatever crashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from signet.storage.hashes import hash_text
from signet.storage.tx import PerRow, ReadTx, Tx


class Uncounted(NamedTuple):
    """A receipt beyond the cursor."""

    id: int
    tenant: str
    period: str
    ts_us: int
    vex: int
    fu: int


class HourUnits(NamedTuple):
    """Units of one meter in one UTC hour (seconds since the epoch) of a tenant's month."""

    tenant: str
    period: str
    meter: str
    hour: int
    units: int


class MonthUnits(NamedTuple):
    """Units of one meter in one of a tenant's months."""

    meter: str
    units: int


class StoredPeriod(NamedTuple):
    """One tenant's month. `plan` is the pinned plan's CID; `vex` and `fu` are what was counted."""

    tenant: str
    period: str
    plan: str
    end_us: int
    vex: int
    fu: int
    closed_us: int | None


class MeteredReceipt(NamedTuple):
    """A receipt that metered something, in the order the log took it."""

    id: int
    receipt_hash: str
    ts_us: int
    vex: int
    fu: int


class StoredStatement(NamedTuple):
    """A signed statement; `upto` is the last receipt that it could have listed."""

    period: str
    revision: int
    upto: int
    created_us: int
    document: bytes


class TenantEvent(NamedTuple):
    """Something a tenant is told, once."""

    id: int
    kind: str
    mark: str
    at_us: int
    document: bytes


# Counting. Whoever counts, prices again or closes holds the cursor's row from its first statement,
# so that these never interleave.


async def lock_cursor(tx: Tx) -> int:
    """Hold the cursor for this transaction; the id of the last receipt that was counted."""
    counted = await tx.one(
        int, "UPDATE billing_cursor SET receipt = receipt WHERE id = 1 RETURNING receipt"
    )
    assert counted is not None, "the migration inserted the row, and nothing deletes it"
    return counted


async def cursor(tx: ReadTx) -> int:
    """The id of the last receipt that was counted, as of this look at the database."""
    return await tx.one(int, "SELECT receipt FROM billing_cursor WHERE id = 1") or 0


async def move_cursor(tx: Tx, receipt: int) -> None:
    """Everything up to this receipt has been counted in this transaction."""
    await tx.execute("UPDATE billing_cursor SET receipt = :receipt WHERE id = 1", receipt=receipt)


async def uncounted(tx: ReadTx, after: int, limit: int) -> list[Uncounted]:
    """The next receipts of the log, whether they metered anything or not."""
    return await tx.all(
        Uncounted,
        """SELECT id, tenant, period, ts_us, vex_units, fu_tokens FROM receipts
        WHERE id > :after ORDER BY id LIMIT :limit""",
        after=after,
        limit=limit,
    )


_ADD = PerRow(
    sqlite="""
        INSERT INTO billing_hours (tenant, period, meter, hour, units) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (tenant, period, meter, hour)
            DO UPDATE SET units = billing_hours.units + excluded.units
    """,
    postgres="""
        INSERT INTO billing_hours (tenant, period, meter, hour, units)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[])
        ON CONFLICT (tenant, period, meter, hour)
            DO UPDATE SET units = billing_hours.units + excluded.units
    """,
)


async def add_hours(tx: Tx, units: Sequence[HourUnits]) -> None:
    """Add what was counted; no two entries may name the same hour of a month."""
    if units:
        await tx.execute_each(_ADD, [tuple(entry) for entry in units])


async def hours(tx: ReadTx, tenant: str, period: str) -> list[HourUnits]:
    """A month's usage by the hour, in order."""
    return await tx.all(
        HourUnits,
        """SELECT tenant, period, meter, hour, units FROM billing_hours
        WHERE tenant = :tenant AND period = :period ORDER BY meter, hour""",
        tenant=tenant,
        period=period,
    )


async def recount_hours(tx: Tx, tenant: str, period: str, upto: int) -> list[HourUnits]:
    """Count a whole month again from its receipts, up to one of them, and return it."""
    await tx.execute(
        "DELETE FROM billing_hours WHERE tenant = :tenant AND period = :period",
        tenant=tenant,
        period=period,
    )
    await tx.execute(
        """INSERT INTO billing_hours (tenant, period, meter, hour, units)
        SELECT tenant, period, 'vex', ts_us / 3600000000 * 3600, sum(vex_units) FROM receipts
        WHERE tenant = :tenant AND period = :period AND id <= :upto AND vex_units > 0
        GROUP BY tenant, period, ts_us / 3600000000""",
        tenant=tenant,
        period=period,
        upto=upto,
    )
    await tx.execute(
        """INSERT INTO billing_hours (tenant, period, meter, hour, units)
        SELECT tenant, period, 'fu', ts_us / 3600000000 * 3600, sum(fu_tokens) FROM receipts
        WHERE tenant = :tenant AND period = :period AND id <= :upto AND fu_tokens > 0
        GROUP BY tenant, period, ts_us / 3600000000""",
        tenant=tenant,
        period=period,
        upto=upto,
    )
    return await hours(tx, tenant, period)


async def month_total(tx: ReadTx, tenant: str, period: str) -> list[MonthUnits]:
    """The running totals that the exchanges themselves kept: a few indexed rows."""
    return await tx.all(
        MonthUnits,
        """SELECT meter, CAST(sum(units) AS bigint) FROM usage_totals
        WHERE tenant = :tenant AND period = :period GROUP BY meter""",
        tenant=tenant,
        period=period,
    )


def _by_meter(vex: int, fu: int) -> dict[str, int]:
    return {"vex": vex, "fu": fu}


async def uncounted_units(tx: ReadTx, tenant: str, period: str) -> dict[str, int]:
    """What a month's receipts beyond the cursor meter."""
    found = await tx.one(
        _by_meter,
        """SELECT CAST(coalesce(sum(vex_units), 0) AS bigint),
            CAST(coalesce(sum(fu_tokens), 0) AS bigint)
        FROM receipts WHERE tenant = :tenant AND period = :period
            AND (vex_units > 0 OR fu_tokens > 0)
            AND id > (SELECT receipt FROM billing_cursor WHERE id = 1)""",
        tenant=tenant,
        period=period,
    )
    return found or {}


# Months.


async def find_period(tx: ReadTx, tenant: str, period: str) -> StoredPeriod | None:
    """One tenant's month, once it has a unit."""
    return await tx.one(
        StoredPeriod,
        """SELECT tenant, period, plan, end_us, vex, fu, closed_us FROM billing_periods
        WHERE tenant = :tenant AND period = :period""",
        tenant=tenant,
        period=period,
    )


async def periods_of(tx: ReadTx, tenant: str, limit: int) -> list[StoredPeriod]:
    """A tenant's months, the latest first."""
    return await tx.all(
        StoredPeriod,
        """SELECT tenant, period, plan, end_us, vex, fu, closed_us FROM billing_periods
        WHERE tenant = :tenant ORDER BY period DESC LIMIT :limit""",
        tenant=tenant,
        limit=limit,
    )


async def periods_ended_after(tx: ReadTx, *, ended_after_us: int, limit: int) -> list[StoredPeriod]:
    """Months that end after then, closed or not, the oldest first."""
    return await tx.all(
        StoredPeriod,
        """SELECT tenant, period, plan, end_us, vex, fu, closed_us FROM billing_periods
        WHERE end_us > :ended_after ORDER BY end_us, tenant LIMIT :limit""",
        ended_after=ended_after_us,
        limit=limit,
    )


async def open_periods(tx: ReadTx, *, ended_by_us: int, limit: int) -> list[StoredPeriod]:
    """Months that are not closed and ended by then, the oldest first."""
    return await tx.all(
        StoredPeriod,
        """SELECT tenant, period, plan, end_us, vex, fu, closed_us FROM billing_periods
        WHERE closed_us IS NULL AND end_us <= :ended_by ORDER BY end_us, tenant LIMIT :limit""",
        ended_by=ended_by_us,
        limit=limit,
    )


async def recent_plans(tx: ReadTx, *, ended_after_us: int) -> list[bytes]:
    """The documents of all plans that priced months which ended after then, the replaced ones too:
    their items have windows that must become nothing."""
    return await tx.all(
        bytes,
        """SELECT document FROM billing_plans WHERE cid IN
            (SELECT plan FROM billing_periods WHERE end_us > :ended_after)
        UNION SELECT document FROM billing_plans
            WHERE replaced_until_us IS NOT NULL AND replaced_until_us > :ended_after""",
        ended_after=ended_after_us,
    )


async def adjustable_periods(tx: ReadTx, *, ended_after_us: int, limit: int) -> list[StoredPeriod]:
    """Closed months that metered something after their newest statement."""
    return await tx.all(
        StoredPeriod,
        """SELECT p.tenant, p.period, p.plan, p.end_us, p.vex, p.fu, p.closed_us
        FROM billing_periods p
        WHERE p.end_us > :ended_after AND p.closed_us IS NOT NULL AND EXISTS (
            SELECT 1 FROM receipts r
            WHERE r.tenant = p.tenant AND r.period = p.period
                AND (r.vex_units > 0 OR r.fu_tokens > 0)
                AND r.id > (
                    SELECT max(s.upto) FROM billing_statements s
                    WHERE s.tenant = p.tenant AND s.period = p.period
                )
        ) LIMIT :limit""",
        ended_after=ended_after_us,
        limit=limit,
    )


async def pin_period(
    tx: Tx, tenant: str, period: str, *, plan: str, document: bytes, end_us: int
) -> None:
    """Begin a month under a plan; the plan's document is kept as long as the database is."""
    await keep_plan(tx, plan, document)
    await tx.execute(
        """INSERT INTO billing_periods (tenant, period, plan, end_us, vex, fu)
        VALUES (:tenant, :period, :plan, :end_us, 0, 0)""",
        tenant=tenant,
        period=period,
        plan=plan,
        end_us=end_us,
    )


async def keep_plan(tx: Tx, plan: str, document: bytes) -> None:
    """Keep a plan's document under its CID."""
    await tx.execute(
        "INSERT INTO billing_plans (cid, document) VALUES (:plan, :document) "
        "ON CONFLICT (cid) DO NOTHING",
        plan=plan,
        document=document,
    )


async def replace_plan(tx: Tx, plan: str, *, until_us: int) -> None:
    """Say that a month which ends then was priced by this plan, and is by another one now."""
    await tx.execute(
        """UPDATE billing_plans SET replaced_until_us = :until
        WHERE cid = :plan AND coalesce(replaced_until_us, 0) < :until""",
        plan=plan,
        until=until_us,
    )


async def plan_document(tx: ReadTx, plan: str) -> bytes | None:
    """The document behind a pinned plan's CID."""
    return await tx.one(bytes, "SELECT document FROM billing_plans WHERE cid = :plan", plan=plan)


async def set_counted(tx: Tx, tenant: str, period: str, *, vex: int, fu: int, plan: str) -> None:
    """A month's counted units, and the plan that they were allocated by."""
    await tx.execute(
        """UPDATE billing_periods SET vex = :vex, fu = :fu, plan = :plan
        WHERE tenant = :tenant AND period = :period""",
        tenant=tenant,
        period=period,
        vex=vex,
        fu=fu,
        plan=plan,
    )


# Statements.


def _metered(id: int, receipt_hash: bytes, ts_us: int, vex: int, fu: int) -> MeteredReceipt:
    return MeteredReceipt(id, hash_text(receipt_hash), ts_us, vex, fu)


async def metered_receipts(
    tx: ReadTx, tenant: str, period: str, *, after: int, upto: int, limit: int
) -> list[MeteredReceipt]:
    """A page of the receipts behind a statement: ids over `after`, up to `upto` included."""
    return await tx.all(
        _metered,
        """SELECT id, receipt_hash, ts_us, vex_units, fu_tokens FROM receipts
        WHERE tenant = :tenant AND period = :period AND (vex_units > 0 OR fu_tokens > 0)
            AND id > :after AND id <= :upto
        ORDER BY id LIMIT :limit""",
        tenant=tenant,
        period=period,
        after=after,
        upto=upto,
        limit=limit,
    )


async def latest_statement(tx: ReadTx, tenant: str, period: str) -> StoredStatement | None:
    """A month's newest revision."""
    return await tx.one(
        StoredStatement,
        """SELECT period, revision, upto, created_us, document FROM billing_statements
        WHERE tenant = :tenant AND period = :period ORDER BY revision DESC LIMIT 1""",
        tenant=tenant,
        period=period,
    )


async def find_statement(
    tx: ReadTx, tenant: str, period: str, *, revision: int | None
) -> StoredStatement | None:
    """One revision of a month's statement; the newest unless one is named."""
    if revision is None:
        return await latest_statement(tx, tenant, period)
    return await tx.one(
        StoredStatement,
        """SELECT period, revision, upto, created_us, document FROM billing_statements
        WHERE tenant = :tenant AND period = :period AND revision = :revision""",
        tenant=tenant,
        period=period,
        revision=revision,
    )


async def statements_of(tx: ReadTx, tenant: str, limit: int) -> list[StoredStatement]:
    """A tenant's statements, the latest month and revision first."""
    return await tx.all(
        StoredStatement,
        """SELECT period, revision, upto, created_us, document FROM billing_statements
        WHERE tenant = :tenant ORDER BY period DESC, revision DESC LIMIT :limit""",
        tenant=tenant,
        limit=limit,
    )


async def keep_statement(
    tx: Tx, tenant: str, period: str, *, revision: int, upto: int, now_us: int, document: bytes
) -> None:
    """Keep a signed statement and close its month. A revision that exists is never overwritten."""
    await tx.execute(
        """INSERT INTO billing_statements (tenant, period, revision, upto, created_us, document)
        VALUES (:tenant, :period, :revision, :upto, :now, :document)""",
        tenant=tenant,
        period=period,
        revision=revision,
        upto=upto,
        now=now_us,
        document=document,
    )
    await tx.execute(
        """UPDATE billing_periods SET closed_us = :now
        WHERE tenant = :tenant AND period = :period""",
        tenant=tenant,
        period=period,
        now=now_us,
    )


# What tenants are told.


async def tell(tx: Tx, tenant: str, kind: str, mark: str, *, at_us: int, document: bytes) -> None:
    """Tell a tenant something; the same `mark` a second time changes nothing."""
    await tx.execute(
        """INSERT INTO tenant_events (tenant, kind, mark, at_us, document)
        VALUES (:tenant, :kind, :mark, :at, :document)
        ON CONFLICT (tenant, kind, mark) DO NOTHING""",
        tenant=tenant,
        kind=kind,
        mark=mark,
        at=at_us,
        document=document,
    )


async def events(tx: ReadTx, tenant: str, *, after: int, limit: int) -> list[TenantEvent]:
    """What a tenant was told after an event, in order."""
    return await tx.all(
        TenantEvent,
        """SELECT id, kind, mark, at_us, document FROM tenant_events
        WHERE tenant = :tenant AND id > :after ORDER BY id LIMIT :limit""",
        tenant=tenant,
        after=after,
        limit=limit,
    )
