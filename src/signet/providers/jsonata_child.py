"""The process in which mappings are contained. Started by `signet.providers.jsonata`; not an API.

This process never evaluates anything itself: for each request it forks, and the fork evaluates one
expression, under limits that the kernel keeps, and is gone. So nothing of one tenant's expression
can be left for the next one's, and a regular expression that would run for years ends like any
other overrun, by a signal.

Requests and answers are frames: four bytes of length, big-endian, then as many bytes. A request is
two frames, a JSON object of limits with the expression and then the JSON text of the input. An
answer is one frame, a letter (`OK`, ...) and then the result or a message.

Numbers are exact. The interpreter works with IEEE doubles; strict parsing has made sure that each
one's shortest spelling is the number that was meant. Here every operation that makes a number
computes it in decimal, and fails where no double has exactly that spelling: 0.1 + 0.2 is 0.3, and
1 / 3 is an error.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import gc
import json
import os
import resource
import signal
import sys
import types
from collections.abc import Callable
from decimal import Decimal
from typing import BinaryIO, cast

import jsonata.datetimeutils
import jsonata.tokenizer
from jsonata.functions import Functions
from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from jsonata.utils import Utils

from signet.core.errors import Fault
from signet.core.transform import Fields, Mapping, MappingFailed
from signet.receipts.canonical import canonicalize, parse
from signet.receipts.errors import ReceiptError

OK, FAILED, TIMED_OUT, OUT_OF_MEMORY, CRASHED = b"O", b"F", b"T", b"M", b"C"
INAPPLICABLE = b"N"

MAX_FRAME = 16 << 20
MAX_RESULT = 8 << 20
_MAX_MESSAGE = 300
_MAX_SAFE = 2**53 - 1

# Enough for every product of two doubles; what does not fit was not exact.
_DECIMAL = decimal.Context(
    prec=50,
    Emin=-999,
    Emax=999,
    traps=[decimal.Inexact, decimal.DivisionByZero, decimal.InvalidOperation, decimal.Overflow],
)

# These make the answer depend on more than the input, or run text as code.
_REMOVED = ("eval", "now", "millis", "random", "shuffle")


class NotExact(Exception):
    """A number that no JSON number is exactly."""


# --- Frames --------------------------------------------------------------------------------------


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    length = int.from_bytes(head, "big")
    body = stream.read(length)
    return body if len(body) == length else None


def frame(body: bytes) -> bytes:
    """The bytes of one frame."""
    return len(body).to_bytes(4, "big") + body


# --- Exact numbers -------------------------------------------------------------------------------


def _decimal(number: float) -> Decimal:
    """The decimal that an interpreter's number stands for: its shortest spelling."""
    return Decimal(number) if isinstance(number, int) else Decimal(repr(number))


def _number(exact: Decimal) -> int | float:
    """The interpreter's number for a decimal. Raises `NotExact`."""
    if exact == exact.to_integral_value():
        if abs(exact) > _MAX_SAFE:
            raise NotExact("An integer is beyond 2^53 - 1.")
        return int(exact)
    number = float(exact)
    if Decimal(repr(number)) != exact:
        raise NotExact("A number has more digits than a JSON number keeps.")
    return number


def _from_text(text: str) -> int | float:
    exact = Decimal(text)
    if not exact.is_finite() or abs(exact.adjusted()) > 400:
        raise NotExact("A number is out of range.")
    return _number(exact)


def _arithmetic(_self: Jsonata, lhs: object, rhs: object, op: str) -> int | float | None:
    """The five operators of JSONata; undefined on either side makes the result undefined."""
    if lhs is not None and not Utils.is_numeric(lhs):
        raise JException("T2001", -1, op, lhs)
    if rhs is not None and not Utils.is_numeric(rhs):
        raise JException("T2002", -1, op, rhs)
    if lhs is None or rhs is None:
        return None
    one, other = _decimal(cast("float", lhs)), _decimal(cast("float", rhs))
    match op:
        case "+":
            return _number(_DECIMAL.add(one, other))
        case "-":
            return _number(_DECIMAL.subtract(one, other))
        case "*":
            return _number(_DECIMAL.multiply(one, other))
        case "/":
            return _number(_DECIMAL.divide(one, other))
        case _:
            return _number(_DECIMAL.remainder(one, other))


def _sum(numbers: list[float] | None) -> int | float | None:
    return None if numbers is None else _number(_total(numbers))


def _average(numbers: list[float] | None) -> int | float | None:
    return _number(_DECIMAL.divide(_total(numbers), Decimal(len(numbers)))) if numbers else None


def _total(numbers: list[float]) -> Decimal:
    total = Decimal(0)
    for number in numbers:
        total = _DECIMAL.add(total, _decimal(number))
    return total


def _round(number: float | None, places: int | None) -> int | float | None:
    """Half to even, as JSONata has it; the one way to drop digits, and its author asks for it."""
    if number is None:
        return None
    if places is not None and abs(places) > 400:
        raise NotExact("The precision is out of range.")
    return _number(Decimal(round(_decimal(number), places or 0)))


def _power(base: float | None, exponent: float | None) -> int | float | None:
    if base is None or exponent is None:
        return None
    return _number(_DECIMAL.power(_decimal(base), _decimal(exponent)))


def _sqrt(number: float | None) -> int | float | None:
    if number is None:
        return None
    if number < 0:
        raise JException("D3060", 1, number)
    return _number(_DECIMAL.sqrt(_decimal(number)))


def _to_number(value: object) -> int | float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if isinstance(value, bool):
        return int(value)
    if not isinstance(value, str):
        raise JException("T0410", -1)
    if value[:2].lower() in ("0x", "0b", "0o"):
        return _number(Decimal(int(value[:100], 0)))
    try:
        return _from_text(value)
    except decimal.InvalidOperation:
        raise JException("D3030", -1, value[:40]) from None


_EXACT: dict[str, tuple[str, Callable[..., int | float | None]]] = {
    "sum": ("<a<n>:n>", _sum),
    "average": ("<a<n>:n>", _average),
    "round": ("<n-n?:n>", _round),
    "power": ("<n-n:n>", _power),
    "sqrt": ("<n-:n>", _sqrt),
    "number": ("<(nsb)-:n>", _to_number),
}


class _Encoder(Functions.Encoder):
    """How `$string` and `&` spell a number: in full. The original rounds to 15 digits."""

    def encode(self, arg: object) -> str:
        if isinstance(arg, (int, float)) and not isinstance(arg, bool):
            return f"{_decimal(arg):f}"
        return json.JSONEncoder.encode(self, arg)


class _NoTime:
    """Stands for the current time, and refuses every question about it."""

    def __getattr__(self, name: str) -> object:
        raise JException("D3136", -1)


class _NoClock(datetime.datetime):
    """`$toMillis` fills the parts that a picture leaves out from the current time; not here."""

    @classmethod
    def utcnow(cls) -> _NoClock:
        return cast("_NoClock", _NoTime())


def _format_number(value: float | None, picture: object, options: object) -> str | None:
    # A Decimal is taken as it is; a float would be expanded to its binary fraction first.
    return _library_format_number(None if value is None else _decimal(value), picture, options)


_library_format_number = cast(
    "Callable[[Decimal | None, object, object], str | None]", Functions.format_number
)


def _put(owner: object, name: str, ours: object) -> None:
    """Put ours in the place of the library's own, which offers no hook for it."""
    setattr(owner, name, ours)


def _prepare_interpreter() -> None:
    """Take the clock, the dice and `$eval` away, and put exact arithmetic in."""
    functions = cast("dict[str, object]", vars(Jsonata.static_frame)["bindings"])
    for name in _REMOVED:
        functions.pop(name)
    for name, (signature, function) in _EXACT.items():
        _put(Functions, name, staticmethod(function))
        Jsonata.define_function(name, signature)
    _put(Functions, "format_number", staticmethod(_format_number))
    Jsonata.define_function("formatNumber", "<n-so?:s>", "format_number")
    _put(Functions, "Encoder", _Encoder)
    _put(Jsonata, "evaluate_numeric_expression", _arithmetic)
    # The tokenizer reads its literals with float(); the module's own name goes before the builtin.
    _put(jsonata.tokenizer, "float", _from_text)
    pinned = types.SimpleNamespace(**vars(datetime) | {"datetime": _NoClock})
    _put(jsonata.datetimeutils, "datetime", pinned)
    # strptime imports its module on first use, which a confined process cannot.
    datetime.datetime.strptime("2000+0000", "%Y%z")
    apply_fields('{"fields": {"a": {"string": "a[?b]"}}}', b'{"a": 1.5}')


# --- One evaluation ------------------------------------------------------------------------------


def _with_nulls(value: object) -> object:
    """JSON null as the interpreter's own null; its None means "undefined"."""
    if isinstance(value, dict):
        return {key: _with_nulls(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_with_nulls(item) for item in cast("list[object]", value)]
    return Utils.NULL_VALUE if value is None else value


def _plain(value: object) -> object:
    """The result as plain JSON; a function inside it is an error, not an empty string."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[object]", value)]
    if value is None or value is Utils.NULL_VALUE:
        return None
    if isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, float)):
        return _number(_decimal(value))
    raise NotExact("The result holds a function.")


def evaluate(expression: str, text: bytes) -> bytes:
    """The answer's frame body. Anything the expression does wrong is FAILED, with why."""
    try:
        document = _with_nulls(json.loads(text, parse_float=_from_text))
        program = Jsonata(expression)
        program.set_output_convert_nulls(False)
        result = program.evaluate(document)
        if result is None:
            return FAILED + b"The expression has no result for this input."
        encoded = json.dumps(_plain(result), allow_nan=False, separators=(",", ":")).encode()
    except MemoryError:
        return OUT_OF_MEMORY
    except RecursionError:
        return FAILED + b"The expression recurses too deeply."
    except NotExact as error:
        return FAILED + f"number_not_exact: {error}".encode()
    except decimal.DivisionByZero:
        return FAILED + b"Division by zero."
    except (decimal.Inexact, decimal.Overflow):
        return FAILED + b"number_not_exact: A result has no exact decimal; see $round."
    except JException as error:
        message = f"{error.error} at {error.location}: {error}"
        return FAILED + message[:_MAX_MESSAGE].encode(errors="replace")
    except Exception as error:  # the interpreter raises whatever Python raises on a wrong type
        return FAILED + f"{type(error).__name__}: {error}"[:_MAX_MESSAGE].encode(errors="replace")
    return OK + encoded if len(encoded) <= MAX_RESULT else FAILED + b"The result is too large."


def apply_fields(mapping: str, text: bytes) -> bytes:
    """The answer's frame body of a declarative mapping, which was valid when it was registered."""
    try:
        fields = Mapping.compile("", "", "", parse(mapping)).body
        assert isinstance(fields, Fields)
        made = fields.apply(parse(text))
        if isinstance(made, MappingFailed):
            return INAPPLICABLE + json.dumps([_members(fault) for fault in made.faults]).encode()
        encoded = canonicalize(made.value)
    except MemoryError:
        return OUT_OF_MEMORY
    except ReceiptError as error:
        return FAILED + f"{error.code}: {error.detail}"[:_MAX_MESSAGE].encode()
    return OK + encoded if len(encoded) <= MAX_RESULT else FAILED + b"The result is too large."


def _members(fault: Fault) -> dict[str, str | None]:
    return {member.name: getattr(fault, member.name) for member in dataclasses.fields(fault)}


def _confine(timeout_s: float, memory_bytes: int) -> None:
    """What the kernel holds this process to. Modules that are not loaded yet never will be."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    cpu_s = int(timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    # No handler: the signal ends the process wherever it is, also inside the regex engine.
    signal.setitimer(signal.ITIMER_REAL, timeout_s)


def _answer(head: bytes, text: bytes) -> bytes:
    """Evaluate in a fork and wait for its end; the fork's own clock bounds the wait."""
    request = cast("dict[str, object]", json.loads(head))
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(0)
            os.close(1)
            os.close(reader)
            _confine(cast("float", request["timeout_s"]), cast("int", request["memory_bytes"]))
            if "fields" in request:
                body = apply_fields(cast("str", request["fields"]), text)
            else:
                body = evaluate(cast("str", request["jsonata"]), text)
            while body:
                body = body[os.write(writer, body) :]
        except MemoryError:
            os.write(writer, OUT_OF_MEMORY)
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answers:
        body = answers.read(MAX_RESULT + 1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        overran = os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGXCPU)
        return TIMED_OUT if overran else CRASHED
    return body or CRASHED


def main() -> None:
    """Serve requests from standard input until it ends."""
    _prepare_interpreter()
    # The forks share these objects; a collection in one of them would copy every page.
    gc.collect()
    gc.freeze()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(frame(OK))
    answers.flush()
    while (head := read_frame(requests)) is not None and (text := read_frame(requests)) is not None:
        answers.write(frame(_answer(head, text)))
        answers.flush()


if __name__ == "__main__":
    main()
