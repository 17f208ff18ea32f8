"""Tool calls as OpenAI, Anthropic and MCP clients emit them.

Where the tool's name and its arguments are, and which arguments are JSON inside a string. Parsing
(and repairing) such text is the gateway's stage; this module finds it and puts the value back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from signet.core.schema import Schema
from signet.receipts.canonical import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedText:
    """JSON carried as a string: the text at `pointer`, and what its value must satisfy if known."""

    pointer: str
    text: str
    tool: str | None
    schema: Schema | None


def with_parsed(payload: Json, values: Mapping[str, Json]) -> Json:
    """A copy of `payload` in which the value at each pointer is replaced; the rest is shared."""
    raise NotImplementedError
