"""What may stand around a value, and what may not."""

from __future__ import annotations

import pytest

from signet.core.tolerant import Refusal
from signet.core.wrappers import around, candidate


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ('x {"a": 1}', "{"),
        ("see [the docs] and [1]", "["),
        ("[TOOL_CALLS] {}", "{"),
        ("f(a=1)", "f("),
        ("[ns.f(a=1)]", "[ns.f("),
        ("<think>{no}</think> {}", "{"),
        ("f()", "f("),
    ],
)
def test_a_value_begins_where_json_can_begin(text: str, begins: str) -> None:
    """Brackets of prose are no values, calls with named arguments are."""
    found = candidate(text)
    assert found is not None
    assert found.group() == begins


@pytest.mark.parametrize("text", ["", "hello", "f(1)", "f(x == 1)", "[x] (y)", "some(thing)"])
def test_prose_alone_holds_no_value(text: str) -> None:
    """Nothing is taken for a value that is none."""
    assert candidate(text) is None


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        ("", "", []),
        ("\n ", " \n", []),
        ("```json\n", "\n```", ["fence", "fence"]),
        ("<tool_call>", "", ["tag"]),
        ("", "<|im_end|>", ["template_token"]),
        ("Here it is: ", " Good luck.", ["prose", "prose"]),
        ("get_weather\n", "", ["call"]),
        ("f(", ")", ["call", "call"]),
        ("'", "'", ["wrapper", "wrapper"]),
        ("b'", "'", ["wrapper", "wrapper"]),
        ("(", ")", ["wrapper", "wrapper"]),
        ("<think>amount: 5</think>", "", ["tag"]),
    ],
)
def test_wrappers_are_named(before: str, after: str, kinds: list[str]) -> None:
    """Each dropped part is one edit, named after the furthest thing in it."""
    text = f'{before}{{"a": 1}}{after}'
    head, foot, _ = around(text, len(before), len(text) - len(after), "object")
    assert [edit.kind for edit in head + foot] == kinds


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("amount: 5\n", ""),
        ("currency: EUR\n", ""),
        ('"party": ', ""),
        ("party: ", ""),
        ("5\n", ""),
        ("", " 5"),
        ("", ', "b": 2}'),
        ("", ".b"),
        ("", "[0]"),
        ("", ' {"b": 2}'),
        ("", " g(b=2)"),
        ("-", ""),
        ("x + ", ""),
        ("x == ", ""),
        ("f(1, ", ")"),
        ("f(", ", 2)"),
        ("// ", ""),
        ("/* ", ""),
        ("-- ", ""),
        ("; ", ""),
        ("<draft>", "</draft>"),
        ("'", ""),
        ("", "'"),
        ("", " if x else y"),
        ("", '<parameter name="y">5</parameter>'),
        ("", "<parameter>Paris</parameter>"),
        ("<city>Paris</city>", ""),
        ("", " USD"),
        ("", "€"),
        ("EUR ", ""),
        ("", " million"),
        ("not ", ""),
        ("Either this or ", ""),
        ("Instead of ", ""),
    ],
)
def test_what_may_belong_to_the_value_is_not_dropped(before: str, after: str) -> None:
    """A scalar, a unit, an operator, a second value, half of a pair: the text is refused."""
    text = f'{before}{{"a": 1}}{after}'
    with pytest.raises(Refusal):
        around(text, len(before), len(text) - len(after), "object")


def test_an_array_inside_a_sentence_is_refused() -> None:
    """`[1, 2]` is an interval as often as it is a value."""
    text = "between [1, 2] it holds"
    with pytest.raises(Refusal):
        around(text, 8, 14, "array")
    assert around("Output:\n[1, 2]\n", 8, 14, "array")[0][0].kind == "prose"
