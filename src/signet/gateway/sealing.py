"""A decision takes its place in the chain: the receipt is built whole, hashed, signed, rendered."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from signet.core.exchange import Call, Decision, Outcome
from signet.gateway.ports import Clock, Dice, Renderer
from signet.receipts.canonical import Json
from signet.receipts.keys import SigningKey
from signet.receipts.receipt import seal, timestamp
from signet.storage.exchanges import Head, PendingExchange, Sealed

_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What waits to be sealed: the call and how it was decided."""

    call: Call
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealer:
    """Seals drafts; storage calls it inside the transaction, with the head it found there."""

    issuer: str
    key: SigningKey
    render: Renderer
    clock: Clock
    dice: Dice

    def __call__(self, pending: PendingExchange, head: Head | None) -> Sealed:
        """Return the receipt that follows `head`, and all that is stored with it."""
        draft = pending.draft
        assert isinstance(draft, Draft)
        call, decision = draft.call, draft.decision
        tenant = call.principal.tenant
        now_us = self.clock()
        units = int(decision.outcome is Outcome.ALLOWED)
        salt = self.dice(16) if tenant.sealed else None
        cid = None if decision.normalized is None else _hash(salt, decision.normalized)
        members: dict[str, Json] = {
            "v": _VERSION,
            "iss": self.issuer,
            "trace_id": call.trace_id,
            "hop": head.hop + 1 if head else 1,
            "prev_receipt_hash": head.receipt_hash if head else None,
            "ts": timestamp(now_us),
            "tenant": tenant.id,
            "kind": pending.kind,
            "outcome": decision.outcome.value,
            "reason": decision.reason,
            "request_cid": _hash(salt, call.body),
            "canon_profile": call.canon_profile,
            "algo": "sha256",
            "payload_type": call.envelope.payload_type,
            "target_type": call.envelope.target_type,
            "fu_tokens": 0,
            "vex_units": units,
            "idempotency_key_hash": call.key_hash.hex(),
            "nonce": self.dice(16).hex(),
            **decision.members,
        }
        if cid is not None:
            members["cid"] = cid
        receipt = seal(members, self.key)
        return Sealed(
            hop=head.hop + 1 if head else 1,
            ts_us=now_us,
            receipt_hash=receipt.receipt_hash,
            canonical=receipt.canonical,
            jws=receipt.jws,
            kind=pending.kind,
            outcome=decision.outcome.value,
            vex_units=units,
            fu_tokens=0,
            period=timestamp(now_us)[:7],
            answer=self.render(decision, receipt, trace_id=call.trace_id),
            payload_cid=cid,
            payload=decision.normalized,
            payload_salt=salt,
        )


def _hash(salt: bytes | None, content: bytes) -> str:
    """Hash `content`, behind its salt where the tenant's hashes are sealed.

    Without a salt the hash of guessable content can be guessed; with it, erasing the salt makes
    the hash meaningless.
    """
    return "sha256:" + hashlib.sha256((salt or b"") + content).hexdigest()
