"""An intent: what is written down before anything leaves, so that whoever finds it can end it.

If the process dies after an intent was committed, nobody knows whether the call happened. The
intent holds all that the one receipt of that exchange needs to say exactly this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from signet.core.exchange import PolicyVerdict, Subject
from signet.core.ids import KeyHash, TenantId, TraceId
from signet.receipts.canonical import Json, canonicalize, parse_for_verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An exchange about to do network work. `url` and `headers` are those of a forward."""

    subject: Subject
    normalized: bytes | None
    policy: PolicyVerdict | None
    members: dict[str, Json]
    fu_tokens: int
    url: str | None
    headers: dict[str, str]
    idempotent: bool

    def encode(self) -> bytes:
        """Return the bytes that the claim stores."""
        subject = self.subject
        document: dict[str, Json] = {
            "tenant": subject.tenant,
            "actor": subject.actor,
            "trace_id": subject.trace_id,
            "key_hash": subject.key_hash.hex(),
            "fingerprint": subject.fingerprint.hex(),
            "salt": None if subject.salt is None else subject.salt.hex(),
            "request_cid": subject.request_cid,
            "payload_type": subject.payload_type,
            "target_type": subject.target_type,
            "canon_profile": subject.canon_profile,
            "normalized": None if self.normalized is None else self.normalized.decode(),
            "policy": None if self.policy is None else self.policy.document(),
            "members": self.members,
            "fu_tokens": self.fu_tokens,
            "url": self.url,
            "headers": dict(self.headers),
            "idempotent": self.idempotent,
        }
        return canonicalize(document)

    @classmethod
    def decode(cls, stored: bytes) -> Intent:
        """Return the intent that `encode` wrote, in this process or in one that has died."""
        document = cast(dict[str, Json], parse_for_verification(stored, max_depth=512))

        def text(name: str) -> str:
            return cast(str, document[name])

        salt, normalized, policy = document["salt"], document["normalized"], document["policy"]
        return cls(
            subject=Subject(
                tenant=TenantId(text("tenant")),
                actor=text("actor"),
                trace_id=TraceId(text("trace_id")),
                key_hash=KeyHash(bytes.fromhex(text("key_hash"))),
                fingerprint=bytes.fromhex(text("fingerprint")),
                salt=bytes.fromhex(salt) if isinstance(salt, str) else None,
                request_cid=text("request_cid"),
                payload_type=text("payload_type"),
                target_type=text("target_type"),
                canon_profile=text("canon_profile"),
            ),
            normalized=normalized.encode() if isinstance(normalized, str) else None,
            policy=_policy(policy) if isinstance(policy, dict) else None,
            members=cast(dict[str, Json], document["members"]),
            fu_tokens=cast(int, document["fu_tokens"]),
            url=cast(str | None, document["url"]),
            headers=cast(dict[str, str], document["headers"]),
            idempotent=document["idempotent"] is True,
        )


def _policy(document: dict[str, Json]) -> PolicyVerdict:
    return PolicyVerdict(
        allowed=document["allowed"] is True,
        reason=cast(str, document["reason"]),
        policy_hash=cast(str, document["policy_hash"]),
    )
