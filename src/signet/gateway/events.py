"""What a tenant is told once: usage alerts, statements that are ready."""

from __future__ import annotations

from signet.core.ids import TenantId
from signet.storage import billing
from signet.storage.billing import TenantEvent
from signet.storage.database import Database


async def read_events(
    database: Database, tenant: TenantId, *, after: int, limit: int
) -> list[TenantEvent]:
    """Return up to `limit` of the tenant's events behind the one called `after`, in order."""
    return await database.read(billing.events, tenant, after=after, limit=limit)
