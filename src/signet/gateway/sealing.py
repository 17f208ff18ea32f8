"""A decision takes its place in the chain: the receipt is built whole, hashed, signed, rendered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from signet.core.audit import Entry, Origin
from signet.core.billing import period_of
from signet.core.exchange import Decision, ExpectedHead, Outcome, Subject
from signet.core.ids import TenantId
from signet.core.values import value_class
from signet.gateway.ports import Clock, Dice, Renderer
from signet.gateway.signing import KeyAt
from signet.receipts.canonical import Json, content_id
from signet.receipts.receipt import Kind, seal, timestamp
from signet.storage.exchanges import Head, PendingExchange, Sealed

_VERSION: Final = 1


@value_class
class Draft:
    """What waits to be sealed: what it is about, and how it was decided.

    `origin` is that of the request; None where nobody waits for an answer.
    """

    subject: Subject
    decision: Decision
    origin: Origin | None = None


def pending(draft: Draft, *, kind: Kind = "exchange", expected: ExpectedHead) -> PendingExchange:
    """Return what storage is asked to commit. A later receipt about a key claims no key."""
    subject = draft.subject
    return PendingExchange(
        tenant=subject.tenant,
        trace_id=subject.trace_id,
        kind=kind,
        key_hash=subject.key_hash if kind == "exchange" else None,
        fingerprint=subject.fingerprint,
        expected_prev=expected,
        fence=draft.decision.fence if kind == "exchange" else None,
        draft=draft,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """Seals drafts; storage calls it inside the transaction, with the head it found there."""

    issuer: str
    key_at: KeyAt
    render: Renderer
    clock: Clock
    dice: Dice
    zone_of: Callable[[TenantId], str]

    def __call__(self, pending: PendingExchange, head: Head | None) -> Sealed:
        """Return the receipt that follows `head`, and all that is stored with it."""
        assert isinstance(pending.draft, Draft)
        subject, decision = pending.draft.subject, pending.draft.decision
        now_us = self.clock()
        now = timestamp(now_us)
        hop = head.hop + 1 if head else 1
        units = int(decision.outcome is Outcome.ALLOWED and pending.kind == "exchange")
        # A later receipt about the same exchange meters nothing: its units were counted once.
        fu_tokens = decision.fu_tokens if pending.kind == "exchange" else 0
        members: dict[str, Json] = {
            "v": _VERSION,
            "iss": self.issuer,
            "trace_id": subject.trace_id,
            "hop": hop,
            "prev_receipt_hash": head.receipt_hash if head else None,
            "ts": now,
            "tenant": subject.tenant,
            "kind": pending.kind,
            "outcome": decision.outcome.value,
            "reason": decision.reason,
            "request_cid": subject.request_cid,
            "canon_profile": subject.canon_profile,
            "algo": "sha256",
            "payload_type": subject.payload_type,
            "target_type": subject.target_type,
            "fu_tokens": fu_tokens,
            "vex_units": units,
            "idempotency_key_hash": subject.key_hash.hex(),
            "nonce": self.dice(16).hex(),
            **decision.members,
        }
        cid: str | None = None
        if decision.normalized is not None:
            cid = members["cid"] = salted_id(subject.salt, decision.normalized)
        receipt = seal(members, self.key_at(now_us))
        return Sealed(
            hop=hop,
            ts_us=now_us,
            receipt_hash=receipt.receipt_hash,
            canonical=receipt.canonical,
            jws=receipt.jws,
            kind=pending.kind,
            outcome=decision.outcome.value,
            vex_units=units,
            fu_tokens=fu_tokens,
            period=period_of(now_us, self.zone_of(subject.tenant)).name,
            answer=self.render(decision, receipt, trace_id=subject.trace_id),
            payload_cid=cid,
            payload=decision.normalized,
            payload_salt=subject.salt,
            audit=_entry(pending.draft, pending.kind, now_us, receipt.receipt_hash),
        )


def _entry(draft: Draft, kind: str, now_us: int, receipt_hash: str) -> Entry:
    """Return the audit entry that is committed with the receipt."""
    subject, refusal, origin = draft.subject, draft.decision.refusal, draft.origin
    return Entry(
        tenant=subject.tenant,
        ts_us=now_us,
        actor=subject.actor,
        action="exchange" if kind == "exchange" else f"exchange.{kind}",
        object=subject.trace_id,
        code="ok" if refusal is None else refusal.code,
        receipt_hash=receipt_hash,
        latency_us=None if origin is None else max(now_us - origin.received_us, 0),
        request_id=None if origin is None else origin.request_id,
        address=None if origin is None else origin.address,
    )


def salted_id(salt: bytes | None, content: bytes) -> str:
    """Return the CID of `content`, behind its salt where the tenant's hashes are sealed.

    Without a salt the hash of guessable content can be guessed; with it, erasing the salt makes
    the hash meaningless.
    """
    return content_id(salt + content if salt else content)
