"""Every way to be refused, in one table: stable code to HTTP status (RFC 9457).

The rooms below raise and return codes; only this table knows what HTTP makes of them. A test
proves that every code raised anywhere in Signet has a row here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import orjson

from signet.core.errors import Fault
from signet.receipts.canonical import Json

MEDIA_TYPE: Final = "application/problem+json"

Retry = Literal["same_key", "new_key_safe", "never_blind"]
"""What a caller may do next. `same_key`: ask again with the same idempotency key, nothing happens
twice. `new_key_safe`: this key has its final answer and nothing was done, so a corrected call may
go out under a new key. `never_blind`: something may have been done; find out first."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One row: the status, the title that never varies, and what a caller may do next."""

    status: int
    title: str
    retry: Retry | None = None


PROBLEMS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        # The connection. It is closed with the answer.
        "http_malformed": Kind(400, "This is not HTTP/1.1"),
        "request_timeout": Kind(408, "The request did not arrive in time", "same_key"),
        "headers_too_large": Kind(431, "The headers are too large or too many"),
        "too_many_connections": Kind(503, "All connections are in use", "same_key"),
        "deadline_exceeded": Kind(503, "The answer is not there in time", "same_key"),
        # The request itself. No receipt: nothing was accepted.
        "invalid_json": Kind(400, "The body is not I-JSON"),
        "envelope_invalid": Kind(400, "The body is not an exchange"),
        "unknown_member": Kind(400, "The body has a member that is not known"),
        "parameter_invalid": Kind(400, "A parameter is malformed"),
        "idempotency_key_missing": Kind(400, "An idempotency key is required"),
        "idempotency_key_malformed": Kind(400, "The idempotency key is malformed"),
        "tenant_invalid": Kind(400, "The tenant cannot be described so"),
        "key_invalid": Kind(400, "The API key cannot be made so"),
        "unauthenticated": Kind(401, "A valid API key is required"),
        "scope_missing": Kind(403, "The API key lacks the scope"),
        "replay_denied": Kind(403, "The API key may not see the answer", "never_blind"),
        "not_found": Kind(404, "Not found"),
        "period_not_found": Kind(404, "The tenant has no usage in this month"),
        "statement_not_found": Kind(404, "The month has no such statement"),
        "method_not_allowed": Kind(405, "Method not allowed"),
        "idempotency_in_flight": Kind(409, "This key's exchange is in progress", "same_key"),
        "idempotency_key_spent": Kind(409, "This key's answer has expired", "never_blind"),
        "chain_moved": Kind(409, "The trace has another last receipt", "new_key_safe"),
        "usage_unsettled": Kind(409, "The month is being counted"),
        "reload_refused": Kind(409, "The configuration stays as it was"),
        "payload_in_use": Kind(409, "An exchange with this payload is in progress"),
        "tenant_exists": Kind(409, "The tenant exists already"),
        "key_ended": Kind(409, "The API key has expired or was revoked"),
        "key_rotated": Kind(409, "The API key has a successor"),
        "configured_in_settings": Kind(409, "SP_API_KEYS says it, not the database"),
        "registry_conflict": Kind(409, "The name has other content"),
        "registry_full": Kind(409, "The registry may not keep more"),
        "payload_erased": Kind(410, "The payload has been erased", "never_blind"),
        "body_too_large": Kind(413, "The body is too large"),
        "unsupported_media_type": Kind(415, "The body must be application/json"),
        "registry_invalid": Kind(422, "The document cannot be registered"),
        "idempotency_key_reused": Kind(422, "This key came with another body", "never_blind"),
        "rate_limited": Kind(429, "Too many requests", "same_key"),
        "concurrency_limited": Kind(429, "Too many requests at once", "same_key"),
        # Decided exchanges. Each carries its receipt and is final for its key.
        "unknown_type": Kind(422, "The payload or target type is not known", "new_key_safe"),
        "unknown_mapping": Kind(422, "No mapping leads to the target type", "new_key_safe"),
        "unicode_invalid": Kind(422, "The payload cannot be normalised", "new_key_safe"),
        "schema_invalid": Kind(422, "The payload does not fit its schema", "new_key_safe"),
        "arguments_invalid": Kind(422, "The arguments cannot be read", "new_key_safe"),
        "mapping_failed": Kind(422, "The mapping does not apply", "new_key_safe"),
        "mapping_stopped": Kind(422, "The mapping was stopped", "new_key_safe"),
        "output_invalid": Kind(422, "The result does not fit the target schema", "new_key_safe"),
        "delivery_unavailable": Kind(422, "This gateway does not queue", "new_key_safe"),
        "semantic_violation": Kind(422, "A repair would change the meaning", "new_key_safe"),
        "fu_quota_exceeded": Kind(429, "The fallback quota is used up", "new_key_safe"),
        "fallback_interrupted": Kind(504, "The fallback was interrupted", "new_key_safe"),
        "egress_denied": Kind(403, "The egress policy does not let it out", "new_key_safe"),
        "forward_not_sent": Kind(502, "The destination was not reached", "new_key_safe"),
        "forward_outcome_unknown": Kind(504, "It may have happened", "never_blind"),
        # The gateway's own state.
        "internal_error": Kind(500, "The gateway failed", "same_key"),
        "not_acknowledged": Kind(503, "Not acknowledged", "same_key"),
        "limits_unavailable": Kind(503, "The limits cannot be checked", "same_key"),
        "overloaded": Kind(503, "The gateway is at its limit", "same_key"),
        "draining": Kind(503, "The gateway is stopping", "same_key"),
    }
)

_MAX_FAULTS: Final = 20
_MAX_POINTER: Final = 1024  # a hostile member name may be a megabyte long; our answer may not


def problem(
    code: str,
    detail: str,
    *,
    faults: Sequence[Fault] = (),
    reason: str | None = None,
    receipt: tuple[bytes, str] | None = None,
    trace_id: str | None = None,
    forwarded: Mapping[str, Json] | None = None,
) -> bytes:
    """Return the body of a problem; `receipt` is the canonical receipt and its JWS.

    The receipt's bytes are spliced in as they were signed, never serialised again.
    """
    kind = PROBLEMS[code]
    document: dict[str, object] = {
        "type": f"urn:signet:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
    }
    if reason is not None and reason != code:
        document["reason"] = reason
    if kind.retry is not None:
        document["retry"] = kind.retry
    if trace_id is not None:
        document["trace_id"] = trace_id
    if forwarded is not None:
        document["forwarded"] = forwarded
    if faults:
        document["faults"] = [fault_document(fault) for fault in faults[:_MAX_FAULTS]]
    if receipt is not None:
        document["receipt"] = orjson.Fragment(receipt[0])
        document["receipt_jws"] = receipt[1]
    return orjson.dumps(document)


def fault_document(fault: Fault) -> dict[str, str]:
    """Return a fault as the JSON object that callers see."""
    shown = {"pointer": fault.pointer[:_MAX_POINTER], "code": fault.code, "detail": fault.detail}
    if fault.expected is not None:
        shown["expected"] = fault.expected
    if fault.got is not None:
        shown["got"] = fault.got
    return shown
