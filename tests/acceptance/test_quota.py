"""Two gateways in processes of their own, one database, one tenant whose tokens are counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.test_fallback import BROKEN, CALL
from tests.faults.durability import EngineName, place
from tests.fleet import gateway, post
from tests.live import Live
from tests.llm import Model, open_model
from tests.month import steady_months

pytestmark = pytest.mark.anyio

LIMIT = 10_000
PATIENCE_S = 600.0
KEYS = {"acme-key": {"tenant": "acme", "fallback_enabled": True, "fu_monthly_limit": LIMIT}}
MENDED = BROKEN[:-1] + "}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two gateways, and the model that both ask."""

    first: Live
    second: Live
    model: Model

    async def quota(self, number: int) -> dict[str, Any]:
        """The tenant's month, as one of the two tells it."""
        of = (self.first, self.second)[number % 2]
        # A busy gateway tells nobody when it is less so.
        while (reply := await asyncio.to_thread(of.get, "/v1/usage")).status == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        return reply.json["fu"]["quota"]

    async def send(self, number: int, key: str) -> tuple[int, dict[str, Any]]:
        """One call, to one of the two; again where a busy machine had no connection for it."""
        port = (self.first, self.second)[number % 2].port
        while True:
            status, answer = await post(port, CALL, key, wait_s=PATIENCE_S)
            told = json.loads(answer)
            if told.get("code") != "overloaded":
                return status, told
            assert told["retry"] == "same_key"
            await asyncio.sleep(0.5)


@pytest.fixture(params=["sqlite", "postgres"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Pair]:
    """Both gateways at work on one database of each engine."""
    engine: EngineName = request.param
    async with open_model() as model:
        model.say = lambda _call: MENDED
        with ExitStack() as stack:
            settings = {
                **stack.enter_context(place(engine, tmp_path)).settings,
                "SP_API_KEYS": json.dumps(KEYS),
                "SP_OPENAI_BASE_URL": model.url,
                "SP_OPENAI_API_KEY": "sk-loopback",
                "SP_FALLBACK_SECONDS": "120",
                **steady_months(tmp_path, "acme"),
            }
            first, second = (
                stack.enter_context(gateway(tmp_path / name, **settings)) for name in ("a", "b")
            )
            yield Pair(first=first, second=second, model=model)


async def test_two_processes_never_pass_the_limit(pair: Pair) -> None:
    """200 callers, half at each: used and reserved together never exceed 10,000 tokens."""
    pair.model.tokens = 300
    seen: list[int] = []
    over = asyncio.Event()

    async def watch(number: int) -> None:
        while not over.is_set():
            quota = await pair.quota(number)
            seen.append(quota["used"] + quota["reserved"])

    async with asyncio.TaskGroup() as tasks:
        for number in range(2):
            tasks.create_task(watch(number))
        answers = await asyncio.gather(*(pair.send(n, f"key-{n}") for n in range(200)))
        over.set()
    assert {status for status, _ in answers} == {200, 429}
    assert {answer["code"] for status, answer in answers if status == 429} == {"fu_quota_exceeded"}
    assert 0 < max(seen) <= LIMIT
    quota = await pair.quota(0)
    assert quota == await pair.quota(1)
    assert quota["reserved"] == 0
    assert quota["used"] == 300 * pair.model.calls <= LIMIT
    assert pair.model.calls == sum(status == 200 for status, _ in answers)


async def test_a_thousand_requests_with_one_key_ask_the_model_once(pair: Pair) -> None:
    """Half at each of two processes, all at once: one call, and one answer for everybody."""
    pair.model.gate.clear()
    refused = 0
    answered: set[str] = set()

    async def send(number: int) -> None:
        nonlocal refused
        while True:
            status, answer = await pair.send(number, "once")
            if status != 409:
                break
            assert answer["code"] == "idempotency_in_flight"
            refused += 1
            if refused == 100:  # the key is held while the model thinks
                pair.model.gate.set()
            await asyncio.sleep(0.5)
        assert status == 200, answer
        answered.add(answer["receipt"]["receipt_hash"])

    async with asyncio.TaskGroup() as tasks:
        for number in range(1000):
            tasks.create_task(send(number))
    assert pair.model.calls == 1
    assert len(answered) == 1
    assert (await pair.quota(0))["used"] == 75
