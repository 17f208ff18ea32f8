"""Reading the JSON texts inside a payload: strictly; else repaired within their meaning; else not.

A repair may come from our own rules or from a model. Whoever made it, its result is held against
the same invariants, and the receipt tells what was changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from signet.core.errors import Fault
from signet.core.invariants import violations
from signet.core.repair import Grade, Repaired, Unrepairable, repair
from signet.core.toolcalls import EmbeddedText
from signet.core.values import value_class
from signet.receipts.canonical import MAX_DEPTH, Json, normalize, parse_ascii
from signet.receipts.errors import ReceiptError

_MAX_LISTED: Final = 32  # a hostile payload has thousands, and a receipt stays small
_GRADES: Final[Sequence[Grade]] = ("lossless", "coercion", "structural")


@value_class
class Read:
    """A text that has a value. `repaired` says what had to be changed for that, if anything."""

    embedded: EmbeddedText
    value: Json
    repaired: Repaired | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A text that has no value we may know. `fault` says why, at its place in the payload."""

    embedded: EmbeddedText
    fault: Fault


def read_text(embedded: EmbeddedText, *, max_depth: int, nfc: bool) -> Read | Broken:
    """Read one text, repairing it where that needs no guess.

    Text that is strict JSON stays as it is, unless its schema asks for another type of the very
    same value ("12" for 12).
    """

    def strict(text: str) -> Json:
        value, is_normal = parse_normal(text, max_depth=max_depth)
        return normalize(value).value if nfc and not is_normal else value

    schema = embedded.schema
    read: Read | None = None
    fault: Fault | None = None
    try:
        read = Read(embedded=embedded, value=strict(embedded.text))
        if schema is None or not schema.faults(read.value, limit=1):
            return read
    except ReceiptError as error:
        fault = _fault(embedded, error)
    mended = repair(embedded.text, schema=None if schema is None else schema.document)
    if isinstance(mended, Unrepairable):
        if read is not None:
            return read
        assert fault is not None, "a text is read or it is not"
        detail = f"{fault.detail}; at character {mended.offset}: {mended.detail}"
        return Broken(embedded=embedded, fault=replace(fault, code=mended.code, detail=detail))
    try:
        value = strict(mended.text)
    except ReceiptError as error:
        return Broken(embedded=embedded, fault=_fault(embedded, error))
    changed = held_against(embedded, mended.text)
    if changed:
        return Broken(embedded=embedded, fault=changed[0])
    return Read(embedded=embedded, value=value, repaired=mended if mended.edits else None)


def parse_normal(text: bytes | str, *, max_depth: int) -> tuple[Json, bool]:
    """As `parse`, and whether the value is sure to be in NFC and to have a canonical form.

    It is where all its characters are ASCII and nothing is nested deeper than canonical JSON may
    be. Of any other, `normalize` has to find out.
    """
    value, is_ascii = parse_ascii(text, max_depth=max_depth)
    return value, is_ascii and max_depth <= MAX_DEPTH


def held_against(embedded: EmbeddedText, repaired: str) -> tuple[Fault, ...]:
    """Return what `repaired` says that the text did not, or the reverse; nothing is good."""
    schema = None if embedded.schema is None else embedded.schema.document
    return tuple(
        replace(fault, pointer=embedded.pointer + fault.pointer)
        for fault in violations(embedded.text, repaired, schema=schema)
    )


def receipted(read: Sequence[Read]) -> dict[str, Json] | None:
    """Return the `repair` member of the receipt; None where nothing was changed."""
    repaired = [(r.embedded.pointer, r.repaired) for r in read if r.repaired is not None]
    if not repaired:
        return None
    told: dict[str, Json] = {
        "method": "heuristic",
        "grade": max((mended.grade for _, mended in repaired), key=_GRADES.index),
        "texts": [
            {"pointer": pointer, "grade": mended.grade, "edits": mended.listing()}
            for pointer, mended in repaired[:_MAX_LISTED]
        ],
    }
    if len(repaired) > _MAX_LISTED:
        told["texts_not_listed"] = len(repaired) - _MAX_LISTED
    return told


def _fault(embedded: EmbeddedText, error: ReceiptError) -> Fault:
    return Fault(pointer=embedded.pointer + error.pointer, code=error.code, detail=error.detail)
