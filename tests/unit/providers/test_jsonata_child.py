"""The child evaluates one expression at a time, exactly, and takes nothing from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from signet.providers import jsonata_child

Ask = Callable[..., bytes]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """A function that sends a request to a child and returns the answer's body."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-m", jsonata_child.__name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"TZ": "UTC"},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    requests, answers = child.stdin, child.stdout
    # Popen types its pipes as IO[bytes]; with default buffering they are BufferedReader/Writer.
    assert jsonata_child.read_frame(answers) == jsonata_child.OK  # pyright: ignore

    def send(expression: str, text: str = "{}", timeout_s: float = 60.0) -> bytes:
        limits = {"timeout_s": timeout_s, "memory_bytes": 256 << 20}
        head = json.dumps({"jsonata": expression, **limits}).encode()
        requests.write(jsonata_child.frame(head) + jsonata_child.frame(text.encode()))
        requests.flush()
        answer = jsonata_child.read_frame(answers)  # pyright: ignore
        assert answer is not None
        return answer

    yield send
    requests.close()
    assert child.wait(10) == 0
    answers.close()


@pytest.mark.parametrize(
    ("expression", "text", "result"),
    [
        ("$", '{"a":null,"b":[1,2.5,true,"x"]}', '{"a":null,"b":[1,2.5,true,"x"]}'),
        ('{"x":a}', '{"a":null}', '{"x":null}'),
        ("a + b", '{"a":0.1,"b":0.2}', "0.3"),
        ("a - b", '{"a":0.3,"b":0.1}', "0.2"),
        ("a * 3", '{"a":1.1}', "3.3"),
        ("a / 8", '{"a":1}', "0.125"),
        ("a % b", '{"a":5.5,"b":2}', "1.5"),
        ("-a", '{"a":1.1}', "-1.1"),
        ("a + missing", '{"a":1}', None),
        ("$sum(l)", '{"l":[0.1,0.2,0.3]}', "0.6"),
        ("$average(l)", '{"l":[1,2]}', "1.5"),
        ("$round(2.5)", "{}", "2"),
        ("$round(1.005, 2)", "{}", "1"),
        ("$round(-125, -1)", "{}", "-120"),
        ("$power(2, 10)", "{}", "1024"),
        ("$sqrt(6.25)", "{}", "2.5"),
        ('$number("1.10")', "{}", "1.1"),
        ('$number("0x1f")', "{}", "31"),
        ("$number(true)", "{}", "1"),
        ("$string(a)", '{"a":1234567.12345678}', '"1234567.12345678"'),
        ('a & " EUR"', '{"a":0.1}', '"0.1 EUR"'),
        ('$formatNumber(1.005, "0.00")', "{}", '"1.01"'),
        ("$map([1,2], function($v) { $v * 1.1 })", "{}", "[1.1,2.2]"),
        ("$reduce([0.1,0.2,0.3], function($a,$b) { $a + $b })", "{}", "0.6"),
        ("9007199254740991", "{}", "9007199254740991"),
        ("[1..3]", "{}", "[1,2,3]"),
        ('$merge([{"a":1},{"b":2}])', "{}", '{"a":1,"b":2}'),
        ('$ ~> |$|{"z":1}|', '{"a":1.5}', '{"a":1.5,"z":1}'),
        ('$toMillis("2017-11-07T15:12:37.121Z")', "{}", "1510067557121"),
        ('$toMillis("2018", "[Y0001]")', "{}", "1514764800000"),
        ("$fromMillis(1510067557121)", "{}", '"2017-11-07T15:12:37.121Z"'),
        ('$match("ab12", /[0-9]+/).match', "{}", '"12"'),
        ('$base64encode("é")', "{}", '"w6k="'),
        ('"\\u00e9"', "{}", '"\\u00e9"'),
    ],
)
def test_expressions_are_exact(ask: Ask, expression: str, text: str, result: str | None) -> None:
    """Arithmetic is decimal, texts of numbers are whole, and null stays null."""
    answer = ask(expression, text)
    if result is None:
        assert answer[:1] == jsonata_child.FAILED
    else:
        assert answer == jsonata_child.OK + result.encode()


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("1 / 3", "{}"),
        ("$average([1, 1, 2])", "{}"),
        ("$sqrt(2)", "{}"),
        ("$power(1.1, 100)", "{}"),
        ("$power(10, 99999999999)", "{}"),
        ("a * a", '{"a":1234567.1234567}'),
        ("a + 1", '{"a":9007199254740991}'),
        ("12345678901234567.89", "{}"),
        ("9007199254740993", "{}"),
        ("1e400", "{}"),
        ('$number("0.1234567890123456789")', "{}"),
        ('$number("1e999990")', "{}"),
        ('$number("NaN")', "{}"),
        ('$number("0xffffffffffffffff")', "{}"),
        ("$", '{"a":0.12345678901234567890}'),
        ("$round(1, 1000000000)", "{}"),
    ],
)
def test_what_no_json_number_is_exactly_is_refused(ask: Ask, expression: str, text: str) -> None:
    """A rounded result would be a changed amount; the author is pointed to $round."""
    answer = ask(expression, text)
    assert answer[:1] == jsonata_child.FAILED
    assert b"number_not_exact" in answer


@pytest.mark.parametrize(
    "expression",
    [
        '$eval("1")',
        "$now()",
        "$millis()",
        "$random()",
        "$shuffle([1,2,3])",
        '$toMillis("12", "[H01]")',
    ],
)
def test_nothing_but_the_input_decides(ask: Ask, expression: str) -> None:
    """No clock, no dice, no text run as code: the same input gives the same answer for ever."""
    assert ask(expression)[:1] == jsonata_child.FAILED


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(((", "S0203"),
        ("", ""),
        ("a.b.c", "no result"),
        ("$sum", "function"),
        ("[$sum]", "function"),
        ("1/0", "Division by zero"),
        ('"a" + 1', "T2001"),
        ('$error("own words")', "own words"),
        ("$assert(false)", ""),
        ("$nothing(1)", "T1006"),
        ("(" * 5_000, ""),
        ("[" * 5_000 + "]" * 5_000, ""),
        ("\ud83d", ""),
        ("$f := function($x) { 1 + $f($x) }", ""),
        ("($f := function($x) { 1 + $f($x + 1) }; $f(1))", "deeply"),
    ],
)
def test_a_wrong_expression_fails_with_a_short_message(
    ask: Ask, expression: str, message: str
) -> None:
    """Whatever the interpreter raises, the author gets a sentence and the child lives on."""
    answer = ask(expression)
    assert answer[:1] in (jsonata_child.FAILED, jsonata_child.CRASHED)
    assert message in answer[1:].decode()
    assert len(answer) < 400
    assert ask("1") == b"O1"


def test_an_overrun_ends_by_the_kernel_s_clock(ask: Ask) -> None:
    """Inside the regex engine no check of the interpreter's runs, and still it ends."""
    evil = '$match("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", /(a+)+$/)'
    assert ask(evil, timeout_s=0.3) == jsonata_child.TIMED_OUT
    assert ask("1") == b"O1"


def test_memory_is_bounded(ask: Ask) -> None:
    """A gigabyte of padding is refused; the next evaluation has all of its memory again."""
    assert ask('$pad("x", 1000000000)') == jsonata_child.OUT_OF_MEMORY
    assert ask('$length($pad("x", 1000000))') == b"O1000000"


def test_a_result_too_large_is_refused(ask: Ask) -> None:
    """A small expression cannot make an answer of a hundred megabytes."""
    answer = ask('$pad("x", 20000000)')
    assert answer == jsonata_child.FAILED + b"The result is too large."


def test_nothing_is_left_for_the_next_evaluation(ask: Ask) -> None:
    """A name bound, or a built-in renamed, by one tenant is unknown to the next."""
    ask("($stolen := 5; $sum := 6; $mine := $count; $stolen)")
    assert ask("$stolen")[:1] == jsonata_child.FAILED
    assert ask("$sum([1, 2])") == b"O3"
    assert b"mine" not in ask('$count("a", "b", "c")')


def test_frames_end_with_the_stream() -> None:
    """A cut-off frame is the end, not half a request."""
    import io

    whole = jsonata_child.frame(b"abc")
    stream = io.BytesIO(whole + whole[:-1])
    assert jsonata_child.read_frame(stream) == b"abc"
    assert jsonata_child.read_frame(stream) is None
    assert jsonata_child.read_frame(io.BytesIO(b"\0")) is None


def test_evaluation_without_limits_is_pure() -> None:
    """`evaluate` itself touches neither files nor limits, so it can be called anywhere."""
    assert json.loads(jsonata_child.evaluate("a", b'{"a":[1]}')[1:]) == cast("object", [1])
