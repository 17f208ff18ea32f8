"""The reader of broken values: what it takes for punctuation, and where it stops."""

from __future__ import annotations

import pytest

from signet.core.expected import NOTHING
from signet.core.tolerant import ROOT, Edit, Place, Reader, Refusal, apply, content_of, decodes


def read(text: str) -> str:
    """The strict text of the container that `text` begins with."""
    reader = Reader(text)
    end = reader.read_container(0, NOTHING)
    return apply(text, reader.edits, 0, end)


def test_a_place_renders_as_a_json_pointer() -> None:
    """Names are escaped (RFC 6901), indices are numbers, the root is the empty text."""
    place = Place(Place(Place(ROOT, "a/b"), 0), "~")
    assert (ROOT.pointer, place.pointer) == ("", "/a~1b/0/~0")


def test_applying_edits_copies_what_lies_between() -> None:
    """`apply` changes what the edits cover, and can be asked for a part."""
    edits = [
        Edit(kind="literal", offset=1, length=4, replacement="true"),
        Edit(kind="comma", offset=6, length=0, replacement=","),
    ]
    assert apply("[True 1]", edits) == "[true ,1]"
    assert apply("[True 1]", edits[:1], 1, 5) == "true"


@pytest.mark.parametrize(
    ("text", "strict"),
    [
        ("{a:1}", '{"a":1}'),
        ("['x']", '["x"]'),
        ("[1,]", "[1]"),
        ("[1, /* c */ 2]", "[1,  2]"),
        ('["a" "b"]', '["a", "b"]'),
        ("{'a': '\t'}", '{"a": "\\t"}'),
        ("{'a': '\x01'}", '{"a": "\\u0001"}'),
        ("[“a”]", '["a"]'),
        ("[True<|im_end|>, None]", "[true, null]"),
    ],
)
def test_punctuation_quoting_and_literals_are_mended(text: str, strict: str) -> None:
    """What stays is every scalar as it stood, and what stood between the edits."""
    assert read(text) == strict


@pytest.mark.parametrize("depth", [65, 1000, 100_000])
def test_nesting_is_bounded(depth: int) -> None:
    """Depth ends in a refusal, never in a RecursionError."""
    with pytest.raises(Refusal) as refused:
        read("[" * depth)
    assert refused.value.code == "too_deep"
    assert read("[" * 64 + "]" * 64)


@pytest.mark.parametrize(
    "text",
    ['["""x"""]', '["a""b"]', '["a " "b"]', '["a" 1]', "[1 2]", "[1\n-2]", '["a", #fff\n "b"]'],
)
def test_what_may_be_one_value_is_not_split(text: str) -> None:
    """A comma is put only where nothing else can be meant."""
    with pytest.raises(Refusal):
        read(text)


def test_the_content_of_a_literal_is_its_text() -> None:
    """Escapes are resolved as JSON resolves them."""
    assert content_of('"a\\n\\u00e9"') == "a\né"


def test_only_containers_decode() -> None:
    """A string that holds a scalar is just a string."""
    assert decodes('{"a": 1}') == {"a": 1}
    assert decodes("1") is None
    assert decodes("[1,]") is None
