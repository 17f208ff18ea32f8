"""`/v1/admin/keys`: make, list, rotate, let expire and revoke API keys while the gateway runs."""

from __future__ import annotations

from collections.abc import Awaitable
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
from signet.core.audit import SYSTEM
from signet.core.errors import SignetError
from signet.core.ids import TENANT_ID
from signet.core.members import text, whole
from signet.core.tenant import KEY_MEMBERS, KeyInvalid, Principal, Scope
from signet.gateway.api_keys import (
    MOST_LIFE_S,
    MOST_OVERLAP_S,
    OVERLAP_S,
    APIKeys,
    Issued,
    KeyEnded,
    KeyRotated,
    KeyUnknown,
    KnownKey,
)
from signet.gateway.tenants import Configured
from signet.receipts.canonical import Json, canonicalize
from signet.receipts.receipt import timestamp

_JSON: Final = "application/json"
_LIFE: Final = whole(1, MOST_LIFE_S)
_OWNER: Final = text(f"a tenant id, or {SYSTEM}", f"{TENANT_ID.pattern}|{SYSTEM}")
_NEW: Final = Body(
    members={
        "tenant": _OWNER,
        "label": text("a text of at most 100 characters", r"[^\x00-\x1f\x7f]{0,100}"),
        "expires_in_s": _LIFE,
        **KEY_MEMBERS,
    },
    required=("tenant",),
    code="key_invalid",
    example={
        "tenant": "initech",
        "label": "nightly batch",
        "scopes": ["exchange", "receipts.read"],
    },
)
_ROTATE: Final = Body(
    members={"overlap_s": whole(0, MOST_OVERLAP_S), "expires_in_s": _LIFE},
    code="key_invalid",
    example={"overlap_s": 3600},
)
_EXPIRE: Final = Body(
    members={"in_s": whole(0, MOST_LIFE_S)},
    required=("in_s",),
    code="key_invalid",
    example={"in_s": 86400},
)

_KEY: Final = Parameter(
    name="key_id",
    place="path",
    doc="The key's id, which is no secret.",
    schema=schemas.KEY_ID,
    required=True,
)


def operations(keys: APIKeys, max_body_bytes: int) -> list[Operation]:
    """Return the operations of this file."""

    async def create(request: Request, principal: Principal) -> Response:
        given = await _NEW.read(request, max_body_bytes)
        if isinstance(given, Response):
            return given
        made = keys.create(
            cast(str, given["tenant"]),
            {name: value for name, value in given.items() if name in KEY_MEMBERS},
            label=cast(str, given.get("label", "")),
            expires_in_s=cast("int | None", given.get("expires_in_s")),
            actor=actor_of(request, principal),
        )
        return await _issued(made)

    async def listing(request: Request, _principal: Principal) -> Response:
        page = page_of(request)
        if isinstance(page, Refused):
            return problem_response(page.code, page.detail)
        limit, after = page
        tenant = request.query_params.get("tenant")
        if tenant is not None and not _OWNER.holds(tenant):
            return problem_response("parameter_invalid", "tenant is a tenant's id")
        found = await keys.page(tenant=tenant, after=after, limit=limit)
        document = {
            "keys": [orjson.Fragment(canonicalize(_document(key))) for key in found],
            "next": next_of([key.key_id for key in found], limit),
        }
        return Response(orjson.dumps(document), media_type=_JSON)

    async def one(request: Request, _principal: Principal) -> Response:
        return await _known(keys.find(request.path_params["key_id"]))

    async def rotate(request: Request, principal: Principal) -> Response:
        given = await _ROTATE.read(request, max_body_bytes)
        if isinstance(given, Response):
            return given
        made = keys.rotate(
            request.path_params["key_id"],
            overlap_s=cast(int, given.get("overlap_s", OVERLAP_S)),
            expires_in_s=cast("int | None", given.get("expires_in_s")),
            actor=actor_of(request, principal),
        )
        return await _issued(made)

    async def expire(request: Request, principal: Principal) -> Response:
        given = await _EXPIRE.read(request, max_body_bytes)
        if isinstance(given, Response):
            return given
        ended = keys.expire(
            request.path_params["key_id"],
            in_s=cast(int, given["in_s"]),
            actor=actor_of(request, principal),
        )
        return await _known(ended)

    async def revoke(request: Request, principal: Principal) -> Response:
        return await _known(
            keys.revoke(request.path_params["key_id"], actor=actor_of(request, principal))
        )

    asked = ("not_acknowledged", "overloaded")
    known = ("not_found", "configured_in_settings")
    shown = Content(doc="The key, without its text.", schema=schemas.KEY)
    issued = Content(doc="The key, with its text, once.", schema=schemas.ISSUED)
    return [
        Secured(
            method="POST",
            path="/v1/admin/keys",
            name="create_key",
            summary="Make an API key; its text is in this answer and never told again.",
            endpoint=create,
            scope=Scope.ADMIN,
            body=_NEW.schema,
            answers={201: issued},
            problems=(*_NEW.problems, *asked),
        ),
        Secured(
            method="GET",
            path="/v1/admin/keys",
            name="list_keys",
            summary="All API keys, those of SP_API_KEYS and those that have ended included.",
            endpoint=listing,
            scope=Scope.ADMIN,
            parameters=(
                *PARAMETERS,
                Parameter(
                    name="tenant",
                    place="query",
                    doc=f"Only this tenant's; `{SYSTEM}` for those that only administer.",
                    schema=_OWNER.schema,
                ),
            ),
            answers={200: Content(doc="A page, in the order of ids.", schema=schemas.KEYS)},
            problems=("parameter_invalid", *asked),
        ),
        Secured(
            method="GET",
            path="/v1/admin/keys/{key_id}",
            name="get_key",
            summary="One API key, without its text.",
            endpoint=one,
            scope=Scope.ADMIN,
            parameters=(_KEY,),
            answers={200: shown},
            problems=("not_found", *asked),
        ),
        Secured(
            method="POST",
            path="/v1/admin/keys/{key_id}/rotate",
            name="rotate_key",
            summary="Make the key's successor; the key itself goes on for the overlap.",
            endpoint=rotate,
            scope=Scope.ADMIN,
            parameters=(_KEY,),
            body=_ROTATE.schema,
            answers={201: issued},
            problems=(*_ROTATE.problems, *known, "key_ended", "key_rotated", *asked),
        ),
        Secured(
            method="POST",
            path="/v1/admin/keys/{key_id}/expire",
            name="expire_key",
            summary="Let the key end by itself, never later than it was to end.",
            endpoint=expire,
            scope=Scope.ADMIN,
            parameters=(_KEY,),
            body=_EXPIRE.schema,
            answers={200: shown},
            problems=(*_EXPIRE.problems, *known, "key_ended", *asked),
        ),
        Secured(
            method="POST",
            path="/v1/admin/keys/{key_id}/revoke",
            name="revoke_key",
            summary="End the key now, for good; on every node within about a second.",
            endpoint=revoke,
            scope=Scope.ADMIN,
            parameters=(_KEY,),
            answers={200: shown},
            problems=(*known, *asked),
        ),
    ]


_REFUSALS: Final = (KeyInvalid, KeyUnknown, KeyEnded, KeyRotated, Configured)


async def _issued(making: Awaitable[Issued]) -> Response:
    try:
        made = await making
    except _REFUSALS as error:
        return _refused(error)
    document = canonicalize({**_document(made.key), "key": made.text})
    # No cache between here and the caller may keep what is told once.
    return Response(document, 201, {"Cache-Control": "no-store"}, _JSON)


async def _known(asking: Awaitable[KnownKey]) -> Response:
    try:
        key = await asking
    except _REFUSALS as error:
        return _refused(error)
    return Response(canonicalize(_document(key)), media_type=_JSON)


def _document(key: KnownKey) -> dict[str, Json]:
    return {
        **key.members,
        "key_id": key.key_id,
        "tenant": key.tenant,
        "state": key.state,
        "label": key.label,
        "source": "settings" if key.created_us is None else "database",
        "created_at": _time(key.created_us),
        "expires_at": _time(key.expires_us),
        "revoked_at": _time(key.revoked_us),
        "succeeds": key.succeeds,
        "rotated_to": key.rotated_to,
        "pepper": key.pepper,
    }


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else timestamp(time_us)


def _refused(error: SignetError) -> Response:
    return problem_response(error.code, error.detail, faults=error.faults)
