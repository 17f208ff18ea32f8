"""What a schema is taken to ask for."""

from __future__ import annotations

import pytest

from signet.core.expected import NOTHING, Expected
from signet.receipts.canonical import Json


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "integer"}, {"integer"}),
        ({"type": ["string", "null"]}, {"string", "null"}),
        ({"enum": ["a", 1, None]}, {"string", "number", "null"}),
        ({"const": True}, {"boolean"}),
        ({"properties": {}}, {"object"}),
        ({"items": {}}, {"array"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"integer", "null"}),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "number"}}}, {"number"}),
        ({"type": "nonsense"}, None),
        ({"$ref": "https://example.com/x"}, None),
        ({"$ref": "#"}, None),
        ({}, None),
        (True, None),
        (None, None),
    ],
)
def test_types_are_read_from_plain_schemas(schema: Json, types: set[str] | None) -> None:
    """What is not plain asks for nothing."""
    assert Expected.at_root(schema).types == types


def test_members_and_items_are_followed() -> None:
    """Properties, additional properties, prefix items and items lead to places."""
    root = Expected.at_root(
        {
            "type": "object",
            "required": ["a"],
            "properties": {"a": {"prefixItems": [{"const": "x"}], "items": {"enum": ["y", "z"]}}},
            "additionalProperties": {"type": "string", "format": "date"},
        }
    )
    assert root.required == {"a"}
    assert (root.declares("a"), root.declares("b")) == (True, False)
    assert root.member("a").item(0).words == {"x"}
    assert root.member("a").item(5).words == {"y", "z"}
    assert root.member("b").texts("format") == {"date"}
    assert NOTHING.member("a").item(0) is NOTHING


def test_references_in_a_circle_end() -> None:
    """A recursive schema is followed as far as the value goes; an endless one asks nothing."""
    tree: Json = {"properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}}
    place = Expected.at_root(tree)
    for _ in range(100):
        place = place.member("next")
    assert place.member("n").types == {"integer"}
    assert Expected.at_root({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}).types is None


def test_too_many_alternatives_ask_for_nothing() -> None:
    """The work per place is bounded."""
    many: Json = {"anyOf": [{"type": "string"} for _ in range(1000)]}
    assert Expected.at_root(many).types is None
