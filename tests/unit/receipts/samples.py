"""Receipts, chains and bundles that the tests of this room share."""

from __future__ import annotations

import json
from typing import Any

from signet.receipts.bundle import BundleDraft, PageOf
from signet.receipts.canonical import Json
from signet.receipts.keys import KeySet, SigningKey
from signet.receipts.receipt import (
    KEY_TENANT,
    KEY_TRACE,
    RECEIPT_TYP,
    SealedReceipt,
    seal,
    timestamp,
)

START_US = 1_700_000_000_000_000
EXPORTED_US = START_US + 60_000_000
KEY = SigningKey.from_seed(bytes(range(32)))
OTHER_KEY = SigningKey.from_seed(bytes(32))
TRACE = "0193f1c2-6f5a-7c3e-9d55-1d2f3a4b5c6d"


def sha(digit: str) -> str:
    """A well-formed hash text."""
    return "sha256:" + digit * 64


def members(**changes: Json) -> dict[str, Json]:
    """The members of a good receipt at hop 1, with these changes; `...` takes one out."""
    good: dict[str, Any] = {
        "v": 1,
        "iss": "https://signet.example",
        "trace_id": TRACE,
        "hop": 1,
        "prev_receipt_hash": None,
        "ts": timestamp(START_US),
        "tenant": "acme",
        "kind": "exchange",
        "outcome": "allowed",
        "reason": "ok",
        "cid": sha("b"),
        "request_cid": sha("c"),
        "canon_profile": "nfc+jcs",
        "unicode": "14.0.0",
        "algo": "sha256",
        "payload_type": "openai.tooluse.invoice.v1",
        "target_type": "invoice.iso20022.v1",
        "schema_in": sha("d"),
        "schema_out": sha("e"),
        "map": sha("f"),
        "policy": {"engine": "HEL", "allowed": True, "reason": "ok", "policy_hash": sha("0")},
        "fu_tokens": 0,
        "vex_units": 1,
        "idempotency_key_hash": "1" * 64,
        "nonce": "2" * 32,
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def chain(length: int = 3, key: SigningKey = KEY, **changes: Json) -> list[SealedReceipt]:
    """A whole chain, one second between receipts."""
    sealed: list[SealedReceipt] = []
    for hop in range(1, length + 1):
        previous = sealed[-1].receipt_hash if sealed else None
        ts = timestamp(START_US + (hop - 1) * 1_000_000)
        receipt = members(hop=hop, prev_receipt_hash=previous, ts=ts, **changes)
        sealed.append(seal(receipt, key))
    return sealed


def rotations(
    first: SigningKey, *following: SigningKey, signing: SigningKey | None = None
) -> list[SealedReceipt]:
    """The chain of the keys, a second between rotations; each is signed by the key it brings."""
    sealed: list[SealedReceipt] = []
    before = first
    for hop, key in enumerate(following, 1):
        receipt: dict[str, Json] = {
            "v": 1,
            "iss": "https://signet.example",
            "trace_id": KEY_TRACE,
            "hop": hop,
            "prev_receipt_hash": sealed[-1].receipt_hash if sealed else None,
            "ts": timestamp(START_US + hop * 1_000_000),
            "tenant": KEY_TENANT,
            "kind": "key",
            "algo": "sha256",
            "nonce": "2" * 32,
            "key": {"event": "rotated", "kid": key.kid, "previous": before.kid},
        }
        sealed.append(seal(receipt, signing or key))
        before = key
    return sealed


def key_log(
    first: SigningKey,
    *following: SigningKey,
    signing: SigningKey | None = None,
    vouching: SigningKey | None = None,
) -> dict[str, Any]:
    """The log of the keys as it is exported, by the last of them."""
    receipts = rotations(first, *following, signing=signing)
    befores = [first, *following[:-1]]
    previous = {
        hop: (vouching or key).jws(receipt.canonical, typ=RECEIPT_TYP)
        for hop, (key, receipt) in enumerate(zip(befores, receipts, strict=True), 1)
    }
    everyone = KeySet.of(
        key.public for key in (first, *following, *([vouching] if vouching else ()))
    )
    document = export(receipts, following[-1], trace_id=KEY_TRACE, jwks=everyone, previous=previous)
    return loaded(document)


def export(
    receipts: list[SealedReceipt],
    key: SigningKey = KEY,
    *,
    trace_id: str = TRACE,
    jwks: KeySet | None = None,
    page: PageOf | None = None,
    exported_us: int = EXPORTED_US,
    previous: dict[int, str] | None = None,
) -> bytes:
    """The bundle (or page) of a chain as one body."""
    draft = BundleDraft(
        trace_id=trace_id, exported_at=timestamp(exported_us), page=page, previous=previous
    )
    for receipt in receipts:
        draft.add_receipt(receipt.canonical)
    for receipt in receipts:
        draft.add_signature(receipt.jws)
    keys = jwks or KeySet.of([key.public])
    bundle = draft.seal(key, jwks=keys.jwks())
    return b"".join(bundle.chunks([r.canonical for r in receipts], [r.jws for r in receipts]))


def loaded(document: bytes) -> dict[str, Any]:
    """The document as plain Python values, to be tampered with."""
    return json.loads(document)


def dumped(document: object) -> bytes:
    """Any JSON text of the value; the verifier does not mind which."""
    return json.dumps(document, indent=1).encode()
