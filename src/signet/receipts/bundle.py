"""The export of a chain: a signed bundle, or a page of it (docs/reference/receipts.md §4).

A bundle is written in two passes over one read snapshot, so that a chain of any length takes
bounded memory and the headers, digest included, are known before the first byte of the body:

    draft = BundleDraft(trace_id=…, exported_at=…)
    for canonical in receipts:  draft.add_receipt(canonical)       # pass 1
    for jws in signatures:      draft.add_signature(jws)
    bundle = draft.seal(key, jwks=key_set.jwks())
    bundle.headers                                                  # before the body
    for chunk in bundle.chunks(receipts, signatures): send(chunk)   # pass 2

It does no I/O and so serves synchronous and asynchronous callers alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from signet.receipts.canonical import Json
from signet.receipts.keys import SigningKey

BUNDLE_TYP = "signet-bundle+jws"
PAGE_TYP = "signet-page+jws"


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOf:
    """What makes a document a page: where it begins, and where the whole chain ended just then."""

    from_hop: int
    head_hop: int
    head_receipt_hash: str


class BundleDraft:
    """Pass 1: takes the chain's stored bytes in hop order, then the signatures in hop order."""

    def __init__(self, *, trace_id: str, exported_at: str, page: PageOf | None = None) -> None:
        """`exported_at` is an RFC 3339 text as `receipt.timestamp` makes it."""
        raise NotImplementedError

    def add_receipt(self, canonical: bytes) -> None:
        """The next receipt, exactly as it was sealed. Raises `SealError` after a signature."""
        raise NotImplementedError

    def add_signature(self, jws: str) -> None:
        """The signature of the next receipt, compact or detached; the payload is dropped."""
        raise NotImplementedError

    def seal(self, key: SigningKey, *, jwks: dict[str, Json]) -> SealedBundle:
        """Sign what was added. Raises `SealError` if it is empty or the counts differ."""
        raise NotImplementedError


class SealedBundle:
    """Pass 2: the signed body, to be produced from a second reading of the same snapshot.

    `cid` is the bundle's (or page's) CID; `signature` the padded base64 Ed25519 signature over
    the ASCII text of `cid`; `headers` has the response headers (`X-SIGNET-Response-*`,
    `X-ODIN-Response-*`, `Content-Digest` of RFC 9530, `Content-Length`).
    """

    cid: str
    signature: str
    kid: str
    content_length: int
    headers: dict[str, str]

    def chunks(self, receipts: Iterable[bytes], signatures: Iterable[str]) -> Iterator[bytes]:
        """The body in pieces of about 64 KiB.

        Raises `SealError` (`snapshot_changed`) before the last piece if the second reading is
        not the first: the client then sees a broken body, never a wrong one.
        """
        raise NotImplementedError

    def achunks(
        self, receipts: AsyncIterable[bytes], signatures: AsyncIterable[str]
    ) -> AsyncIterator[bytes]:
        """The same from asynchronous sources."""
        raise NotImplementedError


def content_digest(body: bytes) -> str:
    """The value of `Content-Digest` (RFC 9530 §2) for a body held in memory."""
    raise NotImplementedError
