"""Sealing one receipt."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.receipts.samples import KEY, members, sha

from signet.receipts.canonical import Json, canonicalize, content_id, parse
from signet.receipts.errors import SealError
from signet.receipts.keys import from_b64url
from signet.receipts.receipt import (
    KINDS,
    KNOWN,
    RECEIPT_TYP,
    REQUIRED,
    faults,
    is_usual,
    seal,
    timestamp,
    timestamp_us,
)

KEY_MEMBERS: dict[str, Any] = {
    "kind": "key",
    "tenant": "_system",
    "trace_id": "signet.keys",
    "key": {"kid": KEY.kid},
}


def key_receipt() -> dict[str, Json]:
    """The members of a rotation's receipt."""
    return {n: v for n, v in members(**KEY_MEMBERS).items() if n in KNOWN["key"]}


class TestSeal:
    """Canonical bytes, hash and signature come out together and agree."""

    def test_the_hash_is_over_everything_else(self) -> None:
        """receipt_hash is the CID of JCS of the receipt without it, in its sorted place."""
        sealed = seal(members(), KEY)
        receipt: Any = json.loads(sealed.canonical)
        assert receipt.pop("receipt_hash") == sealed.receipt_hash
        assert receipt == members()
        assert sealed.receipt_hash == content_id(canonicalize(receipt))
        assert canonicalize(parse(sealed.canonical)) == sealed.canonical

    def test_the_signature_is_over_the_stored_bytes(self) -> None:
        """The JWS carries exactly the canonical bytes, and its header is the documented one."""
        sealed = seal(members(), KEY)
        header, payload, signature = sealed.jws.split(".")
        assert from_b64url(payload) == sealed.canonical
        assert from_b64url(header) == (
            b'{"alg":"EdDSA","kid":"%b","typ":"signet-receipt+jws"}' % KEY.kid.encode()
        )
        assert RECEIPT_TYP == "signet-receipt+jws"
        assert KEY.public.verify(from_b64url(signature), f"{header}.{payload}".encode())

    def test_no_exchange_is_needed_for_a_rotation(self) -> None:
        """A `key` receipt has none of the members that describe an exchange."""
        assert "outcome" not in KNOWN["key"]
        assert seal(key_receipt(), KEY).receipt_hash

    @given(
        text=st.text(min_size=1),
        extra=st.dictionaries(st.sampled_from("abcXYZ"), st.integers(-9, 9)),
    )
    def test_any_text_may_be_inside(self, text: str, extra: dict[str, int]) -> None:
        """Values may hold any character; the splice does not depend on them."""
        receipt = members(policy={"reason": text, "more": [extra]}, repair={"edits": [text]})
        sealed = seal(receipt, KEY)
        assert parse(sealed.canonical) == receipt | {"receipt_hash": sealed.receipt_hash}
        assert canonicalize(parse(sealed.canonical)) == sealed.canonical


class TestRefuses:
    """What is not a receipt is not signed."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_required_member(self, kind: str) -> None:
        """Each required member of each kind is missed by name."""
        whole = members(kind=kind, forwarded={}) if kind != "key" else key_receipt()
        for name in REQUIRED[kind] - {"kind"}:
            with pytest.raises(SealError) as refused:
                seal({n: v for n, v in whole.items() if n != name}, KEY)
            assert (refused.value.code, refused.value.pointer) == ("member_missing", f"/{name}")

    @pytest.mark.parametrize("name", ["canno", "receipt_jws", "receipt_hash", "😀", "Tenant"])
    def test_unknown_members(self, name: str) -> None:
        """A misspelt member is a bug, and must not be signed into a receipt."""
        with pytest.raises(SealError) as refused:
            seal(members(**{name: "x"}), KEY)
        assert refused.value.code in ("member_unknown", "not_plain")

    def test_canon(self) -> None:
        """Published verifiers take `canon` for the payload's text and hash it."""
        with pytest.raises(SealError, match="canon"):
            seal(members(canon="{}"), KEY)
        assert [fault.member for fault in faults(members(canon="{}"))] == ["canon"]

    @pytest.mark.parametrize(
        "name", sorted(KNOWN["exchange"] - KNOWN["key"] - REQUIRED["exchange"])
    )
    def test_exchange_members_in_a_rotation(self, name: str) -> None:
        """A `key` receipt with a member of an exchange is refused."""
        with pytest.raises(SealError):
            seal(key_receipt() | {name: members().get(name, {})}, KEY)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("v", 2),
            ("v", True),
            ("v", "1"),
            ("iss", ""),
            ("iss", "a\r\nb"),
            ("trace_id", ""),
            ("trace_id", "a" * 129),
            ("trace_id", "a b"),
            ("trace_id", "a\n"),
            ("trace_id", 7),
            ("hop", 0),
            ("hop", "1"),
            ("hop", True),
            ("prev_receipt_hash", "sha256:abc"),
            ("prev_receipt_hash", ""),
            ("ts", "2026-01-31T09:00:00Z"),
            ("ts", "2026-01-31T09:00:00.000001+00:00"),
            ("ts", "2026-02-31T09:00:00.000001Z"),
            ("ts", "1969-12-31T23:59:59.999999Z"),
            ("ts", "٢026-01-31T09:00:00.000001Z"),
            ("ts", 1),
            ("tenant", ""),
            ("tenant", "__x"),
            ("tenant", "a" * 64),
            ("tenant", "../a"),
            ("kind", "other"),
            ("kind", None),
            ("kind", ["exchange"]),
            ("outcome", "maybe"),
            ("outcome", None),
            ("reason", ""),
            ("cid", None),
            ("cid", "SHA256:" + "a" * 64),
            ("cid", "sha256:" + "A" * 64),
            ("request_cid", "a" * 64),
            ("canon_profile", "legacy-json"),
            ("algo", "md5"),
            ("payload_type", 1),
            ("schema_in", "invoice"),
            ("map", {}),
            ("nfc_changed", "/a"),
            ("policy", "ok"),
            ("repair", []),
            ("forwarded", None),
            ("fu_tokens", -1),
            ("fu_tokens", True),
            ("vex_units", "1"),
            ("idempotency_key_hash", sha("1")),
            ("nonce", "2" * 31),
        ],
    )
    def test_malformed_members(self, name: str, value: Json) -> None:
        """Each member has its form, and the error names the member."""
        with pytest.raises(SealError) as refused:
            seal(members(**{name: value}), KEY)
        assert (refused.value.code, refused.value.pointer) == ("member_invalid", f"/{name}")

    @pytest.mark.parametrize(("hop", "previous"), [(1, sha("a")), (2, None)])
    def test_the_first_hop_and_no_other_has_no_predecessor(self, hop: int, previous: Json) -> None:
        """Hop 1 with a predecessor, or a later one without, is no receipt."""
        with pytest.raises(SealError) as refused:
            seal(members(hop=hop, prev_receipt_hash=previous), KEY)
        assert refused.value.pointer == "/prev_receipt_hash"

    @pytest.mark.parametrize(
        ("value", "place", "detail"),
        [
            (1.0, "", "Numbers in a receipt are integers."),
            (Decimal(1), "", "Numbers in a receipt are integers."),
            (2**53, "", "Integers in a receipt are within"),
            (-(2**53), "", "Integers in a receipt are within"),
            ([1, {"a": [0.5]}], "/1/a/0", "Numbers in a receipt are integers."),
            ({"é": 1}, "/é", "Names in a receipt are ASCII."),
            ([{"a": {"é": 1}}], "/0/a/é", "Names in a receipt are ASCII."),
        ],
    )
    def test_what_simple_verifiers_read_differently(
        self, value: Json, place: str, detail: str
    ) -> None:
        """No floats, no Decimals, no unsafe integers, only ASCII names, at any depth."""
        receipt = members(policy={"x": value})
        with pytest.raises(SealError) as refused:
            seal(receipt, KEY)
        assert (refused.value.code, refused.value.pointer) == ("not_plain", f"/policy/x{place}")
        [fault] = faults(receipt)
        assert fault.pointer == f"/policy/x{place}"
        assert fault.detail.startswith(detail)

    @pytest.mark.parametrize("value", ["\ud800", (1, 2), {"a"}, b"x"])
    def test_what_is_not_json(self, value: Any) -> None:
        """What has no canonical form is refused as a SealError too."""
        with pytest.raises(SealError) as refused:
            seal(members(policy={"x": value}), KEY)
        assert refused.value.code == "not_plain"

    @pytest.mark.parametrize("name", ["iss", "reason", "trace_id", "cid", "nonce"])
    def test_one_text_is_never_taken_for_two(self, name: str) -> None:
        """Texts are asked all at once, so none may say by a line break where the next begins."""
        good = members()
        for broken in (f"{good[name]}\n{good[name]}", f"{good[name]}\n", f"\n{good[name]}"):
            with pytest.raises(SealError) as refused:
                seal(members(**{name: broken}), KEY)
            assert (refused.value.code, refused.value.pointer) == ("member_invalid", f"/{name}")


class TestUsual:
    """Who seals asks all rules at once, and looks closely only where something is wrong."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("hop", [1, 2])
    def test_what_a_gateway_seals(self, kind: str, hop: int) -> None:
        """A good receipt of each kind needs no closer look, whatever else it may carry."""
        previous = None if hop == 1 else sha("a")
        whole = members(kind=kind, hop=hop, prev_receipt_hash=previous, forwarded={"status": 200})
        if kind == "key":
            whole = key_receipt() | {"hop": hop, "prev_receipt_hash": previous}
        assert is_usual(whole)
        assert is_usual({n: v for n, v in whole.items() if n in REQUIRED[kind]})

    @given(st.data())
    def test_only_what_has_no_fault(self, data: st.DataObject) -> None:
        """Whatever a member is replaced by: usual is what has no fault, and nothing else."""
        good = members(kind=data.draw(st.sampled_from(KINDS)))
        name = data.draw(st.sampled_from([*good, "later", "canon"]))
        texts = st.sampled_from([value for value in good.values() if isinstance(value, str)])
        value = data.draw(texts | st.none() | st.integers() | st.floats() | st.text(max_size=3))
        whole = good | {name: value}
        kind = whole["kind"]
        known = KNOWN.get(kind, frozenset()) if isinstance(kind, str) else frozenset[str]()
        assert is_usual(whole) == (not list(faults(whole)) and whole.keys() <= known)


def test_unknown_members_are_no_fault_to_the_verifier() -> None:
    """A later version may add members; the hash covers them."""
    assert not list(faults(members(later="x")))


class TestTimestamps:
    """The one form of time in a receipt."""

    def test_form(self) -> None:
        """Six digits of a second, always, and Z."""
        assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
        assert timestamp(1_700_000_000_000_001) == "2023-11-14T22:13:20.000001Z"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.000Z",
            "2023-11-14T22:13:20.0000001Z",
            "2023-11-14 22:13:20.000001Z",
            "2023-11-14t22:13:20.000001z",
            "2023-11-14T22:13:20.000001",
            "2023-11-14T22:13:20.000001+00:00",
            "2023-11-14T22:13:20.000001+02:00",
            "20231114T221320.000001Z",
            "2023-11-14T22:13:20.000001Z\n",
            "2023-13-14T22:13:20.000001Z",
            "2023-11-14T24:13:20.000001Z",
        ],
    )
    def test_no_other_form(self, text: str) -> None:
        """One moment has one spelling; the others, which `datetime` reads too, are refused."""
        with pytest.raises(ValueError, match=r"."):
            timestamp_us(text)

    @given(time_us=st.integers(0, 253_402_300_799_999_999))
    def test_round_trip(self, time_us: int) -> None:
        """No microsecond is lost in the two directions."""
        assert timestamp_us(timestamp(time_us)) == time_us
