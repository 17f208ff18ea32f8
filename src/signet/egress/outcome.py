"""How a request ended: a closed union, because "it failed" is not enough to know.

    refused        a rule said no; nothing was sent
    not_sent       DNS, connect or TLS failed; no byte of the request left
    indeterminate  bytes went out and no whole answer came; it may or may not have happened
    responded      a whole answer came, whatever its status

Only `not_sent` may be tried again blindly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, NotRequired, TypedDict, assert_never

from signet.egress.verdict import Verdict


class NotSentCode(StrEnum):
    """What failed before the first byte of the request."""

    NO_RESOLUTION = "HEL_NO_RESOLUTION"  # the name does not exist or has no address
    RESOLUTION_FAILED = "HEL_RESOLUTION_FAILED"  # the name servers gave no usable answer
    CONNECT_FAILED = "CONNECT_FAILED"
    TLS_FAILED = "TLS_FAILED"
    CERTIFICATE_INVALID = "TLS_CERTIFICATE_INVALID"
    DEADLINE = "DEADLINE_BEFORE_SEND"
    VETOED = "SEND_VETOED"  # the caller's own last check said no


class IndeterminateCode(StrEnum):
    """What failed after the first byte of the request."""

    CONNECTION_LOST = "CONNECTION_LOST"
    DEADLINE = "DEADLINE_AFTER_SEND"
    TRUNCATED = "RESPONSE_TRUNCATED"
    MALFORMED = "RESPONSE_MALFORMED"
    HEAD_TOO_LARGE = "RESPONSE_HEAD_TOO_LARGE"
    BODY_TOO_LARGE = "RESPONSE_TOO_LARGE"
    CODING_REFUSED = "RESPONSE_CODING_REFUSED"
    UPGRADE_REFUSED = "RESPONSE_UPGRADE_REFUSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time went, in seconds. `dns_s` is None when a kept connection was used."""

    total_s: float = 0.0
    dns_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A rule said no before anything was sent."""

    outcome: ClassVar[Literal["refused"]] = "refused"
    code: Verdict
    host: str | None
    timing: Timing = field(default=Timing(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotSent:
    """No byte of the request left this machine."""

    outcome: ClassVar[Literal["not_sent"]] = "not_sent"
    code: NotSentCode
    host: str
    timing: Timing = field(default=Timing(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Indeterminate:
    """Bytes went out to `pinned_ip` and no whole answer came back.

    `status` is what the head of the answer said, when a head came; it proves nothing.
    """

    outcome: ClassVar[Literal["indeterminate"]] = "indeterminate"
    code: IndeterminateCode
    host: str
    pinned_ip: str
    status: int | None = None
    response_size: int = 0
    timing: Timing = field(default=Timing(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Responded:
    """A whole answer came from `pinned_ip`; redirects and errors are answers too.

    `response_hash` is "sha256:" and the hash of the body's `response_size` bytes; `body` holds
    them only if the caller asked. `retry_after` and `content_type` are the fields as received.
    """

    outcome: ClassVar[Literal["responded"]] = "responded"
    status: int
    host: str
    pinned_ip: str
    response_size: int
    response_hash: str
    content_type: str | None = None
    retry_after: str | None = None
    body: bytes | None = None
    timing: Timing = field(default=Timing(), compare=False)


Outcome = Refused | NotSent | Indeterminate | Responded


class Forwarded(TypedDict):
    """The dictionary that `safe_forward` returns and an exchange shows as `forwarded`."""

    status_code: int
    host: str | None
    pinned_ip: str | None
    response_size: int
    outcome: Literal["refused", "not_sent", "indeterminate", "responded"]
    error: NotRequired[str]


def as_forwarded(outcome: Outcome) -> Forwarded:
    """Return `outcome` as a dictionary; where no status came, 403, 413 or 599 stands for it."""
    match outcome:
        case Responded():
            return Forwarded(
                status_code=outcome.status,
                host=outcome.host,
                pinned_ip=outcome.pinned_ip,
                response_size=outcome.response_size,
                outcome=outcome.outcome,
            )
        case Refused():
            too_large = outcome.code is Verdict.BODY_TOO_LARGE
            return Forwarded(
                status_code=413 if too_large else 403,
                host=outcome.host,
                pinned_ip=None,
                response_size=0,
                outcome=outcome.outcome,
                error=outcome.code.value,
            )
        case NotSent():
            return Forwarded(
                status_code=599,
                host=outcome.host,
                pinned_ip=None,
                response_size=0,
                outcome=outcome.outcome,
                error=outcome.code.value,
            )
        case Indeterminate():
            too_large = outcome.code is IndeterminateCode.BODY_TOO_LARGE
            return Forwarded(
                status_code=413 if too_large else 599,
                host=outcome.host,
                pinned_ip=outcome.pinned_ip,
                response_size=outcome.response_size,
                outcome=outcome.outcome,
                error=outcome.code.value,
            )
        case _:
            assert_never(outcome)
