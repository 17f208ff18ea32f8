"""Canonical JSON: the JSON Canonicalization Scheme (RFC 8785), and the names of what it hashes.

Three profiles, always named and never substituted for one another:

- `jcs` is RFC 8785 exactly: no Unicode normalisation (§3.1 keeps strings "as is").
- `nfc+jcs` puts every string and name into NFC first. It is an *input* step: what is validated,
  forwarded, hashed and stored is the normalised value.
- `legacy-json` is `json.dumps(sort_keys=True, ensure_ascii=False)`, for verifying old receipts
  only, never for a new hash.
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Literal, NoReturn, assert_never, cast

from signet.receipts.accelerator import ACCELERATOR
from signet.receipts.errors import CanonicalError
from signet.receipts.ijson import (
    MAX_DEPTH,
    MAX_SAFE_INTEGER,
    Json,
    parse,
    parse_ascii,
    parse_for_verification,
    pointer,
)

__all__ = [
    "MAX_DEPTH",
    "MAX_SAFE_INTEGER",
    "Json",
    "Normalized",
    "Profile",
    "canonicalize",
    "content_id",
    "normalize",
    "number_text",
    "parse",
    "parse_ascii",
    "parse_for_verification",
    "pointer",
    "simple_bytes",
]

Profile = Literal["jcs", "nfc+jcs", "legacy-json"]

# The depth at which orjson stops, so that both writers agree; the accelerator's self-test knows it.
_MAX_DEPTH = 254
# UAX #15 §13, Stream-Safe Text: normalisation sorts runs of combining marks and is quadratic in
# their length (100,000 marks take most of a minute), and no language needs more than 30 in a row.
_MAX_COMBINING_MARKS = 30
_MAX_CHANGED = 100
_MAX_POINTER = 1024


@dataclass(frozen=True, slots=True)
class Normalized:
    """A value whose strings and names are all in NFC, and what had to change for that.

    `changed` holds JSON Pointers into `value`, at most a hundred and none of them long; the pointer
    "", which is the whole of it, stands for all others. `unicode_version` is that of the tables
    used.
    """

    value: Json
    changed: tuple[str, ...]
    unicode_version: str


def canonicalize(value: Json, profile: Profile = "jcs") -> bytes:
    """The canonical bytes of `value`.

    Numbers are spelled as ECMAScript spells doubles (RFC 8785 §3.2.2.3); a Decimal must equal that
    spelling. Names are sorted by UTF-16 code units (§3.2.3). Raises `CanonicalError`, with the
    pointer of the place, for everything that has no canonical form.
    """
    match profile:
        case "jcs":
            return _jcs(value)
        case "nfc+jcs":
            return _jcs(normalize(value).value)
        case "legacy-json":
            return _legacy(value)
        case _:
            assert_never(profile)


def normalize(value: Json) -> Normalized:
    """NFC of every string and member name.

    Raises `CanonicalError`: `nfc_key_collision` if two names of one object are equal afterwards,
    `too_many_combining_marks` for more than 30 in a row, and what `canonicalize` raises.
    """
    changed: list[str] = []
    # Almost all text is ASCII, which is in NFC; one look at the canonical bytes tells.
    if not _jcs(value).isascii():
        value = _nfc(value, [], changed)
    return Normalized(value, tuple(changed), unicodedata.unidata_version)


def simple_bytes(value: Json) -> bytes:
    """As `canonicalize`, for a value that is known to hold no float and only ASCII names."""
    if ACCELERATOR is not None:
        try:
            return ACCELERATOR.sorted_dumps(value, _decimal_fragment)
        except TypeError:
            pass
    return _jcs_pure(value)


def content_id(data: bytes) -> str:
    """The name of these bytes: `"sha256:" + hex(SHA-256(data))`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def number_text(value: float) -> str:
    """A finite double as ECMAScript spells it (ECMA-262 §6.1.6.1.20, RFC 8785 §3.2.2.3).

    Python's repr finds the same shortest digits; only where the point and the exponent go
    differs. The letters n and k are those of the standard.
    """
    text = repr(value)
    if "e" not in text:
        return "0" if value == 0 else text.removesuffix(".0")
    mantissa, exponent = text.split("e")
    sign = "-" if value < 0 else ""
    digits = mantissa.lstrip("-").replace(".", "")
    k, n = len(digits), int(exponent) + 1
    if k <= n <= 21:
        return sign + digits + "0" * (n - k)
    if -6 < n <= 0:
        return sign + "0." + "0" * -n + digits
    fraction = "." + digits[1:] if k > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{n - 1:+d}"


# --- RFC 8785 -------------------------------------------------------------------------------


def _jcs(value: Json) -> bytes:
    """The fast writer where it is known to be exact, the pure one for all else and all errors."""
    return simple_bytes(value) if _is_plain(value) else _jcs_pure(value)


def _decimal_fragment(foreign: object) -> object:
    """What orjson calls for a value that it does not know."""
    if ACCELERATOR is None or type(foreign) is not Decimal:
        raise TypeError
    return ACCELERATOR.fragment(_decimal_text(foreign))


_LEAVES = frozenset({str, int, bool, type(None), Decimal})


def _is_plain(value: Json) -> bool:
    """Whether orjson writes JCS for this value, or else refuses.

    It does but for floats, which it spells in its own way, and for names beyond the Basic
    Multilingual Plane: only there does the order of UTF-16 code units differ from that of code
    points, which is the order of UTF-8 bytes.
    """
    found: list[Json] = [value]
    for container in found:  # grows as it is walked, so that no nesting can exhaust the stack
        if type(container) is dict:
            try:
                names = "".join(container)
            except TypeError:
                return False
            if not names.isascii() and max(names) > "\uffff":
                return False
            members = container.values()
        elif type(container) is list:
            members = container
        else:
            return type(container) in _LEAVES
        for member in members:
            kind = type(member)
            if kind is str or kind in _LEAVES:
                continue
            if kind is not dict and kind is not list:
                return False
            found.append(member)
    return True


def _jcs_pure(value: Json) -> bytes:
    out: list[str] = []
    path: list[str | int] = []
    try:
        _write(value, out, path)
    except RecursionError:  # the caller's own stack was deep already
        _refuse_depth(path)
    return "".join(out).encode("utf-8")


def _write(value: object, out: list[str], path: list[str | int]) -> None:
    if value is None:
        out.append("null")
    elif isinstance(value, str):
        out.append(_string_text(value, path))
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    elif isinstance(value, int):
        out.append(_integer_text(value, path))
    elif isinstance(value, float):
        if not math.isfinite(value):
            _refuse("not_finite", "NaN and infinities are not JSON.", path)
        out.append(number_text(value))
    elif isinstance(value, Decimal):
        try:
            out.append(_decimal_text(value))
        except _NotExact:
            _refuse("number_not_exact", "No double equals this Decimal; use a string.", path)
    elif len(path) >= _MAX_DEPTH and isinstance(value, list | dict):
        _refuse_depth(path)
    elif isinstance(value, list):
        _write_array(cast("list[object]", value), out, path)
    elif isinstance(value, dict):
        _write_object(cast("dict[object, object]", value), out, path)
    else:
        _refuse("not_json", f"A {type(value).__name__} is not JSON.", path)


def _write_array(items: list[object], out: list[str], path: list[str | int]) -> None:
    before = "["
    for index, item in enumerate(items):
        out.append(before)
        path.append(index)
        _write(item, out, path)
        path.pop()
        before = ","
    out.append("]" if items else "[]")


def _write_object(members: Mapping[object, object], out: list[str], path: list[str | int]) -> None:
    names: list[str] = []
    for name in members:
        if not isinstance(name, str):
            _refuse("not_json", f"A {type(name).__name__} is not a member name.", path)
        names.append(name)
    before = "{"
    for name in sorted(names, key=_utf16_code_units):
        path.append(name)
        out.append(f"{before}{_string_text(name, path)}:")
        _write(members[name], out, path)
        path.pop()
        before = ","
    out.append("}" if names else "{}")


def _utf16_code_units(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def _string_text(text: str, path: list[str | int]) -> str:
    """RFC 8785 §3.2.2.2; the standard library's escapes are exactly these."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            _refuse("lone_surrogate", "A lone surrogate is not a character.", path)
    return encode_basestring(text)


def _integer_text(value: int, path: list[str | int]) -> str:
    if not -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
        _refuse("integer_out_of_range", "Integers beyond ±(2^53−1) have no canonical form.", path)
    return int.__repr__(value)  # also for subclasses, whose own repr may be anything


class _NotExact(TypeError):
    """No double equals the Decimal. A TypeError, as orjson expects of its default hook."""


def _decimal_text(value: Decimal) -> str:
    if not value.is_finite():
        raise _NotExact
    double = float(value)
    if math.isinf(double) or Decimal(repr(double)) != value:
        raise _NotExact
    return number_text(double)


def _refuse_depth(path: list[str | int]) -> NoReturn:
    _refuse("too_deep", f"Nested deeper than {_MAX_DEPTH} levels.", path)


def _refuse(code: str, detail: str, path: list[str | int]) -> NoReturn:
    raise CanonicalError(detail, code=code, pointer=pointer(*path))


# --- the other profiles ---------------------------------------------------------------------


def _nfc(value: Json, path: list[str | int], changed: list[str]) -> Json:
    """`value` in NFC. Depth and types are known to be good: it has just been canonicalised."""
    if isinstance(value, str):
        text = _nfc_text(value, path)
        if text != value:
            _remember(changed, path)
        return text
    if isinstance(value, list):
        items: list[Json] = []
        for index, item in enumerate(value):
            path.append(index)
            items.append(_nfc(item, path, changed))
            path.pop()
        return items
    if isinstance(value, dict):
        members: dict[str, Json] = {}
        for name, member in value.items():
            path.append(name)
            path[-1] = normal = _nfc_text(name, path)
            if normal in members:
                _refuse("nfc_key_collision", "Two names are equal in NFC.", path)
            if normal != name:
                _remember(changed, path)
            members[normal] = _nfc(member, path, changed)
            path.pop()
        return members
    return value


def _remember(changed: list[str], path: list[str | int]) -> None:
    """Note a place, but never more than a receipt can carry.

    A hostile payload has 100,000 such places below a name of 300 KB: 30 GB of pointers.
    """
    short = sum(len(str(token)) for token in path) <= _MAX_POINTER
    if len(changed) < _MAX_CHANGED and short:
        changed.append(pointer(*path))
    elif "" not in changed:
        changed.append("")


def _nfc_text(text: str, path: list[str | int]) -> str:
    if text.isascii():
        return text
    if len(text) > _MAX_COMBINING_MARKS and _COMBINING_RUN in _combining_marks(text):
        _refuse(
            "too_many_combining_marks",
            f"More than {_MAX_COMBINING_MARKS} combining marks in a row (UAX #15 §13).",
            path,
        )
    return unicodedata.normalize("NFC", text)


_COMBINING_RUN = b"\x01" * (_MAX_COMBINING_MARKS + 1)
_MARK_OR_NOT = b"\x00" + b"\x01" * 255
# The three characters that are no marks themselves but decompose into nothing but marks.
_INTO_MARKS = str.maketrans(
    {"\u0f73": "\u0f71\u0f72", "\u0f75": "\u0f71\u0f74", "\u0f81": "\u0f71\u0f80"}
)


def _combining_marks(text: str) -> bytes:
    """One byte per character: 1 for a combining mark, 0 for what begins anew."""
    classes = bytes(map(unicodedata.combining, text.translate(_INTO_MARKS)))
    return classes.translate(_MARK_OR_NOT)


def _legacy(value: Json) -> bytes:
    try:
        text = json.dumps(
            value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        )
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise CanonicalError(
            "The value has no legacy form: it holds what plain JSON cannot say.", code="not_json"
        ) from error
