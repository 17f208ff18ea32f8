"""The two spellings of a SHA-256."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.storage.hashes import digest, hash_text


@given(st.binary(min_size=32, max_size=32))
def test_there_and_back(raw: bytes) -> None:
    """Text and digest say the same."""
    assert digest(hash_text(raw)) == raw


def test_known_value() -> None:
    """The text is the one that the rest of the product writes."""
    text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert hash_text(hashlib.sha256(b"").digest()) == text


@pytest.mark.parametrize(
    "wrong", ["", "sha256:", "sha512:" + "0" * 64, "sha256:" + " 0" * 32, "sha256:" + "0" * 65]
)
def test_anything_else_is_refused(wrong: str) -> None:
    """A text that is not exactly a SHA-256 is an error."""
    with pytest.raises(ValueError, match=r"sha256|hex"):
        digest(wrong)
