"""Tool calls as OpenAI, Anthropic and MCP clients emit them."""

from __future__ import annotations

import json
from typing import Final

Document = dict[str, object]

INVOICE: Final[Document] = {
    "invoice_id": "INV-2041",
    "amount": 1234.5,
    "currency": "EUR",
    "customer_name": "Bäckerei Süß GmbH",
    "description": "October deliveries",
}

TRANSFER: Final[Document] = {
    "message_id": "PAY-2041",
    "created_at": "2026-01-15T09:30:00Z",
    "execution_date": "2026-01-16",
    "debtor": {"name": "Acme GmbH", "iban": "DE89370400440532013000", "bic": "COBADEFFXXX"},
    "creditor": {"name": "Mills & Sons", "iban": "FR1420041010050500013M02606"},
    "amount": "1250.00",
    "currency": "EUR",
    "remittance_information": "Invoice 2041",
}

ORDER: Final[Document] = {
    "order_id": "PO-77",
    "currency": "EUR",
    "deliver_on": "2026-01-20",
    "lines": [
        {"sku": "FLOUR-25", "quantity": 4, "unit_price": 19.99},
        {"sku": "YEAST-1", "quantity": 10, "unit_price": "0.85"},
    ],
}


def openai(name: str, arguments: Document | str) -> Document:
    """One element of a chat completion's `tool_calls`; the arguments are JSON text."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{name[:8]}",
        "type": "function",
        "function": {"name": name, "arguments": text},
    }


def openai_answer(name: str, arguments: Document | str) -> Document:
    """An assistant message with one tool call."""
    return {"role": "assistant", "content": None, "tool_calls": [openai(name, arguments)]}


def anthropic(name: str, arguments: Document) -> Document:
    """A `tool_use` content block of a message."""
    return {"type": "tool_use", "id": f"toolu_{name[:8]}", "name": name, "input": arguments}


def mcp(name: str, arguments: Document) -> Document:
    """A `tools/call` request of the Model Context Protocol."""
    return {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "tools/call",
        "params": {"name": name, "arguments": arguments},
    }


def envelope(payload: object, payload_type: str, target_type: str, trace_id: str) -> Document:
    """The body of `POST /v1/exchange`."""
    return {
        "payload_type": payload_type,
        "target_type": target_type,
        "payload": payload,
        "trace_id": trace_id,
    }


def invoice(arguments: Document | str, trace_id: str) -> Document:
    """An invoice call of an OpenAI client, wanted as an ISO 20022 invoice."""
    payload = openai_answer("create_invoice", arguments)
    return envelope(payload, "openai.tooluse.invoice.v1", "invoice.iso20022.v1", trace_id)
