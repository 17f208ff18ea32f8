"""The exchange: accept, run the pipeline, commit once, answer.

Nothing is acknowledged before its receipt is durable, and one idempotency key has one receipt:
whoever comes second gets the first one's answer, byte for byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Final, assert_never

from signet.core.audit import Origin
from signet.core.errors import Fault
from signet.core.exchange import (
    Call,
    Decision,
    EnvelopeInvalid,
    Outcome,
    Subject,
    read_envelope,
)
from signet.core.ids import IDEMPOTENCY_KEY, fingerprint, idempotency_hash, new_trace_id
from signet.core.tenant import Principal
from signet.core.values import value_class
from signet.gateway.pipeline import LARGE_BODY_BYTES, Pipeline
from signet.gateway.ports import Clock, Dice
from signet.gateway.reading import parse_normal
from signet.gateway.sealing import Draft, pending, salted_id
from signet.receipts.canonical import parse_for_verification
from signet.receipts.errors import ReceiptError
from signet.storage import exchanges as stored
from signet.storage import idempotency, receipts
from signet.storage.committer import Committer
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.exchanges import Answer, PendingExchange
from signet.storage.receipts import StoredReceipt
from signet.storage.tx import ReadTx
from signet.telemetry.metrics import Metrics
from signet.telemetry.traces import note, stage_ended

ROUTE: Final = "POST /v1/exchange"
_DENIED_STATUS: Final = 403
_COMMIT_AGAIN_S: Final = (0.1, 0.5, 2.0)
"""When to try again to commit what has already been done outside."""


@value_class
class Answered:
    """The exchange is decided and durable, now or, where `replayed`, before."""

    answer: Answer
    trace_id: str
    replayed: bool
    decision: Decision | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAccepted:
    """Nothing was decided by this request. `code` has a row in the table of problems."""

    code: str
    detail: str
    faults: tuple[Fault, ...] = ()
    retry_after_s: float | None = None
    receipt: tuple[bytes, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """The use case behind `POST /v1/exchange`."""

    pipeline: Pipeline
    database: Database
    committer: Committer
    issuer: str
    canon_profile: str
    max_depth: int
    metrics: Metrics
    clock: Clock
    dice: Dice

    async def exchange(
        self,
        principal: Principal,
        key: str | None,
        body: bytes,
        traceparent: str | None = None,
        origin: Origin | None = None,
    ) -> Answered | NotAccepted:
        """Carry out one request of `principal` under its idempotency `key`.

        Raises a `StorageError` when the outcome is not durable; a retry with the same key then
        yields the first execution or its stored answer.
        """
        if len(body) < LARGE_BODY_BYTES:
            call = self._accept(principal, key, body, traceparent, origin)
        else:
            call = await asyncio.to_thread(self._accept, principal, key, body, traceparent, origin)
        if isinstance(call, NotAccepted):
            return call
        decision = await self.pipeline.run(call)
        if not isinstance(decision, Decision):
            return self._told(_known(decision))
        return await self._commit(call, decision)

    async def _commit(self, call: Call, decision: Decision) -> Answered | NotAccepted:
        """Write the decision down and tell what came of it."""
        draft = Draft(subject=call.subject, decision=decision, origin=call.origin)
        started = perf_counter()
        if decision.fence is None:
            expected = call.envelope.expected_prev
            result = await self.committer.commit(pending(draft, expected=expected))
        else:
            result = await self._commit_patiently(pending(draft, expected="any"))
        ended = perf_counter()
        self.metrics.phases["commit"].observe(ended - started)
        stage_ended("commit", started, ended)
        if isinstance(result, stored.FenceLost):
            result = await self._resolve(draft)
        if decision.outcome is Outcome.DENIED and _was_let_out(result):
            detail = "this API key could not have made the call, so its answer is not told"
            return NotAccepted(code="replay_denied", detail=detail)
        if isinstance(result, stored.Committed):
            sealed = result.sealed
            note("outcome", sealed.outcome)
            self.metrics.decided(
                outcome=sealed.outcome,
                reason=decision.reason,
                vex_units=sealed.vex_units,
                fu_tokens=sealed.fu_tokens,
            )
            trace_id = call.subject.trace_id
            return Answered(
                answer=sealed.answer, trace_id=trace_id, replayed=False, decision=decision
            )
        return self._told(_known(result))

    def _told(self, known: Answered | NotAccepted) -> Answered | NotAccepted:
        if isinstance(known, Answered):
            self.metrics.replays.inc()
            note("replayed", "true")
        return known

    async def _commit_patiently(self, sent: PendingExchange) -> stored.Result:
        """Commit what was done outside; where that cannot be, recovery ends it after the lease."""
        for pause_s in _COMMIT_AGAIN_S:
            try:
                return await self.committer.commit(sent)
            except StorageError:
                await asyncio.sleep(pause_s)
        return await self.committer.commit(sent)

    async def _resolve(self, draft: Draft) -> stored.Known:
        """The claim is gone: add what this late sender learned, and tell what the receipt says.

        Mostly recovery was first. But it may have been this very sender, by a commit that was
        reported to have failed: then the receipt says what there is to say already.
        """
        known, receipt = await self.database.read_current(_state, draft.subject)
        if receipt is None or not _says(receipt, draft.decision):
            await self.committer.commit(pending(draft, kind="resolution", expected="any"))
        return known or stored.InFlight(retry_after_s=1.0)

    def _accept(
        self,
        principal: Principal,
        key: str | None,
        body: bytes,
        traceparent: str | None,
        origin: Origin | None,
    ) -> Call | NotAccepted:
        """Read the request strictly; what fails here leaves no receipt."""
        if key is None:
            detail = "send X-SIGNET-Idempotency-Key, one value for each intended effect"
            return NotAccepted(code="idempotency_key_missing", detail=detail)
        if not IDEMPOTENCY_KEY.fullmatch(key):
            detail = "an idempotency key is 1 to 255 visible ASCII characters"
            return NotAccepted(code="idempotency_key_malformed", detail=detail)
        try:
            document, is_normal = parse_normal(body, max_depth=self.max_depth)
            envelope = read_envelope(document)
        except ReceiptError as error:
            fault = Fault(pointer=error.pointer or "", code=error.code, detail=error.detail)
            return NotAccepted(code="invalid_json", detail=str(error), faults=(fault,))
        except EnvelopeInvalid as error:
            return NotAccepted(code=error.code, detail=error.detail, faults=error.faults)
        tenant = principal.tenant
        salt = self.dice(16) if tenant.sealed else None
        subject = Subject(
            tenant=tenant.id,
            actor=principal.key_id,
            trace_id=envelope.trace_id or new_trace_id(self.clock(), self.dice(10)),
            key_hash=idempotency_hash(self.issuer, tenant.id, key),
            fingerprint=fingerprint(ROUTE, envelope.delivery, body),
            salt=salt,
            request_cid=salted_id(salt, body),
            payload_type=envelope.payload_type,
            target_type=envelope.target_type,
            canon_profile=tenant.canon_profile or self.canon_profile,
        )
        return Call(
            principal=principal,
            subject=subject,
            envelope=envelope,
            body_bytes=len(body),
            is_normal=is_normal,
            traceparent=traceparent,
            origin=origin,
        )


async def _state(tx: ReadTx, subject: Subject) -> tuple[stored.Known | None, StoredReceipt | None]:
    """Read what is known of the subject's key, and its receipt where it has one."""
    known = await idempotency.lookup(tx, subject.tenant, subject.key_hash, subject.fingerprint)
    if not isinstance(known, stored.Replay):
        return known, None
    return known, await receipts.by_hash(tx, subject.tenant, known.receipt_hash)


def _says(receipt: StoredReceipt, decision: Decision) -> bool:
    """Return whether a receipt tells the outcome and the reason of `decision`."""
    told = parse_for_verification(receipt.canonical)
    assert isinstance(told, dict), "it was sealed as an object"
    return told["outcome"] == decision.outcome.value and told["reason"] == decision.reason


def _was_let_out(result: stored.Result) -> bool:
    """Return whether the key's stored answer is one that an egress policy had let out.

    A key of the same tenant with a narrower list could not have made the call, so it learns
    nothing of what came of it.
    """
    return isinstance(result, stored.Replay) and result.answer.status != _DENIED_STATUS


def _known(
    result: stored.Known | stored.ChainMoved,
) -> Answered | NotAccepted:
    """Tell what was already known, or what has moved meanwhile."""
    match result:
        case stored.Replay(answer=answer, trace_id=trace_id):
            return Answered(answer=answer, trace_id=trace_id, replayed=True)
        case stored.KeyReused():
            detail = "the key belongs to another request; a new effect needs a new key"
            return NotAccepted(code="idempotency_key_reused", detail=detail)
        case stored.InFlight(retry_after_s=retry_after_s):
            detail = "the first request with this key has not ended"
            return NotAccepted(
                code="idempotency_in_flight", detail=detail, retry_after_s=retry_after_s
            )
        case stored.KeySpent(receipt_hash=receipt_hash):
            detail = f"this key acted and its answer has expired; its receipt is {receipt_hash}"
            return NotAccepted(code="idempotency_key_spent", detail=detail)
        case stored.Erased(canonical=canonical, jws=jws):
            detail = "the answer was erased with its payload; the receipt stands"
            return NotAccepted(code="payload_erased", detail=detail, receipt=(canonical, jws))
        case stored.ChainMoved(head=head):
            last = head.receipt_hash if head else "null"
            fault = Fault(
                pointer="/expected_prev",
                code="chain_moved",
                detail="the trace does not end there",
                got=last,
            )
            detail = f"the last receipt of the trace is {last}"
            return NotAccepted(code="chain_moved", detail=detail, faults=(fault,))
        case _:
            assert_never(result)
