"""Strict parsing: what is let in, what is refused, and that refusing is quick and names a place."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.receipts import ijson
from signet.receipts.canonical import canonicalize
from signet.receipts.errors import ParseError
from signet.receipts.ijson import parse, parse_for_verification, pointer


def refusal(text: bytes | str, **options: int) -> tuple[str, str]:
    """The code and the pointer with which the door refuses this text."""
    with pytest.raises(ParseError) as refused:
        parse(text, **options)
    return refused.value.code, refused.value.pointer


@pytest.fixture(params=["fast", "careful"], autouse=True)
def reading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds with orjson and without."""
    if request.param == "careful":
        monkeypatch.setattr(ijson, "ACCELERATOR", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        (" [ true , false ] ", [True, False]),
        ('{"a":{"b":[1,-0,9007199254740991]}}', {"a": {"b": [1, 0, 2**53 - 1]}}),
        ("[-9007199254740991]", [-(2**53) + 1]),
        ('"\\ud83d\\ude00\\u0000"', "😀\x00"),
        (
            "[1.10,1e-7,1E+21,-0.0,5e-324]",
            [Decimal(t) for t in ("1.1", "1e-7", "1e21", "0", "5e-324")],
        ),
        ("1.7976931348623157e308", Decimal("1.7976931348623157e308")),
        ('{"":{"/~":0}}', {"": {"/~": 0}}),
        ('{"a":"\\u003a","b":"\\\\\\""}', {"a": ":", "b": '\\"'}),
    ],
)
def test_accepts(text: str, value: object) -> None:
    """I-JSON comes through as it is, as bytes and as str."""
    assert parse(text) == parse(text.encode()) == value


def test_numbers_are_ints_and_decimals() -> None:
    """No float leaves the door: money must never pass through one."""
    value = parse('{"a":1,"b":1.0,"c":[1e2,0.1]}')
    assert isinstance(value, dict)
    assert [type(v) for v in (value["a"], value["b"], *value["c"])] == [int, *[Decimal] * 3]


@pytest.mark.parametrize(
    ("text", "code", "place"),
    [
        ("", "invalid_json", ""),
        (" ", "invalid_json", ""),
        ("{", "invalid_json", ""),
        ("[1,]", "invalid_json", "/1"),
        ('{"a":1,}', "invalid_json", ""),
        ('{"a":[1,{"b":[1,2 3]}]}', "invalid_json", "/a/1/b/1"),
        ('{"a":1} {"b":2}', "invalid_json", ""),
        ("[01]", "invalid_json", "/0"),
        ("[1.]", "invalid_json", "/0"),
        ("[.5]", "invalid_json", "/0"),
        ("[+1]", "invalid_json", "/0"),
        ("[0x10]", "invalid_json", "/0"),
        ("[1٣]", "invalid_json", "/0"),
        ("['a']", "invalid_json", "/0"),
        ("[True]", "invalid_json", "/0"),
        ('{"a":"\t"}', "invalid_json", "/a"),
        ('{"a":"\\x41"}', "invalid_json", "/a"),
        ('{"a":"\\u12"}', "invalid_json", "/a"),
        ("{1:2}", "invalid_json", ""),
        ("// no\n1", "invalid_json", ""),
        ("\ufeff{}", "invalid_json", ""),
        ("\x0b1", "invalid_json", ""),
        ('{"x":NaN}', "invalid_json", "/x"),
        ('{"x":[0,-Infinity]}', "invalid_json", "/x/1"),
        ('{"a":1,"a":1}', "duplicate_name", "/a"),
        ('{"a":{"b":1,"c":2,"b":3}}', "duplicate_name", "/a/b"),
        ('{"a":1,"\\u0061":1}', "duplicate_name", "/a"),
        # The colon of the name that is lost comes back by an escape; the count must not be fooled.
        ('{"a":1,"a":"\\u003a"}', "duplicate_name", "/a"),
        ('{"a":1,"a":"\\u003A"}', "duplicate_name", "/a"),
        ('[{"a":":","a":1}]', "duplicate_name", "/0/a"),
        ('["\\ud800"]', "lone_surrogate", "/0"),
        ('["\\udc00\\ud800"]', "lone_surrogate", "/0"),
        ('{"a":{"\\udfff":1}}', "lone_surrogate", "/a/\\udfff"),
        ('{"a":["\ud800"]}', "lone_surrogate", "/a/0"),
        ("[9007199254740992]", "integer_out_of_range", "/0"),
        ("[-9007199254740992]", "integer_out_of_range", "/0"),
        ("[18446744073709551616]", "integer_out_of_range", "/0"),
        ("[-9999999999999999999]", "integer_out_of_range", "/0"),
        ("[9223372036854775808,0.5]", "integer_out_of_range", "/0"),
        ("[99999999999999999999999999]", "integer_out_of_range", "/0"),
        ("[1e20]", "integer_out_of_range", "/0"),
        ("[9007199254740992.0]", "integer_out_of_range", "/0"),
        ("[12345678901234567.89]", "number_not_exact", "/0"),
        ("[0.1000000000000000055511151231257827]", "number_not_exact", "/0"),
        ("[9007199254740993.0]", "number_not_exact", "/0"),
        ("[1e-400]", "number_not_exact", "/0"),
        ('{"amount":1e999990}', "number_out_of_range", "/amount"),
        ("[-1e309]", "number_out_of_range", "/0"),
        ("[0e99999999999999999999]", "number_out_of_range", "/0"),
        ("[0.5,1e-99999999999999999999]", "number_out_of_range", "/1"),
        ('{"a/b":{"~":[1e999]}}', "number_out_of_range", "/a~1b/~0/0"),
    ],
)
def test_refuses(text: str, code: str, place: str) -> None:
    """Each thing that is not I-JSON is refused by its own code, at its own place."""
    assert refusal(text) == (code, place)


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"]
)
def test_refuses_what_is_not_utf8(bad: bytes) -> None:
    """Overlong forms, encoded surrogates, code points beyond Unicode, cut-off sequences."""
    assert refusal(b'{"a":["' + bad + b'"]}') == ("invalid_utf8", "/a/0")


def test_refuses_a_byte_order_mark() -> None:
    """RFC 8259 §8.1: a byte order mark is not part of JSON text."""
    assert refusal(b"\xef\xbb\xbf{}")[0] == "invalid_json"
    assert refusal("{}".encode("utf-16"))[0] == "invalid_utf8"


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_depth_is_bounded(opening: str) -> None:
    """Nesting up to the limit is read, one level more is refused where it begins."""
    closing = {"[": "]", '{"a":': "}", '[{"a":': "}]"}[opening]
    levels = 64 // (2 if opening.startswith("[{") else 1)
    parse(opening * levels + "1" + closing * levels)
    code, place = refusal(opening * (levels + 1) + "1" + closing * (levels + 1))
    assert code == "too_deep"
    assert place.count("/") == 64


def test_depth_counts_brackets_and_not_what_strings_hold() -> None:
    """Brackets inside strings nest nothing; siblings do not add up."""
    assert parse(json.dumps(["[" * 100, '\\"[' * 100, "\\"])) == ["[" * 100, '\\"[' * 100, "\\"]
    assert parse("[" + ",".join(["[[]]"] * 1000) + "]", max_depth=3) == [[[]]] * 1000
    assert refusal("[" + ",".join(["[[]]"] * 1000) + "]", max_depth=2) == ("too_deep", "/0/0")
    with pytest.raises(ParseError):
        parse_for_verification("[[[]]]", max_depth=2)


MILLION = 10**6
HOSTILE: dict[str, Callable[[], bytes]] = {
    "a million brackets": lambda: b"[" * MILLION,
    "a million objects": lambda: b'{"a":' * MILLION,
    "5,000 deep and closed": lambda: b"[" * 5000 + b"]" * 5000,
    "a million digits": lambda: b"[" + b"9" * MILLION + b"]",
    "a million decimals": lambda: b"[0." + b"3" * MILLION + b"]",
    "a million exponent digits": lambda: b"[1e" + b"9" * MILLION + b"]",
    "many long integers": lambda: b"[" + b",".join([b"9" * 4000] * 250) + b"]",
    "100,000 equal names": lambda: b"{" + b",".join([b'"a":1'] * 10**5) + b"}",
    "a last equal name": lambda: b"{" + b",".join(b'"%d":1' % n for n in range(10**5)) + b',"0":1}',
    "equal names at every level": lambda: b'{"a":1,"a":' * 60 + b"1" + b"}" * 60,
    "a huge name": lambda: b'{"' + b"a" * MILLION + b'":NaN}',
    "escapes": lambda: b'["' + b"\\\\" * (MILLION // 2) + b'" x]',
    "an unclosed string": lambda: b'["' + b"a" * MILLION,
    "quotes": lambda: b'"' * MILLION,
    "commas": lambda: b"[" + b"," * MILLION,
    "numbers and then nothing": lambda: b"[" + b"1," * (MILLION // 2),
    "bad UTF-8 at the end": lambda: b'["' + b"a" * MILLION + b"\xff",
    "many deep towers": lambda: b"[" + b",".join([b"[" * 1000 + b"]" * 1000] * 500) + b"]",
    "colons": lambda: b":" * MILLION,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_in_bounded_time(name: str) -> None:
    """A megabyte made to hurt costs a moment and yields our own error, never another."""
    data = HOSTILE[name]()
    begun = time.process_time()
    with pytest.raises(ParseError) as refused:
        parse(data)
    assert len(str(refused.value)) < 3000
    with contextlib.suppress(ParseError):  # long numbers are merely doubles there
        parse_for_verification(data)
    assert time.process_time() - begun < 20


def test_refusals_do_not_depend_on_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called near the end of Python's stack, the parser still fails as a ParseError."""

    def deeper(levels: int) -> tuple[str, str]:
        return deeper(levels - 1) if levels else refusal("[" * 900 + "]" * 900)

    assert deeper(600)[0] == "too_deep"


def test_for_verification_numbers_are_doubles() -> None:
    """Signed text is read as RFC 8785 reads it: beyond 2^53−1 an integer token is a double."""
    value = parse_for_verification("[1,295147905179352830000,0.1,1e-400,12345678901234567.89]")
    assert value == [1, 2.9514790517935283e20, 0.1, 0.0, 12345678901234567.89]
    assert isinstance(value, list)
    assert [type(item) for item in value] == [int, float, float, float, float]
    assert type(parse_for_verification("9007199254740993")) is float
    with pytest.raises(ParseError, match="too large"):
        parse_for_verification("[" + "9" * 400 + "]")


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '["\\ud800"]', "[1] 2", "NaN", "1e999", ""])
def test_verification_is_as_strict_otherwise(text: str) -> None:
    """Only the reading of numbers differs."""
    with pytest.raises(ParseError):
        parse_for_verification(text)


def test_pointers() -> None:
    """RFC 6901 §3: `~` and `/` are escaped, in that order; a lone surrogate becomes its escape."""
    assert pointer() == ""
    assert pointer("a", 0, "") == "/a/0/"
    assert pointer("a/b", "~1", "~") == "/a~1b/~01/~0"
    assert pointer("\ud800") == "/\\ud800"


TEXTS = st.text(alphabet='{}[]:,"\\ tfnrue0123456789.eE+-aé\ud800/', max_size=40)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=15,
)


def outcome(read: Callable[[Any], Any], text: str | bytes) -> object:
    """What a reading says: the value with its types, or the refusal."""
    try:
        return repr(read(text))
    except ParseError as error:
        return (error.code, error.pointer, error.detail)


class TestFastIsCareful:
    """The fast reading says nothing that the careful one does not say."""

    @pytest.fixture(autouse=True)
    def reading(self) -> None:
        """Both readings are called by name here."""

    @given(text=TEXTS)
    def test_on_arbitrary_text(self, text: str) -> None:
        """On texts made of JSON's own characters the two agree to the letter."""
        self.agree(text)

    @given(value=VALUES, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
    def test_on_json(self, value: object, indent: int | None, ascii_only: bool) -> None:
        """And on JSON in other people's spelling."""
        self.agree(json.dumps(value, indent=indent, ensure_ascii=ascii_only))

    @given(value=VALUES, data=st.data())
    def test_on_damaged_json(self, value: object, data: st.DataObject) -> None:
        """And on JSON with one piece replaced."""
        text = json.dumps(value)
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 5)))
        self.agree(text[:start] + data.draw(TEXTS) + text[end:])

    @staticmethod
    def agree(text: str) -> None:
        for read, reading in ((parse, ijson._DOOR), (parse_for_verification, ijson._SIGNED)):

            def carefully(text: str | bytes, reading: Any = reading) -> Any:
                return ijson._parse_carefully(text, 64, reading)

            assert outcome(read, text) == outcome(carefully, text)


@given(value=VALUES)
def test_the_door_is_closed_under_canonicalisation(value: object) -> None:
    """What the door lets in has a canonical form that the door lets in, as the same value."""
    try:
        read = parse(json.dumps(value))
    except ParseError:
        return
    canonical = canonicalize(read)
    assert parse(canonical) == read
    assert canonicalize(parse(canonical)) == canonical
