"""The ids of the domain: what each may look like, and how the ones we make are made.

Nothing here draws dice or reads a clock; both are handed in.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NewType

from signet.receipts.canonical import canonicalize

TenantId = NewType("TenantId", str)
TraceId = NewType("TraceId", str)
KeyHash = NewType("KeyHash", bytes)
"""SHA-256 over issuer, tenant and idempotency key: 32 bytes."""

TENANT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""Names that begin with `_` are the gateway's own (`_system`)."""
TRACE_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
TYPE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
RECEIPT_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
# The hex digit that begins with the variant's two bits, 10, by the upper half of a byte drawn.
_VARIANTS: Final = "89ab" * 4


def new_trace_id(now_us: int, dice: bytes) -> TraceId:
    """Return a UUIDv7 (RFC 9562 §5.7) for `now_us` and ten random bytes."""
    time, drawn = f"{now_us // 1000:012x}", dice.hex()
    variant = _VARIANTS[dice[2] >> 4]
    return TraceId(f"{time[:8]}-{time[8:]}-7{drawn[1:4]}-{variant}{drawn[5:8]}-{drawn[8:20]}")


def idempotency_hash(issuer: str, tenant: TenantId, key: str) -> KeyHash:
    """Return SHA-256 of JCS(`[issuer, tenant, key]`).

    This, not the client's own key, is stored, receipted and sent upstream: the key never leaves,
    and two tenants never collide at one service.
    """
    return KeyHash(hashlib.sha256(canonicalize([issuer, tenant, key])).digest())


def fingerprint(route: str, delivery: str, body: bytes) -> bytes:
    """Return what makes two requests with one key the same request: 32 bytes."""
    return hashlib.sha256(b"\x00".join((route.encode(), delivery.encode(), body))).digest()
