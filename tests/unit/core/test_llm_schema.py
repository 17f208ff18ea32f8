"""Which schemas strict mode means the same by."""

from __future__ import annotations

import pytest

from signet.core.llm_schema import strict_schema
from signet.receipts.canonical import Json

CLOSED: dict[str, Json] = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 0}},
    "required": ["a"],
    "additionalProperties": False,
}


def closed(**members: Json) -> dict[str, Json]:
    """A closed object schema with these members, all required."""
    return {**CLOSED, "properties": {**members}, "required": list(members)}


def test_a_closed_schema_is_strict_without_its_annotations() -> None:
    """Annotations go, meaning stays."""
    schema: Json = {"$schema": "x", "title": "T", "x-a": 1, **CLOSED}
    assert strict_schema(schema) == CLOSED


@pytest.mark.parametrize(
    "member",
    [
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"type": ["string", "null"], "format": "date"},
        {"enum": ["a", "b"]},
        CLOSED,
    ],
)
def test_nested_schemas_are_kept(member: Json) -> None:
    """What strict mode knows is passed on as it is."""
    assert strict_schema(closed(x=member)) == closed(x=member)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        True,
        {"type": "array", "items": {"type": "string"}},
        {**CLOSED, "additionalProperties": True},
        {k: v for k, v in CLOSED.items() if k != "additionalProperties"},
        {**CLOSED, "required": []},
        {**CLOSED, "allOf": [{}]},
        {**CLOSED, "anyOf": [{}]},
        closed(x={"type": "string", "minLength": 1}),
        closed(x={"type": "string", "format": "iban"}),
        closed(x={}),
        closed(x={"type": "array"}),
        closed(x={"type": "object"}),
        closed(x={"not": {"type": "string"}}),
        closed(**{f"m{i}": {"type": "string"} for i in range(1001)}),
    ],
)
def test_a_schema_that_would_change_is_not_strict(schema: Json) -> None:
    """No member is made required, no object closed, no keyword dropped to fit."""
    assert strict_schema(schema) is None


def test_depth_is_bounded() -> None:
    """A deep schema is sent without strictness."""
    schema = CLOSED
    for _ in range(12):
        schema = closed(x=schema)
    assert strict_schema(schema) is None
