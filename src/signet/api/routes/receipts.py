"""Receipts, chains, exports and the public keys: what an auditor asks."""

from __future__ import annotations

import re
from typing import Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from signet.api import schemas
from signet.api.auth import Refused
from signet.api.operations import Content, Operation, Parameter, Public, Secured, problem_response
from signet.core.ids import RECEIPT_HASH, TRACE_ID
from signet.core.tenant import Principal, Scope
from signet.gateway.exports import MAX_PAGE, Exports, PageBeyondEnd
from signet.gateway.signing import JWKS_CACHE_S

_JSON: Final = "application/json"
_MAX_HOP: Final = 2**53 - 1

_TRACE = Parameter(
    name="trace_id",
    place="path",
    doc="The trace; another tenant's is not found.",
    schema=schemas.TRACE_ID,
    required=True,
)
_PAGE = (
    Parameter(
        name="from_hop",
        place="query",
        doc="The first hop wanted.",
        schema={"type": "integer", "minimum": 1, "maximum": _MAX_HOP},
    ),
    Parameter(
        name="limit",
        place="query",
        doc="How many receipts at most.",
        schema={"type": "integer", "minimum": 1, "maximum": MAX_PAGE},
    ),
)


def operations(exports: Exports) -> list[Operation]:
    """Return the operations of this file."""

    async def exchange(request: Request, principal: Principal) -> Response:
        receipt_hash = request.path_params["receipt_hash"]
        if not RECEIPT_HASH.fullmatch(receipt_hash):
            return problem_response("parameter_invalid", "a receipt hash is sha256:<64 hex digits>")
        found = await exports.exchange(principal, receipt_hash)
        if found is None:
            return problem_response("not_found", "no such receipt")
        document = {
            "receipt": orjson.Fragment(found.receipt.canonical),
            "receipt_jws": found.receipt.jws,
            "normalized": None if found.normalized is None else orjson.Fragment(found.normalized),
        }
        return Response(orjson.dumps(document), media_type=_JSON)

    async def chain(request: Request, principal: Principal) -> Response:
        trace_id = request.path_params["trace_id"]
        page = _page(request)
        if isinstance(page, Refused) or not TRACE_ID.fullmatch(trace_id):
            return problem_response("parameter_invalid", _PARAMETERS)
        from_hop, limit = page or (1, MAX_PAGE)
        part = await exports.chain(principal, trace_id, from_hop=from_hop, limit=limit)
        if part is None:
            return problem_response("not_found", "no such trace")
        document = {
            "trace_id": trace_id,
            "length": part.head.hop,
            "chain": [orjson.Fragment(receipt.canonical) for receipt in part.receipts],
        }
        return Response(orjson.dumps(document), media_type=_JSON)

    async def export(request: Request, principal: Principal) -> Response:
        trace_id = request.path_params["trace_id"]
        page = _page(request)
        if isinstance(page, Refused) or not TRACE_ID.fullmatch(trace_id):
            return problem_response("parameter_invalid", _PARAMETERS)
        try:
            if page is None:
                exported = await exports.export(principal, trace_id)
            else:
                exported = await exports.export_page(
                    principal, trace_id, from_hop=page[0], limit=page[1]
                )
        except PageBeyondEnd as error:
            return problem_response(error.code, error.detail)
        if exported is None:
            return problem_response("not_found", "no such trace")
        return StreamingResponse(exported.chunks, headers=exported.bundle.headers, media_type=_JSON)

    async def jwks(_request: Request) -> Response:
        body = orjson.dumps(await exports.jwks())
        headers = {"Cache-Control": f"public, max-age={JWKS_CACHE_S}"}
        return Response(body, headers=headers, media_type=_JSON)

    async def key_log(_request: Request) -> Response:
        exported = await exports.key_log()
        if exported is None:
            return problem_response("not_found", "the signing key was never changed")
        return StreamingResponse(exported.chunks, headers=exported.bundle.headers, media_type=_JSON)

    problems = ("parameter_invalid", "not_found", "not_acknowledged")
    receipt_hash = Parameter(
        name="receipt_hash",
        place="path",
        doc="The receipt's hash; another tenant's is not found.",
        schema=schemas.RECEIPT_HASH,
        required=True,
    )
    return [
        Secured(
            method="GET",
            path="/v1/exchanges/{receipt_hash}",
            name="get_exchange",
            summary="One receipt, its signature, and the payload it names.",
            endpoint=exchange,
            scope=Scope.RECEIPTS_READ,
            parameters=(receipt_hash,),
            answers={200: Content(doc="The exchange.", schema=schemas.STORED)},
            problems=problems,
        ),
        Secured(
            method="GET",
            path="/v1/receipts/chain/{trace_id}",
            name="get_chain",
            summary="The receipts of a trace, in order.",
            endpoint=chain,
            scope=Scope.RECEIPTS_READ,
            parameters=(_TRACE, *_PAGE),
            answers={200: Content(doc="The chain, or a part of it.", schema=schemas.CHAIN)},
            problems=problems,
        ),
        Secured(
            method="GET",
            path="/v1/receipts/export/{trace_id}",
            name="export_chain",
            summary="A trace as a signed bundle that can be verified offline.",
            endpoint=export,
            scope=Scope.RECEIPTS_READ,
            parameters=(_TRACE, *_PAGE),
            answers={
                200: Content(
                    doc="The bundle; with `from_hop` or `limit` a page of it.",
                    schema=schemas.BUNDLE,
                    headers=schemas.EXPORT_HEADERS,
                )
            },
            problems=problems,
        ),
        Public(
            method="GET",
            path="/.well-known/jwks.json",
            name="jwks",
            summary="The public keys, retired ones included.",
            endpoint=jwks,
            answers={200: Content(doc="A JWK Set (RFC 7517).", schema=schemas.JWKS)},
            problems=("not_acknowledged",),
        ),
        Public(
            method="GET",
            path="/v1/signing-keys/log",
            name="export_key_log",
            summary="Every change of the signing keys, as a signed bundle.",
            endpoint=key_log,
            answers={
                200: Content(
                    doc="The chain `signet.keys` of `_system`; rotations are signed by both keys.",
                    schema=schemas.BUNDLE,
                    headers=schemas.EXPORT_HEADERS,
                )
            },
            problems=("not_found", "overloaded", "not_acknowledged"),
        ),
    ]


_PARAMETERS: Final = "trace_id, from_hop or limit is malformed"
_NUMBER: Final = re.compile(r"[0-9]{1,16}")


def _page(request: Request) -> tuple[int, int] | Refused | None:
    """Return (first hop, limit), or None when the whole trace is meant."""
    given = {name: request.query_params.get(name) for name in ("from_hop", "limit")}
    if given == {"from_hop": None, "limit": None}:
        return None
    wanted = {"from_hop": (1, _MAX_HOP), "limit": (MAX_PAGE, MAX_PAGE)}
    values: list[int] = []
    for name, (default, largest) in wanted.items():
        text = given[name]
        if text is None:
            values.append(default)
        elif _NUMBER.fullmatch(text) and 1 <= int(text) <= largest:
            values.append(int(text))
        else:
            return Refused("parameter_invalid", _PARAMETERS)
    return values[0], values[1]
