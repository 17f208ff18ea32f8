"""`GET /v1/usage`: what a tenant has used, and what is left."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from starlette.requests import Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.operations import Content, Operation, Parameter, Secured, problem_response
from signet.core.billing import Period, PeriodInvalid, period_named, period_of
from signet.core.ids import TenantId
from signet.core.tenant import Principal, Scope
from signet.gateway.usage import Usage, read_usage
from signet.receipts.receipt import timestamp
from signet.storage.database import Database


def operations(
    database: Database, zone_of: Callable[[TenantId], str], now_us: Callable[[], int]
) -> list[Operation]:
    """Return the operations of this file."""

    async def usage(request: Request, principal: Principal) -> Response:
        name = request.query_params.get("period")
        zone = zone_of(principal.tenant.id)
        try:
            period = period_of(now_us(), zone) if name is None else period_named(name, zone)
        except PeriodInvalid as error:
            return problem_response("parameter_invalid", error.detail)
        used = await read_usage(database, principal.tenant, period)
        return Response(orjson.dumps(_document(principal, used)), media_type="application/json")

    return [
        Secured(
            method="GET",
            path="/v1/usage",
            name="get_usage",
            summary="A month's verified exchanges and fallback tokens, and the quota.",
            endpoint=usage,
            scope=Scope.BILLING_READ,
            parameters=(
                Parameter(
                    name="period",
                    place="query",
                    doc="A month such as 2026-11; the present one when absent.",
                    schema=schemas.MONTH,
                ),
            ),
            answers={200: Content(doc="The month.", schema=schemas.USAGE)},
            problems=("parameter_invalid", "not_acknowledged"),
        )
    ]


def _document(principal: Principal, used: Usage) -> dict[str, object]:
    limit = used.fu_limit
    left = None if limit is None else max(limit - used.fu_used - used.fu_reserved, 0)
    return {
        "tenant": principal.tenant.id,
        "period": _period(used.period),
        "vex": {"units": used.vex_units},
        "fu": {
            "units": used.fu_tokens,
            "quota": {
                "limit": limit,
                "used": used.fu_used,
                "reserved": used.fu_reserved,
                "left": left,
            },
        },
    }


def _period(period: Period) -> dict[str, str]:
    return {
        "name": period.name,
        "start": timestamp(period.start_us),
        "end": timestamp(period.end_us),
    }
