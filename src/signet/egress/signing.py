"""What every forward carries so that its receiver can check it and act on it once.

Pure functions from values to header values: Standard Webhooks signatures
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md),
Content-Digest (RFC 9530), W3C Trace Context and the derived idempotency key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from signet.egress.errors import PolicyInvalid, RequestInvalid

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the prefix of secrets, not a secret

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_NOTHING: Final = re.compile("0+")
_WEBHOOK_ID: Final = re.compile(r"[\x21-\x2d\x2f-\x7e]{1,255}")


def forward_headers(
    *,
    body: bytes,
    trace_id: str,
    traceparent: str,
    idempotency_key: str,
    prev_receipt_hash: str | None,
    webhook_id: str,
    timestamp_s: int,
    secrets: Sequence[str] = (),
    signing_keys: Sequence[Ed25519PrivateKey] = (),
) -> dict[str, str]:
    """Return the headers of one forward. Raises `RequestInvalid`, `PolicyInvalid`.

    `webhook_id` stays the same over retries, `timestamp_s` (Unix seconds) is that of the attempt.
    `secrets` are the destination's, the newest first while it rotates them; `signing_keys` are
    ours, two while they rotate. A receiver accepts any one of the signatures.
    """
    headers = {
        "Content-Type": "application/json",
        "Content-Digest": content_digest(body),
        "Idempotency-Key": idempotency_key,
        "traceparent": traceparent,
        "X-SIGNET-Trace": trace_id,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp_s),
    }
    if prev_receipt_hash is not None:
        headers["X-SIGNET-Prev-Receipt"] = prev_receipt_hash
    signatures = [sign_v1(secret, webhook_id, timestamp_s, body) for secret in secrets]
    signatures += [sign_v1a(key, webhook_id, timestamp_s, body) for key in signing_keys]
    if signatures:
        headers["webhook-signature"] = " ".join(signatures)
    return headers


def content_digest(body: bytes) -> str:
    """Return the Content-Digest of `body` (RFC 9530 §2, sha-256)."""
    return f"sha-256=:{_base64(hashlib.sha256(body).digest())}:"


def derived_idempotency_key(issuer: str, tenant: str, key: str) -> str:
    """Return the hex SHA-256 of JCS(`[issuer, tenant, key]`).

    The client's own key never leaves, and two tenants never collide at one service. For an array
    of texts this spelling is the canonical one (RFC 8785 §3.2.2.2).
    """
    text = json.dumps([issuer, tenant, key], ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def traceparent(trace_id: str, span: str, incoming: str | None = None) -> str:
    """Return a W3C traceparent for the forward called `span` within `trace_id`.

    A valid `incoming` header lends its trace id and its sampling flag; otherwise the trace id is
    derived from ours, so that all hops of a trace share it.
    """
    trace, flags = hashlib.sha256(trace_id.encode()).hexdigest()[:32], "01"
    came = None if incoming is None else parse_traceparent(incoming)
    if came is not None:
        trace, flags = came.trace, f"{int(came.sampled):02x}"
    parent = hashlib.sha256(f"{trace_id}\0{span}".encode()).hexdigest()[:16]
    return f"00-{trace}-{parent}-{flags}"


@dataclass(frozen=True, slots=True)
class TraceParent:
    """What a traceparent says: 32 and 16 hex digits, and whether its sender keeps the trace."""

    trace: str
    span: str
    sampled: bool


def parse_traceparent(header: str) -> TraceParent | None:
    """Read a W3C traceparent (Trace Context §3.2.2); None for one that must be ignored."""
    match = _TRACEPARENT.fullmatch(header)
    if match is None or header.startswith("ff"):
        return None
    if _NOTHING.fullmatch(match[1]) or _NOTHING.fullmatch(match[2]):
        return None
    return TraceParent(match[1], match[2], bool(int(match[3], 16) & 1))


def sign_v1(secret: str, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """Return a symmetric signature: "v1," and base64 of HMAC-SHA256."""
    content = _signed_content(webhook_id, timestamp_s, body)
    return "v1," + _base64(hmac.digest(webhook_key(secret), content, "sha256"))


def sign_v1a(key: Ed25519PrivateKey, webhook_id: str, timestamp_s: int, body: bytes) -> str:
    """Return an asymmetric signature: "v1a," and base64 of Ed25519."""
    return "v1a," + _base64(key.sign(_signed_content(webhook_id, timestamp_s, body)))


def webhook_key(secret: str) -> bytes:
    """Return the bytes of a secret: base64 with or without "whsec_". Raises `PolicyInvalid`.

    The specification asks for 24 to 64 bytes; the message never repeats the secret.
    """
    text = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PolicyInvalid("a webhook secret must be base64, as whsec_...") from error
    if not 24 <= len(key) <= 64:
        raise PolicyInvalid("a webhook secret must have 24 to 64 bytes")
    return key


def _signed_content(webhook_id: str, timestamp_s: int, body: bytes) -> bytes:
    # The id must not contain the separator: "a.1" + "2" and "a" + "1.2" would sign alike.
    if not _WEBHOOK_ID.fullmatch(webhook_id):
        raise RequestInvalid("a webhook id is 1 to 255 visible characters without a full stop")
    return f"{webhook_id}.{timestamp_s}.".encode("ascii") + body


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
