"""Objects held against their table of members."""

from __future__ import annotations

from decimal import Decimal

import jsonschema_rs
import pytest

from signet.core.members import (
    COUNT,
    FLAG,
    Rule,
    member_faults,
    object_schema,
    one_of,
    or_null,
    text,
    whole,
)
from signet.receipts.canonical import Json

RULES = {"name": text("a name", r"[a-z]+"), "count": COUNT, "flag": FLAG}


def test_an_object_in_order_has_no_faults() -> None:
    """Optional members may be absent."""
    assert member_faults({"name": "a"}, RULES, required=("name",)) == []


def test_every_fault_is_found_at_once_with_its_place() -> None:
    """Missing, unknown and malformed members are all named, below where the object stands."""
    faults = member_faults(
        {"count": -1, "colour": 1, "a/b~c": 2}, RULES, required=("name",), under=("#1",)
    )
    assert [(fault.pointer, fault.code) for fault in faults] == [
        ("/#1/name", "missing_member"),
        ("/#1/count", "malformed_member"),
        ("/#1/colour", "unknown_member"),
        ("/#1/a~1b~0c", "unknown_member"),
    ]


@pytest.mark.parametrize("value", ["", "A", "a\n", "a b", 1, None, True, [], {}])
def test_a_text_matches_as_a_whole(value: Json) -> None:
    """Neither a part of the text nor another kind of value will do."""
    assert not RULES["name"].holds(value)


@pytest.mark.parametrize("value", [True, False, -1, "1", None, Decimal("1.5"), 1.0, []])
def test_a_count_is_a_whole_number(value: Json) -> None:
    """True is no count, although Python takes it for 1."""
    assert not COUNT.holds(value)


def test_counts_and_flags() -> None:
    """Zero is a count, and only true and false are flags."""
    assert COUNT.holds(0)
    assert FLAG.holds(False)
    assert not FLAG.holds(0)
    assert not FLAG.holds("true")


@pytest.mark.parametrize("value", [[], {}, ["sync"], {"a": 1}, 1, None, "SYNC"])
def test_a_choice_takes_nothing_else(value: Json) -> None:
    """Values of any kind can be asked about, also those that have no hash."""
    assert not one_of("sync", "queued").holds(value)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (COUNT, 0, -1),
        (FLAG, True, 1),
        (whole(2, 4), 4, 5),
        (one_of("a", "b"), "b", "c"),
        (text("a name", r"[a-z]+|_x"), "_x", "_xa"),
        (or_null(whole(0, 1)), None, 2),
    ],
)
def test_the_schema_says_the_same(rule: Rule, good: Json, bad: Json) -> None:
    """What a description allows and refuses, the rule does too."""
    schema = jsonschema_rs.validator_for(dict(rule.schema))
    assert (rule.holds(good), schema.is_valid(good)) == (True, True)
    assert (rule.holds(bad), schema.is_valid(bad)) == (False, False)


def test_the_schema_of_an_object() -> None:
    """It may have these members, must have some, and may have no others."""
    schema = jsonschema_rs.validator_for(dict(object_schema({"a": COUNT, "b": FLAG}, required="a")))
    assert schema.is_valid({"a": 1})
    for wrong in ({}, {"b": True}, {"a": -1}, {"a": 1, "c": 1}):
        assert not schema.is_valid(wrong)


def test_null_where_it_is_allowed() -> None:
    """`or_null` adds null and says so."""
    rule = or_null(one_of("sync"))
    assert rule.holds(None)
    assert rule.holds("sync")
    assert not rule.holds("x")
    assert rule.expected == "one of sync, or null"


@pytest.mark.parametrize(("value", "holds"), [(0, False), (1, True), (9, True), (10, False)])
def test_a_whole_number_has_bounds(value: Json, holds: bool) -> None:
    """Both bounds are within; a flag is no number."""
    assert whole(1, 9).holds(value) is holds
    assert not whole(0, 9).holds(True)
