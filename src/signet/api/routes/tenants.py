"""`/v1/admin/tenants`: make, list, look at and change tenants while the gateway runs."""

from __future__ import annotations

from typing import Final, cast

import orjson
from starlette.requests import Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.auth import Refused
from signet.api.bodies import Body
from signet.api.operations import Content, Operation, Parameter, Secured, problem_response
from signet.api.pages import PARAMETERS, next_of, page_of
from signet.api.visits import actor_of
from signet.core.errors import SignetError
from signet.core.ids import TENANT_ID
from signet.core.members import or_null, text
from signet.core.tenant import TENANT_MEMBERS, Principal, Scope, TenantInvalid
from signet.gateway.tenants import (
    Configured,
    KnownTenant,
    TenantExists,
    Tenants,
    TenantUnknown,
)
from signet.receipts.canonical import canonicalize
from signet.receipts.receipt import timestamp

_JSON: Final = "application/json"
_NEW: Final = Body(
    members={"tenant": text("a tenant id", TENANT_ID), **TENANT_MEMBERS},
    required=("tenant",),
    code="tenant_invalid",
    example={
        "tenant": "initech",
        "allowlist": ["api.initech.example"],
        "fu_monthly_limit": 50000,
    },
)
_CHANGE: Final = Body(
    members={name: or_null(rule) for name, rule in TENANT_MEMBERS.items()},
    code="tenant_invalid",
    example={"fu_monthly_limit": None},
)
_TENANT: Final = Parameter(
    name="tenant",
    place="path",
    doc="The tenant's id.",
    schema=schemas.TENANT_ID,
    required=True,
)


def operations(tenants: Tenants, max_body_bytes: int) -> list[Operation]:
    """Return the operations of this file."""

    async def create(request: Request, principal: Principal) -> Response:
        members = await _NEW.read(request, max_body_bytes)
        if isinstance(members, Response):
            return members
        try:
            name = cast(str, members.pop("tenant"))
            made = await tenants.create(name, members, actor=actor_of(request, principal))
        except (TenantInvalid, TenantExists, Configured) as error:
            return _refused(error)
        return _answer(made, 201)

    async def listing(request: Request, _principal: Principal) -> Response:
        page = page_of(request)
        if isinstance(page, Refused):
            return problem_response(page.code, page.detail)
        limit, after = page
        found = await tenants.page(after=after, limit=limit)
        document = {
            "tenants": [orjson.Fragment(_document(tenant)) for tenant in found],
            "next": next_of([tenant.id for tenant in found], limit),
        }
        return Response(orjson.dumps(document), media_type=_JSON)

    async def one(request: Request, _principal: Principal) -> Response:
        try:
            return _answer(await tenants.find(request.path_params["tenant"]))
        except TenantUnknown as error:
            return _refused(error)

    async def change(request: Request, principal: Principal) -> Response:
        members = await _CHANGE.read(request, max_body_bytes)
        if isinstance(members, Response):
            return members
        try:
            name = request.path_params["tenant"]
            changed = await tenants.change(name, members, actor=actor_of(request, principal))
        except (TenantInvalid, TenantUnknown, Configured) as error:
            return _refused(error)
        return _answer(changed)

    asked = ("not_acknowledged", "overloaded")
    shown = Content(doc="The tenant, with every member in force.", schema=schemas.TENANT)
    return [
        Secured(
            method="POST",
            path="/v1/admin/tenants",
            name="create_tenant",
            summary="Make a tenant; its keys are made next.",
            endpoint=create,
            scope=Scope.ADMIN,
            body=_NEW.schema,
            answers={201: shown},
            problems=(*_NEW.problems, "tenant_exists", "configured_in_settings", *asked),
        ),
        Secured(
            method="GET",
            path="/v1/admin/tenants",
            name="list_tenants",
            summary="All tenants, those of SP_API_KEYS included.",
            endpoint=listing,
            scope=Scope.ADMIN,
            parameters=PARAMETERS,
            answers={200: Content(doc="A page, in the order of ids.", schema=schemas.TENANTS)},
            problems=("parameter_invalid", *asked),
        ),
        Secured(
            method="GET",
            path="/v1/admin/tenants/{tenant}",
            name="get_tenant",
            summary="One tenant.",
            endpoint=one,
            scope=Scope.ADMIN,
            parameters=(_TENANT,),
            answers={200: shown},
            problems=("not_found", *asked),
        ),
        Secured(
            method="PATCH",
            path="/v1/admin/tenants/{tenant}",
            name="change_tenant",
            summary="Replace the members that are given; null is the default again.",
            endpoint=change,
            scope=Scope.ADMIN,
            parameters=(_TENANT,),
            body=_CHANGE.schema,
            answers={200: shown},
            problems=(*_CHANGE.problems, "not_found", "configured_in_settings", *asked),
        ),
    ]


def _answer(tenant: KnownTenant, status: int = 200) -> Response:
    return Response(_document(tenant), status, media_type=_JSON)


def _document(tenant: KnownTenant) -> bytes:
    # Canonical, because a member may hold an exact decimal, which no other serialiser keeps.
    return canonicalize(
        {
            **tenant.members,
            "tenant": tenant.id,
            "source": "settings" if tenant.created_us is None else "database",
            "created_at": None if tenant.created_us is None else timestamp(tenant.created_us),
            "changed_at": None if tenant.changed_us is None else timestamp(tenant.changed_us),
        }
    )


def _refused(error: SignetError) -> Response:
    return problem_response(error.code, error.detail, faults=error.faults)
