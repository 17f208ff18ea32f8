"""Strict parsing: I-JSON (RFC 7493), with numbers that stay exact.

Two readings of the same grammar. At the door (`parse`) a number is an int or a Decimal, and one
that canonical JSON could not spell back exactly is refused: what is validated is then what is
hashed and forwarded. Text that was signed elsewhere (`parse_for_verification`) is read as the
canonical form is defined, with IEEE doubles (RFC 8785 §3.2.2.3).

The careful reading is the definition. The fast one (orjson) may only say "yes, and this is the
value" or "unsure"; then the careful one decides and names the place.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import NoReturn

from signet.receipts.accelerator import ACCELERATOR
from signet.receipts.errors import ParseError
from signet.receipts.value import Json

MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1
# The largest safe integer has 16 digits. An integer token that is longer is never converted by
# int(), which is quadratic in the number of digits.
_MAX_INTEGER_TOKEN = len("-9007199254740991")
_ALWAYS_EXACT = len(".") + 15
_FIRST_EXPONENT_SPELLING = 1e21  # ECMAScript spells integral doubles below this without exponent


def parse(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Json:
    """Parse one JSON text strictly; every number in the result is an int or a Decimal.

    Refused (`ParseError`, each with the JSON Pointer of the place): text that is not UTF-8 or not
    JSON, anything after the value, equal names in one object, lone surrogates in strings and
    names, integers beyond ±(2^53−1), numbers that overflow a double, numbers that are not equal to
    their ECMAScript spelling (`number_not_exact`: send them as strings), and nesting deeper than
    `max_depth`. Takes time linear in the length of the text, whatever the text.
    """
    return _parse(data, max_depth, _DOOR)[0]


def parse_ascii(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> tuple[Json, bool]:
    """As `parse`, and whether all strings and names in the value are sure to be ASCII.

    False only says that nobody looked closely enough.
    """
    return _parse(data, max_depth, _DOOR)


def parse_for_verification(data: bytes | str, *, max_depth: int = MAX_DEPTH) -> Json:
    """Parse text whose canonical form was signed elsewhere.

    As `parse`, but numbers are read as RFC 8785 reads them: safe integers as int, all others as
    IEEE doubles (appendix B has `295147905179352830000`). Raises `ParseError`.
    """
    return _parse(data, max_depth, _SIGNED)[0]


def pointer(*tokens: str | int) -> str:
    """The JSON Pointer (RFC 6901) of a path of names and indices.

    A lone surrogate in a name becomes its escape, so that a pointer can always be written out.
    """
    text = "/".join(map(str, tokens))
    # Nearly every path is of names that need no escape.
    if text.isascii() and "~" not in text and text.count("/") == len(tokens) - 1:
        return "/" + text
    return "".join("/" + _escape(token) for token in tokens)


def _escape(token: str | int) -> str:
    text = str(token).replace("~", "~0").replace("/", "~1")
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _parse(data: bytes | str, max_depth: int, reading: json.JSONDecoder) -> tuple[Json, bool]:
    try:
        raw = data.encode("utf-8") if isinstance(data, str) else data
    except UnicodeEncodeError:  # a str may hold lone surrogates; the careful reading names them
        return _parse_carefully(data, max_depth, reading), False
    fast = _parse_fast(raw, max_depth, reading)
    return (_parse_carefully(raw, max_depth, reading), False) if fast is None else fast


# --- the fast reading -----------------------------------------------------------------------


_MAYBE_BEYOND_64_BITS = re.compile(rb"[0-9]{19}")


def _parse_fast(data: bytes, max_depth: int, reading: json.JSONDecoder) -> tuple[Json, bool] | None:
    """What orjson reads, if a few looks at it prove that nothing was lost, and whether it is ASCII.

    None: it cannot vouch for the text, which may still be good.
    """
    if ACCELERATOR is None:
        return None
    try:
        value = ACCELERATOR.loads(data)
        echo = ACCELERATOR.echo(value)  # refuses integers beyond ±(2^53−1)
    except (ValueError, TypeError):
        return None
    # Of equal names orjson keeps one. Then the echo has fewer colons: each member has one, those
    # inside strings come back as they went in, and none was spelled as an escape (\u003a).
    if _colons(data) != _colons(echo) or (b"\\" in data and b"\\u003" in data):
        return None
    # From here on only depth and numbers are in doubt. orjson makes a double of every number that
    # has a fraction or an exponent, or is an integer beyond 64 bits.
    has_doubles = _has_doubles(value, max_depth)
    if has_doubles is None:
        return None
    is_ascii = echo.isascii()  # it escapes what is below a space, and nothing else
    if has_doubles and reading is _DOOR:
        exact = _EXACT if _MAYBE_BEYOND_64_BITS.search(data) else _DECIMALS
        try:
            return exact.decode(data.decode("utf-8")), is_ascii
        except _Flaw:
            return None
    return value, is_ascii


def _colons(text: bytes) -> int:
    """As `text.count(b":")`, which looks at every byte; this leaps from one to the next."""
    return len(text) - len(text.replace(b":", b""))


def _has_doubles(value: Json, max_depth: int) -> bool | None:
    """Whether a double is anywhere in `value`; None where it is nested deeper than `max_depth`."""
    has_doubles = False
    level = [value]
    for _ in range(max_depth):
        below: list[Json] = []
        for container in level:
            if type(container) is dict:
                members = container.values()
            elif type(container) is list:
                members = container
            else:  # the whole text is one value
                return type(container) is float
            for member in members:
                kind = type(member)
                if kind is str:
                    continue
                if kind is dict or kind is list:
                    below.append(member)
                elif kind is float:
                    has_doubles = True
        if not below:
            return has_doubles
        level = below
    return None


# --- the careful reading --------------------------------------------------------------------


class _Flaw(Exception):
    """Something the grammar allows and we do not. The fast reading raises it; the careful one
    leaves it in the tree, where the walk afterwards finds its place."""

    def __init__(self, code: str, detail: str, name: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.name = name


def _safe_integer(token: str) -> int | None:
    if len(token) > _MAX_INTEGER_TOKEN:
        return None
    value = int(token)
    return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else None


def _integer_at_the_door(token: str) -> int | _Flaw:
    value = _safe_integer(token)
    return _unsafe_integer() if value is None else value


def _exact_integer(token: str) -> int:
    value = _safe_integer(token)
    if value is None:
        raise _unsafe_integer()
    return value


def _unsafe_integer() -> _Flaw:
    return _Flaw(
        "integer_out_of_range",
        "Integers beyond ±(2^53−1) are not the same number everywhere; send it as a string.",
    )


def _exact_decimal(token: str) -> Decimal:
    """The Decimal of a token, if canonical JSON spells the same number. Raises `_Flaw`.

    The result never has more digits than a double needs, whatever the token had.
    """
    # Up to 15 digits always survive the way through a double and back (C11 §5.2.4.2.2, DBL_DIG).
    if len(token) <= _ALWAYS_EXACT and "e" not in token and "E" not in token:
        return Decimal(token)
    value = float(token)
    if math.isinf(value):
        raise _Flaw("number_out_of_range", "The number is too large for a double.")
    shortest = Decimal(repr(value))
    try:
        exact = Decimal(token)
    except InvalidOperation:
        raise _Flaw("number_out_of_range", "The number's exponent is out of range.") from None
    if exact != shortest:
        raise _Flaw(
            "number_not_exact",
            f"A double cannot hold this number; it would become {value!r}. Send it as a string.",
        )
    # Its canonical text would be an integer token that this very door refuses.
    if MAX_SAFE_INTEGER < abs(value) < _FIRST_EXPONENT_SPELLING:
        raise _unsafe_integer()
    return shortest


def _decimal_at_the_door(token: str) -> Decimal | _Flaw:
    try:
        return _exact_decimal(token)
    except _Flaw as flaw:
        return flaw


def _double(token: str) -> float | _Flaw:
    value = float(token)
    if math.isinf(value):
        return _Flaw("number_out_of_range", "The number is too large for a double.")
    return value


def _integer_or_double(token: str) -> int | float | _Flaw:
    value = _safe_integer(token)
    return _double(token) if value is None else value


def _not_a_number(token: str) -> _Flaw:
    return _Flaw("invalid_json", f"{token} is not JSON.")


def _unique_names(pairs: list[tuple[str, Json]]) -> dict[str, Json] | _Flaw:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    # set.add returns None: the first name that was there before is the first to pass.
    twice = next(name for name, _ in pairs if name in seen or seen.add(name))
    return _Flaw("duplicate_name", "The name occurs twice in one object.", twice)


_DOOR = json.JSONDecoder(
    object_pairs_hook=_unique_names,
    parse_int=_integer_at_the_door,
    parse_float=_decimal_at_the_door,
    parse_constant=_not_a_number,
)
_SIGNED = json.JSONDecoder(
    object_pairs_hook=_unique_names,
    parse_int=_integer_or_double,
    parse_float=_double,
    parse_constant=_not_a_number,
)
# Two readings of text that is known to be good but for its numbers; the first is the faster one.
_DECIMALS = json.JSONDecoder(parse_float=_exact_decimal)
_EXACT = json.JSONDecoder(parse_int=_exact_integer, parse_float=_exact_decimal)


def _parse_carefully(data: bytes | str, max_depth: int, reading: json.JSONDecoder) -> Json:
    """The definition of what is accepted, with the standard library's parser."""
    text = data if isinstance(data, str) else _decode(data, max_depth)
    try:
        value: Json = reading.decode(text)
    except json.JSONDecodeError as error:
        raise ParseError(
            f"Not JSON: {error.msg}, line {error.lineno} column {error.colno}.",
            code="invalid_json",
            pointer=_place(text, error.pos, max_depth),
        ) from None
    except RecursionError:
        _refuse_depth(max_depth, _place(text, len(text), max_depth))
    _refuse_flaws(value, [], max_depth)
    return value


def _decode(data: bytes, max_depth: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise ParseError(
            f"Not UTF-8 at byte {error.start}.",
            code="invalid_utf8",
            pointer=_place(before, len(before), max_depth),
        ) from None


def _refuse_flaws(value: Json | _Flaw, path: list[str | int], max_depth: int) -> None:
    """Raise for the first flaw in document order."""
    if isinstance(value, _Flaw):
        tokens = path if value.name is None else [*path, value.name]
        raise ParseError(value.detail, code=value.code, pointer=pointer(*tokens))
    if isinstance(value, str):
        _refuse_lone_surrogates(value, path)
        return
    members: Iterable[tuple[str | int, Json]]
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    else:
        return
    if len(path) >= max_depth:
        _refuse_depth(max_depth, pointer(*path))
    for token, member in members:
        path.append(token)
        if isinstance(token, str):
            _refuse_lone_surrogates(token, path)
        _refuse_flaws(member, path, max_depth)
        path.pop()


def _refuse_lone_surrogates(text: str, path: list[str | int]) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ParseError(
            "A lone surrogate is not a character (RFC 7493 §2.1).",
            code="lone_surrogate",
            pointer=pointer(*path),
        ) from None


def _refuse_depth(max_depth: int, place: str) -> NoReturn:
    raise ParseError(f"Nested deeper than {max_depth} levels.", code="too_deep", pointer=place)


_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{},]', re.DOTALL)


def _place(text: str, end: int, max_depth: int) -> str:
    """The pointer of what is being read at `end`, or of where nesting first exceeds the limit."""
    path: list[str | int | None] = []
    name_follows = False
    for match in _TOKEN.finditer(text, 0, end):
        found = match[0]
        if found in "[{":
            if len(path) >= max_depth:
                break
            path.append(0 if found == "[" else None)
            name_follows = found == "{"
        elif found in "]}":
            if path:
                path.pop()
            name_follows = False
        elif found == ",":
            if path:
                last = path[-1]
                name_follows = not isinstance(last, int)
                path[-1] = last + 1 if isinstance(last, int) else None
        elif name_follows:
            path[-1] = _unquoted(found)
            name_follows = False
    return pointer(*(token for token in path if token is not None))


def _unquoted(token: str) -> str:
    try:
        name = json.loads(token)
    except json.JSONDecodeError:
        return token.strip('"')
    return name if isinstance(name, str) else token
