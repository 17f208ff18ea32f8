"""A schema's work is counted exactly enough that no schema and no value holds the process."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.core.schema import Schema, SchemaInvalid
from signet.core.unfolding import MAX_STEPS, Unfolding, larger_than, unfold
from signet.receipts.canonical import Json

TWICE: Mapping[str, Json] = {
    "$ref": "#/$defs/a",
    "$defs": {
        "a": {
            "anyOf": [
                {"properties": {"x": {"$ref": "#/$defs/a"}, "k": {"const": 1}}, "required": ["k"]},
                {"properties": {"x": {"$ref": "#/$defs/a"}, "k": {"const": 2}}, "required": ["k"]},
            ]
        }
    },
}
TREE: Mapping[str, Json] = {
    "type": "object",
    "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "n": {"type": "integer"}},
}


def _deep(levels: int) -> Json:
    value: Json = {"k": 3}
    for _ in range(levels):
        value = {"x": value, "k": 3}
    return value


def _tree(levels: int) -> Json:
    if not levels:
        return {"n": 1}
    return {"left": _tree(levels - 1), "right": _tree(levels - 1), "n": levels}


def _faults(document: Json, value: Json) -> list[str]:
    schema = Schema.compile("t.v1", document, trusted=False)
    return [fault.code for fault in schema.faults(value)]


def _refused(document: Json) -> tuple[str, str]:
    with pytest.raises(SchemaInvalid) as caught:
        Schema.compile("t.v1", document, trusted=False)
    return caught.value.faults[0].pointer, caught.value.faults[0].code


def test_two_ways_at_every_level_are_counted_before_they_are_gone() -> None:
    """Fourteen levels would take seconds to list, sixty for ever; either is told at once."""
    assert _faults(dict(TWICE), _deep(2)) == ["schema_any_of"]
    started = time.process_time()
    assert _faults(dict(TWICE), _deep(14)) == ["schema_not_listed"]
    assert _faults(dict(TWICE), _deep(60)) == ["schema_too_costly"]
    assert time.process_time() - started < 5


def test_a_tree_is_no_hardship() -> None:
    """Where each place is asked once, recursion costs what the value is large."""
    assert _faults(dict(TREE), _tree(10)) == []
    assert _faults(dict(TREE), {"left": {"n": "x"}}) == ["schema_type"]


def test_many_checks_of_many_values() -> None:
    """A wide schema over a long array is counted, and refused where it would take seconds."""
    wide: Json = {"items": {"allOf": [{"minLength": 1} for _ in range(1_000)]}}
    assert _faults(wide, ["x"] * 10) == []
    assert _faults(wide, ["x"] * 20_000) == ["schema_too_costly"]


def test_what_is_left_over_is_asked_again_for_each_member() -> None:
    """`unevaluatedProperties` walks its neighbours once more for each member."""
    document: Json = {
        "unevaluatedProperties": False,
        "anyOf": [{"properties": {"x": {"$ref": "#"}}}],
    }
    value: Json = {}
    for _ in range(40):
        value = {"x": value}
    assert _faults(document, value) == ["schema_too_costly"]


def test_references_that_fan_out_are_refused() -> None:
    """Two to the fortieth checks of one value are found when the schema is compiled."""
    parts: dict[str, Json] = {
        f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(40)
    }
    parts["a40"] = {"type": "integer"}
    assert _refused({"$ref": "#/$defs/a0", "$defs": parts}) == ("", "schema_too_costly")


@pytest.mark.parametrize(
    ("document", "place", "code"),
    [
        ({"$ref": "#"}, "", "schema_endless"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"not": {"$ref": "#/$defs/a"}}}},
            "",
            "schema_endless",
        ),
        ({"items": {"$ref": "https://x/y"}}, "/items/$ref", "schema_reference_outside"),
        ({"items": {"$ref": "file:///etc/passwd"}}, "/items/$ref", "schema_reference_outside"),
        (
            {"$ref": "https://json-schema.org/draft/2020-12/schema"},
            "/$ref",
            "schema_reference_outside",
        ),
        ({"items": {"$id": "https://x/y"}}, "/items/$id", "schema_nested_id"),
        ({"items": {"$ref": "#/$defs/none"}}, "/items/$ref", "schema_invalid"),
    ],
)
def test_what_a_stranger_s_schema_may_not_be(document: Json, place: str, code: str) -> None:
    """It ends, it stays within itself, and every refusal has its place."""
    assert _refused(document) == (place, code)


@pytest.mark.parametrize(
    "document",
    [
        {"$id": "https://x/t", "$ref": "https://x/t#/$defs/a", "$defs": {"a": {"type": "string"}}},
        {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "string"}}},
        {"$dynamicRef": "#n", "$defs": {"a": {"$dynamicAnchor": "n", "type": "string"}}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "allOf": [{"$ref": "#/definitions/a~1b"}],
            "definitions": {"a/b": {"type": "string"}},
        },
        {"properties": {"$id": {"type": "string"}}, "type": "string"},
    ],
)
def test_the_ways_to_refer_to_a_part(document: Json) -> None:
    """By pointer, by anchor, by its own `$id`, in either draft."""
    assert _faults(document, "x") == []
    assert _faults(document, 1) == ["schema_type"]


def test_a_reference_is_followed_from_wherever_it_stands() -> None:
    """Every keyword that applies a schema counts: none hides a second way."""
    for keyword, make in {
        "if": lambda s: {"if": s},
        "then": lambda s: {"if": True, "then": s},
        "not": lambda s: {"not": {"not": s}},
        "dependentSchemas": lambda s: {"dependentSchemas": {"x": s}},
        "oneOf": lambda s: {"oneOf": [s]},
        "patternProperties": lambda s: {"patternProperties": {"x": {}}, "allOf": [s]},
    }.items():
        twice = {"properties": {"x": {"$ref": "#"}}}
        graph = unfold({"allOf": [make(twice), make(twice)]})
        assert isinstance(graph, Unfolding), keyword
        assert graph.steps(_deep(40)) is None, keyword


@given(st.integers(0, 12), st.integers(1, 3))
def test_more_ways_are_never_fewer_steps(levels: int, ways: int) -> None:
    """Whether a value can be afforded agrees with the ways there are: `ways` to the `levels`."""
    graph = unfold({"allOf": [{"properties": {"x": {"$ref": "#"}}} for _ in range(ways)]})
    assert isinstance(graph, Unfolding)
    value: Json = 1
    for _ in range(levels):
        value = {"x": value}
    steps = graph.steps(value)
    if ways**levels > MAX_STEPS:
        assert steps is None
    elif ways == 1:
        assert steps is not None
        assert steps.listed


def test_counting_stops() -> None:
    """A large document is not walked to its end to learn that it is large."""
    assert larger_than([1] * 10, 5)
    assert not larger_than([1] * 4, 5)
    assert larger_than({"a": {"b": {"c": 1}}}, 3)
