"""The audit log: a tenant's own, and for the operator anybody's."""

from __future__ import annotations

import re
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.auth import Refused
from signet.api.operations import Content, Operation, Parameter, Secured, problem_response
from signet.api.pages import limit_of, limit_parameter
from signet.core.audit import SYSTEM, read_time
from signet.core.ids import TENANT_ID, TenantId
from signet.core.tenant import Principal, Scope
from signet.gateway.audit_exports import AuditExports
from signet.storage.hashes import hash_text

_MOST: Final = 1000
_MAX_SEQ: Final = 2**53 - 1
_NUMBER: Final = re.compile(r"[0-9]{1,16}")
_ACTION: Final = re.compile(r"[a-z0-9_.]{1,64}")

_FILTERS: Final = (
    Parameter(
        name="after",
        place="query",
        doc="The number of the last entry seen; `next_after` of the page before.",
        schema={"type": "integer", "minimum": 0, "maximum": _MAX_SEQ},
    ),
    limit_parameter(_MOST),
    Parameter(
        name="from",
        place="query",
        doc="Entries that the chain reached at or after this time.",
        schema=schemas.TIMESTAMP,
    ),
    Parameter(
        name="to",
        place="query",
        doc="Entries that the chain reached before this time.",
        schema=schemas.TIMESTAMP,
    ),
    Parameter(
        name="action",
        place="query",
        doc="Entries of this action only, such as `exchange`.",
        schema={"type": "string", "pattern": f"^{_ACTION.pattern}$"},
    ),
)


def operations(exports: AuditExports) -> list[Operation]:
    """Return the operations of this file."""

    async def own(request: Request, principal: Principal) -> Response:
        return await page(request, principal.tenant.id)

    async def anybody_s(request: Request, _principal: Principal) -> Response:
        tenant = request.path_params["tenant"]
        if tenant != SYSTEM and not TENANT_ID.fullmatch(tenant):
            return problem_response("parameter_invalid", f"a tenant id, or {SYSTEM}")
        return await page(request, TenantId(tenant))

    async def page(request: Request, tenant: TenantId) -> Response:
        wanted = _wanted(request)
        if isinstance(wanted, Refused):
            return problem_response(wanted.code, wanted.detail)
        after, limit, from_us, to_us, action = wanted
        found, head = await exports.page(
            tenant, after=after, from_us=from_us, to_us=to_us, action=action, limit=limit
        )
        document = {
            "tenant": tenant,
            "entries": [orjson.Fragment(entry.body) for entry in found.entries],
            "next_after": found.next_after,
            "head": None
            if head is None
            else {"seq": head.seq, "entry_hash": hash_text(head.entry_hash)},
        }
        return Response(orjson.dumps(document), media_type="application/json")

    answers = {200: Content(doc="A page of entries, oldest first.", schema=schemas.AUDIT)}
    problems = ("parameter_invalid", "not_acknowledged")
    return [
        Secured(
            method="GET",
            path="/v1/audit",
            name="get_audit",
            summary="Who did what with this tenant's keys, and what was changed about it.",
            endpoint=own,
            scope=Scope.RECEIPTS_READ,
            parameters=_FILTERS,
            answers=answers,
            problems=problems,
        ),
        Secured(
            method="GET",
            path="/v1/admin/audit/{tenant}",
            name="get_tenant_audit",
            summary="The audit log of any tenant, or of the deployment (`_system`).",
            endpoint=anybody_s,
            scope=Scope.ADMIN,
            parameters=(
                Parameter(
                    name="tenant",
                    place="path",
                    doc=f"A tenant id, or `{SYSTEM}`; one without entries has an empty page.",
                    schema={"type": "string", "pattern": f"^({SYSTEM}|{TENANT_ID.pattern})$"},
                    required=True,
                ),
                *_FILTERS,
            ),
            answers=answers,
            problems=problems,
        ),
    ]


def _wanted(request: Request) -> tuple[int, int, int | None, int | None, str | None] | Refused:
    """Return (after, limit, from, to, action) of a request."""
    given = request.query_params
    after, limit = given.get("after", "0"), limit_of(request, _MOST)
    action = given.get("action")
    if not _NUMBER.fullmatch(after) or int(after) > _MAX_SEQ:
        return Refused("parameter_invalid", "after is the number of an entry")
    if isinstance(limit, Refused):
        return limit
    if action is not None and not _ACTION.fullmatch(action):
        return Refused("parameter_invalid", "action is the name of an action")
    try:
        times = [None if (text := given.get(n)) is None else read_time(text) for n in _TIMES]
    except ValueError:
        detail = "from and to are times (RFC 3339) such as 2026-11-25T00:00:00Z"
        return Refused("parameter_invalid", detail)
    return int(after), limit, times[0], times[1], action


_TIMES: Final = ("from", "to")
