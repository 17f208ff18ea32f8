"""The metered LLM fallback through the whole gateway: one call a key, never past the quota."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.inprocess import App, open_app
from tests.llm import Model, open_model
from tests.month import steady_clock  # noqa: F401 - a fixture

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("steady_clock")]

GOOD = '{"invoice_id":"INV-1","amount":123.45,"currency":"USD","customer_name":"Acme"}'
BROKEN = GOOD[:-1] + "]"
"""Closed by the wrong bracket: our own rules do not guess, and a model sees at once."""

KEYS = {
    "with": {"tenant": "acme", "fallback_enabled": True, "fu_monthly_limit": 10_000},
    "narrow": {
        "tenant": "acme",
        "fallback_enabled": True,
        "fu_monthly_limit": 10_000,
        "key_fu_monthly_limit": 10,
    },
    "without": {"tenant": "globex"},
}


def call(arguments: str) -> dict[str, Any]:
    """The invoice exchange with these argument texts."""
    function = {"name": "create_invoice", "arguments": arguments}
    return {
        "payload_type": "openai.tooluse.invoice.v1",
        "target_type": "invoice.iso20022.v1",
        "trace_id": "t1",
        "payload": {"tool_calls": [{"type": "function", "function": function}]},
    }


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    """A loopback model that mends the text as a good one would."""
    async with open_model() as model:
        model.say = lambda _call: GOOD
        yield model


@pytest.fixture
async def app(tmp_path: Path, model: Model) -> AsyncIterator[App]:
    """A gateway that has that model."""
    async with open_app(
        tmp_path, keys=KEYS, SP_OPENAI_BASE_URL=model.url, SP_OPENAI_API_KEY="sk-loopback"
    ) as app:
        yield app


async def used(app: App) -> dict[str, Any]:
    """The tenant's fallback units, as it sees them."""
    return (await app.get("/v1/usage", api_key="with")).json["fu"]


async def test_a_mended_call_is_exact_and_its_tokens_are_counted(app: App, model: Model) -> None:
    """What the model mended is mapped, receipted with method, model and tokens, and metered."""
    reply = await app.exchange(call(BROKEN), api_key="with")
    assert reply.status == 200, reply.body
    assert reply.json["normalized"]["Document"]["Invoice"]["TotalMinor"] == 12345
    receipt = reply.json["receipt"]
    assert receipt["fu_tokens"] == 75
    assert receipt["repair"] == {
        "method": "llm",
        "pointer": "/tool_calls/0/function/arguments",
        "accepted": True,
        "fu_tokens": 75,
        "estimated": False,
        "model": "loopback-1",
    }
    app.trusted(reply)
    fu = await used(app)
    assert fu["units"] == 75
    assert (fu["quota"]["used"], fu["quota"]["reserved"]) == (75, 0)


async def test_strict_text_never_reaches_the_model(app: App, model: Model) -> None:
    """Valid arguments, and those our own rules repair, cost no token."""
    assert (await app.exchange(call(GOOD), api_key="with")).status == 200
    assert (await app.exchange(call(GOOD.replace('"', "'")), api_key="with")).status == 200
    assert model.calls == 0


@pytest.mark.parametrize(
    "said",
    [
        GOOD.replace("123.45", "123.54"),
        GOOD.replace("123.45", "-123.45"),
        GOOD.replace('"USD"', '"EUR"'),
        GOOD.replace("Acme", "Acme Inc"),
        GOOD.replace('"amount":123.45,', ""),
        GOOD[:-1] + ',"description":"added"}',
    ],
)
async def test_a_model_that_changes_the_meaning_is_refused(
    app: App, model: Model, said: str
) -> None:
    """A changed price is 422 with its place, a failed receipt, and its tokens are spent."""
    model.say = lambda _call: said
    reply = await app.exchange(call(BROKEN), api_key="with")
    assert (reply.status, reply.code) == (422, "semantic_violation")
    assert reply.json["faults"][0]["pointer"].startswith("/payload/tool_calls/0/")
    receipt = reply.json["receipt"]
    assert (receipt["outcome"], receipt["vex_units"], receipt["fu_tokens"]) == ("failed", 0, 75)
    assert receipt["repair"]["accepted"] is False
    assert (await used(app))["units"] == 75
    exposition = (await app.get("/metrics", api_key=None)).body.decode()
    assert "signet_semantic_violations_total 1.0" in exposition
    assert "signet_fallback_used_total 1.0" in exposition


async def test_a_tenant_without_the_fallback_is_told_what_is_wrong(app: App, model: Model) -> None:
    """No token is spent for a tenant that did not ask for it."""
    reply = await app.exchange(call(BROKEN), api_key="without")
    assert (reply.status, reply.code) == (422, "arguments_invalid")
    assert reply.json["faults"][0]["code"] == "unbalanced"
    assert model.calls == 0


async def test_one_key_spends_its_tokens_once(app: App, model: Model) -> None:
    """200 requests with one key and broken text: one call, one receipt; the others replay it."""
    model.gate.clear()

    async def send() -> int:
        while True:
            reply = await app.exchange(call(BROKEN), key="once", api_key="with")
            if reply.code != "idempotency_in_flight":
                return reply.status
            assert reply.header("retry-after") is not None
            await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        sent = [tasks.create_task(send()) for _ in range(200)]
        await model.asked.wait()
        model.gate.set()
    assert {task.result() for task in sent} == {200}
    assert model.calls == 1
    assert await app.stored() == 1
    assert (await used(app))["units"] == 75


async def test_a_used_up_quota_is_a_denial(app: App, model: Model) -> None:
    """429 with the time to wait, a denied receipt, final for its key, and no call."""
    reply = await app.exchange(call(BROKEN), key="q", api_key="narrow")
    assert (reply.status, reply.code) == (429, "fu_quota_exceeded")
    assert 0 < int(reply.header("retry-after") or "0") <= 31 * 86_400
    assert reply.json["receipt"]["outcome"] == "denied"
    again = await app.exchange(call(BROKEN), key="q", api_key="narrow")
    assert (again.status, again.body) == (429, reply.body)
    assert model.calls == 0
    assert (await used(app))["quota"]["reserved"] == 0


async def test_concurrent_callers_never_pass_the_limit(app: App, model: Model) -> None:
    """200 callers at a limit of 10,000: used and reserved together never exceed it."""
    highest = 0
    done = asyncio.Event()

    async def watch() -> None:
        nonlocal highest
        while not done.is_set():
            quota = (await used(app))["quota"]
            highest = max(highest, quota["used"] + quota["reserved"])
            await asyncio.sleep(0)

    model.tokens = 300
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        replies = [
            tasks.create_task(app.exchange(call(BROKEN), api_key="with")) for _ in range(200)
        ]
        await asyncio.gather(*replies)
        done.set()
    statuses = {reply.result().status for reply in replies}
    assert statuses == {200, 429}
    assert 0 < highest <= 10_000
    quota = (await used(app))["quota"]
    assert quota["reserved"] == 0
    assert quota["used"] == 300 * model.calls <= 10_000


async def test_a_model_that_cannot_be_reached_costs_nothing(tmp_path: Path) -> None:
    """The caller hears what is wrong with its text, and the hold is given back."""
    async with open_app(tmp_path, keys=KEYS, SP_OPENAI_BASE_URL="http://127.0.0.1:9/v1") as app:
        reply = await app.exchange(call(BROKEN), api_key="with")
        assert (reply.status, reply.code) == (422, "arguments_invalid")
        assert reply.json["receipt"]["fu_tokens"] == 0
        assert (await used(app))["quota"] == {
            "limit": 10_000,
            "used": 0,
            "reserved": 0,
            "left": 10_000,
        }
