"""Writing bundles and pages in two passes."""

from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TypeVar

import pytest
from tests.unit.receipts.samples import EXPORTED_US, KEY, TRACE, chain, export, loaded

from signet.receipts.bundle import BundleDraft, PageOf, SealedBundle, content_digest
from signet.receipts.canonical import canonicalize, content_id, parse
from signet.receipts.errors import SealError
from signet.receipts.keys import KeySet, detach
from signet.receipts.receipt import SealedReceipt, timestamp

T = TypeVar("T")


def sealed_bundle(receipts: list[SealedReceipt]) -> SealedBundle:
    """Pass 1 over a chain."""
    draft = BundleDraft(trace_id=TRACE, exported_at=timestamp(EXPORTED_US))
    for receipt in receipts:
        draft.add_receipt(receipt.canonical)
    for receipt in receipts:
        draft.add_signature(receipt.jws)
    return draft.seal(KEY, jwks=KeySet.of([KEY.public]).jwks())


def body_of(bundle: SealedBundle, receipts: Iterable[SealedReceipt]) -> bytes:
    """Pass 2."""
    receipts = list(receipts)
    return b"".join(bundle.chunks([r.canonical for r in receipts], [r.jws for r in receipts]))


def test_the_bundle_has_the_documented_members() -> None:
    """Exactly these, and the chain's receipts as they were sealed."""
    receipts = chain(3)
    body = export(receipts)
    document = loaded(body)
    assert set(document) == {
        *("trace_id", "chain", "signatures", "exported_at", "bundle_cid", "signatures_cid"),
        *("signature", "kid", "jwks", "bundle_jws"),
    }
    assert all(receipt.canonical in body for receipt in receipts)
    assert document["signatures"] == [detach(receipt.jws) for receipt in receipts]
    assert document["kid"] == KEY.kid
    assert parse(body)


def test_the_cids_are_those_of_canonical_json() -> None:
    """Hashed while streaming, equal to canonicalising the finished document."""
    document = loaded(export(chain(3)))
    named = {name: document[name] for name in ("trace_id", "chain", "exported_at")}
    assert document["bundle_cid"] == content_id(canonicalize(named))
    assert document["signatures_cid"] == content_id(canonicalize(document["signatures"]))


def test_the_plain_signature_is_over_the_text_of_the_cid() -> None:
    """Padded base64, as old clients read it."""
    document = loaded(export(chain(1)))
    signature = base64.b64decode(document["signature"], validate=True)
    assert KEY.public.verify(signature, document["bundle_cid"].encode())


def test_the_headers_are_known_before_the_body() -> None:
    """Digest, length, CID, signature and key, under both families of names."""
    receipts = chain(3)
    bundle = sealed_bundle(receipts)
    headers = bundle.headers
    body = body_of(bundle, receipts)
    assert headers["Content-Length"] == str(len(body))
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    assert headers["Content-Digest"] == f"sha-256=:{digest}:" == content_digest(body)
    for family in ("SIGNET", "ODIN"):
        assert headers[f"X-{family}-Response-CID"] == bundle.cid == loaded(body)["bundle_cid"]
        assert headers[f"X-{family}-Response-Signature"] == bundle.signature
        assert headers[f"X-{family}-Response-KID"] == KEY.kid


def test_a_page_says_what_it_is() -> None:
    """It has its own members and lacks those that make a bundle."""
    receipts = chain(3)
    page = PageOf(from_hop=2, head_hop=3, head_receipt_hash=receipts[2].receipt_hash)
    document = loaded(export(receipts[1:], page=page))
    assert document["kind"] == "page"
    assert document["from_hop"] == 2
    assert document["head"] == {"hop": 3, "receipt_hash": receipts[2].receipt_hash}
    assert not {"bundle_cid", "bundle_jws"} & set(document)
    assert {"page_cid", "page_jws"} <= set(document)


@pytest.mark.anyio
async def test_asynchronous_sources_make_the_same_body() -> None:
    """The second pass from async iterators, in several chunks."""
    receipts = chain(100)
    bundle = sealed_bundle(receipts)

    async def each(items: list[T]) -> AsyncIterator[T]:
        for item in items:
            yield item

    chunks = [
        chunk
        async for chunk in bundle.achunks(
            each([r.canonical for r in receipts]), each([r.jws for r in receipts])
        )
    ]
    assert len(chunks) > 2
    assert b"".join(chunks) == body_of(bundle, receipts)


class TestRefuses:
    """What would not be a bundle is not signed, or not finished."""

    def test_an_empty_chain(self) -> None:
        """There is nothing to sign."""
        with pytest.raises(SealError, match="not empty"):
            sealed_bundle([])

    def test_missing_signatures(self) -> None:
        """Each receipt has one."""
        draft = BundleDraft(trace_id=TRACE, exported_at=timestamp(EXPORTED_US))
        draft.add_receipt(chain(1)[0].canonical)
        with pytest.raises(SealError, match="1 receipts and 0 signatures"):
            draft.seal(KEY, jwks={"keys": []})

    def test_receipts_after_signatures(self) -> None:
        """The body has its order."""
        receipt = chain(1)[0]
        draft = BundleDraft(trace_id=TRACE, exported_at=timestamp(EXPORTED_US))
        draft.add_signature(receipt.jws)
        with pytest.raises(SealError, match="before"):
            draft.add_receipt(receipt.canonical)

    @pytest.mark.parametrize("exported_at", ["", "yesterday", "2026-01-31T09:00:00Z"])
    def test_another_form_of_time(self, exported_at: str) -> None:
        """`exported_at` is written as receipts write their times."""
        with pytest.raises(SealError):
            BundleDraft(trace_id=TRACE, exported_at=exported_at)

    @pytest.mark.parametrize("change", ["shorter", "longer", "other", "swapped"])
    def test_a_snapshot_that_changed(self, change: str) -> None:
        """If the second reading differs, the body breaks off before it is whole."""
        receipts = chain(200)
        again = {
            "shorter": receipts[:-1],
            "longer": chain(201),
            "other": chain(200, vex_units=2),
            "swapped": [receipts[1], receipts[0], *receipts[2:]],
        }[change]
        chunks = sealed_bundle(receipts).chunks(
            [r.canonical for r in again], [r.jws for r in again]
        )
        sent: list[bytes] = []
        with pytest.raises(SealError) as refused:
            sent.extend(chunks)
        assert refused.value.code == "snapshot_changed"
        assert not b"".join(sent).endswith(b"}")


def test_memory_is_bounded() -> None:
    """Ten times the chain takes no more memory: nothing is kept but the current chunk."""

    def peak(length: int) -> int:
        receipt = chain(1)[0]

        def receipts() -> Iterator[bytes]:
            return (receipt.canonical for _ in range(length))

        def signatures() -> Iterator[str]:
            return (receipt.jws for _ in range(length))

        tracemalloc.start()
        draft = BundleDraft(trace_id=TRACE, exported_at=timestamp(EXPORTED_US))
        for canonical in receipts():
            draft.add_receipt(canonical)
        for jws in signatures():
            draft.add_signature(jws)
        bundle = draft.seal(KEY, jwks=KeySet.of([KEY.public]).jwks())
        for chunk in bundle.chunks(receipts(), signatures()):
            assert len(chunk) < 100_000
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(5000) < peak(500) + 200_000


def test_json_readers_agree() -> None:
    """The body is JSON to the standard library as well."""
    body = export(chain(2))
    assert parse(body) == json.loads(body)
