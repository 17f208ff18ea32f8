"""The registry: types, tools and mappings, listed, fetched, registered and deprecated."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.auth import Refused
from signet.api.bodies import read_json_body
from signet.api.deprecation import deprecation_headers
from signet.api.operations import Content, Operation, Parameter, Secured, problem_response
from signet.api.pages import limit_of, limit_parameter
from signet.api.visits import actor_of
from signet.core.ids import TENANT_ID, TenantId
from signet.core.members import member_faults
from signet.core.registry import (
    DOCUMENT_NAME,
    REMARK_MEMBERS,
    Entry,
    Kind,
    Origin,
    Registry,
    RegistryInvalid,
)
from signet.core.tenant import Principal, Scope
from signet.gateway.registering import NotRegistered, Owner, Registered, Registrations
from signet.receipts.canonical import Json, canonicalize, parse
from signet.receipts.errors import ReceiptError
from signet.receipts.receipt import timestamp

_JSON: Final = "application/json"
_KINDS: Final = {f"{kind}s": kind for kind in Kind}
_MAX_PAGE: Final = 500
_MAX_REMARK_BYTES: Final = 16_384
"""More than 500 characters need, however they are escaped."""

_KIND = Parameter(
    name="kind", place="path", doc="What it is.", schema=schemas.REGISTRY_KIND, required=True
)
_NAMED = Parameter(
    name="name",
    place="path",
    doc="`acme.order.v1`, `acme.order.v1--acme.invoice.v1`, `place_order.v1`.",
    schema=schemas.REGISTRY_NAME,
    required=True,
)
_PAGE = (
    Parameter(name="kind", place="query", doc="Only these.", schema=schemas.REGISTRY_KIND),
    limit_parameter(_MAX_PAGE),
    Parameter(
        name="after",
        place="query",
        doc="The `next` of the page before.",
        schema={"type": "string", "pattern": "^(types|mappings|tools)/[A-Za-z0-9_.-]{1,260}$"},
    ),
)
_TENANT = Parameter(
    name="tenant",
    place="query",
    doc="Whose own documents; everybody's when absent.",
    schema={"type": "string", "pattern": f"^{TENANT_ID.pattern}$"},
)


def operations(registrations: Registrations, max_body_bytes: int) -> list[Operation]:
    """Return the operations of this file."""
    registries = registrations.registries

    async def listing(request: Request, principal: Principal) -> Response:
        return _listing(request, await registries.of(principal.tenant.id), None)

    async def listing_for_admin(request: Request, _principal: Principal) -> Response:
        tenant = request.query_params.get("tenant")
        if tenant is None:
            return _listing(request, registries.shared, Origin.GLOBAL)
        if not TENANT_ID.fullmatch(tenant):
            return problem_response("parameter_invalid", "tenant is no tenant's id")
        return _listing(request, await registries.of(TenantId(tenant)), Origin.TENANT)

    async def document(request: Request, principal: Principal) -> Response:
        named = _named(request)
        if isinstance(named, Refused):
            return problem_response(named.code, named.detail)
        entry = (await registries.of(principal.tenant.id)).entries.get(named)
        if entry is None:
            return problem_response("not_found", "no such document")
        shown = entry_document(entry) | {"document": orjson.Fragment(canonicalize(entry.document))}
        headers = {"ETag": f'"{entry.cid}"', **_deprecation(entry)}
        return Response(orjson.dumps(shown), headers=headers, media_type=_JSON)

    def register(owner_of: Callable[[Principal], Owner]) -> _Endpoint:
        async def endpoint(request: Request, principal: Principal) -> Response:
            named, body = _named(request), await _body(request, max_body_bytes)
            if isinstance(body, Response):
                return body
            if isinstance(named, Refused):
                return problem_response(named.code, named.detail)
            owner = owner_of(principal)
            result = await registrations.register(actor_of(request, principal), owner, *named, body)
            return _answer(result)

        return endpoint

    def deprecate(owner_of: Callable[[Principal], Owner]) -> _Endpoint:
        async def endpoint(request: Request, principal: Principal) -> Response:
            named, body = _named(request), await _body(request, _MAX_REMARK_BYTES)
            if isinstance(body, Response):
                return body
            if isinstance(named, Refused):
                return problem_response(named.code, named.detail)
            try:
                remark = _remark(body)
            except (ReceiptError, RegistryInvalid) as error:
                faults = error.faults if isinstance(error, RegistryInvalid) else ()
                return problem_response("registry_invalid", str(error), faults=faults)
            owner = owner_of(principal)
            result = await registrations.deprecate(
                actor_of(request, principal), owner, *named, **remark
            )
            return _answer(result)

        return endpoint

    def restore(owner_of: Callable[[Principal], Owner]) -> _Endpoint:
        async def endpoint(request: Request, principal: Principal) -> Response:
            named = _named(request)
            if isinstance(named, Refused):
                return problem_response(named.code, named.detail)
            return _answer(
                await registrations.restore(
                    actor_of(request, principal), owner_of(principal), *named
                )
            )

        return endpoint

    reading = ("parameter_invalid", "not_acknowledged", "overloaded")
    writing = (*reading, "body_too_large", "unsupported_media_type", "registry_invalid")
    entry = Content(doc="The document as it is listed.", schema=schemas.REGISTRY_ENTRY)
    listed = Content(doc="A page of the registry.", schema=schemas.REGISTRY_LIST)

    def changing(
        path: str, suffix: str, scope: Scope, owner_of: Callable[[Principal], Owner]
    ) -> list[Operation]:
        return [
            Secured(
                method="PUT",
                path=path,
                name=f"register{suffix}",
                summary="Register a version; one that is there stays as it is.",
                endpoint=register(owner_of),
                scope=scope,
                parameters=(_KIND, _NAMED),
                body={
                    "type": ["object", "boolean"],
                    "description": "The document itself.",
                    "examples": [{"type": "object"}],
                },
                answers={200: entry, 201: Content(doc="It is new.", schema=entry.schema)},
                problems=(*writing, "registry_conflict", "registry_full"),
            ),
            Secured(
                method="PUT",
                path=f"{path}/deprecation",
                name=f"deprecate{suffix}",
                summary="Say that a version should not be used any more; it serves as before.",
                endpoint=deprecate(owner_of),
                scope=scope,
                parameters=(_KIND, _NAMED),
                body=schemas.DEPRECATION,
                answers={200: entry},
                problems=(*writing, "not_found"),
            ),
            Secured(
                method="DELETE",
                path=f"{path}/deprecation",
                name=f"restore{suffix}",
                summary="Take back that a version is deprecated.",
                endpoint=restore(owner_of),
                scope=scope,
                parameters=(_KIND, _NAMED),
                answers={200: entry},
                problems=(*reading, "not_found"),
            ),
        ]

    return [
        Secured(
            method="GET",
            path="/v1/registry",
            name="list_registry",
            summary="The types, mappings and tools that the tenant can name.",
            endpoint=listing,
            scope=Scope.EXCHANGE,
            parameters=_PAGE,
            answers={200: listed},
            problems=reading,
        ),
        Secured(
            method="GET",
            path="/v1/registry/{kind}/{name}",
            name="get_registered",
            summary="One document of the registry.",
            endpoint=document,
            scope=Scope.EXCHANGE,
            parameters=(_KIND, _NAMED),
            answers={200: entry},
            problems=(*reading, "not_found"),
        ),
        *changing(
            "/v1/registry/{kind}/{name}", "", Scope.REGISTRY_WRITE, lambda caller: caller.tenant.id
        ),
        Secured(
            method="GET",
            path="/v1/admin/registry",
            name="list_global_registry",
            summary="What was registered for everybody, or by one tenant.",
            endpoint=listing_for_admin,
            scope=Scope.ADMIN,
            parameters=(*_PAGE, _TENANT),
            answers={200: listed},
            problems=reading,
        ),
        *changing("/v1/admin/registry/{kind}/{name}", "_global", Scope.ADMIN, lambda _: None),
    ]


_Endpoint = Callable[[Request, Principal], Awaitable[Response]]


def entry_document(entry: Entry) -> dict[str, object]:
    """Return an entry as callers see it, without its content."""
    said = entry.deprecated
    deprecated = None
    if said is not None:
        deprecated = {
            "since": timestamp(said.since_us),
            "detail": said.detail,
            "successor": said.successor,
        }
    return {
        "kind": f"{entry.kind}s",
        "name": entry.name,
        "cid": entry.cid,
        "origin": entry.origin,
        "created": None if entry.created_us is None else timestamp(entry.created_us),
        "deprecated": deprecated,
        "shadows": entry.shadows,
    }


def _listing(request: Request, registry: Registry, origin: Origin | None) -> Response:
    """A page of what `registry` lists, of one origin where that is given."""
    kind = request.query_params.get("kind")
    limit = limit_of(request, _MAX_PAGE)
    after = request.query_params.get("after")
    if kind is not None and kind not in _KINDS:
        return problem_response("parameter_invalid", f"kind is one of {', '.join(_KINDS)}")
    if isinstance(limit, Refused):
        return problem_response(limit.code, limit.detail)
    if after is not None and not re.fullmatch(
        rf"({'|'.join(_KINDS)})/{DOCUMENT_NAME.pattern}", after
    ):
        return problem_response("parameter_invalid", "after is the `next` of the page before")
    found = sorted(
        (f"{entry.kind}s/{entry.name}", entry)
        for entry in registry.entries.values()
        if (kind is None or entry.kind is _KINDS[kind]) and origin in (None, entry.origin)
    )
    rest = [(place, entry) for place, entry in found if after is None or place > after]
    page = rest[:limit]
    shown = {
        "documents": [entry_document(entry) for _, entry in page],
        "next": page[-1][0] if len(rest) > len(page) else None,
    }
    return Response(orjson.dumps(shown), media_type=_JSON)


def _named(request: Request) -> tuple[Kind, str] | Refused:
    kind, name = request.path_params["kind"], request.path_params["name"]
    if kind not in _KINDS:
        return Refused("parameter_invalid", f"the kind is one of {', '.join(_KINDS)}")
    if not DOCUMENT_NAME.fullmatch(name):
        return Refused("parameter_invalid", "the name is malformed")
    return _KINDS[kind], name


async def _body(request: Request, max_bytes: int) -> bytes | Response:
    try:
        body = await read_json_body(request, max_bytes)
    except ClientDisconnect:
        return Response(status_code=499)
    return problem_response(body.code, body.detail) if isinstance(body, Refused) else body


def _remark(body: bytes) -> dict[str, str | None]:
    """Read what is said of a version; raise `RegistryInvalid` or a `ReceiptError`."""
    said = parse(body, max_depth=4)
    if not isinstance(said, dict):
        raise RegistryInvalid("send an object with `detail`, `successor` or nothing in it")
    faults = member_faults(said, REMARK_MEMBERS)
    if faults:
        raise RegistryInvalid("the remark is malformed", faults=tuple(faults))
    return {name: _text_of(said.get(name)) for name in REMARK_MEMBERS}


def _text_of(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _deprecation(entry: Entry) -> dict[str, str]:
    """RFC 9745, with the successor that RFC 5829 §3.4 relates to this version."""
    headers = dict(deprecation_headers((entry,)))
    if entry.deprecated is not None and entry.deprecated.successor is not None:
        place = f"/v1/registry/{entry.kind}s/{entry.deprecated.successor}"
        headers["Link"] = f'<{place}>; rel="successor-version"'
    return headers


def _answer(result: Registered | NotRegistered) -> Response:
    if isinstance(result, NotRegistered):
        return problem_response(result.code, result.detail, faults=result.faults)
    status = 201 if result.new else 200
    return Response(orjson.dumps(entry_document(result.entry)), status, media_type=_JSON)
