"""The public names as a user's type checker sees them. Never run; basedpyright reads it."""

from __future__ import annotations

from typing import assert_type

from signet.egress import (
    EgressClient,
    Forwarded,
    Indeterminate,
    NotSent,
    Outcome,
    Policy,
    Refused,
    Responded,
    Target,
    asafe_forward,
    parse_target,
    safe_forward,
)
from signet.providers import FallbackResult
from signet.receipts.bundle import BundleDraft, SealedBundle
from signet.receipts.canonical import Json, canonicalize, content_id, normalize, parse
from signet.receipts.keys import KeySet, PublicKey, SigningKey
from signet.receipts.receipt import SealedReceipt, seal
from signet.receipts.report import Level, Report
from signet.receipts.verify import verify, verify_bundle, verify_pages


def forwards(client_body: dict[str, object]) -> None:
    """`safe_forward` returns a typed dictionary."""
    told = safe_forward("https://api.example.com/orders", client_body)
    assert_type(told, Forwarded)
    assert_type(told["status_code"], int)
    assert_type(told["host"], str | None)
    assert_type(told["pinned_ip"], str | None)
    assert_type(told["response_size"], int)


async def sends(client: EgressClient, policy: Policy) -> str:
    """The outcomes are a closed union: a match over them needs no default."""
    assert_type(await asafe_forward("https://api.example.com/", b"{}", policy=policy), Forwarded)
    target = parse_target("https://api.example.com/")
    assert_type(target, Target)
    outcome = await client.send(target, b"{}", {}, policy)
    assert_type(outcome, Outcome)
    match outcome:
        case Refused(code=code):
            return code.value
        case NotSent(code=code):
            return code.value
        case Indeterminate(pinned_ip=address):
            return address
        case Responded(status=status):
            return str(status)


def receipts(members: dict[str, Json], key: SigningKey) -> None:
    """Receipts are built, sealed, bundled and verified without casts."""
    sealed = seal(members, key)
    assert_type(sealed, SealedReceipt)
    assert_type(sealed.canonical, bytes)
    assert_type(key.public, PublicKey)
    draft = BundleDraft(trace_id="t", exported_at="2026-01-01T00:00:00.000000Z")
    draft.add_receipt(sealed.canonical)
    draft.add_signature(sealed.jws)
    bundle = draft.seal(key, jwks=KeySet.of([key.public]).jwks())
    assert_type(bundle, SealedBundle)
    body = b"".join(bundle.chunks([sealed.canonical], [sealed.jws]))
    report = verify_bundle(body, trust=[key.kid], level=Level.SIGNED)
    assert_type(report, Report)
    assert_type(verify(body, jwks=KeySet.of([key.public])).level, Level)
    assert_type(verify_pages([body], jwks=KeySet.of([key.public])), Report)
    assert_type(report.hops, int)


def canonical(text: bytes) -> str:
    """Parsing gives JSON, canonicalising bytes, naming text."""
    value = parse(text)
    assert_type(value, Json)
    assert_type(normalize(value).changed, tuple[str, ...])
    return content_id(canonicalize(value))


def repaired(result: FallbackResult) -> str | None:
    """What the fallback returns keeps the mission's names."""
    assert_type(result.fu_tokens, int)
    assert_type(result.success, bool)
    assert_type(result.error, str | None)
    return result.repaired_text
