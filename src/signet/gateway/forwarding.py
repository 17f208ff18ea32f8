"""Sending at most once: the intent before the network, the outcome after it.

The order of things is the guarantee. (1) The claim, with the intent in it, is durable before a
connection is even opened. (2) Just before the first byte the sender looks at what is left of its
lease, and does not send when recovery may already have taken over. (3) What came of it is
committed under the claim's fence, so only one of sender and recovery writes the one receipt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, assert_never

from signet.core.exchange import Outcome, PolicyVerdict, Refusal, Subject
from signet.egress import (
    Decision,
    Indeterminate,
    IndeterminateCode,
    NotSent,
    Policy,
    Refused,
    Request,
    Responded,
    Target,
    TargetInvalid,
    as_forwarded,
    parse_target,
)
from signet.egress import Outcome as SendOutcome
from signet.egress.signing import forward_headers, traceparent
from signet.gateway.claims import Claims, Step
from signet.gateway.ports import Clock
from signet.gateway.sealing import salted_id
from signet.gateway.signing import WebhookKeysAt
from signet.gateway.stages import Sheet
from signet.receipts.canonical import Json
from signet.storage import receipts
from signet.storage.database import Database
from signet.storage.exchanges import ChainMoved, Head, Known
from signet.storage.idempotency import Claimed
from signet.storage.tx import Tx
from signet.telemetry.metrics import Metrics
from signet.telemetry.traces import forwarding_as, note

_MARGIN_S: Final = 5.0
"""A sender begins only if its lease holds for the whole forward and this much longer."""


_CUT_SHORT: Final = frozenset({IndeterminateCode.TRUNCATED, IndeterminateCode.BODY_TOO_LARGE})


class Sender(Protocol):
    """Sends one request at most once; `EgressClient` is the one of production."""

    async def send(
        self,
        target: Target,
        body: bytes,
        headers: Mapping[str, str],
        policy: Policy | None,
        *,
        deadline_s: float | None = None,
        before_first_byte: Callable[[], bool] | None = None,
        keep_body: bool = False,
    ) -> SendOutcome:
        """Return how the request ended, with the answer's body if that is wanted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarder:
    """The stage that acts on the outside."""

    database: Database
    sender: Sender
    claims: Claims
    deadline_s: float
    clock: Clock
    metrics: Metrics
    monotonic: Callable[[], float]
    webhook_keys_at: WebhookKeysAt

    async def forward(self, sheet: Sheet, policy: Policy) -> Refusal | Known | ChainMoved | None:
        """Send the result where the call says, if the policy lets it, at most once for its key."""
        url = sheet.call.envelope.forward_url
        if url is None:
            return None
        assert sheet.normalized is not None, "settle comes first"
        judged = judge(sheet, url, policy)
        if isinstance(judged, Refused):
            return self._denied(sheet, policy, judged)
        target, decision = judged
        destination = decision.destination
        secret = destination.secret if destination else None
        idempotent = destination.idempotent if destination else False
        if decision.reported:
            self.metrics.forward_reported.labels(decision.verdict.value).inc()
        leased_at = self.monotonic()
        claimed = await self.database.transact(
            self._claim, sheet, idempotent, (secret,) if secret else ()
        )
        if not isinstance(claimed, _ReadyToSend):
            return claimed
        sheet.fence = claimed.fence
        forwarding_as(claimed.headers["traceparent"])
        lease_ends = leased_at + self.claims.lease_us / 1_000_000 - self.deadline_s - _MARGIN_S
        outcome = await self.sender.send(
            target,
            sheet.normalized,
            claimed.headers,
            policy,
            deadline_s=self.deadline_s,
            before_first_byte=lambda: self.monotonic() < lease_ends,
            keep_body=sheet.call.subject.salt is not None,
        )
        self._observe(outcome)
        if isinstance(outcome, Refused):
            return self._denied(sheet, policy, outcome)
        _tell(sheet, outcome)
        return refusal_of(outcome)

    def _denied(self, sheet: Sheet, policy: Policy, refused: Refused) -> Refusal:
        self.metrics.forward_blocked.labels(refused.code.value).inc()
        return denied(sheet, policy, refused)

    def _observe(self, outcome: SendOutcome) -> None:
        self.metrics.forwards.labels(outcome.outcome).inc()
        note("result", outcome.outcome)
        self.metrics.forward_seconds.observe(outcome.timing.total_s)
        if outcome.timing.dns_s is not None:
            self.metrics.dns_seconds.observe(outcome.timing.dns_s)
        if isinstance(outcome, Responded):
            self.metrics.response_bytes.observe(outcome.response_size)
        if isinstance(outcome, Indeterminate) and outcome.code in _CUT_SHORT:
            self.metrics.responses_truncated.inc()

    async def _claim(
        self, tx: Tx, sheet: Sheet, idempotent: bool, secrets: tuple[str, ...]
    ) -> _ReadyToSend | Known | ChainMoved:
        """Take the key and write the intent down, in one transaction; nothing is sent before."""
        subject = sheet.call.subject
        head = await receipts.head(tx, subject.tenant, subject.trace_id)
        expected = sheet.call.envelope.expected_prev
        if expected != "any" and expected != (head.receipt_hash if head else None):
            return ChainMoved(head=head)
        headers = self._headers(sheet, head, secrets)
        url = sheet.call.envelope.forward_url
        step = Step(spends_key=True, url=url, headers=headers, idempotent=idempotent)
        claimed = await self.claims.take(tx, sheet, step)
        if isinstance(claimed, Claimed):
            return _ReadyToSend(fence=claimed.fence, headers=headers)
        return claimed

    def _headers(self, sheet: Sheet, head: Head | None, secrets: tuple[str, ...]) -> dict[str, str]:
        subject = sheet.call.subject
        key = subject.key_hash.hex()
        assert sheet.normalized is not None
        now_us = self.clock()
        return forward_headers(
            body=sheet.normalized,
            trace_id=subject.trace_id,
            traceparent=traceparent(subject.trace_id, key, sheet.call.traceparent),
            idempotency_key=key,
            prev_receipt_hash=head.receipt_hash if head else None,
            webhook_id=f"msg_{key[:32]}",
            timestamp_s=now_us // 1_000_000,
            secrets=secrets,
            signing_keys=self.webhook_keys_at(now_us),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _ReadyToSend:
    fence: int
    headers: dict[str, str]


def judge(sheet: Sheet, url: str, policy: Policy) -> tuple[Target, Decision] | Refused:
    """Hold a call's destination against the policy, which asks no network."""
    assert sheet.normalized is not None, "settle comes first"
    try:
        target = parse_target(url)
    except TargetInvalid as error:
        return Refused(code=error.verdict, host=None)
    decision = policy.decide(target, Request(body_size=len(sheet.normalized)))
    if not decision.allowed:
        return Refused(code=decision.verdict, host=target.host)
    reason = decision.verdict.value
    sheet.policy = PolicyVerdict(allowed=True, reason=reason, policy_hash=policy.hash)
    return target, decision


def denied(sheet: Sheet, policy: Policy, refused: Refused) -> Refusal:
    """Write down that a call may not leave, and return how it ends."""
    reason = refused.code.value
    sheet.policy = PolicyVerdict(allowed=False, reason=reason, policy_hash=policy.hash)
    _tell(sheet, refused)
    return Refusal(
        code="egress_denied",
        detail=f"the egress policy does not let this request out: {reason}",
        outcome=Outcome.DENIED,
        reason=reason,
    )


def _tell(sheet: Sheet, outcome: SendOutcome) -> None:
    assert sheet.normalized is not None, "settle comes first"
    sheet.members["forwarded"] = receipted(outcome, sheet.call.subject, sheet.normalized)
    sheet.forwarded = shown(outcome)


def shown(outcome: SendOutcome) -> dict[str, Json]:
    """Return the `forwarded` member of the answer."""
    return dict(as_forwarded(outcome).items())  # pyright: ignore[reportReturnType] - a TypedDict of JSON values


def receipted(
    outcome: SendOutcome, subject: Subject, body: bytes, *, attempt: int = 1
) -> dict[str, Json]:
    """Return the `forwarded` member of the receipt: what was to be sent, and what is known of it.

    Its hashes are salted as the subject's are; the answer of a sealed tenant must have been kept.
    """
    told: dict[str, Json] = {
        "host": outcome.host,
        "request_cid": salted_id(subject.salt, body),
        "attempt": attempt,
        "result": outcome.outcome,
    }
    match outcome:
        case Responded():
            told |= {
                "pinned_ip": outcome.pinned_ip,
                "status_code": outcome.status,
                "response_size": outcome.response_size,
            }
            if subject.salt is None:
                told["response_cid"] = outcome.response_hash
            elif outcome.body is not None:
                told["response_cid"] = salted_id(subject.salt, outcome.body)
        case Indeterminate():
            told |= {"pinned_ip": outcome.pinned_ip, "error": outcome.code.value}
        case NotSent() | Refused():
            told |= {"error": outcome.code.value}
        case _:
            assert_never(outcome)
    return told


def refusal_of(outcome: NotSent | Indeterminate | Responded) -> Refusal | None:
    """Return how the exchange ends by what came of its forward; None where it is allowed."""
    match outcome:
        case Responded():
            return None
        case NotSent(code=code):
            detail = "the destination could not be reached; no byte of the request left"
            return Refusal(code="forward_not_sent", detail=detail, reason=code.value)
        case Indeterminate(code=code):
            detail = "the request went out and no whole answer came: it may have happened"
            return Refusal(
                code="forward_outcome_unknown",
                detail=detail,
                outcome=Outcome.UNKNOWN,
                reason=code.value,
            )
        case _:
            assert_never(outcome)
