"""Laws of repair, over values and dialects that nobody wrote down."""

from __future__ import annotations

import json
from itertools import cycle
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from signet.core.invariants import violations
from signet.core.repair import Repaired, repair

_NAMES = st.text(st.characters(codec="utf-8"), max_size=8)
_WORDS = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(
    lambda word: word.lower() not in {"true", "false", "none", "null"}
)
_INTEGERS = st.integers(-(2**53) + 1, 2**53 - 1)
_TENTHS = st.integers(-(10**6), 10**6).map(lambda n: n / 10)
_SCALARS = (
    st.none()
    | st.booleans()
    | _INTEGERS
    | _TENTHS
    | st.text(st.characters(codec="utf-8"), max_size=12)
)


def _documents(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    values = st.recursive(
        _SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(names, values, min_size=1, max_size=3) | st.lists(
        values, min_size=1, max_size=3
    )


class _Hand:
    """Chooses among spellings along a tape of numbers."""

    def __init__(self, tape: list[int]) -> None:
        self._tape = cycle(tape)

    def pick(self, *options: str) -> str:
        return options[next(self._tape) % len(options)]


def _written(value: Any, hand: _Hand) -> str:
    """`value` as a careless model might write it: quotation marks, literals and commas vary."""
    if value is None:
        return hand.pick("null", "None", "NULL")
    if isinstance(value, bool):
        return hand.pick("true", "True") if value else hand.pick("false", "False", "FALSE")
    if isinstance(value, int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return _quoted(value, hand)
    gap = hand.pick("", " ", "\n", "  // note\n", " /* n */ ", "\u00a0")
    trailing = hand.pick("", ",", " ,") if value else ""
    if isinstance(value, list):
        return "[" + gap + ("," + gap).join(_written(item, hand) for item in value) + trailing + "]"
    members = [
        hand.pick(name, _quoted(name, hand)) + ":" + gap + _written(item, hand)
        for name, item in value.items()
    ]
    return "{" + gap + ("," + gap).join(members) + trailing + "}"


def _quoted(text: str, hand: _Hand) -> str:
    body = json.dumps(text, ensure_ascii=bool(hand.pick("", "x")))[1:-1]
    return hand.pick(f'"{body}"', "'" + body.replace('\\"', '"').replace("'", "\\'") + "'")


_AROUND = (
    ("", ""),
    ("```json\n", "\n```"),
    ("Here it is:\n\n", "\n\nDone."),
    ("<tool_call>", "</tool_call>"),
    ("", "<|im_end|>"),
    ("<think>Let me see.</think>\n", ""),
)


def _careless_text(value: Any, tape: list[int], around: tuple[str, str]) -> tuple[Any, str]:
    return value, around[0] + _written(value, _Hand(tape)) + around[1]


_CARELESS = st.builds(
    _careless_text,
    _documents(_WORDS),
    st.lists(st.integers(0, 59), min_size=8, max_size=16),
    st.sampled_from(_AROUND),
)


def _same(left: Any, right: Any) -> bool:
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@given(_documents(_NAMES))
def test_strict_json_is_never_changed(value: Any) -> None:
    """Strict JSON comes back as the same text, without an edit."""
    text = json.dumps(value)
    result = repair(text)
    assert isinstance(result, Repaired)
    assert (result.text, result.edits, result.grade) == (text, (), "lossless")


@given(_CARELESS)
def test_no_scalar_ever_changes(sample: tuple[Any, str]) -> None:
    """However carelessly a value is written, it is read as it was, and the guard agrees."""
    value, text = sample
    result = repair(text)
    assert isinstance(result, Repaired), result
    assert _same(json.loads(result.text), value)
    assert violations(text, result.text) == ()


@given(_CARELESS)
def test_repair_is_idempotent(sample: tuple[Any, str]) -> None:
    """A second repair finds nothing to do."""
    first = repair(sample[1])
    assert isinstance(first, Repaired)
    second = repair(first.text)
    assert isinstance(second, Repaired)
    assert (second.text, second.edits) == (first.text, ())


@given(st.text(st.sampled_from("{}[]\"':,=()ab1-. \n\\/#<|>“”eNT"), max_size=40))
def test_whatever_is_repaired_keeps_every_scalar(text: str) -> None:
    """On any text at all: either it is refused, or the guard finds every scalar again."""
    result = repair(text)
    if isinstance(result, Repaired):
        json.loads(result.text)
        assert violations(text, result.text) == ()


@given(_CARELESS, st.data())
def test_a_text_cut_off_anywhere_loses_no_part_of_a_scalar(
    sample: tuple[Any, str], data: st.DataObject
) -> None:
    """A cut-off text is refused, or what is left of it is whole."""
    value, text = sample
    cut = text[: data.draw(st.integers(0, len(text)))]
    result = repair(cut)
    if isinstance(result, Repaired):
        whole = set(_scalars(value)) | {None, True, False}
        assert set(_scalars(json.loads(result.text))) <= whole


def _scalars(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [scalar for item in value.values() for scalar in _scalars(item)]
    if isinstance(value, list):
        return [scalar for item in value for scalar in _scalars(item)]
    return [value]


@given(
    st.decimals("0.01", "99999.99", places=2),
    st.decimals("0.01", "99999.99", places=2),
    st.sampled_from(["USD", "EUR", "JPY"]),
)
def test_a_mutated_price_never_passes(price: Any, other: Any, currency: str) -> None:
    """An answer with another price is a violation that names the amount, whatever is around it."""
    broken = f"{{'id': 'INV-1', price: {price}, 'currency': '{currency}', "
    answer = f'{{"price": {other}, "id": "INV-1", "currency": "{currency}"}}'
    faults = violations(broken + "note: None,}", answer.replace("}", ', "note": null}'))
    if price == other:
        assert faults == ()
    else:
        assert ("semantic_violation_amount", "/price") in [(f.code, f.pointer) for f in faults]
