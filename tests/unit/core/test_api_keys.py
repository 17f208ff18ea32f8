"""The text of an API key, and what is kept of it."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.core.api_keys import (
    DICE_BYTES,
    KEY_ID,
    Pepper,
    key_hash,
    key_id,
    new_key,
    pepper_named,
    public_id,
)

DICE = bytes(range(DICE_BYTES))


@given(st.binary(min_size=DICE_BYTES, max_size=DICE_BYTES))
def test_a_key_tells_its_public_id(dice: bytes) -> None:
    """Every key is found by the id in it, and all 256 bits behind that are of the dice."""
    made = new_key(dice)
    assert public_id(made.text.encode()) == made.public_id == dice[:8].hex()
    assert made.text.endswith(f"_{dice[8:].hex()}")
    assert len(dice[8:]) * 8 == 256
    assert KEY_ID.fullmatch(key_id(made.public_id))


@pytest.mark.parametrize(
    "presented",
    [
        b"",
        b"prod_key",
        new_key(DICE).text.encode() + b"\n",
        new_key(DICE).text.encode()[:-1],
        new_key(DICE).text.encode().upper(),
        b" " + new_key(DICE).text.encode(),
        b"\xff" * 89,
    ],
)
def test_what_is_no_key_of_this_kind(presented: bytes) -> None:
    """Anything but the very form has no public id."""
    assert public_id(presented) is None


def test_the_hash_is_of_the_whole_text() -> None:
    """SHA-256 without a pepper, HMAC-SHA-256 (RFC 2104) with one."""
    text = new_key(DICE).text.encode()
    pepper = Pepper(secret=b"p" * 32)
    assert key_hash(text, None) == hashlib.sha256(text).digest()
    assert key_hash(text, pepper) == hmac.new(b"p" * 32, text, "sha256").digest()


def test_a_pepper_is_named_after_its_secret() -> None:
    """The same secret has the same name everywhere; the name is found again, and tells nothing."""
    one, other = Pepper(secret=b"a" * 32), Pepper(secret=b"b" * 32)
    assert one.id == Pepper(secret=b"a" * 32).id != other.id
    assert len(one.id) == 16
    assert pepper_named((other, one), one.id) is one
    assert pepper_named((other,), one.id) is None


def test_no_secret_is_shown() -> None:
    """A log line or a traceback with one of these in it tells no secret."""
    made, pepper = new_key(DICE), Pepper(secret=b"a" * 32)
    assert DICE[8:].hex() not in repr(made)
    assert "aaaa" not in repr(pepper)
