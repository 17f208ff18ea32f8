"""Canonical JSON: both writers, the profiles, and what has no canonical form."""

from __future__ import annotations

import decimal
import enum
import hashlib
import json
import math
import time
import unicodedata
import uuid
from decimal import Decimal
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from signet.receipts import canonical
from signet.receipts.canonical import (
    canonicalize,
    content_id,
    normalize,
    number_text,
    parse_for_verification,
)
from signet.receipts.errors import CanonicalError

NAMES = st.text(max_size=8) | st.sampled_from(
    ["😀", "\ufb33", "\ud7ff", "\ue000", "\U00010000", "é"]
)
DECIMALS = st.floats(allow_nan=False, allow_infinity=False).map(lambda f: Decimal(repr(f)))
SAFE = st.integers(-(2**53) + 1, 2**53 - 1)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | SAFE
    | DECIMALS
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=20,
)


def refusal(value: Any, profile: canonical.Profile = "jcs") -> tuple[str, str]:
    """The code and the pointer with which this value is refused."""
    with pytest.raises(CanonicalError) as refused:
        canonicalize(value, profile)
    return refused.value.code, refused.value.pointer


class TestJCS:
    """RFC 8785, with the fast writer and without."""

    @pytest.fixture(params=["fast", "pure"], autouse=True)
    def writer(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        """Everything holds with orjson and without."""
        if request.param == "pure":
            monkeypatch.setattr(canonical, "ACCELERATOR", None)

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "null"),
            ([True, False, 0, -1], "[true,false,0,-1]"),
            ({}, "{}"),
            ([], "[]"),
            ([[], {}, [[]]], "[[],{},[[]]]"),
            ({"b": 1, "a": 2, "": 3, "B": 4}, '{"":3,"B":4,"a":2,"b":1}'),
            ([-0.0, 1.0, 1e16, 1e21, 0.1, 1e-7], "[0,1,10000000000000000,1e+21,0.1,1e-7]"),
            ([Decimal("1.10"), Decimal("-0"), Decimal("1e3")], "[1.1,0,1000]"),
            ('\x00\x1f\x7f\u2028é😀"\\/', '"\\u0000\\u001f\x7f\u2028é😀\\"\\\\/"'),
            ({"\ufb33": 1, "😀": 2}, '{"😀":2,"\ufb33":1}'),
            ({"a": {"\ue000": 1, "\U00010000": 2}}, '{"a":{"\U00010000":2,"\ue000":1}}'),
        ],
    )
    def test_writes(self, value: Any, text: str) -> None:
        """Names in UTF-16 order, ECMAScript numbers, the fewest escapes."""
        assert canonicalize(value) == text.encode()

    @pytest.mark.parametrize(
        ("value", "code", "place"),
        [
            ([math.nan], "not_finite", "/0"),
            ({"a": [math.inf]}, "not_finite", "/a/0"),
            ([Decimal("NaN")], "number_not_exact", "/0"),
            ([Decimal("sNaN")], "number_not_exact", "/0"),
            ([Decimal("-Infinity")], "number_not_exact", "/0"),
            ([Decimal("12345678901234567.89")], "number_not_exact", "/0"),
            ([Decimal("1e999990")], "number_not_exact", "/0"),
            ([Decimal("1e-999990")], "number_not_exact", "/0"),
            ([2**53], "integer_out_of_range", "/0"),
            ([-(2**53)], "integer_out_of_range", "/0"),
            ([10**5000], "integer_out_of_range", "/0"),
            (["\ud800"], "lone_surrogate", "/0"),
            ({"a": {"\udfff": 1}}, "lone_surrogate", "/a/\\udfff"),
            ({1: 2}, "not_json", ""),
            ([{None: 2}], "not_json", "/0"),
            ([{"a", "b"}], "not_json", "/0"),
            ([(1, 2)], "not_json", "/0"),
            ([b"bytes"], "not_json", "/0"),
            ([uuid.UUID(int=0)], "not_json", "/0"),
            ([object()], "not_json", "/0"),
        ],
    )
    def test_refuses(self, value: Any, code: str, place: str) -> None:
        """What has no canonical form is our own error and names its place."""
        assert refusal(value) == (code, place)

    def test_depth_is_bounded(self) -> None:
        """254 levels are written, one more is refused; 100,000 and a cycle do not hurt either."""

        def nested(levels: int) -> Any:
            value: Any = []
            for _ in range(levels - 1):
                value = [value]
            return value

        assert canonicalize(nested(254)) == b"[" * 254 + b"]" * 254
        for levels in (255, 5000, 100_000):
            assert refusal(nested(levels)) == ("too_deep", "/0" * 254)
        cycle: list[Any] = []
        cycle.append(cycle)
        with pytest.raises(CanonicalError, match="deeper"):
            canonical._jcs_pure(cycle)

    def test_works_near_the_end_of_the_stack(self) -> None:
        """Deep in someone's call stack the failure is still our own."""

        def deeper(levels: int) -> tuple[str, str]:
            return deeper(levels - 1) if levels else refusal([[[math.nan]]] * 2)

        assert deeper(500)[0] == "not_finite"

    def test_subclasses_are_written_by_value(self) -> None:
        """Enumerations of texts and numbers are the texts and numbers that they are."""

        class Word(enum.StrEnum):
            YES = "yes"

        class Number(enum.IntEnum):
            ONE = 1

        assert canonicalize({"a": Word.YES, "b": [Number.ONE]}) == b'{"a":"yes","b":[1]}'

    def test_the_callers_decimal_context_does_not_matter(self) -> None:
        """A context with little precision or other traps changes no spelling and no error."""
        with decimal.localcontext(decimal.Context(prec=2, traps=[])):
            assert canonicalize([Decimal("1234567.125")]) == b"[1234567.125]"
            assert refusal([Decimal("12345678901234567.89")])[0] == "number_not_exact"

    @given(value=VALUES)
    def test_canonical_form_is_a_fixed_point(self, value: Any) -> None:
        """canonical(parse(canonical(x))) is canonical(x)."""
        once = canonicalize(value)
        assert canonicalize(parse_for_verification(once)) == once

    @given(value=VALUES)
    def test_agrees_with_an_independent_implementation(self, value: Any) -> None:
        """The package rfc8785, which we did not write, makes the same bytes."""
        once = canonicalize(value)
        assert rfc8785.dumps(parse_for_verification(once)) == once


@given(value=VALUES)
def test_fast_is_pure(value: Any) -> None:
    """Both writers make the same bytes of every JSON value."""
    assert canonicalize(value) == canonical._jcs_pure(value)


@given(
    value=st.recursive(
        st.none() | st.integers() | st.floats() | st.text(st.characters()) | st.decimals(), st.lists
    )
)
def test_fast_refuses_what_pure_refuses(value: Any) -> None:
    """And both refuse the same values with the same words."""

    def outcome(write: Any) -> object:
        try:
            return write(value)
        except CanonicalError as error:
            return error.code, error.pointer, error.detail

    assert outcome(canonicalize) == outcome(canonical._jcs_pure)


@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_number_text_round_trips(value: float) -> None:
    """The spelling is read back as the very same double."""
    assert float(number_text(value)) == value


class TestNFC:
    """The profile `nfc+jcs`."""

    def test_normalises_strings_and_names(self) -> None:
        """Every string and name is in NFC afterwards, and the pointers of what changed are told."""
        result = normalize({"e\u0301": ["e\u0301", "é", "x"], "y": "\u212b", "z": "plain"})
        assert result.value == {"é": ["é", "é", "x"], "y": "Å", "z": "plain"}
        assert result.changed == ("/é", "/é/0", "/y")
        assert result.unicode_version == unicodedata.unidata_version

    def test_leaves_ascii_alone(self) -> None:
        """Nearly all values are in NFC already and come back as the same object."""
        value: Any = {"a": ["b", 1, Decimal("1.5"), None, True]}
        assert normalize(value).value is value
        assert normalize(value).changed == ()

    def test_two_names_that_become_one_are_refused(self) -> None:
        """Otherwise one of two members would silently win."""
        assert refusal({"a": {"é": 1, "e\u0301": 2}}, "nfc+jcs") == ("nfc_key_collision", "/a/é")
        assert canonicalize({"é": 1, "e\u0301": 2}).count(b":") == 2

    def test_profiles_differ_only_where_they_must(self) -> None:
        """`jcs` keeps the code points as sent."""
        assert canonicalize("e\u0301") == '"e\u0301"'.encode()
        assert canonicalize("e\u0301", "nfc+jcs") == '"é"'.encode()

    @pytest.mark.parametrize(
        "text",
        [
            "\u0301\u0327" * 50_000,
            "a" + "\u0301\u0327" * 50_000,
            "\u0f73" * 50_000,
            "\u0f81\u0f75" * 16,
        ],
    )
    def test_runs_of_combining_marks_are_bounded(self, text: str) -> None:
        """Sorting marks is quadratic: a 200 KB string would take a minute, so it is refused."""
        begun = time.process_time()
        assert refusal({"a": [text]}, "nfc+jcs") == ("too_many_combining_marks", "/a/0")
        assert refusal({text: 1}, "nfc+jcs")[0] == "too_many_combining_marks"
        assert time.process_time() - begun < 10

    def test_what_is_told_is_bounded(self) -> None:
        """A hundred places, none of them long; the pointer to the whole stands for the rest."""
        many = normalize(["e\u0301"] * 1000).changed
        assert many == (*(f"/{index}" for index in range(100)), "")
        begun = time.process_time()
        assert normalize({"a" * 300_000: ["e\u0301"] * 100_000}).changed == ("",)
        assert time.process_time() - begun < 20

    def test_many_marks_in_short_runs_are_fine(self) -> None:
        """Thirty in a row pass, and a long text in an accented language does."""
        assert normalize("a" + "\u0301" * 30).changed == ("",)
        assert normalize("e\u0301 " * 10_000).value == "é " * 10_000

    def test_refuses_what_has_no_canonical_form(self) -> None:
        """A value that cannot be hashed is not normalised either."""
        with pytest.raises(CanonicalError):
            normalize(["\ud800"])

    @given(value=VALUES)
    def test_is_idempotent(self, value: Any) -> None:
        """Normalising twice changes nothing the second time."""
        try:
            once = normalize(value)
        except CanonicalError:  # two names became one
            return
        assert normalize(once.value).changed == ()
        assert canonicalize(normalize(once.value).value) == canonicalize(once.value)


class TestLegacy:
    """The profile `legacy-json`, for old receipts."""

    @given(
        value=st.dictionaries(
            st.text(),
            st.integers()
            | st.text(st.characters(exclude_categories=["Cs"]))
            | st.floats(-1e9, 1e9),
        )
    )
    def test_is_what_the_old_software_wrote(self, value: Any) -> None:
        """json.dumps with sorted names, compact, not escaped."""
        try:
            old = json.dumps(
                value, sort_keys=True, ensure_ascii=False, separators=(",", ":")
            ).encode()
        except UnicodeEncodeError:
            assert refusal(value, "legacy-json")[0] == "not_json"
        else:
            assert canonicalize(value, "legacy-json") == old

    @pytest.mark.parametrize("value", [[math.nan], ["\ud800"], [Decimal(1)], [object()]])
    def test_refuses(self, value: Any) -> None:
        """What plain JSON cannot say is refused as one of our own errors."""
        assert refusal(value, "legacy-json")[0] == "not_json"

    def test_deep_nesting_is_our_own_error(self) -> None:
        """Not a RecursionError."""
        value: Any = []
        for _ in range(100_000):
            value = [value]
        assert refusal(value, "legacy-json")[0] == "not_json"


def test_content_id() -> None:
    """A CID is the SHA-256 of the bytes, with the name of the algorithm in front."""
    assert content_id(b"{}") == "sha256:" + hashlib.sha256(b"{}").hexdigest()
