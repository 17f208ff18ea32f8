"""The verifier: what it proves, and that it rejects everything else.

Each class is a step of the proof, in the verifier's own numbering. A test that guards a single
check names its code, so that deleting the check turns it red (see tests/mutation).
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.receipts.samples import (
    EXPORTED_US,
    KEY,
    OTHER_KEY,
    START_US,
    TRACE,
    chain,
    dumped,
    export,
    key_log,
    loaded,
    rotations,
    sha,
)

from signet.receipts.bundle import BUNDLE_TYP, PAGE_TYP, PageOf
from signet.receipts.canonical import canonicalize, content_id
from signet.receipts.errors import LevelNotReached, VerificationError
from signet.receipts.keys import KeySet, PublicKey, SigningKey, b64url, detach, from_b64url
from signet.receipts.receipt import RECEIPT_TYP, SealedReceipt, timestamp
from signet.receipts.report import Level, Report, Step
from signet.receipts.verify import verify, verify_bundle, verify_chain, verify_pages, verify_receipt

TRUSTED = KeySet.of([KEY.public])
Document = dict[str, Any]
T = TypeVar("T")


@pytest.fixture
def bundle() -> Document:
    """A good bundle of three receipts, to be tampered with."""
    return loaded(export(chain(3)))


def rejected(
    document: Document | bytes, check: Callable[..., Report] = verify, **options: Any
) -> tuple[Step, str, int | None, str | None]:
    """Step, code, hop and member of the rejection, by a verifier that trusts the right key."""
    data = document if isinstance(document, bytes) else dumped(document)
    options = {"jwks": TRUSTED} | options
    with pytest.raises(VerificationError) as refused:
        check(data, **options)
    error = refused.value
    assert str(error).startswith(f"Step {error.step.value}")
    return error.step, error.code, error.hop, error.member


def resealed(document: Document, key: SigningKey = KEY) -> Document:
    """The document with everything that can be recomputed recomputed and signed by `key`.

    What is still rejected is rejected for its own sake and not for a hash that does not match.
    """
    name = "page" if document.get("kind") == "page" else "bundle"
    for receipt in document["chain"]:
        hashed = {n: v for n, v in receipt.items() if n != "receipt_hash"}
        receipt["receipt_hash"] = content_id(canonicalize(hashed))
    document["signatures"] = [
        key.jws(canonicalize(receipt), typ=RECEIPT_TYP, detached=True)
        for receipt in document["chain"]
    ]
    return closed(document, key, name)


def closed(document: Document, key: SigningKey = KEY, name: str = "bundle") -> Document:
    """The document with its CIDs and its own signatures made anew, receipts as they are."""
    named = {n: document[n] for n in ("trace_id", "chain", "exported_at")}
    document[f"{name}_cid"] = content_id(canonicalize(named))
    document["signatures_cid"] = content_id(canonicalize(document["signatures"]))
    signature = key.sign(document[f"{name}_cid"].encode())
    document["signature"] = base64.b64encode(signature).decode()
    return signed(document, key, name)


def signed(document: Document, key: SigningKey = KEY, name: str = "bundle") -> Document:
    """The document with its JWS made anew."""
    signed = {n: v for n, v in document.items() if n not in ("chain", "signatures", f"{name}_jws")}
    typ = PAGE_TYP if name == "page" else BUNDLE_TYP
    document[f"{name}_jws"] = key.jws(canonicalize(signed), typ=typ, detached=True)
    return document


class TestAccepts:
    """What is good is proven, to the level that the caller's trust allows."""

    def test_a_bundle(self, bundle: Document) -> None:
        """SIGNED, with what a reader wants to know."""
        report = verify(dumped(bundle), jwks=TRUSTED)
        assert report.level is Level.SIGNED
        assert (report.document, report.trace_id, report.tenant) == ("bundle", TRACE, "acme")
        assert (report.hops, report.head) == (3, bundle["chain"][2]["receipt_hash"])
        assert (report.first_ts, report.last_ts) == (
            timestamp(START_US),
            timestamp(START_US + 2_000_000),
        )
        assert report.signed_by == (KEY.kid,)
        assert any("holder of the key" in limit for limit in report.limits)

    def test_by_a_pinned_thumbprint(self, bundle: Document) -> None:
        """The key itself comes from the bundle; its thumbprint is its hash."""
        assert verify(dumped(bundle), trust=[KEY.kid]).level is Level.SIGNED
        assert verify_bundle(dumped(bundle), trust=[OTHER_KEY.kid, KEY.kid]).hops == 3

    def test_by_a_pinned_alias_of_a_trusted_set(self, bundle: Document) -> None:
        """An alias counts if the caller's own set says whose it is."""
        named = KeySet.of([PublicKey(raw=KEY.public.raw, alias="main")])
        assert verify(dumped(bundle), jwks=named, trust=["main"]).level is Level.SIGNED

    def test_without_trust_integrity_is_all(self, bundle: Document) -> None:
        """Valid, but below SIGNED, which is what is asked for by default."""
        with pytest.raises(LevelNotReached) as below:
            verify(dumped(bundle))
        assert below.value.step is Step.LEVEL
        assert below.value.report.level is Level.INTEGRITY
        assert below.value.report.signed_by == ()
        assert verify(dumped(bundle), level=Level.INTEGRITY).level is Level.INTEGRITY

    @pytest.mark.parametrize("level", [Level.LOGGED, Level.WITNESSED])
    def test_no_log_no_level(self, bundle: Document, level: Level) -> None:
        """A signed bundle proves no inclusion in a log."""
        with pytest.raises(LevelNotReached) as below:
            verify(dumped(bundle), jwks=TRUSTED, level=level)
        assert below.value.report.level is Level.SIGNED

    def test_a_rotation_within_the_chain(self) -> None:
        """Receipts by the old key and by the new one, if both are trusted."""
        receipts = chain(2, OTHER_KEY)
        document = loaded(export(receipts))
        document["signatures"][1] = KEY.jws(receipts[1].canonical, typ=RECEIPT_TYP, detached=True)
        closed(document)
        both = KeySet.of([KEY.public, OTHER_KEY.public])
        assert verify(dumped(document), jwks=both).signed_by == (OTHER_KEY.kid, KEY.kid)
        assert rejected(document)[1] == "key_unknown"

    def test_the_other_name_of_the_algorithm(self) -> None:
        """RFC 9864 calls it Ed25519."""
        key = SigningKey.from_b64(KEY.seed_b64, alg="Ed25519")
        assert verify(export(chain(2, key), key), jwks=TRUSTED).level is Level.SIGNED

    def test_one_receipt(self) -> None:
        """The answer of an exchange, or a receipt and its JWS, compact or detached."""
        receipt = chain(1)[0]
        answer = {
            "trace_id": TRACE,
            "normalized": {"price": 1.5},
            "receipt": loaded(receipt.canonical),
            "receipt_jws": receipt.jws,
        }
        report = verify(dumped(answer), jwks=TRUSTED)
        assert (report.document, report.hops) == ("receipt", 1)
        assert any("before and after" in limit for limit in report.limits)
        for jws in (receipt.jws, detach(receipt.jws)):
            assert verify_receipt(receipt.canonical, jws, jwks=TRUSTED).level is Level.SIGNED

    def test_a_late_receipt_alone(self) -> None:
        """A single receipt need not be the first of its chain."""
        receipt = chain(3)[2]
        assert verify_receipt(receipt.canonical, receipt.jws, jwks=TRUSTED).hops == 1

    def test_one_receipt_without_trust(self) -> None:
        """There is no key at all then; hash and form are what is proven."""
        receipt = chain(1)[0]
        report = verify_receipt(receipt.canonical, receipt.jws, level=Level.INTEGRITY)
        assert report.level is Level.INTEGRITY

    def test_a_chain(self) -> None:
        """Receipts and signatures as they are stored, or as one document."""
        receipts = chain(3)
        report = verify_chain(
            [r.canonical for r in receipts], [r.jws for r in receipts], jwks=TRUSTED
        )
        assert (report.document, report.hops) == ("chain", 3)
        assert any("ends" in limit for limit in report.limits)
        document = {
            "kind": "chain",
            "trace_id": TRACE,
            "chain": [loaded(r.canonical) for r in receipts],
            "signatures": [r.jws for r in receipts],
        }
        assert verify(dumped(document), jwks=TRUSTED).document == "chain"

    def test_members_of_a_later_version(self, bundle: Document) -> None:
        """Members that are not known yet are covered by hash and signature."""
        bundle["chain"][2]["later"] = {"x": 1}
        bundle["also"] = 1.5
        assert verify(dumped(resealed(bundle)), jwks=TRUSTED).hops == 3

    def test_any_spelling_of_the_json(self, bundle: Document) -> None:
        """Order of names and white space mean nothing."""
        turned = dict(reversed(bundle.items()))
        assert verify(json.dumps(turned).encode(), jwks=TRUSTED).hops == 3

    def test_a_long_chain(self) -> None:
        """A few hundred hops, which is the ordinary case."""
        assert verify(export(chain(300)), jwks=TRUSTED).hops == 300


class TestStep1Text:
    """The document is one I-JSON value."""

    def test_a_second_value(self, bundle: Document) -> None:
        """Two readers could take different ones."""
        assert rejected(dumped(bundle) + b"{}")[:2] == (Step.TEXT, "invalid_json")

    def test_a_name_twice(self, bundle: Document) -> None:
        """One reader takes the first, another the last."""
        text = dumped(bundle).replace(b'"tenant"', b'"tenant":"x","tenant"', 1)
        assert rejected(text) == (Step.TEXT, "duplicate_name", None, "/chain/0/tenant")

    @pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 10**5, b'{"a":"\\ud800"}', b"NaN"])
    def test_not_json(self, data: bytes) -> None:
        """Whatever it is, the rejection is ours."""
        assert rejected(data)[0] is Step.TEXT

    def test_in_the_receipts_given_singly(self) -> None:
        """A receipt's own text is held to the same."""
        receipt = chain(1)[0]
        with pytest.raises(VerificationError, match="Step 1"):
            verify_receipt(receipt.canonical + b"{}", receipt.jws, jwks=TRUSTED)


class TestStep2Shape:
    """The document has the members of its kind."""

    @pytest.mark.parametrize(
        "data", [b"null", b"[]", b"1", b"{}", b'"bundle"', b'{"kind":"x"}', b'{"kind":7}']
    )
    def test_no_known_document(self, data: bytes) -> None:
        """Nothing that this verifier knows."""
        assert rejected(data)[:2] == (Step.SHAPE, "document_kind")
        assert rejected(data, verify_bundle)[0] is Step.SHAPE

    @pytest.mark.parametrize(
        "name",
        [
            *("trace_id", "signatures", "exported_at", "bundle_cid", "signatures_cid"),
            *("signature", "kid", "jwks", "bundle_jws"),
        ],
    )
    @pytest.mark.parametrize("value", [..., None, 7])
    def test_a_member_missing(self, bundle: Document, name: str, value: object) -> None:
        """An unsigned bundle, or one stripped of anything else, is not a lesser bundle."""
        del bundle[name]
        if value is not ...:
            bundle[name] = value
        assert rejected(bundle) == (Step.SHAPE, "document_member", None, name)

    @pytest.mark.parametrize("level", [Level.INTEGRITY, Level.SIGNED])
    def test_an_unsigned_bundle(self, bundle: Document, level: Level) -> None:
        """Without its signatures a bundle is rejected at every level."""
        for name in ("signature", "bundle_jws", "signatures"):
            del bundle[name]
        assert rejected(bundle, jwks=None, level=level)[0] is Step.SHAPE

    @pytest.mark.parametrize("member", ["chain", "signatures"])
    def test_elements_of_the_wrong_type(self, bundle: Document, member: str) -> None:
        """Receipts are objects and signatures are texts."""
        bundle[member][1] = 7
        assert rejected(bundle) == (Step.SHAPE, "document_member", None, member)

    def test_a_bundle_without_a_chain(self, bundle: Document) -> None:
        """`chain` is what makes a bundle."""
        del bundle["chain"]
        assert rejected(bundle, verify_bundle)[3] == "chain"

    @pytest.mark.parametrize(
        "jwks", [{}, {"keys": 1}, {"keys": [{"kty": "OKP", "crv": "Ed25519"}]}]
    )
    def test_carried_keys_that_are_none(self, bundle: Document, jwks: object) -> None:
        """The bundle's key set must be one, even where it is not used."""
        bundle["jwks"] = jwks
        assert rejected(signed(bundle)) == (Step.SHAPE, "document_member", None, "jwks")

    def test_an_answer_whose_receipt_is_none(self) -> None:
        """An exchange's answer with a receipt of another type."""
        assert rejected({"receipt": [], "receipt_jws": ""})[3] == "receipt"
        assert rejected({"receipt": {}, "receipt_jws": 7})[3] == "receipt_jws"


class TestStep3Receipts:
    """Every receipt has the members of its kind, well formed."""

    @pytest.mark.parametrize("name", ["v", "tenant", "ts", "hop", "nonce", "outcome", "algo"])
    def test_a_member_removed(self, bundle: Document, name: str) -> None:
        """Even if the holder of the key removed it and signed anew."""
        del bundle["chain"][1][name]
        step, code, _, member = rejected(resealed(bundle))
        assert (step, code, member) == (Step.RECEIPTS, "member_missing", name)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("v", 2), ("ts", "now"), ("policy", {"x": 1.5}), ("canon", "{}"), ("é", 1)],
    )
    def test_a_malformed_member(self, bundle: Document, name: str, value: object) -> None:
        """A receipt of another version, or one that two readers could read differently."""
        bundle["chain"][1][name] = value
        step, _, hop, _ = rejected(resealed(bundle))
        assert (step, hop) == (Step.RECEIPTS, 2)

    def test_in_every_kind_of_document(self, bundle: Document) -> None:
        """Singly and in chains and pages too."""
        receipt = bundle["chain"][0]
        receipt["v"] = 2
        resealed(bundle)
        jws = bundle["signatures"][0]
        assert rejected({"receipt": receipt, "receipt_jws": jws})[0] is Step.RECEIPTS
        alone = {"kind": "chain", "chain": [receipt], "signatures": [jws]}
        assert rejected(alone)[0] is Step.RECEIPTS


class TestStep4Hashes:
    """Every receipt hashes to its receipt_hash."""

    @pytest.mark.parametrize("hop", [1, 2, 3])
    def test_a_member_changed(self, bundle: Document, hop: int) -> None:
        """Anywhere, and the rejection says where."""
        bundle["chain"][hop - 1]["vex_units"] = 9
        assert rejected(closed(bundle)) == (Step.HASHES, "receipt_hash", hop, "receipt_hash")

    def test_a_member_added_or_taken(self, bundle: Document) -> None:
        """Optional members count as well."""
        taken = json.loads(json.dumps(bundle))
        del taken["chain"][2]["cid"]
        bundle["chain"][0]["later"] = 1
        assert rejected(closed(bundle))[1] == rejected(closed(taken))[1] == "receipt_hash"

    def test_no_hash(self, bundle: Document) -> None:
        """A receipt without its hash is no receipt."""
        del bundle["chain"][2]["receipt_hash"]
        assert rejected(closed(bundle))[:3] == (Step.HASHES, "receipt_hash", 3)

    def test_in_every_kind_of_document(self) -> None:
        """Singly and in chains too, whatever the signature says."""
        receipt = loaded(chain(1)[0].canonical) | {"vex_units": 9}
        jws = KEY.jws(canonicalize(receipt), typ=RECEIPT_TYP)
        assert rejected({"receipt": receipt, "receipt_jws": jws})[0] is Step.HASHES
        alone = {"kind": "chain", "chain": [receipt], "signatures": [jws]}
        assert rejected(alone)[0] is Step.HASHES


class TestStep5Chain:
    """The receipts are one unbroken chain. All of these are signed by the trusted key."""

    def test_an_empty_chain(self, bundle: Document) -> None:
        """Proves nothing."""
        bundle["chain"] = []
        assert rejected(resealed(bundle)) == (Step.CHAIN, "chain_empty", None, "chain")

    def test_starting_at_hop_9(self) -> None:
        """The beginning was left out."""
        document = loaded(export(chain(10)[8:]))
        assert rejected(document) == (Step.CHAIN, "chain_start", 9, "hop")

    def test_a_hop_missing(self) -> None:
        """The middle was left out."""
        receipts = chain(4)
        document = loaded(export([receipts[0], *receipts[2:]]))
        assert rejected(document) == (Step.CHAIN, "chain_hop", 3, "hop")

    def test_a_hop_repeated(self) -> None:
        """The same receipt twice."""
        receipts = chain(3)
        document = loaded(export([*receipts[:2], *receipts[1:]]))
        assert rejected(document)[:3] == (Step.CHAIN, "chain_fork", 2)

    def test_two_with_the_same_predecessor(self) -> None:
        """Two futures of one receipt, both properly sealed."""
        receipts = chain(2)
        fork = chain(2, vex_units=0)[1]
        one = loaded(receipts[1].canonical)
        other = loaded(fork.canonical) | {"prev_receipt_hash": one["prev_receipt_hash"], "hop": 3}
        document = loaded(export(receipts))
        document["chain"].append(other)
        assert rejected(resealed(document))[:3] == (Step.CHAIN, "chain_fork", 3)

    @pytest.mark.parametrize("member", ["trace_id", "tenant"])
    def test_receipts_of_others(self, bundle: Document, member: str) -> None:
        """Receipts of another trace or another tenant do not belong."""
        bundle["chain"][2][member] = "other"
        step, code, hop, _ = rejected(resealed(bundle))
        assert (step, code, hop) == (Step.CHAIN, f"chain_{member.removesuffix('_id')}", 3)

    def test_a_document_of_another_trace(self) -> None:
        """The bundle says what its receipts say."""
        document = loaded(export(chain(2), trace_id="other"))
        assert rejected(document) == (Step.CHAIN, "document_trace", None, "trace_id")

    def test_in_a_chain_document(self) -> None:
        """A plain chain is held to the same."""
        receipts = chain(3)[1:]
        document: Document = {
            "kind": "chain",
            "chain": [loaded(r.canonical) for r in receipts],
            "signatures": [r.jws for r in receipts],
        }
        assert rejected(document)[1] == "chain_start"
        good = chain(1)[0]
        document |= {"chain": [loaded(good.canonical)], "signatures": [good.jws], "trace_id": "x"}
        assert rejected(document)[1] == "document_trace"


class TestStep6Content:
    """The CIDs are those of the chain and of the signatures."""

    @pytest.mark.parametrize("name", ["bundle_cid", "signatures_cid"])
    def test_another_cid(self, bundle: Document, name: str) -> None:
        """Signed or not, a CID is what it names."""
        bundle[name] = sha("a")
        bundle["signature"] = base64.b64encode(KEY.sign(bundle["bundle_cid"].encode())).decode()
        assert rejected(signed(bundle)) == (Step.CONTENT, name, None, name)

    def test_a_chain_cut_short(self, bundle: Document) -> None:
        """The last receipt left out: every link still holds, the CID does not."""
        for name in ("chain", "signatures"):
            bundle[name].pop()
        assert rejected(bundle)[:2] == (Step.CONTENT, "bundle_cid")

    def test_another_export_time(self, bundle: Document) -> None:
        """The time of the export is part of what is named."""
        bundle["exported_at"] = timestamp(EXPORTED_US + 1)
        assert rejected(bundle)[:2] == (Step.CONTENT, "bundle_cid")


def forged(bundle: Document, header: Document | bytes, hop: int = 2) -> Document:
    """The bundle with a receipt's JWS under another header, truly signed by the key."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    payload = b64url(canonicalize(bundle["chain"][hop - 1]))
    signature = KEY.sign(f"{b64url(text)}.{payload}".encode())
    bundle["signatures"][hop - 1] = f"{b64url(text)}..{b64url(signature)}"
    return closed(bundle)


HEADER = {"alg": "EdDSA", "kid": KEY.kid, "typ": RECEIPT_TYP}


class TestStep7ReceiptSignatures:
    """Every receipt is signed by a trusted key, during that key's life."""

    def test_the_forgery_is_good_but_for_its_header(self, bundle: Document) -> None:
        """With the right header it is accepted, so the tests below test the header."""
        assert verify(dumped(forged(bundle, HEADER)), jwks=TRUSTED).hops == 3

    @pytest.mark.parametrize(
        ("changes", "code"),
        [
            ({"alg": "none"}, "jws_alg"),
            ({"alg": "HS256"}, "jws_alg"),
            ({"alg": "ES256"}, "jws_alg"),
            ({"alg": ["EdDSA"]}, "jws_alg"),
            ({"typ": "JWT"}, "jws_typ"),
            ({"typ": BUNDLE_TYP}, "jws_typ"),
            ({"crit": ["b64"], "b64": False}, "jws_header"),
            ({"jwk": {}}, "jws_header"),
            ({"x5u": "https://example.com"}, "jws_header"),
            ({"kid": 7}, "key_unknown"),
            ({"kid": "nobody"}, "key_unknown"),
        ],
    )
    def test_another_header(self, bundle: Document, changes: Document, code: str) -> None:
        """The header is exactly ours: it must not say how to verify."""
        found = rejected(forged(bundle, HEADER | changes))
        assert found == (Step.RECEIPT_SIGNATURES, code, 2, "signatures")

    def test_a_header_with_less(self, bundle: Document) -> None:
        """Nothing of it may be missing."""
        for name in HEADER:
            header = {n: v for n, v in HEADER.items() if n != name}
            assert rejected(forged(bundle, header))[1] == "jws_header"
        assert rejected(forged(bundle, b"[]"))[1] == "jws_header"

    @pytest.mark.parametrize(
        "text", [b"", b"{", b'{"alg":"none","alg":"EdDSA"}', json.dumps(HEADER).encode() + b" x"]
    )
    def test_a_header_that_is_not_json(self, bundle: Document, text: bytes) -> None:
        """It is read as strictly as everything else."""
        assert rejected(forged(bundle, text))[1] == "jws_form"

    @pytest.mark.parametrize(
        "change",
        [
            lambda jws: "",
            lambda jws: jws.replace("..", "."),
            lambda jws: jws + ".",
            lambda jws: jws.replace("..", ".e30."),
            lambda jws: jws + "=",
            lambda jws: jws[:-1] + chr(ord(jws[-1]) + 1),
            lambda jws: jws + "\n",
            lambda jws: "é" + jws,
        ],
    )
    def test_another_form(self, bundle: Document, change: Callable[[str], str]) -> None:
        """Compact or detached, canonical base64url, the payload being the receipt."""
        bundle["signatures"][1] = change(bundle["signatures"][1])
        assert rejected(closed(bundle))[:3] == (Step.RECEIPT_SIGNATURES, "jws_form", 2)

    def test_a_wrong_signature(self, bundle: Document) -> None:
        """By another key under this key's name, over something else, or none."""
        header, _, _ = bundle["signatures"][0].partition("..")
        payload = b64url(canonicalize(bundle["chain"][0]))
        for signature in (
            OTHER_KEY.sign(f"{header}.{payload}".encode()),
            KEY.sign(payload.encode()),
            bytes(64),
            b"",
        ):
            bundle["signatures"][0] = f"{header}..{b64url(signature)}"
            assert rejected(closed(bundle))[:3] == (Step.RECEIPT_SIGNATURES, "signature_wrong", 1)

    def test_a_wrong_signature_without_trust(self, bundle: Document) -> None:
        """With no key pinned the carried key must at least fit: INVALID, not INTEGRITY."""
        bundle["signatures"][0] = bundle["signatures"][1]
        found = rejected(closed(bundle), jwks=None, level=Level.INTEGRITY)
        assert found[1] == "signature_wrong"

    def test_in_a_chain_document(self) -> None:
        """Signatures of a plain chain are checked too."""
        receipts = chain(2)
        for signatures, code in (
            ([r.jws for r in chain(2, OTHER_KEY)], "key_unknown"),
            ([receipts[0].jws, detach(receipts[0].jws)], "signature_wrong"),
            ([receipts[0].jws], "signature_count"),
        ):
            with pytest.raises(VerificationError) as refused:
                verify_chain([r.canonical for r in receipts], signatures, jwks=TRUSTED)
            assert (refused.value.step, refused.value.code) == (Step.RECEIPT_SIGNATURES, code)

    def test_signatures_swapped(self, bundle: Document) -> None:
        """Each belongs to its own receipt."""
        bundle["signatures"][:2] = bundle["signatures"][1::-1]
        assert rejected(closed(bundle))[1] == "signature_wrong"

    @pytest.mark.parametrize("change", ["pop", "append"])
    def test_another_count(self, bundle: Document, change: str) -> None:
        """One signature for each receipt."""
        signatures = bundle["signatures"]
        signatures.pop() if change == "pop" else signatures.append(signatures[0])
        found = rejected(closed(bundle))
        assert found == (Step.RECEIPT_SIGNATURES, "signature_count", None, "signatures")

    def test_a_self_made_bundle(self) -> None:
        """Perfect in itself, by a key that nobody knows."""
        document = export(chain(3, OTHER_KEY), OTHER_KEY)
        assert rejected(document)[:2] == (Step.RECEIPT_SIGNATURES, "key_unknown")
        pinned = rejected(document, jwks=None, trust=[KEY.kid])
        assert pinned[:2] == (Step.RECEIPT_SIGNATURES, "key_not_trusted")

    def test_a_self_made_receipt(self) -> None:
        """The same for a single one: there is no key in it to be taken in by."""
        receipt = chain(1, OTHER_KEY)[0]
        for trust in ({"jwks": TRUSTED}, {"trust": [KEY.kid]}, {"trust": [OTHER_KEY.kid]}):
            with pytest.raises(VerificationError) as refused:
                verify_receipt(receipt.canonical, receipt.jws, **cast("Any", trust))
            assert refused.value.code == "key_unknown"
        with pytest.raises(LevelNotReached):
            verify_receipt(receipt.canonical, receipt.jws)

    def test_a_carried_key_under_a_trusted_name(self) -> None:
        """The bundle brings its own key and calls it by the pinned thumbprint, or by an alias."""
        document = loaded(export(chain(2, OTHER_KEY), OTHER_KEY))
        document["jwks"] = {"keys": [OTHER_KEY.public.jwk(kid=KEY.kid)]}
        assert rejected(signed(document, OTHER_KEY), jwks=None, trust=[KEY.kid])[0] is Step.SHAPE
        document["jwks"] = {"keys": [OTHER_KEY.public.jwk(kid="main")]}
        for receipt, index in zip(document["chain"], range(2), strict=True):
            header = b64url(json.dumps(HEADER | {"kid": "main"}).encode())
            payload = b64url(canonicalize(receipt))
            signature = b64url(OTHER_KEY.sign(f"{header}.{payload}".encode()))
            document["signatures"][index] = f"{header}..{signature}"
        found = rejected(closed(document, OTHER_KEY), jwks=None, trust=["main"])
        assert found[1] == "key_not_trusted"

    def test_both_pins_and_a_set(self, bundle: Document) -> None:
        """With both, a key must be in the set and pinned."""
        both = KeySet.of([KEY.public, OTHER_KEY.public])
        assert verify(dumped(bundle), jwks=both, trust=[KEY.kid]).level is Level.SIGNED
        assert rejected(bundle, jwks=both, trust=[OTHER_KEY.kid])[1] == "key_not_trusted"

    def test_an_empty_set_trusts_nobody(self, bundle: Document) -> None:
        """Not even the keys that the bundle carries."""
        assert rejected(bundle, jwks=KeySet.of([]))[1] == "key_unknown"

    def test_no_trust_and_no_carried_key(self, bundle: Document) -> None:
        """A bundle that does not carry its signer's key is broken, trust or not."""
        bundle["jwks"] = {"keys": []}
        found = rejected(signed(bundle), jwks=None, level=Level.INTEGRITY)
        assert found[1] == "key_unknown"

    @pytest.mark.parametrize("member", ["expires_s", "revoked_at_s"])
    def test_a_retired_key(self, bundle: Document, member: str) -> None:
        """A signature after the key's end does not count; the receipt says when it was made."""
        end = START_US // 1_000_000 + 1
        ended = KeySet.of([PublicKey(raw=KEY.public.raw, **cast("Any", {member: end}))])
        found = rejected(bundle, jwks=ended)
        assert found == (Step.RECEIPT_SIGNATURES, "key_ended", 2, "signatures")

    def test_a_key_from_the_future(self, bundle: Document) -> None:
        """Nor does a signature from before the key's life."""
        begins = START_US // 1_000_000 + 1
        later = KeySet.of([PublicKey(raw=KEY.public.raw, not_before_s=begins)])
        found = rejected(bundle, jwks=later)
        assert found == (Step.RECEIPT_SIGNATURES, "key_not_yet", 1, "signatures")

    def test_the_callers_set_decides_on_the_keys_life(self, bundle: Document) -> None:
        """What the bundle says of its own key's life counts for nothing against it."""
        bundle["jwks"] = KeySet.of([PublicKey(raw=KEY.public.raw, expires_s=1)]).jwks()
        assert verify(dumped(signed(bundle)), jwks=TRUSTED).level is Level.SIGNED
        assert rejected(bundle, jwks=None, trust=[KEY.kid])[1] == "key_ended"

    def test_the_old_key_signs_a_rotation_too(self) -> None:
        """`receipt_jws_previous` is checked like the other, and no other receipt has one."""
        receipt = rotations(KEY, OTHER_KEY)[0]
        answer: Document = {
            "receipt": loaded(receipt.canonical),
            "receipt_jws": receipt.jws,
            "receipt_jws_previous": KEY.jws(receipt.canonical, typ=RECEIPT_TYP),
        }
        both = KeySet.of([KEY.public, OTHER_KEY.public])
        assert verify(dumped(answer), jwks=both).level is Level.SIGNED
        answer["receipt_jws_previous"] = answer["receipt_jws_previous"][:-2]
        assert rejected(answer, jwks=both)[0] is Step.RECEIPT_SIGNATURES
        answer["receipt_jws_previous"] = 1
        found = rejected(answer, jwks=both)
        assert found == (Step.SHAPE, "document_member", None, "receipt_jws_previous")
        other = chain(1)[0]
        answer = {
            "receipt": loaded(other.canonical),
            "receipt_jws": other.jws,
            "receipt_jws_previous": OTHER_KEY.jws(other.canonical, typ=RECEIPT_TYP),
        }
        assert rejected(answer, jwks=both)[1] == "rotation_none"


class TestKeyLog:
    """The log of the keys: whoever trusts one key follows its word to the next."""

    THIRD = SigningKey.from_seed(bytes([7]) * 32)
    ALL = (KEY, OTHER_KEY, THIRD)

    @pytest.fixture
    def log(self) -> Document:
        """Two rotations, from KEY to OTHER_KEY to THIRD."""
        return key_log(*self.ALL)

    def test_it_is_followed(self, log: Document) -> None:
        """The oldest pinned key is enough; each key in the log is named."""
        report = verify(dumped(log), trust=[KEY.kid])
        assert report.signed_by == tuple(key.kid for key in self.ALL)

    def test_never_backwards(self, log: Document) -> None:
        """That a key took over from another is no word of it for that one."""
        assert rejected(log, jwks=None, trust=[self.THIRD.kid])[1] == "key_not_trusted"
        pins = [OTHER_KEY.kid]
        assert verify(dumped(log), trust=pins).signed_by == (OTHER_KEY.kid, self.THIRD.kid)

    def test_only_from_a_pinned_key(self, log: Document) -> None:
        """A log that somebody made for himself convinces nobody."""
        stranger = SigningKey.from_seed(bytes([9]) * 32)
        found = rejected(log, jwks=None, trust=[stranger.kid])
        assert found == (Step.RECEIPT_SIGNATURES, "key_not_trusted", 1, "signatures_previous")

    def test_a_key_set_is_not_extended(self, log: Document) -> None:
        """Whoever trusts a set trusts that set."""
        assert rejected(log, jwks=TRUSTED)[1] == "key_unknown"
        everyone = KeySet.of(key.public for key in self.ALL)
        assert verify(dumped(log), jwks=everyone).level is Level.SIGNED

    def test_the_word_of_the_key_before_is_wanted(self, log: Document) -> None:
        """A rotation that names a key before, and is not signed by it, is none."""
        log["signatures_previous"][1] = None
        found = rejected(signed(log, self.THIRD), jwks=None, trust=[KEY.kid])
        assert found == (Step.RECEIPT_SIGNATURES, "rotation_unvouched", 2, "signatures_previous")

    def test_a_right_signature_is_wanted_of_a_key_that_is_not_trusted(self, log: Document) -> None:
        """Even where the new key is pinned already, what the log shows must be so."""
        log["signatures_previous"][0] = log["signatures_previous"][1]
        trust = [key.kid for key in self.ALL[1:]]
        found = rejected(signed(log, self.THIRD), jwks=None, trust=trust)
        assert found == (Step.RECEIPT_SIGNATURES, "signature_wrong", 1, "signatures_previous")

    def test_the_key_before_is_the_one_that_is_named(self) -> None:
        """Another trusted key cannot speak for it."""
        log = key_log(KEY, OTHER_KEY, vouching=self.THIRD)
        found = rejected(log, jwks=None, trust=[KEY.kid, self.THIRD.kid])
        assert found == (Step.RECEIPT_SIGNATURES, "rotation_previous", 1, "signatures_previous")

    def test_the_new_key_signs_its_own_rotation(self) -> None:
        """Otherwise somebody without it could name it."""
        log = key_log(KEY, OTHER_KEY, signing=KEY)
        found = rejected(log, jwks=None, trust=[KEY.kid])
        assert found == (Step.RECEIPT_SIGNATURES, "rotation_signer", 1, "signatures")

    def test_one_signature_for_each_receipt(self, log: Document) -> None:
        """The list is as long as the chain, and of texts and nulls."""
        log["signatures_previous"].pop()
        found = rejected(signed(log, self.THIRD), jwks=None, trust=[KEY.kid])
        assert found == (
            *(Step.RECEIPT_SIGNATURES, "signature_count"),
            *(None, "signatures_previous"),
        )
        for wrong in ([1, 2], "text", {}):
            log["signatures_previous"] = wrong
            found = rejected(signed(log, self.THIRD), jwks=None, trust=[KEY.kid])
            assert found == (Step.SHAPE, "document_member", None, "signatures_previous")

    def test_without_trust_it_holds_together(self, log: Document) -> None:
        """Less is proven then, and a wrong signature is found all the same."""
        report = verify(dumped(log), level=Level.INTEGRITY)
        assert report.level is Level.INTEGRITY
        log["signatures_previous"][0] = log["signatures_previous"][1]
        found = rejected(signed(log, self.THIRD), jwks=None, level=Level.INTEGRITY)
        assert found[1] == "signature_wrong"


class TestStep8DocumentSignatures:
    """The document is signed, in both ways, by a trusted key during that key's life."""

    def test_the_plain_signature(self, bundle: Document) -> None:
        """Old clients read only this one; it must be as good as the other."""
        for signature in (OTHER_KEY.sign(bundle["bundle_cid"].encode()), KEY.sign(b""), b""):
            bundle["signature"] = base64.b64encode(signature).decode()
            found = rejected(signed(bundle))
            assert found == (Step.DOCUMENT_SIGNATURES, "signature_wrong", None, "signature")

    @pytest.mark.parametrize("text", ["*", "é", "AA", "AAAA\n="])
    def test_a_plain_signature_that_is_not_base64(self, bundle: Document, text: str) -> None:
        """Whatever it is, the rejection is ours."""
        bundle["signature"] = text
        found = rejected(signed(bundle))
        assert found == (Step.DOCUMENT_SIGNATURES, "signature_form", None, "signature")

    def test_the_kid_beside_it(self, bundle: Document) -> None:
        """The plain signature names its key."""
        bundle["kid"] = OTHER_KEY.kid
        assert rejected(signed(bundle))[1] == "key_unknown"

    @pytest.mark.parametrize("name", ["jwks", "also"])
    def test_the_jws_covers_the_rest(self, bundle: Document, name: str) -> None:
        """A member that no hash names, changed or added, breaks the JWS."""
        bundle[name] = KeySet.of([PublicKey(raw=KEY.public.raw, expires_s=2**40)]).jwks()
        found = rejected(bundle)
        assert found == (Step.DOCUMENT_SIGNATURES, "signature_wrong", None, "bundle_jws")

    def test_the_jws_of_another_kind(self, bundle: Document) -> None:
        """A receipt's or a page's JWS does not sign a bundle."""
        rest = {n: v for n, v in bundle.items() if n not in ("chain", "signatures", "bundle_jws")}
        for typ in (RECEIPT_TYP, PAGE_TYP):
            bundle["bundle_jws"] = KEY.jws(canonicalize(rest), typ=typ, detached=True)
            found = rejected(bundle)
            assert found == (Step.DOCUMENT_SIGNATURES, "jws_typ", None, "bundle_jws")

    def test_another_signer_of_the_jws(self, bundle: Document) -> None:
        """Both signatures are by trusted keys."""
        signed(bundle, OTHER_KEY)
        found = rejected(bundle)
        assert found == (Step.DOCUMENT_SIGNATURES, "key_unknown", None, "bundle_jws")

    def test_a_key_that_ended_before_the_export(self, bundle: Document) -> None:
        """Good for the receipts, too old for the bundle."""
        end = START_US // 1_000_000 + 30
        ended = KeySet.of([PublicKey(raw=KEY.public.raw, expires_s=end)])
        assert rejected(bundle, jwks=ended)[:2] == (Step.DOCUMENT_SIGNATURES, "key_ended")

    @pytest.mark.parametrize("text", ["", "now", "2026-01-31T09:00:00Z"])
    def test_an_export_time_that_is_none(self, bundle: Document, text: str) -> None:
        """The time decides on the key's life, so it must be one."""
        bundle["exported_at"] = text
        assert rejected(closed(bundle))[:2] == (Step.DOCUMENT_SIGNATURES, "exported_at")


def pages_of(receipts: list[SealedReceipt], *bounds: tuple[int, int]) -> list[bytes]:
    """Pages from hop to hop, all made when the chain had all of these receipts."""
    head = receipts[-1]
    return [
        export(
            receipts[first - 1 : last],
            page=PageOf(
                from_hop=first, head_hop=len(receipts), head_receipt_hash=head.receipt_hash
            ),
        )
        for first, last in bounds
    ]


class TestPages:
    """Pages prove a chain together, and nothing alone."""

    def test_together(self) -> None:
        """In any order, from hop 1 to the head."""
        pages = pages_of(chain(5), (4, 5), (1, 3))
        report = verify_pages(pages, jwks=TRUSTED)
        assert (report.document, report.hops, report.level) == ("pages", 5, Level.SIGNED)

    @pytest.mark.parametrize("bounds", [(1, 5), (2, 3)])
    def test_alone(self, bounds: tuple[int, int]) -> None:
        """A page is not a bundle, whatever it holds."""
        page = pages_of(chain(5), bounds)[0]
        assert rejected(page) == (Step.SHAPE, "page_alone", None, "kind")
        assert rejected(page, verify_bundle)[0] is Step.SHAPE

    @pytest.mark.parametrize(
        ("bounds", "code"),
        [
            ([(1, 3)], "pages_incomplete"),
            ([(1, 2), (4, 5)], "chain_hop"),
            ([(2, 5)], "chain_start"),
            ([(1, 3), (3, 5)], "chain_fork"),
            ([(1, 5), (1, 5)], "chain_fork"),
            ([], "chain_empty"),
        ],
    )
    def test_incomplete(self, bounds: list[tuple[int, int]], code: str) -> None:
        """Missing, overlapping, or cut off before the head."""
        with pytest.raises(VerificationError) as refused:
            verify_pages(pages_of(chain(5), *bounds), jwks=TRUSTED)
        assert (refused.value.step, refused.value.code) == (Step.CHAIN, code)

    @pytest.mark.parametrize(
        ("name", "value", "code"),
        [
            ("from_hop", 2, "from_hop"),
            ("head", {"hop": 5, "receipt_hash": sha("a")}, "pages_incomplete"),
            ("trace_id", "other", "document_trace"),
            ("page_cid", sha("a"), "page_cid"),
            ("signature", "AAAA", "signature_wrong"),
            ("page_jws", "a..b", "jws_form"),
            ("signatures", [], "signatures_cid"),
            ("kind", "pages", "signature_wrong"),
        ],
    )
    def test_tampered(self, name: str, value: object, code: str) -> None:
        """Every member of a page is held to what it says."""
        page = loaded(pages_of(chain(5), (1, 5))[0])
        page[name] = value
        with pytest.raises(VerificationError) as refused:
            verify_pages([dumped(page)], jwks=TRUSTED)
        assert refused.value.code == code

    def test_receipts_in_pages(self) -> None:
        """Receipts in pages are held to form, hash and signature."""
        for change, step in (({"v": 2}, Step.RECEIPTS), ({"vex_units": 9}, Step.HASHES)):
            page = loaded(pages_of(chain(2), (1, 2))[0])
            page["chain"][1] |= change
            with pytest.raises(VerificationError) as refused:
                verify_pages([dumped(page)], jwks=TRUSTED)
            assert refused.value.step is step
        page = loaded(pages_of(chain(2), (1, 2))[0])
        page["signatures"].reverse()
        with pytest.raises(VerificationError) as refused:
            verify_pages([dumped(closed(page, name="page"))], jwks=TRUSTED)
        assert (refused.value.step, refused.value.code) == (
            Step.RECEIPT_SIGNATURES,
            "signature_wrong",
        )

    def test_a_bundle_is_no_page(self) -> None:
        """And the other way round."""
        with pytest.raises(VerificationError) as refused:
            verify_pages([export(chain(1))], jwks=TRUSTED)
        assert refused.value.step is Step.SHAPE

    def test_another_receipt_without_the_head(self) -> None:
        """A page with an empty chain has no hop to begin at."""
        pages = pages_of(chain(2), (1, 2))
        empty = loaded(pages[0]) | {"chain": [], "signatures": [], "from_hop": 0}
        with pytest.raises(VerificationError):
            verify_pages([dumped(resealed(empty)), pages[0]], jwks=TRUSTED)


PATHS = [
    *(("chain", hop, name) for hop in range(3) for name in loaded(chain(1)[0].canonical)),
    *(("signatures", hop) for hop in range(3)),
    *((name,) for name in loaded(export(chain(1)))),
]


@given(path=st.sampled_from(PATHS), change=st.sampled_from(["taken", "null", "number", "text"]))
def test_any_change_anywhere_is_rejected(path: tuple[Any, ...], change: str) -> None:
    """A member taken away or replaced, at any place of the bundle, is INVALID."""
    document = loaded(export(chain(3)))
    place: Any = document
    for token in path[:-1]:
        place = place[token]
    before = place[path[-1]]
    if change == "taken":
        place.pop(path[-1]) if isinstance(place, list) else place.__delitem__(path[-1])
    else:
        place[path[-1]] = {"null": None, "number": 7, "text": "x"}[change]
        if place[path[-1]] == before:
            return
    assert rejected(document)[0] is not Step.LEVEL


@given(where=st.integers(0, len(export(chain(2))) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_rejected(where: int, bit: int) -> None:
    """Every bit of the bundle's bytes is protected."""
    body = bytearray(export(chain(2)))
    body[where] ^= 1 << bit
    assert rejected(bytes(body))[0] is not Step.LEVEL


@given(data=st.binary(max_size=200))
def test_garbage_is_our_own_error(data: bytes) -> None:
    """No input makes the verifier fail in any other way."""
    assert rejected(data)


@given(
    path=st.sampled_from(PATHS),
    value=st.recursive(
        st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
def test_any_value_anywhere_is_our_own_error(path: tuple[Any, ...], value: Any) -> None:
    """Hostile values in a bundle whose own signatures are good raise nothing else."""
    document = loaded(export(chain(3)))
    place: Any = document
    for token in path[:-1]:
        place = place[token]
    if place[path[-1]] == value:
        return
    place[path[-1]] = value
    with pytest.raises(VerificationError):
        verify(dumped(document), jwks=TRUSTED)


class TestReport:
    """The report, for machines and for people."""

    def test_as_json(self, bundle: Document) -> None:
        """Plain JSON with the verdict first."""
        report = verify(dumped(bundle), jwks=TRUSTED).as_json()
        assert next(iter(report)) == "verdict"
        assert json.loads(json.dumps(report))["verdict"] == "SIGNED"
        assert report["signed_by"] == [KEY.kid]

    def test_as_text(self, bundle: Document) -> None:
        """The verdict, the trace, who signed, and what is not proven."""
        text = verify(dumped(bundle), jwks=TRUSTED).as_text()
        assert text.startswith(f"SIGNED: bundle of trace {TRACE}, tenant acme\n  3 receipts")
        assert KEY.kid in text
        assert "not proven:" in text
        with pytest.raises(LevelNotReached) as below:
            verify(dumped(bundle))
        assert "no key was pinned" in below.value.report.as_text()
        receipt = chain(1)[0]
        alone = verify_receipt(receipt.canonical, receipt.jws, jwks=TRUSTED)
        assert "\n  1 receipt, " in alone.as_text()

    def test_every_step_has_its_claim(self) -> None:
        """And the steps are numbered from 1 without a gap."""
        assert [step.value for step in Step] == list(range(1, len(Step) + 1))
        assert len({step.claim for step in Step}) == len(Step)


def test_the_signature_is_really_over_the_receipt() -> None:
    """A compact JWS with another receipt's payload is rejected, though it is truly signed."""
    first, second = chain(2)
    with pytest.raises(VerificationError) as refused:
        verify_receipt(first.canonical, second.jws, jwks=TRUSTED)
    assert refused.value.code == "jws_form"
    assert from_b64url(second.jws.split(".")[1]) == second.canonical


def test_the_reference_has_the_same_steps_and_codes() -> None:
    """The specification numbers the steps as the code does and names every code of a failure."""
    root = Path(__file__).resolve().parents[3]
    reference = (root / "docs/reference/receipts.md").read_text()
    for step in Step:
        assert f"| {step.value} | {step.claim} |" in reference
    for room in ("verify", "chain", "ijson"):
        source = ast.parse((root / f"src/signet/receipts/{room}.py").read_text())
        for call in (node for node in ast.walk(source) if isinstance(node, ast.Call)):
            named = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
            if ast.unparse(call.func) in ("_fail", "place.fail", "_Flaw"):
                named += call.args[:2]
            for code in named:
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    assert " " in code.value or f"`{code.value}`" in reference, code.value
