"""Mappings: from one type's document to another's.

Two forms. `{"fields": {target path: source}}` is compiled once to closures and runs here.
`{"jsonata": "<expression>"}` is hostile code as far as we know, so this module only holds its
text; `signet.providers.jsonata` runs it in a process that can be killed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from signet.core.errors import Fault, SignetError
from signet.receipts.canonical import Json


class MappingInvalid(SignetError):
    """The mapping document itself cannot be used; `faults` say where and why."""

    code = "mapping_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """The target document."""

    value: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingFailed:
    """The source did not hold what the mapping needs. Pointers lead into the source."""

    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The declarative form, compiled."""

    def apply(self, source: Json) -> Mapped | MappingFailed:
        """Build the target document from `source` (parsed strictly: int and Decimal, no float)."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONata:
    """A JSONata expression: run it in the worker, then hand its answer to `Mapping.accept`."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """A named, immutable mapping. Match on `body`: `Fields` runs at once, `JSONata` in the worker."""

    name: str
    source_type: str
    target_type: str
    cid: str
    body: Fields | JSONata
    document: Json = field(repr=False)

    @classmethod
    def compile(cls, name: str, source_type: str, target_type: str, document: Json) -> Mapping:
        """Compile a parsed mapping document. Raises `MappingInvalid`."""
        raise NotImplementedError
