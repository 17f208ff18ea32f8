"""Compiled expressions mean what JMESPath means, and can only select."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import cast

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signet.core.paths import PathInvalid, PathTypeError, compile_path, target_tokens
from signet.receipts.canonical import Json

DOCUMENT: Json = {
    "a": {"b": [{"c": 1, "t": "x"}, {"c": 2, "t": "yx"}, {"t": "z"}, 7, None]},
    "list": [[1, 2], 3, [[4]], []],
    "texts": ["one", "two", ""],
    "empty": {"list": [], "text": "", "object": {}, "zero": 0, "no": False, "null": None},
    "x y": {"dotted.name": "quoted"},
    "n": 5,
}

EXPRESSIONS = [
    "a",
    "a.b",
    "a.b[0].c",
    "a.b[-1]",
    "a.b[9]",
    "a.b[-9]",
    "n.x",
    "texts[0].x",
    "a[0]",
    "@",
    "@.n",
    '"x y"."dotted.name"',
    "a.b[*].c",
    "a.b[].t",
    "list[]",
    "list[][]",
    "list[0:1]",
    "list[::-1]",
    "texts[1:].length(@)",
    "a.*",
    "*.b",
    "a.b[?c > `1`].t",
    "a.b[?c >= `1` && c < `2`]",
    "a.b[?t == 'x' || c == `2`].c",
    "a.b[?!c]",
    "a.b[?t && contains(t, 'x')].t",
    "a.b[?c != `1`]",
    "a.b[*].c | [0]",
    "missing || n",
    "empty.text || n",
    "empty.zero || n",
    "empty.list || empty.object || empty.no || 'last'",
    "n && 'yes'",
    "empty.no && 'yes'",
    "!empty.zero",
    "!empty.text",
    '`{"x": [1, 2.5]}`',
    "'raw text'",
    "length(texts)",
    "length('abc')",
    "contains(texts, 'two')",
    "contains('abc', 'b')",
    "starts_with(texts[0], 'o')",
    "ends_with(texts[0], 'e')",
    "not_null(missing, empty.null, n)",
    "not_null(missing)",
    "n == `5.0`",
    "n < texts",
    "empty.zero == empty.no",
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_means_what_the_reference_library_says(expression: str) -> None:
    """The same answer as jmespath's own interpreter, for everything that is offered."""
    theirs = cast("Json", jmespath.search(expression, DOCUMENT))
    ours = compile_path(expression).get(DOCUMENT)
    assert ours == theirs
    assert repr(ours).replace("Decimal('2.5')", "2.5") == repr(theirs)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "y"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "c", "n", "t"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    document=VALUES,
    expression=st.sampled_from([e for e in EXPRESSIONS if "(" not in e and "<" not in e]),
)
def test_on_any_document_the_answer_is_the_library_s(document: Json, expression: str) -> None:
    """Missing members, wrong types and empty things are treated alike."""
    try:
        theirs = cast("Json", jmespath.search(expression, document))
    except TypeError:  # the library compares a text with a number and fails; here that is null
        return
    assert compile_path(expression).get(document) == theirs


def test_numbers_are_compared_exactly() -> None:
    """A literal 1.1 in an expression is the decimal 1.1 that strict parsing made of the payload."""
    document: Json = {"lines": [{"price": Decimal("1.1")}, {"price": Decimal("1.2")}]}
    assert compile_path("lines[?price == `1.1`]").get(document) == [{"price": Decimal("1.1")}]
    assert compile_path("lines[?price > `1.1`]").get(document) == [{"price": Decimal("1.2")}]


def test_texts_and_numbers_have_no_order_between_them() -> None:
    """What cannot be compared is null, and so not selected."""
    assert compile_path("[?@ > `1`]").get([2, "3", True, None, [4]]) == [2]


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "a.",
        "a[",
        "a b",
        "a[::0]",
        "[a, b]",
        "{x: a}",
        "a.{x: b}",
        "[@,@]|[@,@][]",
        "map(&a, b)",
        "merge(a, b)",
        "to_number(a)",
        "avg(a)",
        "sum(a)",
        "join(',', a)",
        "sort_by(a, &b)",
        "&a",
        "length()",
        "length(a, b)",
        "not_null()",
        "unknown(a)",
        "a" * 501,
        "(" * 499,
        "!" * 499 + "a",
        "a" + "[]" * 60,
        "`1e999`",
        "`NaN`",
    ],
)
def test_what_is_not_offered_is_refused_when_compiled(expression: str) -> None:
    """Bad syntax, and all that could grow a document or make an inexact number."""
    with pytest.raises(PathInvalid) as refused:
        compile_path(expression)
    assert len(refused.value.detail) < 600


@pytest.mark.parametrize(
    "expression",
    ["!" * 400 + "a", "!" * 55 + "a", "a" + "[]" * 200, "a" + "[]" * 55, "a" + "|a" * 29],
)
def test_a_long_expression_is_refused_or_bounded(expression: str) -> None:
    """Five hundred characters of the worst take no time, and no stack either."""
    started = time.process_time()
    try:
        path = compile_path(expression)
    except PathInvalid:
        return
    path.get({"a": [[1] * 1_000] * 20})
    assert time.process_time() - started < 10


@pytest.mark.parametrize("expression", ["length(n)", "contains(n, `1`)", "starts_with(n, 'x')"])
def test_a_function_refuses_what_it_is_not_defined_for(expression: str) -> None:
    """A wrong type is an error of ours, which the mapping turns into a fault."""
    with pytest.raises(PathTypeError):
        compile_path(expression).get(DOCUMENT)


def test_plain_paths_know_their_tokens() -> None:
    """They are what a fault's pointer is made of."""
    assert compile_path('a."x y"[0].b').tokens == ("a", "x y", 0, "b")
    assert compile_path("@").tokens == ()
    assert compile_path("a[*]").tokens is None


def test_targets_are_names_and_indexes() -> None:
    """Nothing that selects can be a place to put something."""
    assert target_tokens("Document.PmtInf[0].Nm") == ("Document", "PmtInf", 0, "Nm")
    assert target_tokens('"a.b"') == ("a.b",)
    for bad in ("@", "a[*]", "a[-1]", "a || b", "length(a)", "a[0:1]", "`1`", ""):
        with pytest.raises(PathInvalid):
            target_tokens(bad)
