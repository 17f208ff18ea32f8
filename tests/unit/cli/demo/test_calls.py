"""The demo's tool calls are what those clients emit: the built-in types accept them."""

from __future__ import annotations

import pytest

from signet.app import base_registry
from signet.cli.demo import calls
from signet.core.registry import Route
from signet.receipts.canonical import canonicalize, parse

REGISTRY = base_registry(None)


@pytest.mark.parametrize(
    ("type_name", "payload"),
    [
        ("openai.tool_call.v1", calls.openai("create_invoice", calls.INVOICE)),
        ("anthropic.tool_use.v1", calls.anthropic("place_order", calls.ORDER)),
        ("mcp.tool_call.v1", calls.mcp("place_order", calls.ORDER)),
        ("openai.tooluse.invoice.v1", calls.openai_answer("create_invoice", calls.INVOICE)),
    ],
)
def test_accepted(type_name: str, payload: calls.Document) -> None:
    """Each form fits the schema of its type."""
    route = REGISTRY.lookup(type_name, type_name)
    assert isinstance(route, Route)
    assert route.schema_in.faults(parse(canonicalize(payload))) == ()  # pyright: ignore[reportArgumentType]
