"""One receipt: its members, its hash, its signature (docs/reference/receipts.md §2 and §3).

A receipt is sealed once, whole: canonical bytes, hash and signature come out together, and the
bytes are what is stored, sent and verified. Nothing is ever added to a sealed receipt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from signet.receipts.canonical import Json
from signet.receipts.keys import SigningKey

Kind = Literal["exchange", "delivery", "resolution", "key"]
Outcome = Literal["allowed", "denied", "failed", "unknown"]

RECEIPT_TYP = "signet-receipt+jws"
KINDS: tuple[str, ...] = get_args(Kind)
OUTCOMES: tuple[str, ...] = get_args(Outcome)

# Members that every receipt has, whatever its kind; `receipt_hash` is added by `seal`.
_EVERY = frozenset(
    {"v", "iss", "trace_id", "hop", "prev_receipt_hash", "ts", "tenant", "kind", "algo", "nonce"}
)
_EXCHANGED = frozenset({"outcome", "reason", "idempotency_key_hash"})
REQUIRED: Mapping[str, frozenset[str]] = {
    "exchange": _EVERY
    | _EXCHANGED
    | {"request_cid", "canon_profile", "payload_type", "target_type", "fu_tokens", "vex_units"},
    "delivery": _EVERY | _EXCHANGED | {"forwarded"},
    "resolution": _EVERY | _EXCHANGED,
    "key": _EVERY | {"key"},
}
_OPTIONAL = frozenset(
    {
        "cid",
        "request_cid",
        "canon_profile",
        "unicode",
        "nfc_changed",
        "payload_type",
        "target_type",
        "schema_in",
        "schema_out",
        "map",
        "policy",
        "repair",
        "forwarded",
        "fu_tokens",
        "vex_units",
    }
)
KNOWN: Mapping[str, frozenset[str]] = {
    kind: required if kind == "key" else required | _OPTIONAL for kind, required in REQUIRED.items()
}


@dataclass(frozen=True, slots=True)
class SealedReceipt:
    """A signed receipt: the bytes to store and send, their name, their proof.

    `canonical` is JCS of the receipt including `receipt_hash`; `jws` is a compact JWS over
    exactly these bytes.
    """

    canonical: bytes
    receipt_hash: str
    jws: str


def seal(members: Mapping[str, Json], key: SigningKey) -> SealedReceipt:
    """Canonicalise, hash and sign a receipt. `members` is everything but `receipt_hash`.

    Raises `SealError` if a member is missing, unknown or malformed (`canon` and `receipt_hash`
    are unknown here), and for floats, Decimals, integers beyond ±(2^53−1) and names that are
    not ASCII, at any depth: so that the simplest verifier agrees with the strictest.
    """
    raise NotImplementedError


def timestamp(time_us: int) -> str:
    """Microseconds UTC as the receipt writes them: `2026-01-31T09:00:00.000001Z` (RFC 3339)."""
    raise NotImplementedError


def timestamp_us(text: str) -> int:
    """The microseconds UTC of a receipt's timestamp. Raises `ValueError` for any other form."""
    raise NotImplementedError
