"""Reading the texts inside a payload."""

from __future__ import annotations

import json

import pytest

from signet.core.schema import Schema
from signet.core.toolcalls import EmbeddedText
from signet.gateway.reading import Broken, Read, parse_normal, read_text, receipted
from signet.receipts.canonical import MAX_DEPTH, normalize, parse

SCHEMA = Schema.compile("test", {"type": "object", "properties": {"count": {"type": "integer"}}})


def _embedded(text: str, schema: Schema | None = None) -> EmbeddedText:
    return EmbeddedText(pointer="/arguments", text=text, tool=None, schema=schema)


def _read(text: str, schema: Schema | None = None, *, nfc: bool = True) -> Read | Broken:
    return read_text(_embedded(text, schema), max_depth=16, nfc=nfc)


@pytest.mark.parametrize("text", ['{"a": 1}', "[]", "null", '"x"', " 1 "])
def test_strict_json_is_never_touched(text: str) -> None:
    """What is in order has no edits."""
    read = _read(text)
    assert isinstance(read, Read)
    assert read.value == json.loads(text)
    assert read.repaired is None


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ('{"a": ["b", 1.5, null]}', True),
        (r'"a\"b\\c"', True),
        ('"\u00e9"', False),
        ('"e\u0301"', False),
        (r'"e\u0301"', False),
        (r'{"e\u0301": 1, "\u00e9": 2}', False),
        (r'"a\\u0301"', True),
        (r'"\u0061\u0000"', True),
    ],
)
def test_plain_text_is_known_to_be_normal(text: str, sure: bool) -> None:
    """Only what has no character beyond ASCII, spelled out or escaped, is taken as it is."""
    for given in (text, text.encode()):
        value, is_normal = parse_normal(given, max_depth=MAX_DEPTH)
        assert value == parse(text)
        assert is_normal is sure
        # What has no canonical form may be in there.
        assert parse_normal(given, max_depth=MAX_DEPTH + 1) == (value, False)
    if sure:
        assert normalize(parse(text)).value == parse(text)


def test_an_escaped_mark_is_composed() -> None:
    """A text that is ASCII itself may still spell what is not in NFC."""
    read = _read(r'{"a": "e\u0301"}')
    assert isinstance(read, Read)
    assert read.value == {"a": "\u00e9"}


def test_what_needs_no_guess_is_mended() -> None:
    """Quotes and fences are punctuation; the edits are kept."""
    read = _read("```json\n{'a': 'b',}\n```")
    assert isinstance(read, Read)
    assert read.value == {"a": "b"}
    assert read.repaired is not None
    told = receipted([read])
    assert told is not None
    assert told["method"] == "heuristic"


@pytest.mark.parametrize(
    "text", ['{"a": 1 234}', '{"a": 12', '{"a":1,"a":2}', '{"a": NaN}', "", "hello", '{"a": 10%}']
)
def test_what_would_need_a_guess_is_left(text: str) -> None:
    """The fault stands at the text's place in the payload."""
    broken = _read(text)
    assert isinstance(broken, Broken)
    assert broken.fault.pointer.startswith("/arguments")


def test_another_type_only_where_the_schema_asks() -> None:
    """ "12" becomes 12 for an integer, and stays a text without a schema."""
    asked = _read('{"count": "12"}', SCHEMA)
    assert isinstance(asked, Read)
    assert asked.value == {"count": 12}
    assert asked.repaired is not None
    plain = _read('{"count": "12"}')
    assert isinstance(plain, Read)
    assert plain.value == {"count": "12"}


def test_the_profile_reaches_inside() -> None:
    """Texts are composed too, where the tenant's profile says so."""
    composed, plain = _read('"e\u0301"'), _read('"e\u0301"', nfc=False)
    assert isinstance(composed, Read)
    assert isinstance(plain, Read)
    assert (composed.value, plain.value) == ("\u00e9", "e\u0301")
    met = _read('{"e\u0301":1,"\u00e9":2}')
    assert isinstance(met, Broken)


def test_depth_is_bounded_inside_too() -> None:
    """A text as deep as it likes is no value."""
    assert isinstance(_read("[" * 17 + "]" * 17), Broken)
    assert isinstance(_read("[" * 100_000), Broken)


def test_nothing_repaired_nothing_told() -> None:
    """A receipt without repairs has no such member; one with thousands lists few."""
    read = _read("{}")
    assert isinstance(read, Read)
    assert receipted([read]) is None
    mended = _read("{'a':1}")
    assert isinstance(mended, Read)
    told = receipted([mended] * 1000)
    assert told is not None
    assert told["texts_not_listed"] == 968
    assert len(json.dumps(told)) < 20_000
