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

import base64
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass

from signet.receipts.canonical import Json, canonicalize
from signet.receipts.errors import SealError
from signet.receipts.keys import SigningKey, detach
from signet.receipts.receipt import timestamp_us

BUNDLE_TYP = "signet-bundle+jws"
PAGE_TYP = "signet-page+jws"
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOf:
    """What makes a document a page: where it begins, and where the whole chain ended just then."""

    from_hop: int
    head_hop: int
    head_receipt_hash: str

    def members(self) -> dict[str, Json]:
        """The members that a page has and a bundle has not."""
        head: Json = {"hop": self.head_hop, "receipt_hash": self.head_receipt_hash}
        return {"kind": "page", "from_hop": self.from_hop, "head": head}


class BundleDraft:
    """Pass 1: takes the chain's stored bytes in hop order, then the signatures in hop order."""

    def __init__(
        self,
        *,
        trace_id: str,
        exported_at: str,
        page: PageOf | None = None,
        previous: Mapping[int, str] | None = None,
    ) -> None:
        """`exported_at` is an RFC 3339 text as `receipt.timestamp` makes it.

        `previous` makes it the log of the keys: by hop, the JWS of the key before a rotation.
        """
        try:
            timestamp_us(exported_at)
        except ValueError as error:
            raise SealError(f"`exported_at` is {error}.", code="bundle_invalid") from error
        self._trace_id = trace_id
        self._exported_at = exported_at
        self._page = page
        self._previous = previous
        opening: dict[str, Json] = {"trace_id": trace_id, **(page.members() if page else {})}
        self._opening = canonicalize(opening)[:-1] + b',"chain":['
        self._pieces = _Pieces(self._opening)
        self._body = hashlib.sha256()
        self._body_bytes = 0
        # The CIDs are hashes of canonical JSON; both documents are simple enough to be spelled
        # out as they stream past, names already in order: chain, exported_at, trace_id.
        self._chain_hash = hashlib.sha256(b'{"chain":[')
        self._signatures_hash = hashlib.sha256(b"[")

    def add_receipt(self, canonical: bytes) -> None:
        """The next receipt, exactly as it was sealed. Raises `SealError` after a signature."""
        self._chain_hash.update(b"," + canonical if self._pieces.receipts else canonical)
        self._take(self._pieces.receipt(canonical))

    def add_signature(self, jws: str) -> None:
        """The signature of the next receipt, compact or detached; the payload is dropped."""
        text = _detached(jws)
        self._signatures_hash.update(b"," + text if self._pieces.signatures else text)
        self._take(self._pieces.signature(text))

    def seal(self, key: SigningKey, *, jwks: dict[str, Json]) -> SealedBundle:
        """Sign what was added. Raises `SealError` if it is empty or the counts differ.

        The JWS covers every member but the two long arrays, and these through their CIDs: Ed25519
        needs its whole message in memory, and a chain may be longer than that.
        """
        if not self._pieces.receipts or self._pieces.receipts != self._pieces.signatures:
            raise SealError(
                f"A chain has one signature per receipt and is not empty; this one has "
                f"{self._pieces.receipts} receipts and {self._pieces.signatures} signatures.",
                code="bundle_invalid",
            )
        rest = canonicalize({"exported_at": self._exported_at, "trace_id": self._trace_id})[1:]
        self._chain_hash.update(b"]," + rest)
        self._signatures_hash.update(b"]")
        cid = "sha256:" + self._chain_hash.hexdigest()
        signature = base64.b64encode(key.sign(cid.encode("ascii"))).decode("ascii")
        name = "page" if self._page else "bundle"
        closing: dict[str, Json] = {
            "exported_at": self._exported_at,
            f"{name}_cid": cid,
            "signatures_cid": "sha256:" + self._signatures_hash.hexdigest(),
            "signature": signature,
            "kid": key.kid,
            "jwks": jwks,
        }
        if self._previous is not None:
            # This log is short, so the signatures stand whole in what the JWS covers.
            hops = range(1, self._pieces.receipts + 1)
            closing["signatures_previous"] = [
                detach(self._previous[hop]) if hop in self._previous else None for hop in hops
            ]
        opening: dict[str, Json] = {"trace_id": self._trace_id}
        signed = opening | (self._page.members() if self._page else {}) | closing
        typ = PAGE_TYP if self._page else BUNDLE_TYP
        closing[f"{name}_jws"] = key.jws(canonicalize(signed), typ=typ, detached=True)
        tail = b"]," + canonicalize(closing)[1:]
        self._take(tail)
        return SealedBundle(
            cid=cid,
            signature=signature,
            kid=key.kid,
            content_length=self._body_bytes,
            digest=self._body.digest(),
            opening=self._opening,
            closing=tail,
        )

    def _take(self, piece: bytes) -> None:
        self._body.update(piece)
        self._body_bytes += len(piece)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedBundle:
    """Pass 2: the signed body, to be produced from a second reading of the same snapshot.

    `cid` is the bundle's (or page's) CID; `signature` the padded base64 Ed25519 signature over
    the ASCII text of `cid`, by the key `kid`.
    """

    cid: str
    signature: str
    kid: str
    content_length: int
    digest: bytes
    opening: bytes
    closing: bytes

    @property
    def headers(self) -> dict[str, str]:
        """The response headers that belong to this body; older clients read the named ones."""
        named = {"CID": self.cid, "Signature": self.signature, "KID": self.kid}
        return {
            "Content-Type": "application/json",
            "Content-Length": str(self.content_length),
            "Content-Digest": _digest_value(self.digest),
            **{f"X-SIGNET-Response-{name}": value for name, value in named.items()},
            **{f"X-ODIN-Response-{name}": value for name, value in named.items()},
        }

    def chunks(self, receipts: Iterable[bytes], signatures: Iterable[str]) -> Iterator[bytes]:
        """The body in pieces of about 64 KiB.

        Raises `SealError` (`snapshot_changed`) before the last piece if the second reading is
        not the first: the client then sees a broken body, never a wrong one.
        """
        body = _Body(self)
        for canonical in receipts:
            yield from body.receipt(canonical)
        for jws in signatures:
            yield from body.signature(jws)
        yield body.end()

    async def achunks(
        self, receipts: AsyncIterable[bytes], signatures: AsyncIterable[str]
    ) -> AsyncIterator[bytes]:
        """The same from asynchronous sources."""
        body = _Body(self)
        async for canonical in receipts:
            for chunk in body.receipt(canonical):
                yield chunk
        async for jws in signatures:
            for chunk in body.signature(jws):
                yield chunk
        yield body.end()


def content_digest(body: bytes) -> str:
    """The value of `Content-Digest` (RFC 9530 §2) for a body held in memory."""
    return _digest_value(hashlib.sha256(body).digest())


def _digest_value(digest: bytes) -> str:
    return f"sha-256=:{base64.b64encode(digest).decode('ascii')}:"


def _detached(jws: str) -> bytes:
    """The JSON text of the detached form."""
    return canonicalize(detach(jws))


class _Pieces:
    """The body's bytes in order, one receipt or signature at a time."""

    def __init__(self, opening: bytes) -> None:
        self._opening = opening
        self.receipts = 0
        self.signatures = 0

    def receipt(self, canonical: bytes) -> bytes:
        if self.signatures:
            raise SealError("The receipts come before the signatures.", code="bundle_invalid")
        self.receipts += 1
        return (self._opening if self.receipts == 1 else b",") + canonical

    def signature(self, text: bytes) -> bytes:
        self.signatures += 1
        return (b'],"signatures":[' if self.signatures == 1 else b",") + text


class _Body:
    """Gathers pieces into chunks and makes sure that they are what was signed."""

    def __init__(self, bundle: SealedBundle) -> None:
        self._bundle = bundle
        self._pieces = _Pieces(bundle.opening)
        self._hash = hashlib.sha256()
        self._buffer = bytearray()

    def receipt(self, canonical: bytes) -> tuple[bytes, ...]:
        return self._put(self._pieces.receipt(canonical))

    def signature(self, jws: str) -> tuple[bytes, ...]:
        return self._put(self._pieces.signature(_detached(jws)))

    def end(self) -> bytes:
        self._buffer += self._bundle.closing
        self._hash.update(self._buffer)
        if self._hash.digest() != self._bundle.digest:
            raise SealError(
                "The chain was not the same when it was read again; export it anew.",
                code="snapshot_changed",
            )
        return bytes(self._buffer)

    def _put(self, piece: bytes) -> tuple[bytes, ...]:
        """Take a piece; the chunk that is full now, if one is."""
        self._buffer += piece
        if len(self._buffer) < _CHUNK_BYTES:
            return ()
        chunk = bytes(self._buffer)
        self._buffer.clear()
        self._hash.update(chunk)
        return (chunk,)
