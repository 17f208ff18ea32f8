"""The gateway's mapping runner: mappings in the worker pool, their answers read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from signet.core.errors import Fault
from signet.core.transform import Fields, JSONata, Mapped, Mapping, MappingFailed
from signet.gateway.ports import Busy, MappingStopped
from signet.providers.jsonata import (
    Crashed,
    Evaluated,
    ExpressionFailed,
    Inapplicable,
    JSONataPool,
    OutOfMemory,
    Overloaded,
    TimedOut,
)
from signet.receipts.canonical import Json, canonicalize, parse
from signet.receipts.errors import ReceiptError


@dataclass(frozen=True, slots=True, kw_only=True)
class JSONataRunner:
    """`gateway.ports.MappingRunner` over a pool of killable processes."""

    pool: JSONataPool
    timeout_s: float

    async def run(self, mapping: Mapping, source: Json) -> Mapped | MappingFailed | MappingStopped:
        """Make the document; raises `Busy` when no process was free in time."""
        text = canonicalize(source)
        match mapping.body:
            case JSONata(expression=expression):
                evaluation = await self.pool.run(expression, text, timeout_s=self.timeout_s)
            case Fields():
                document = canonicalize(mapping.document).decode()
                evaluation = await self.pool.apply(document, text, timeout_s=self.timeout_s)
        match evaluation:
            case Evaluated(value=value):
                return _read(value)
            case Inapplicable(faults=faults):
                return MappingFailed(faults=faults)
            case ExpressionFailed(message=message):
                return _failed("mapping_expression_failed", message)
            case TimedOut():
                return MappingStopped(detail=f"the mapping ran for more than {self.timeout_s:g} s")
            case OutOfMemory():
                return MappingStopped(detail="the mapping wanted more memory than it may have")
            case Crashed():
                return MappingStopped(detail="the mapping's process died")
            case Overloaded():
                raise Busy("too many mappings wait; nothing was done")
            case _:
                assert_never(evaluation)


def _read(value: bytes) -> Mapped | MappingFailed:
    try:
        return Mapped(value=parse(value))
    except ReceiptError as error:
        return _failed(error.code, f"what the mapping made is not I-JSON: {error}")


def _failed(code: str, detail: str) -> MappingFailed:
    return MappingFailed(faults=(Fault(pointer="", code=code, detail=detail),))
