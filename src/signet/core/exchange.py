"""What an agent asks for, and how an exchange can end.

The envelope is the JSON object of `POST /v1/exchange`; a decision is the closed set of ways in
which an accepted exchange ends, before it is sealed into its receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Literal

from signet.core.audit import Origin
from signet.core.errors import Fault, SignetError
from signet.core.ids import RECEIPT_HASH, TRACE_ID, TYPE_NAME, KeyHash, TenantId, TraceId
from signet.core.members import Rule, member_faults, one_of, or_null, text
from signet.core.registry import Entry
from signet.core.tenant import Principal
from signet.core.values import value_class
from signet.receipts.canonical import Json

ExpectedHead = Literal["any"] | str | None
"""The receipt that the caller believes to be the last of the trace: its hash, `None` for none
at all, `"any"` where the caller did not say."""


class Outcome(StrEnum):
    """How an accepted exchange ended, as its receipt says it. Only `ALLOWED` is metered."""

    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"
    UNKNOWN = "unknown"


@value_class
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

    def __init__(self, code: str, *, faults: tuple[Fault, ...]) -> None:
        super().__init__("the body is not an exchange; the faults say where", faults=faults)
        self.code = code


_MEMBERS: Final = {
    "payload_type": text("a type name", TYPE_NAME),
    "target_type": text("a type name", TYPE_NAME),
    "payload": Rule("an object or an array", lambda value: isinstance(value, (dict, list))),
    "trace_id": or_null(text("1-128 of A-Z a-z 0-9 . _ : -", TRACE_ID)),
    "forward_url": or_null(text("a URL of at most 2048 characters", r"[^\s]{1,2048}")),
    "expected_prev": or_null(text("a receipt hash", RECEIPT_HASH)),
    "delivery": or_null(one_of("sync", "queued")),
}
_REQUIRED: Final = ("payload_type", "target_type", "payload")
_MAX_FAULTS: Final = 20


def read_envelope(document: Json) -> Envelope:
    """Return the envelope in `document`; raise `EnvelopeInvalid` with every fault."""
    if not isinstance(document, dict):
        fault = Fault(pointer="", code="wrong_type", detail="expected a JSON object")
        raise EnvelopeInvalid(EnvelopeInvalid.code, faults=(fault,))
    faults = member_faults(document, _MEMBERS, required=_REQUIRED)
    if faults:
        unknown = any(fault.code == "unknown_member" for fault in faults)
        code = "unknown_member" if unknown else EnvelopeInvalid.code
        raise EnvelopeInvalid(code, faults=tuple(faults[:_MAX_FAULTS]))
    held: dict[str, Any] = document  # each member is what its rule says
    return Envelope(
        payload_type=held["payload_type"],
        target_type=held["target_type"],
        payload=held["payload"],
        trace_id=held.get("trace_id"),
        forward_url=held.get("forward_url"),
        expected_prev=held.get("expected_prev", "any"),
        delivery=held.get("delivery") or "sync",
    )


@value_class
class Subject:
    """What an exchange's receipt is about: all of it that must outlive the process in an intent.

    `actor` is the id of the key that asked. `salt` is there for tenants whose hashes are sealed; it
    is erased with the payload.
    """

    tenant: TenantId
    actor: str
    trace_id: TraceId
    key_hash: KeyHash
    fingerprint: bytes
    salt: bytes | None
    request_cid: str
    payload_type: str
    target_type: str
    canon_profile: str


@value_class
class Call:
    """An accepted request: who asks, for what, in how many bytes.

    `is_normal` says that the text of its body told already that all of it is in NFC.
    """

    principal: Principal
    subject: Subject
    envelope: Envelope
    body_bytes: int
    is_normal: bool = False
    traceparent: str | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why an accepted exchange ends here. `code` has a row in the table of problems."""

    code: str
    detail: str
    outcome: Outcome = Outcome.FAILED
    reason: str | None = None
    faults: tuple[Fault, ...] = ()
    retry_after_s: float | None = None


@value_class
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


@value_class
class Decision:
    """How a call ended, complete but for its place in the chain. Nothing is added later.

    `members` are those of the receipt that the stages found out; `forwarded` is what the answer
    tells of a forward. `fence` is that of the claim under which network work was done. `deprecated`
    are the versions in use that should not be: said to the caller, and no part of the receipt.
    """

    outcome: Outcome
    refusal: Refusal | None
    normalized: bytes | None
    policy: PolicyVerdict | None
    members: Mapping[str, Json]
    fu_tokens: int = 0
    forwarded: Mapping[str, Json] | None = None
    fence: int | None = None
    deprecated: tuple[Entry, ...] = ()

    @property
    def reason(self) -> str:
        """The stable code that the receipt gives for the outcome."""
        return "ok" if self.refusal is None else self.refusal.reason or self.refusal.code
