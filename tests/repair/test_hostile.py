"""Hostile text costs linear time and bounded depth, and raises nothing."""

from __future__ import annotations

import time

import pytest

from signet.core.invariants import violations
from signet.core.repair import Repaired, Unrepairable, repair

_UNITS = (
    *("[", "{", '"', "'", "(", "\\", "`", "“", "‘", "<", "/*", "// ", "#\n", "<|x|>", "<think>"),
    *('{"a":', "[1,", "{a:", "f(a=", "[f(a=", "a.b.", "a: b\n", '"a" ', "{'a':'b'}", "</a>"),
    *("<a>b", "\ufeff", "1 ", "-", "true ", "}", "]", '{"a":1,"a":1,', '\\"', '{\\"a\\":'),
    *("https://", "a =", "**", "```", "x(", "\u00e9", "$", "[TOOL_", "<\uff5c", "functions."),
)
_SIZE = 40_000


@pytest.mark.parametrize("unit", _UNITS)
@pytest.mark.parametrize("frame", ["{}", "{}{{'a': 1}}", "{{'a': 1}}{}", "{{'a': 1, b: {}}}"])
def test_a_repeated_piece_is_answered_in_bounded_time(unit: str, frame: str) -> None:
    """40 kB of one piece, alone or around a value, is repaired or refused, never endless."""
    text = frame.format(unit * (_SIZE // len(unit)))
    begin = time.process_time()
    result = repair(text)
    assert isinstance(result, Repaired | Unrepairable)
    violations(text, '{"a": 1}')
    assert time.process_time() - begin < 20  # quadratic work here would take minutes


def test_a_megabyte_of_brackets_is_refused_as_too_deep() -> None:
    """Nesting ends at the parser's depth, not at Python's."""
    result = repair("[" * 1_000_000)
    assert isinstance(result, Unrepairable)
    assert result.code == "too_deep"


def test_many_repetitions_of_a_long_member_stay_linear() -> None:
    """A long value, repeated shortly many times, is compared only as far as it can be equal."""
    text = "{'a': '" + "x" * 200_000 + "'" + ", 'a': 'y'" * 20_000 + "}"
    result = repair(text)
    assert isinstance(result, Unrepairable)
    assert result.code == "duplicate_name"


def test_a_text_beyond_the_limit_is_refused_unread() -> None:
    """The limit counts bytes, not characters."""
    assert isinstance(repair("{'a': 'é'}", max_bytes=11), Repaired)
    result = repair("{'a': 'é'}", max_bytes=10)
    assert isinstance(result, Unrepairable)
    assert result.code == "too_large"


def test_a_lone_surrogate_is_refused() -> None:
    """Text that has no UTF-8 form is refused with the place."""
    result = repair("{'a': '\ud800'}")
    assert isinstance(result, Unrepairable)
    assert (result.code, result.offset) == ("not_unicode", 7)
