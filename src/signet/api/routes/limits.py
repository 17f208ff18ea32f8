"""`GET /v1/limits`: how fast and how much a caller may ask, and what is left."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.operations import Content, Operation, Secured
from signet.core.billing import period_of
from signet.core.ids import TenantId
from signet.core.ratelimit import Rate, Standing
from signet.core.tenant import Principal, Scope
from signet.gateway.limits import Bounds, Limits
from signet.gateway.registering import Registrations
from signet.gateway.usage import read_key_standing, read_usage
from signet.storage.database import Database

_UNBOUNDED = Bounds(shares=(), concurrency=None)


def operations(
    limits: Limits,
    database: Database,
    registrations: Registrations,
    zone_of: Callable[[TenantId], str],
    now_us: Callable[[], int],
) -> list[Operation]:
    """Return the operations of this file."""

    async def look(_request: Request, principal: Principal) -> Response:
        tenant = principal.tenant
        counted = limits.of(principal)
        bounds = counted or _UNBOUNDED
        gauges = {g.policy: (g.rate, g.standing) for g in await limits.look(bounds)}
        period = period_of(now_us(), zone_of(tenant.id))
        used = await read_usage(database, tenant, period)
        of_key = await read_key_standing(database, principal, period)
        kept, may_keep = await registrations.kept(tenant.id)
        document = {
            "tenant": tenant.id,
            "key_id": principal.key_id,
            "rates": {
                "tenant": _rate(gauges.get("tenant")),
                "key": _rate(gauges.get("key")),
            },
            "concurrency": {
                "limit": bounds.concurrency,
                "in_progress": None if counted is None else limits.in_progress(tenant.id),
            },
            "fu": {
                "period": period.name,
                "limit": used.fu_limit,
                "used": used.fu_used,
                "reserved": used.fu_reserved,
                "left": _left(used.fu_limit, used.fu_used, used.fu_reserved),
                "key_limit": principal.fu_monthly_limit,
                "key_used": of_key.used,
                "key_reserved": of_key.reserved,
                "key_left": _left(principal.fu_monthly_limit, of_key.used, of_key.reserved),
            },
            "registry": {
                "documents": _quota(may_keep.documents, kept.documents),
                "bytes": _quota(may_keep.size_bytes, kept.size_bytes),
            },
        }
        return Response(orjson.dumps(document), media_type="application/json")

    return [
        Secured(
            method="GET",
            path="/v1/limits",
            name="get_limits",
            summary="The caller's rates, concurrency and quotas, and what is left of them.",
            endpoint=look,
            scope=Scope.EXCHANGE,
            answers={
                200: Content(doc="The limits as they stand; null is none.", schema=schemas.LIMITS)
            },
            problems=("not_acknowledged",),
        )
    ]


def _quota(limit: int, used: int) -> dict[str, int]:
    return {"limit": limit, "used": used, "left": max(limit - used, 0)}


def _left(limit: int | None, used: int, reserved: int) -> int | None:
    return None if limit is None else max(limit - used - reserved, 0)


def _rate(gauge: tuple[Rate, Standing] | None) -> dict[str, int] | None:
    if gauge is None:
        return None
    rate, now = gauge
    return {
        "interval_us": rate.interval_us,
        "burst": rate.burst,
        "left": now.left,
        "next_us": now.next_us,
    }
