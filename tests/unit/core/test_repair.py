"""What `repair` tells about its work: edits, places, grades, refusals."""

from __future__ import annotations

import pytest

from signet.core.repair import Repaired, Unrepairable, repair
from signet.receipts.canonical import Json


def repaired(text: str, schema: Json | None = None) -> Repaired:
    """The repair of a text that has one."""
    result = repair(text, schema=schema)
    assert isinstance(result, Repaired), result
    return result


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ('{"a": 1}', "lossless"),
        ("{'a': True,}", "lossless"),
        ("```json\n{a: 1}\n```", "lossless"),
        ('<tool_call>{"a": 1}</tool_call><|im_end|>', "lossless"),
        ('Sure: {"a": 1}', "structural"),
        ("[f(a=1)]", "structural"),
        ('f\n{"a": 1}', "structural"),
        ('{"a": "x"', "structural"),
        ('"{\\"a\\": 1}"', "structural"),
        ('{"a": 1, "a": 1}', "structural"),
    ],
)
def test_the_grade_is_the_furthest_that_any_edit_went(text: str, grade: str) -> None:
    """Spelling is lossless; dropping words, adding brackets or decoding is structural."""
    assert repaired(text).grade == grade


def test_a_coercion_is_graded_and_needs_a_schema() -> None:
    """`"12"` becomes 12 only where the schema asks for an integer."""
    schema: Json = {"type": "object", "properties": {"n": {"type": "integer"}}}
    result = repaired('{"n": "12"}', schema=schema)
    assert (result.text, result.grade) == ('{"n": 12}', "coercion")
    assert repaired('{"n": "12"}').edits == ()


def test_an_edit_tells_its_place_in_both_texts() -> None:
    """An edit has its offset in the original and its JSON Pointer in the result."""
    result = repaired("{'a/b': [1, True]}")
    assert [(e.kind, e.offset, e.length, e.replacement, e.pointer) for e in result.edits] == [
        ("quotes", 1, 5, '"a/b"', "/a~1b"),
        ("literal", 12, 4, "true", "/a~1b/1"),
    ]


def test_the_edits_applied_to_the_original_give_the_result() -> None:
    """Edits are sorted, do not overlap, and are the whole difference."""
    text = "Sure:\n```json\n{'a': None, /* c */ b: [1, 2,] 'c': \u201cx\u201d}}\n```\nDone."
    result = repaired(text)
    at, pieces = 0, []
    for edit in result.edits:
        assert edit.offset >= at
        pieces += [text[at : edit.offset], edit.replacement]
        at = edit.offset + edit.length
    assert "".join(pieces) + text[at:] == result.text


def test_edits_inside_a_decoded_string_carry_its_place() -> None:
    """Decoding is one edit over the whole string; what was mended inside follows it."""
    result = repaired("{\\'a\\': 1}")
    assert [edit.kind for edit in result.edits] == ["decoded", "quotes"]
    assert {(edit.offset, edit.length) for edit in result.edits} == {(0, 10)}


def test_a_receipt_lists_a_bounded_number_of_edits() -> None:
    """However much was edited, a receipt stays small and says how much it left out."""
    listed = repaired("[" + "True," * 100 + "]").listing(10)
    assert len(listed) == 11
    assert listed[0] == {"kind": "literal", "offset": 1, "pointer": "/0"}
    assert listed[-1] == {"kind": "more", "count": 91}


def test_a_refusal_has_a_code_and_an_offset() -> None:
    """A refusal points at the character where certainty ended."""
    result = repair('{"amount": 1 234.50}')
    assert result == Unrepairable(
        code="number_malformed",
        offset=13,
        detail='"234.50" is no number that can be kept',
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("hello", "no_value"),
        ('{"a": 1}{"a": 2}', "several_values"),
        ('{"a": 1, "a": 2}', "duplicate_name"),
        ('{"a": NaN}', "not_finite"),
        ('{"a": 12345678901234567.89}', "number_not_exact"),
        ('{"a": 12', "truncated_number"),
        ('{"a": "x', "truncated_string"),
        ('{"a": "x",', "truncated"),
        ('{"a": ...}', "elided"),
        ('{"a": x}', "not_a_value"),
        ('{"a": "\\d"}', "invalid_escape"),
        ("currency: EUR\nx: {}", "scalar_outside"),
        ('{"a": {"x": 1, "b": 2}', "ambiguous_brackets"),
    ],
)
def test_refusals_have_stable_codes(text: str, code: str) -> None:
    """The code names the reason; receipts and answers carry it."""
    result = repair(text)
    assert isinstance(result, Unrepairable)
    assert result.code == code


def test_a_schema_that_says_string_keeps_the_string() -> None:
    """A text that is a JSON string stays one where the schema wants a string."""
    text = '"{\\"a\\": 1}"'
    assert repaired(text, schema={"type": "string"}).text == text
    assert repaired(text, schema={"type": "object"}).text == '{"a": 1}'


def test_the_schema_can_tell_where_a_bracket_is_missing() -> None:
    """A member that only the inner object declares cannot belong to the outer one."""
    text = '{"a": {"x": "1", "y": "2"}'
    assert isinstance(repair(text), Unrepairable)
    inner: Json = {"properties": {"x": {"type": "string"}, "y": {"type": "string"}}}
    schema: Json = {"type": "object", "properties": {"a": inner}}
    assert repaired(text, schema=schema).text == text + "}"
