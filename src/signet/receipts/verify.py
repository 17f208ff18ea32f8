"""Offline verification: what a bundle, a chain or a receipt proves, step by step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

from signet.receipts.canonical import Json
from signet.receipts.keys import KeySet


class Level(IntEnum):
    """How much is proven, each including the one before. Below them all is INVALID: an error."""

    INTEGRITY = 1
    SIGNED = 2
    LOGGED = 3
    WITNESSED = 4


class Step(IntEnum):
    """The numbered steps of the proof."""

    TEXT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was proven. It is only ever returned when the asked level was reached."""

    document: str
    level: Level
    trace_id: str
    tenant: str
    hops: int
    signed_by: tuple[str, ...]

    def as_json(self) -> dict[str, Json]:
        """The report as the command prints it with `--json`."""
        raise NotImplementedError

    def as_text(self) -> str:
        """The report for a person."""
        raise NotImplementedError


def verify(
    data: bytes,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify a document of any kind.

    Raises `VerificationError` if the proof fails, `LevelNotReached` if it proves less than
    `level`. `trust` pins thumbprints; `jwks` is a key set that the caller trusts.
    """
    raise NotImplementedError


def verify_bundle(
    data: bytes,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify an export bundle, as `verify` does."""
    raise NotImplementedError


def verify_pages(
    pages: Sequence[bytes],
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify pages that together hold a chain from hop 1 to its head."""
    raise NotImplementedError


def verify_chain(
    receipts: Sequence[bytes],
    signatures: Sequence[str],
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify a chain of receipts with one JWS each (compact or detached)."""
    raise NotImplementedError


def verify_receipt(
    receipt: bytes,
    jws: str,
    *,
    trust: Collection[str] = (),
    jwks: KeySet | None = None,
    level: Level = Level.SIGNED,
) -> Report:
    """Verify one receipt and its JWS; says nothing of the chain it belongs to."""
    raise NotImplementedError
