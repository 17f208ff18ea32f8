"""`POST /v1/exchange`: the main job."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import perf_counter

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from signet.api import schemas
from signet.api.auth import Refused, idempotency_key
from signet.api.bodies import read_json_body
from signet.api.deprecation import deprecation_headers
from signet.api.headers import first_headers
from signet.api.operations import (
    Content,
    Operation,
    Parameter,
    PreparedResponse,
    Secured,
    problem_response,
)
from signet.api.visits import visit_of
from signet.core.tenant import Principal, Scope
from signet.gateway.exchange import Answered, Exchanges, NotAccepted
from signet.telemetry.metrics import Metrics


def operations(
    exchanges: Exchanges,
    metrics: Metrics,
    max_body_bytes: int,
    *,
    draining: Callable[[], bool],
) -> list[Operation]:
    """Return the one operation of this file."""

    async def exchange(request: Request, principal: Principal) -> Response:
        started = perf_counter()
        visit = visit_of(request)
        if draining():
            detail = "ask again with the same key; another node or the next start will answer"
            return problem_response("draining", detail, retry_after_s=1)
        try:
            body = await read_json_body(request, max_body_bytes)
        except ClientDisconnect:
            visit.code = "client_left"
            return Response(status_code=499)  # nobody reads it; the log does
        if isinstance(body, Refused):
            return problem_response(body.code, body.detail)
        traceparent = first_headers(request.scope).get(b"traceparent")
        result = await exchanges.exchange(
            principal,
            idempotency_key(request.scope["headers"]),
            body,
            None if traceparent is None else traceparent.decode("latin-1"),
            visit.origin,
        )
        if isinstance(result, NotAccepted):
            return problem_response(
                result.code,
                result.detail,
                faults=result.faults,
                receipt=result.receipt,
                retry_after_s=result.retry_after_s,
            )
        if result.replayed:
            visit.code, visit.object = "replayed", result.trace_id
        else:
            visit.recorded = True
            metrics.whole.observe(perf_counter() - started)
        return _response(result)

    return [
        Secured(
            method="POST",
            path="/v1/exchange",
            name="exchange",
            summary="Make a tool call exact, decide whether it may leave, and receipt it.",
            endpoint=exchange,
            scope=Scope.EXCHANGE,
            parameters=(
                Parameter(
                    name="X-SIGNET-Idempotency-Key",
                    place="header",
                    doc="One value for each intended effect; also read from"
                    " `X-ODIN-Idempotency-Key` and `Idempotency-Key`.",
                    schema={"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
                    required=True,
                ),
            ),
            body=schemas.ENVELOPE,
            answers={
                200: Content(
                    doc="The exchange was allowed.",
                    schema=schemas.EXCHANGED,
                    headers=schemas.TRACE_HEADERS,
                    links={
                        "get_exchange": {
                            "receipt_hash": "$response.body#/receipt/receipt_hash",
                        },
                        "get_chain": {"trace_id": "$response.body#/trace_id"},
                        "export_chain": {"trace_id": "$response.body#/trace_id"},
                    },
                )
            },
            problems=(
                *("invalid_json", "envelope_invalid", "unknown_member"),
                *("idempotency_key_missing", "idempotency_key_malformed"),
                *("idempotency_in_flight", "idempotency_key_spent", "idempotency_key_reused"),
                *("chain_moved", "replay_denied", "payload_erased"),
                *("body_too_large", "unsupported_media_type"),
                *("unknown_type", "unknown_mapping", "unicode_invalid", "schema_invalid"),
                *("arguments_invalid", "mapping_failed", "mapping_stopped", "output_invalid"),
                *("delivery_unavailable", "egress_denied", "semantic_violation"),
                *("fu_quota_exceeded", "fallback_interrupted"),
                *("forward_not_sent", "forward_outcome_unknown"),
                *("not_acknowledged", "overloaded", "draining"),
            ),
        )
    ]


def _response(result: Answered) -> Response:
    trace_id = result.trace_id.encode("ascii")
    headers = [(b"x-signet-trace", trace_id), (b"x-odin-trace", trace_id)]
    if result.replayed:
        headers.append((b"x-signet-idempotency-hit", b"1"))
    if result.decision is not None and result.decision.deprecated:
        said = deprecation_headers(result.decision.deprecated)
        headers += [(name.encode(), value.encode()) for name, value in said.items()]
    refusal = result.decision.refusal if result.decision else None
    if refusal is not None and refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % ceil(refusal.retry_after_s)))
    answer = result.answer
    return PreparedResponse(
        answer.body, answer.status, answer.content_type.encode("ascii"), headers
    )
