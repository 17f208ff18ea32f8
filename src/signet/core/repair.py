"""Make broken argument text exact, or refuse it; never something else.

Only punctuation, quoting, wrappers and literals are changed. Every number and every string comes
through as it stood, so a reader of the repaired text reads what the writer of the original meant.
Where two mendings would give two values, the text is refused.

Strict JSON comes back unchanged, with two exceptions that have names: a `schema` may ask for a
coercion, and a text that is nothing but a JSON string holding a JSON object or array was encoded
twice (arguments are never a lone string) and is decoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from signet.core.expected import Expected
from signet.core.tolerant import (
    LITERALS,
    QUOTES,
    Edit,
    EditKind,
    Reader,
    Refusal,
    apply,
    content_of,
    decodes,
)
from signet.core.wrappers import Shape, around, candidate
from signet.receipts.canonical import Json, canonicalize, parse
from signet.receipts.errors import ParseError, ReceiptError

Grade = Literal["lossless", "coercion", "structural"]
MAX_BYTES = 4 * 1024 * 1024

_STRUCTURAL: frozenset[EditKind] = frozenset(
    {"prose", "call", "decoded", "brackets", "duplicate_name"}
)
_ESCAPED_START = re.compile(r"[\[{](?:\s|\\[nrt])*+\\[\"']")
_MAX_LAYERS = 4  # of JSON strings inside JSON strings
_MAX_POINTER = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """Strict JSON text, its value, and what it took to get there (nothing, when it was strict)."""

    text: str
    value: Json
    edits: tuple[Edit, ...] = ()

    @property
    def grade(self) -> Grade:
        """The furthest that any edit went: spelling, the schema's types, what stands around."""
        kinds = {edit.kind for edit in self.edits}
        if kinds & _STRUCTURAL:
            return "structural"
        return "coercion" if "coercion" in kinds else "lossless"

    def listing(self, limit: int = 32) -> list[Json]:
        """The edits as a receipt keeps them: kind, offset, pointer; a count of those left out."""
        listed: list[Json] = [
            {"kind": edit.kind, "offset": edit.offset, "pointer": edit.pointer[:_MAX_POINTER]}
            for edit in self.edits[:limit]
        ]
        if len(self.edits) > limit:
            listed.append({"kind": "more", "count": len(self.edits) - limit})
        return listed


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrepairable:
    """Why the text was refused. `code` is stable, `offset` counts characters of the original."""

    code: str
    offset: int
    detail: str


RepairResult: TypeAlias = Repaired | Unrepairable


def repair(text: str, *, schema: Json | None = None, max_bytes: int = MAX_BYTES) -> RepairResult:
    """Repair `text`; a `schema` (JSON Schema) may ask for a coercion, and never gets another.

    Linear in the length of `text`; nothing is raised whatever the text is.
    """
    if len(text) > max_bytes:
        return Unrepairable(code="too_large", offset=0, detail=f"more than {max_bytes} bytes")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        return Unrepairable(code="not_unicode", offset=error.start, detail="a lone surrogate")
    if size > max_bytes:
        return Unrepairable(code="too_large", offset=0, detail=f"more than {max_bytes} bytes")
    try:
        return _repaired(text, Expected.at_root(schema), _MAX_LAYERS)
    except Refusal as refusal:
        return Unrepairable(code=refusal.code, offset=refusal.offset, detail=refusal.detail)


def _repaired(text: str, expected: Expected, layers: int) -> Repaired:
    if not text.strip():
        raise Refusal("empty", 0, "there is no text")
    try:
        value = parse(text)
    except ParseError as error:
        if error.code == "too_deep":
            raise Refusal("too_deep", 0, error.detail) from None
    else:
        if isinstance(value, str):
            return _of_string(text, value, expected, layers)
        if not expected.branches or not isinstance(value, dict | list):
            return Repaired(text=text, value=value)
    return _of_broken(text, expected, layers)


def _of_string(text: str, content: str, expected: Expected, layers: int) -> Repaired:
    """A whole text that is one JSON string: encoded twice, or just a string."""
    asked = expected.types
    if layers and (asked is None or "string" not in asked):
        inner = content.strip()
        if decodes(inner) is not None or (asked is not None and inner[:1] in ("{", "[")):
            return _decoded(text, 0, len(text), inner, expected, layers)
        if inner[:1] == '"' and _innermost_is_container(inner):
            return _decoded(text, 0, len(text), inner, expected, layers)
    return Repaired(text=text, value=content)


def _innermost_is_container(inner: str) -> bool:
    for _ in range(_MAX_LAYERS):
        try:
            value = parse(inner)
        except ReceiptError:
            return False
        if not isinstance(value, str):
            return isinstance(value, dict | list)
        inner = value.strip()
    return False


def _of_broken(text: str, expected: Expected, layers: int) -> Repaired:
    found = candidate(text)
    if found is None:
        return _of_scalar(text, expected)
    if _ESCAPED_START.match(text, found.start()):
        return _of_escaped(text, found.start(), expected, layers)
    reader = Reader(text)
    start = found.start()
    shape: Shape = "object" if text[start] == "{" else "array"
    if found.group().endswith("("):
        shape = "call"
        end = reader.read_call(found, expected)
    else:
        end = reader.read_container(start, expected)
    head, foot, quoted = around(text, start, end, shape)
    if quoted and "\\" in text[start:end]:
        _refuse_two_readings(text, start, end, apply(text, reader.edits, start, end), expected)
    edits = head + reader.edits + foot
    return _strict(apply(text, edits), tuple(edits), start)


def _of_scalar(text: str, expected: Expected) -> Repaired:
    """A lone string in other quotation marks, or a lone literal of another language."""
    start = len(text) - len(text.lstrip())
    stripped = text.strip()
    if stripped[0] not in QUOTES and stripped not in LITERALS:
        raise Refusal("no_value", start, "there is no object and no array")
    reader = Reader(text)
    end = reader.read_scalar(start, expected)
    if text[end:].strip():
        raise Refusal("no_value", end, "there is more than a lone scalar, and no object")
    return _strict(apply(text, reader.edits), tuple(reader.edits), start)


def _of_escaped(text: str, start: int, expected: Expected, layers: int) -> Repaired:
    """`{\\"a\\": 1}`: the inside of a JSON string, with or without its quotation marks."""
    end = max(text.rfind("}"), text.rfind("]")) + 1
    if not layers or end <= start:
        raise Refusal("invalid_escape", start, "an escape stands where a name is due")
    head, foot, _ = around(text, start, end, "object" if text[start] == "{" else "array")
    content = _unescaped(text[start:end], '"', start)
    inner = _decoded(text, start, end, content, expected, layers)
    return Repaired(text=inner.text, value=inner.value, edits=(*head, *inner.edits, *foot))


def _unescaped(region: str, mark: str, offset: int) -> str:
    """`region` as the inside of a string between two of `mark`."""
    literal = f"{mark}{region}{mark}"
    try:
        end, strict = Reader(literal).string(0)
    except Refusal as refusal:
        raise Refusal(refusal.code, offset, refusal.detail) from None
    if end != len(literal):
        raise Refusal("ambiguous_quotes", offset, "only some quotation marks are escaped")
    return content_of(strict if strict is not None else literal)


def _decoded(
    text: str, start: int, end: int, content: str, expected: Expected, layers: int
) -> Repaired:
    """The repair of `content`, which `text[start:end]` holds encoded; nothing may surround it."""
    try:
        inner = _repaired(content, expected, layers - 1)
    except Refusal as refusal:
        raise Refusal(refusal.code, start, refusal.detail) from None
    if any(edit.kind in ("prose", "call") for edit in inner.edits):
        raise Refusal("unclear_wrapper", start, "there is more than JSON inside the string")
    length = end - start
    decoding = Edit(kind="decoded", offset=start, length=length, replacement=inner.text)
    moved = tuple(
        Edit(
            kind=edit.kind,
            offset=start,
            length=length,
            replacement=edit.replacement,
            place=edit.place,
        )
        for edit in inner.edits
    )
    return Repaired(text=inner.text, value=inner.value, edits=(decoding, *moved))


def _refuse_two_readings(text: str, start: int, end: int, plain: str, expected: Expected) -> None:
    """Refuse when the escapes inside quotation marks mean one thing to JSON and another to them.

    `'{"a": "x\\\\ny"}'` is a backslash to a shell and a line break to Python.
    """
    try:
        content = _unescaped(text[start:end], "'", start)
        other = _repaired(content, expected, 0)
    except Refusal:
        return
    try:
        same = canonicalize(other.value) == canonicalize(parse(plain))
    except ReceiptError:
        same = False
    if not same:
        raise Refusal("ambiguous_quotes", start, "the escapes can be read in two ways")


def _strict(text: str, edits: tuple[Edit, ...], offset: int) -> Repaired:
    """The last word has the strict parser: what it does not read exactly is refused."""
    try:
        return Repaired(text=text, value=parse(text), edits=edits)
    except ParseError as error:
        raise Refusal(error.code, offset, error.detail) from None
