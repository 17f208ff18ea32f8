"""A gateway that dies while a model is asked: the tokens count, and nothing is asked again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from tests.live import Live, Reply, live, until
from tests.llm import open_model
from tests.month import steady_months

pytestmark = pytest.mark.anyio

KEYS = {"k": {"tenant": "acme", "fallback_enabled": True, "fu_monthly_limit": 10_000}}
BROKEN = '{"invoice_id":"INV-1","amount":123.45,"currency":"USD","customer_name":"Acme"]'
CALL = {
    "payload_type": "openai.tooluse.invoice.v1",
    "target_type": "invoice.iso20022.v1",
    "payload": {
        "tool_calls": [
            {"type": "function", "function": {"name": "create_invoice", "arguments": BROKEN}}
        ]
    },
}


async def test_killed_while_the_model_is_asked(tmp_path: Path) -> None:
    """The hold counts in full, the exchange ends as `unknown`, and its key asks nobody again."""
    async with open_model() as model:
        model.gate.clear()
        settings = {
            "SP_API_KEYS": json.dumps(KEYS),
            "SP_OPENAI_BASE_URL": model.url,
            "SP_OPENAI_API_KEY": "sk-loopback",
            **steady_months(tmp_path, "acme"),
        }

        def ask(gateway: Live) -> tuple[int, dict[str, object]]:
            reply = gateway.exchange(CALL, key="once", api_key="k")
            return reply.status, reply.json

        with live(tmp_path, **settings) as first:
            async with asyncio.TaskGroup() as tasks:
                asking = tasks.create_task(asyncio.to_thread(_lost, first))
                await model.asked.wait()
                first.process.kill()
                assert await asking
        with live(tmp_path, **settings) as second:
            status, problem = await asyncio.to_thread(_ended, second)
            assert (status, problem["code"]) == (504, "fallback_interrupted")
            receipt = problem["receipt"]
            assert isinstance(receipt, dict)
            assert (receipt["outcome"], receipt["fu_tokens"]) == ("unknown", 0)
            again, _ = await asyncio.to_thread(ask, second)
            assert again == 504
            fu = (await asyncio.to_thread(second.get, "/v1/usage", api_key="k")).json["fu"]
        assert model.calls == 1
        assert fu["units"] == 0
        assert fu["quota"]["reserved"] == 0
        assert fu["quota"]["used"] > 75


def _lost(gateway: Live) -> bool:
    """Send the call; whether the connection broke before it was answered."""
    try:
        gateway.exchange(CALL, key="once", api_key="k")
    except OSError:
        return True
    return False


def _ended(gateway: Live) -> tuple[int, dict[str, object]]:
    """Send the call until recovery has ended it."""
    replies: list[Reply] = []

    def ended() -> bool:
        replies.append(gateway.exchange(CALL, key="once", api_key="k"))
        return replies[-1].status != 409

    until(ended)
    return replies[-1].status, replies[-1].json
