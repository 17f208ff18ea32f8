"""Make broken argument text exact, or refuse it; never something else.

Only punctuation, quoting, wrappers and literals are changed. Every number and every string comes
through as it stood, so a reader of the repaired text reads what the writer of the original meant.
Where two mendings would give two values, the text is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from signet.receipts.canonical import Json

Grade = Literal["lossless", "coercion", "structural"]
MAX_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change: `length` characters of the original at `offset` became `replacement`.

    `pointer` (RFC 6901) is the place in the result, "" for what lies around it.
    """

    kind: str
    offset: int
    length: int
    replacement: str
    pointer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """Strict JSON text, its value, and what it took to get there (nothing, when it was strict)."""

    text: str
    value: Json
    edits: tuple[Edit, ...]
    grade: Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Unrepairable:
    """Why the text was refused. `code` is stable, `offset` counts characters of the original."""

    code: str
    offset: int
    detail: str


RepairResult: TypeAlias = Repaired | Unrepairable


def repair(text: str, *, schema: Json | None = None, max_bytes: int = MAX_BYTES) -> RepairResult:
    """Repair `text`; a `schema` (JSON Schema) may ask for a coercion, and never gets another."""
    raise NotImplementedError
