"""Billing: the preview of a month, its signed statements, what a tenant was told, the reload."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from signet.api import schemas
from signet.api.operations import Content, Operation, Parameter, Secured, problem_response
from signet.api.visits import visit_of
from signet.core.audit import Origin
from signet.core.billing import PeriodInvalid, period_named
from signet.core.errors import SignetError
from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan
from signet.core.tenant import Principal, Scope
from signet.gateway.events import read_events
from signet.gateway.metering import PeriodUnknown, Repriced
from signet.gateway.plans import Reloaded
from signet.gateway.statements import Statements, StatementUnknown, as_csv, current_period
from signet.receipts.canonical import Json, canonicalize
from signet.storage.database import Database
from signet.storage.errors import StorageError

_JSON: Final = "application/json"
_CSV: Final = "text/csv"
_JSONL: Final = "application/jsonl"
_EVENTS: Final = 100


class Reload(Protocol):
    """Reads the reserved capacity again, and prices the months under way anew where asked to."""

    async def __call__(
        self, actor: str, origin: Origin, *, reprice: bool
    ) -> tuple[Reloaded, Repriced]:
        """Tell what is in force and what changed; `actor` is the id of the key that asks."""
        ...


class Plans(Protocol):
    """What these routes ask of the plans in force."""

    def plan_of(self, tenant: TenantId) -> TenantPlan:
        """Return the plan in force for a tenant."""
        ...


_PERIOD = Parameter(
    name="period",
    place="path",
    doc="A month such as 2026-11, in the tenant's time zone.",
    schema=schemas.MONTH,
    required=True,
)
_REVISION = Parameter(
    name="revision",
    place="query",
    doc="Which revision; the newest when absent.",
    schema={"type": "integer", "minimum": 1, "maximum": 999999},
)
_REPRICED = Parameter(
    name="period",
    place="query",
    doc="`current` prices the months that are under way anew, and tells Stripe the difference.",
    schema={"enum": ["current"]},
)
_FORMAT = Parameter(
    name="format",
    place="query",
    doc="`json`, the signed document itself, or `csv`, its lines for a spreadsheet.",
    schema={"enum": ["json", "csv"]},
)


def operations(
    database: Database,
    plans: Plans,
    statements: Statements,
    reload: Reload,
    now_us: Callable[[], int],
) -> list[Operation]:
    """Return the operations of this file. `reload` is told which key asks, from where."""

    def zone_of(principal: Principal) -> TenantPlan:
        return plans.plan_of(principal.tenant.id)

    async def preview(request: Request, principal: Principal) -> Response:
        plan = zone_of(principal)
        try:
            named = request.query_params.get("period")
            name = current_period(plan, now_us()) if named is None else named
            period = period_named(name, plan.zone).name
            members = await statements.preview(principal.tenant.id, period)
        except SignetError as error:
            return _refused(error)
        return _statement(canonicalize(members), members, request)

    async def listing(_request: Request, principal: Principal) -> Response:
        kept = await statements.listing(principal.tenant.id)
        shown = [
            {"period": s.period, "revision": s.revision, "created_us": s.created_us} for s in kept
        ]
        return Response(orjson.dumps({"statements": shown}), media_type=_JSON)

    async def statement(request: Request, principal: Principal) -> Response:
        try:
            period, revision = _which(request, zone_of(principal))
            document = await statements.statement(principal.tenant.id, period, revision)
        except SignetError as error:
            return _refused(error)
        return _statement(document, json.loads(document), request)

    async def shares(request: Request, principal: Principal) -> Response:
        try:
            period, revision = _which(request, zone_of(principal))
            await statements.statement(principal.tenant.id, period, revision)
        except SignetError as error:
            return _refused(error)
        lines = _share_lines(statements, principal.tenant.id, period, revision)
        return StreamingResponse(lines, media_type=_JSONL)

    async def events(request: Request, principal: Principal) -> Response:
        after = request.query_params.get("after", "0")
        if not re.fullmatch(r"[0-9]{1,16}", after):
            return problem_response("parameter_invalid", "after is the id of the last event seen")
        told = await read_events(database, principal.tenant.id, after=int(after), limit=_EVENTS)
        shown = [
            {
                "id": event.id,
                "kind": event.kind,
                "at_us": event.at_us,
                "data": orjson.Fragment(event.document),
            }
            for event in told
        ]
        return Response(orjson.dumps({"events": shown}), media_type=_JSON)

    async def reload_reserved(request: Request, principal: Principal) -> Response:
        period = request.query_params.get("period")
        if period not in (None, "current"):
            return problem_response("parameter_invalid", "period is `current`, or left out")
        visit = visit_of(request)
        try:
            reloaded, repriced = await reload(
                principal.key_id, visit.origin, reprice=period is not None
            )
        except StorageError:
            raise
        except SignetError as error:
            return problem_response("reload_refused", error.detail, faults=error.faults)
        visit.recorded = True
        document = {
            "plans": dict(reloaded.plans),
            "changed": list(reloaded.changed),
            "repriced": {tenant: dict(changes) for tenant, changes in repriced.items()},
        }
        return Response(orjson.dumps(document), media_type=_JSON)

    reading = ("parameter_invalid", "not_acknowledged", "overloaded")
    kept = ("statement_not_found", *reading)
    return [
        Secured(
            method="GET",
            path="/v1/billing/preview",
            name="preview_statement",
            summary="What the month's statement would say now, unsigned.",
            endpoint=preview,
            scope=Scope.BILLING_READ,
            parameters=(
                Parameter(
                    name="period",
                    place="query",
                    doc="A month such as 2026-11; the present one when absent.",
                    schema=schemas.MONTH,
                ),
                _FORMAT,
            ),
            answers={200: Content(doc="The preview.", also=(_CSV,), schema=schemas.STATEMENT)},
            problems=("period_not_found", "usage_unsettled", *reading),
        ),
        Secured(
            method="GET",
            path="/v1/billing/statements",
            name="list_statements",
            summary="The tenant's signed statements, the latest first.",
            endpoint=listing,
            scope=Scope.BILLING_READ,
            answers={200: Content(doc="The list.", schema=schemas.STATEMENTS)},
            problems=("not_acknowledged", "overloaded"),
        ),
        Secured(
            method="GET",
            path="/v1/billing/statements/{period}",
            name="get_statement",
            summary="A month's signed statement, as it was signed.",
            endpoint=statement,
            scope=Scope.BILLING_READ,
            parameters=(_PERIOD, _REVISION, _FORMAT),
            answers={200: Content(doc="The statement.", also=(_CSV,), schema=schemas.STATEMENT)},
            problems=kept,
        ),
        Secured(
            method="GET",
            path="/v1/billing/statements/{period}/receipts",
            name="list_statement_receipts",
            summary="The receipts behind each line of a statement, one JSON object a line.",
            endpoint=shares,
            scope=Scope.BILLING_READ,
            parameters=(_PERIOD, _REVISION),
            answers={200: Content(doc="JSON lines.", media_type=_JSONL)},
            problems=kept,
        ),
        Secured(
            method="GET",
            path="/v1/events",
            name="list_events",
            summary="What the tenant was told: usage alerts, statements that are ready.",
            endpoint=events,
            scope=Scope.BILLING_READ,
            parameters=(
                Parameter(
                    name="after",
                    place="query",
                    doc="The id of the last event seen.",
                    schema={"type": "integer", "minimum": 0, "maximum": 9999999999999999},
                ),
            ),
            answers={200: Content(doc="Up to 100 events, in order.", schema=schemas.EVENTS)},
            problems=reading,
        ),
        Secured(
            method="POST",
            path="/v1/admin/reload-reserved",
            name="reload_reserved",
            summary=(
                "Read SP_RESERVED_CONFIG again: all of it takes effect, on every node, or nothing."
            ),
            endpoint=reload_reserved,
            scope=Scope.ADMIN,
            answers={200: Content(doc="The plans in force.", schema=schemas.RELOADED)},
            parameters=(_REPRICED,),
            problems=("reload_refused", *reading),
        ),
    ]


def _which(request: Request, plan: TenantPlan) -> tuple[str, int | None]:
    """Return the month and the revision that a request names; raise `PeriodInvalid`."""
    revision = request.query_params.get("revision")
    if revision is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", revision):
        raise PeriodInvalid("revision is a whole number from 1")
    period = period_named(request.path_params["period"], plan.zone).name
    return period, None if revision is None else int(revision)


def _statement(document: bytes, members: Mapping[str, Json], request: Request) -> Response:
    match request.query_params.get("format", "json"):
        case "json":
            return Response(document, media_type=_JSON)
        case "csv":
            return Response(as_csv(members), media_type=_CSV)
        case _:
            return problem_response("parameter_invalid", "format is json or csv")


async def _share_lines(
    statements: Statements, tenant: TenantId, period: str, revision: int | None
) -> AsyncIterator[bytes]:
    async for share in statements.shares(tenant, period, revision):
        line = {
            "meter": share.meter,
            "tier": share.tier.number,
            "receipt_hash": share.receipt_hash,
            "units": share.units,
        }
        yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _refused(error: SignetError) -> Response:
    if isinstance(error, PeriodInvalid):
        return problem_response("parameter_invalid", error.detail)
    if isinstance(error, (PeriodUnknown, StatementUnknown)) or error.code == "usage_unsettled":
        return problem_response(error.code, error.detail)
    raise error
