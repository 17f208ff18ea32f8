"""The Merkle tree hash of RFC 9162 §2.1.1, made in one pass with one hash per level in memory.

A leaf and a node are hashed under different first bytes, so neither can stand for the other.
"""

from __future__ import annotations

import hashlib


class MerkleTree:
    """Takes leaves in order; `root` is the tree hash of those taken so far."""

    def __init__(self) -> None:
        self.size = 0
        # Complete subtrees from left to right; their sizes are the ones in the binary of `size`.
        self._subtrees: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """Append a leaf's data."""
        node = hashlib.sha256(b"\x00" + leaf).digest()
        size = self.size
        while size & 1:
            node = _node(self._subtrees.pop(), node)
            size >>= 1
        self._subtrees.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The 32 bytes of the tree hash; the hash of nothing when there is no leaf."""
        if not self._subtrees:
            return hashlib.sha256().digest()
        *rest, root = self._subtrees
        for left in reversed(rest):
            root = _node(left, root)
        return root

    def root_text(self) -> str:
        """The same as "sha256:" and 64 hex digits."""
        return "sha256:" + self.root().hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
