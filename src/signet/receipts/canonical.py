"""Canonical JSON (RFC 8785) and strict parsing (RFC 7493, I-JSON)."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

Json: TypeAlias = "None | bool | int | Decimal | float | str | list[Json] | dict[str, Json]"
Profile = Literal["jcs", "nfc+jcs", "legacy-json"]
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Normalized:
    """A value whose strings and names are all in NFC, and what had to change for that.

    `changed` holds JSON Pointers into `value`; `unicode_version` is that of the tables used.
    """

    value: Json
    changed: tuple[str, ...]
    unicode_version: str


def parse(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Json:
    """Parse at the door: int and Decimal, never float. Raises `ParseError`."""
    raise NotImplementedError


def parse_for_verification(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Json:
    """Parse text that was signed elsewhere: numbers are IEEE doubles. Raises `ParseError`."""
    raise NotImplementedError


def canonicalize(value: Json, profile: Profile = "jcs") -> bytes:
    """The canonical bytes of `value`. Raises `CanonicalError`."""
    raise NotImplementedError


def normalize(value: Json) -> Normalized:
    """NFC of every string and member name. Raises `CanonicalError`."""
    raise NotImplementedError


def content_id(data: bytes) -> str:
    """`"sha256:" + hex(SHA-256(data))`."""
    raise NotImplementedError


def pointer(*tokens: str | int) -> str:
    """The JSON Pointer (RFC 6901) of a path of names and indices."""
    raise NotImplementedError
