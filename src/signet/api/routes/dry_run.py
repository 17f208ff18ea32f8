"""`POST /v1/dry-run`: what a call would become, without making it."""

from __future__ import annotations

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.auth import Refused
from signet.api.bodies import read_json_body
from signet.api.deprecation import deprecation_headers
from signet.api.operations import Content, Operation, Secured, problem_response
from signet.api.problems import problem
from signet.api.routes.registry import entry_document
from signet.core.tenant import Principal, Scope
from signet.gateway.dry_run import DryRun, DryRuns
from signet.gateway.exchange import NotAccepted
from signet.receipts.canonical import Json, canonicalize


def operations(dry_runs: DryRuns, max_body_bytes: int) -> list[Operation]:
    """Return the one operation of this file."""

    async def dry_run(request: Request, principal: Principal) -> Response:
        try:
            body = await read_json_body(request, max_body_bytes)
        except ClientDisconnect:
            return Response(status_code=499)
        if isinstance(body, Refused):
            return problem_response(body.code, body.detail)
        result = await dry_runs.dry_run(principal, body)
        if isinstance(result, NotAccepted):
            return problem_response(result.code, result.detail, faults=result.faults)
        return Response(
            orjson.dumps(_document(result)),
            headers=dict(deprecation_headers(result.deprecated)),
            media_type="application/json",
        )

    return [
        Secured(
            method="POST",
            path="/v1/dry-run",
            name="dry_run",
            summary="What a call would become: nothing is stored, sent, asked or metered.",
            endpoint=dry_run,
            scope=Scope.EXCHANGE,
            body=schemas.ENVELOPE,
            answers={200: Content(doc="How far the call gets.", schema=schemas.DRY_RUN)},
            problems=(
                *("invalid_json", "envelope_invalid", "unknown_member"),
                *("body_too_large", "unsupported_media_type", "not_acknowledged", "overloaded"),
            ),
        )
    ]


def _document(run: DryRun) -> dict[str, object]:
    refusal = run.refusal
    refused = None
    if refusal is not None:
        body = problem(refusal.code, refusal.detail, faults=refusal.faults, reason=refusal.reason)
        refused = orjson.Fragment(body)
    return {
        "ok": refusal is None,
        "payload": _json(run.payload),
        "arguments": _json(run.parsed),
        "repair": _json(run.members.get("repair")),
        "normalized": None if run.normalized is None else orjson.Fragment(run.normalized),
        "cid": run.cid,
        **{name: run.members.get(name) for name in ("schema_in", "schema_out", "map")},
        "policy": None if run.policy is None else run.policy.document(),
        "problem": refused,
        "deprecated": [entry_document(entry) for entry in run.deprecated],
        "fallback": run.fallback,
        "addresses": run.addresses,
    }


def _json(value: Json) -> orjson.Fragment:
    """Exact numbers as they are: what was parsed strictly has canonical bytes."""
    return orjson.Fragment(canonicalize(value))
