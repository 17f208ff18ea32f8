"""SHA-256 in its two spellings: "sha256:" and 64 hex digits above, 32 bytes in the tables."""

from __future__ import annotations

_PREFIX = "sha256:"


def digest(text: str) -> bytes:
    """The 32 bytes behind a hash text. Raises ValueError for anything else."""
    if len(text) != 71 or not text.startswith(_PREFIX):
        raise ValueError("A hash reads sha256: and 64 hex digits.")
    found = bytes.fromhex(text[7:])
    if len(found) != 32:  # fromhex skips blanks
        raise ValueError("A hash reads sha256: and 64 hex digits.")
    return found


def hash_text(digest: bytes) -> str:
    """The text of a digest."""
    return _PREFIX + digest.hex()
