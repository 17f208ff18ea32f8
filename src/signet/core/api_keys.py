"""What an API key made at run time looks like, and what is kept of it.

`sp_live_<public id>_<secret>`: 16 hexadecimal digits that name the key, and 64 that are its 256
secret bits. Only a hash of the whole text is kept: SHA-256, or, where the deployment has a pepper,
HMAC-SHA-256 under it, so that who reads the database alone cannot even test a guess.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NewType

PublicId = NewType("PublicId", str)

KEY_ID: Final = re.compile(r"key_[0-9a-f]{16}")
DICE_BYTES: Final = 40
"""How many random bytes a new key takes."""

_KEY: Final = re.compile(rb"sp_live_([0-9a-f]{16})_[0-9a-f]{64}")
_PUBLIC_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key as its holder gets it, once."""

    public_id: PublicId
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pepper:
    """A secret of the deployment, the same on all nodes, without which a hash proves nothing.

    `id` is made of the secret, so that it cannot be set wrongly, and tells nothing about it.
    """

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Its name in the database: 16 hexadecimal digits."""
        return hmac.digest(self.secret, b"signet key pepper id v1", "sha256").hex()[:16]


def new_key(dice: bytes) -> NewKey:
    """Return the key that 40 random bytes make."""
    assert len(dice) == DICE_BYTES
    public_id = PublicId(dice[:_PUBLIC_BYTES].hex())
    return NewKey(public_id=public_id, text=f"sp_live_{public_id}_{dice[_PUBLIC_BYTES:].hex()}")


def public_id(presented: bytes) -> PublicId | None:
    """Return which key this claims to be; None where it is none of this kind."""
    match = _KEY.fullmatch(presented)
    return None if match is None else PublicId(match[1].decode("ascii"))


def key_id(public: str) -> str:
    """Return the name of a key in logs, audit and administration."""
    return f"key_{public}"


def key_hash(text: bytes, pepper: Pepper | None) -> bytes:
    """Return what is kept of a key: 32 bytes."""
    if pepper is None:
        return hashlib.sha256(text).digest()
    return hmac.digest(pepper.secret, text, "sha256")


def pepper_named(peppers: Iterable[Pepper], name: str) -> Pepper | None:
    """Return the pepper that a hash was made with; None where it is not set here."""
    return next((pepper for pepper in peppers if pepper.id == name), None)
