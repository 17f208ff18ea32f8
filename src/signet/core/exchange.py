"""What an agent asks for, and how an exchange can end.

The envelope is the JSON object of `POST /v1/exchange`; a decision is the closed set of ways in
which an accepted exchange ends, before it is sealed into its receipt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, cast

from signet.core.errors import Fault, SignetError
from signet.core.ids import RECEIPT_HASH, TRACE_ID, TYPE_NAME, KeyHash, TraceId
from signet.core.tenant import Principal
from signet.receipts.canonical import Json, pointer

ExpectedHead = Literal["any"] | str | None
"""The receipt that the caller believes to be the last of the trace: its hash, `None` for none
at all, `"any"` where the caller did not say."""


class Outcome(StrEnum):
    """How an accepted exchange ended, as its receipt says it. Only `ALLOWED` is metered."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """One request, its members checked, its payload as parsed."""

    payload_type: str
    target_type: str
    payload: Json
    trace_id: TraceId | None
    forward_url: str | None
    expected_prev: ExpectedHead
    delivery: Literal["sync", "queued"]


class EnvelopeInvalid(SignetError):
    """The body is JSON but not an envelope; no receipt is made for it."""

    code = "envelope_invalid"


def _is_text(pattern: re.Pattern[str]) -> Callable[[Json], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


_MEMBERS: Final[dict[str, tuple[str, Callable[[Json], bool]]]] = {
    "payload_type": ("a type name", _is_text(TYPE_NAME)),
    "target_type": ("a type name", _is_text(TYPE_NAME)),
    "payload": ("an object or an array", lambda value: isinstance(value, (dict, list))),
    "trace_id": ("1-128 of A-Z a-z 0-9 . _ : -", _is_text(TRACE_ID)),
    "forward_url": ("a URL of at most 2048 characters", _is_text(re.compile(r"[^\s]{1,2048}"))),
    "expected_prev": (
        "a receipt hash, or null for the start of a trace",
        lambda value: value is None or _is_text(RECEIPT_HASH)(value),
    ),
    "delivery": ('"sync" or "queued"', lambda value: value in ("sync", "queued")),
}
_REQUIRED: Final = ("payload_type", "target_type", "payload")
_NULL_IS_ABSENT: Final = frozenset({"trace_id", "forward_url", "delivery"})


def read_envelope(document: Json) -> Envelope:
    """Return the envelope in `document`; raise `EnvelopeInvalid` with every fault."""
    if not isinstance(document, dict):
        fault = Fault(pointer="", code="wrong_type", detail="expected a JSON object")
        raise EnvelopeInvalid("the body is not an object", faults=(fault,))
    faults = tuple(_faults(document))
    if faults:
        unknown = all(fault.code == "unknown_member" for fault in faults)
        error = EnvelopeInvalid("the body is not an exchange", faults=faults)
        error.code = "unknown_member" if unknown else EnvelopeInvalid.code
        raise error
    return Envelope(
        payload_type=cast(str, document["payload_type"]),
        target_type=cast(str, document["target_type"]),
        payload=document["payload"],
        trace_id=cast(TraceId | None, document.get("trace_id")),
        forward_url=cast(str | None, document.get("forward_url")),
        expected_prev=cast(ExpectedHead, document.get("expected_prev", "any")),
        delivery=cast(Literal["sync", "queued"], document.get("delivery") or "sync"),
    )


def _faults(document: dict[str, Json]) -> list[Fault]:
    faults = [
        Fault(pointer=pointer(name), code="missing_member", detail=f"{name} is missing")
        for name in _REQUIRED
        if name not in document
    ]
    for name, value in document.items():
        if name not in _MEMBERS:
            detail = f"not one of {', '.join(_MEMBERS)}"
            faults.append(Fault(pointer=pointer(name), code="unknown_member", detail=detail))
        elif not (value is None and name in _NULL_IS_ABSENT):
            expected, holds = _MEMBERS[name]
            if not holds(value):
                detail = f"expected {expected}"
                faults.append(Fault(pointer=pointer(name), code="malformed_member", detail=detail))
    return faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An accepted request: who asks, for what, in which bytes."""

    principal: Principal
    envelope: Envelope
    trace_id: TraceId
    body: bytes
    key_hash: KeyHash
    fingerprint: bytes
    canon_profile: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an accepted exchange ends here. `code` has a row in the table of problems."""

    code: str
    detail: str
    outcome: Outcome = Outcome.FAILED
    reason: str | None = None
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVerdict:
    """What the egress policy said of this exchange, as the receipt and the answer show it."""

    allowed: bool
    reason: str
    policy_hash: str

    def document(self) -> dict[str, Json]:
        """Return the `policy` member."""
        return {
            "engine": "HEL",
            "allowed": self.allowed,
            "reason": self.reason,
            "policy_hash": self.policy_hash,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a call ended, complete but for its place in the chain. Nothing is added later."""

    outcome: Outcome
    reason: str
    refusal: Refusal | None
    normalized: bytes | None
    policy: PolicyVerdict | None
    members: dict[str, Json]
    """The members of the receipt that the stages found out."""
