"""What a tenant has used: verified exchanges, fallback tokens, and what is left of its quota."""

from __future__ import annotations

from dataclasses import dataclass

from signet.core.billing import Period
from signet.core.tenant import Principal, Tenant
from signet.storage import quota, usage
from signet.storage.database import Database
from signet.storage.quota import Standing
from signet.storage.tx import ReadTx


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One month of one tenant. `fu_limit` is None where the tenant has none."""

    period: Period
    vex_units: int
    fu_tokens: int
    fu_used: int
    fu_reserved: int
    fu_limit: int | None


async def read_usage(database: Database, tenant: Tenant, period: Period) -> Usage:
    """Return the tenant's month: running totals, never a scan."""
    return await database.read(_usage, tenant, period)


async def read_key_standing(database: Database, principal: Principal, period: Period) -> Standing:
    """Return how much of its own quota a key, or the line it continues, has used and holds."""
    return await database.read(quota.standing, principal.account, period.name)


async def _usage(tx: ReadTx, tenant: Tenant, period: Period) -> Usage:
    totals = await usage.totals(tx, tenant.id, period.name)
    units = {total.meter: total.units for total in totals}
    standing = await quota.standing(tx, tenant.id, period.name)
    return Usage(
        period=period,
        vex_units=units.get("vex", 0),
        fu_tokens=units.get("fu", 0),
        fu_used=standing.used,
        fu_reserved=standing.reserved,
        fu_limit=tenant.fu_monthly_limit,
    )
