"""Calls and their parts, for the tests of the gateway's stages."""

from __future__ import annotations

import json
from collections.abc import Mapping

from signet.core.exchange import Call, Decision, Envelope, Outcome, PolicyVerdict, Subject
from signet.core.ids import KeyHash, TenantId, TraceId
from signet.core.registry import Registry
from signet.core.tenant import TENANT_SCOPES, Principal, Tenant
from signet.gateway.stages import Sheet
from signet.receipts.canonical import Json

POLICY_HASH = "sha256:" + "1" * 64
DOCUMENTS: Mapping[str, object] = {
    "order.v1.schema.json": {
        "type": "object",
        "required": ["sku"],
        "properties": {"sku": {"type": "string"}, "notes": {"type": "array"}},
    },
    "line.v1.schema.json": {"type": "object", "required": ["article"]},
    "order.v1--line.v1.map.json": {"fields": {"article": "sku"}},
    "line.v1--order.v1.map.json": {"jsonata": '{"sku": article}'},
    "texts.v1.schema.json": {
        "type": "object",
        "properties": {
            "texts": {
                "type": "array",
                "items": {"type": "string", "contentMediaType": "application/json"},
            }
        },
    },
    "anything.v1.schema.json": {},
}


def registry() -> Registry:
    """A registry of `DOCUMENTS`."""
    return Registry.build((name, json.dumps(d).encode()) for name, d in DOCUMENTS.items())


_REGISTRY = registry()


def subject(**changes: object) -> Subject:
    """What a receipt is about."""
    members: dict[str, object] = {
        "tenant": TenantId("acme"),
        "actor": "env_0",
        "trace_id": TraceId("t"),
        "key_hash": KeyHash(b"k" * 32),
        "fingerprint": b"f" * 32,
        "salt": None,
        "request_cid": "sha256:" + "2" * 64,
        "payload_type": "order.v1",
        "target_type": "order.v1",
        "canon_profile": "nfc+jcs",
    }
    return Subject(**(members | changes))  # type: ignore[arg-type]


def call(
    payload: Json, payload_type: str = "order.v1", target_type: str = "order.v1", **members: object
) -> Call:
    """An accepted call; `members` are those of the envelope or the subject."""
    about = {k: v for k, v in members.items() if k in Subject.__dataclass_fields__}
    rest = {k: v for k, v in members.items() if k not in about}
    envelope: dict[str, object] = {
        "payload_type": payload_type,
        "target_type": target_type,
        "payload": payload,
        "trace_id": None,
        "forward_url": None,
        "expected_prev": "any",
        "delivery": "sync",
    }
    principal = Principal(key_id="env_0", tenant=Tenant(id=TenantId("acme")), scopes=TENANT_SCOPES)
    return Call(
        principal=principal,
        subject=subject(payload_type=payload_type, target_type=target_type, **about),
        envelope=Envelope(**(envelope | rest)),  # type: ignore[arg-type]
        body_bytes=100,
    )


def sheet(payload: Json, *types: str, **members: object) -> Sheet:
    """The sheet of a call, with its payload in place."""
    made = Sheet(call=call(payload, *types, **members), registry=_REGISTRY)
    made.payload = payload
    return made


def decision(**changes: object) -> Decision:
    """An allowed decision."""
    members: dict[str, object] = {
        "outcome": Outcome.ALLOWED,
        "refusal": None,
        "normalized": b'{"sku":"A"}',
        "policy": PolicyVerdict(allowed=True, reason="ok", policy_hash=POLICY_HASH),
        "members": {},
    }
    return Decision(**(members | changes))  # type: ignore[arg-type]
