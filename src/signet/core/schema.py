"""JSON Schema validation: 2020-12, and draft-07 where `$schema` says so.

The engine is `jsonschema-rs`, always offline: a schema whose `$ref` leads outside itself is a
registration error and nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from signet.core.errors import Fault, SignetError
from signet.receipts.canonical import Json

FAULT_LIMIT = 20


class SchemaInvalid(SignetError):
    """The schema document itself cannot be used; `faults` say where and why."""

    code = "schema_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """A compiled, immutable schema. Compile once, validate from any thread."""

    name: str
    cid: str
    document: Json = field(repr=False)

    @classmethod
    def compile(cls, name: str, document: Json) -> Schema:
        """Compile a parsed schema document. Raises `SchemaInvalid`."""
        raise NotImplementedError

    def faults(self, value: Json, *, limit: int = FAULT_LIMIT) -> tuple[Fault, ...]:
        """What is wrong with `value`: nothing when it is valid, at most `limit` faults otherwise.

        Pointers lead into `value`; texts are short and never hold the whole payload; the order is
        the same on every run.
        """
        raise NotImplementedError
