"""What a caller with limits is told, over the real application."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse
from starlette.types import Message
from tests.inprocess import App, invoice, open_app

from signet.api.limiting import within_limits
from signet.core.tenant import read_keyring
from signet.gateway.limits import LimitDefaults, Limits
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

KEYS = {
    "free-key": {"tenant": "free"},
    "slow-key": {"tenant": "slow", "rate_per_minute": 1, "rate_burst": 2},
    "both-key": {
        "tenant": "both",
        "rate_per_minute": 600,
        "rate_burst": 100,
        "key_rate_per_minute": 1,
        "key_rate_burst": 3,
    },
    "busy-key": {"tenant": "busy", "rate_per_minute": 1, "rate_burst": 1000},
    "one-key": {"tenant": "one", "concurrency": 1},
}


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """A gateway with those keys."""
    async with open_app(tmp_path, keys=KEYS) as opened:
        yield opened


async def test_no_limit_no_header(app: App) -> None:
    """A tenant without limits is told of none."""
    reply = await app.exchange(invoice(), api_key="free-key")
    assert reply.status == 200
    assert reply.header("ratelimit") is None
    assert reply.header("ratelimit-policy") is None


async def test_a_rate_is_told_with_every_answer(app: App) -> None:
    """Good and bad answers say what is left; beyond it there is a 429 that says when to come."""
    first = await app.exchange(invoice(), api_key="slow-key")
    second = await app.exchange(b"no json", api_key="slow-key")
    third = await app.exchange(invoice(), api_key="slow-key")
    assert (first.status, second.status, third.status) == (200, 400, 429)
    for reply in (first, second, third):
        assert reply.header("ratelimit-policy") == '"tenant";q=2;w=120'
    assert first.header("ratelimit") == '"tenant";r=1;t=60'
    assert (second.header("ratelimit") or "").startswith('"tenant";r=0;t=')
    assert third.code == "rate_limited"
    assert third.json["retry"] == "same_key"
    wait_s = int(third.header("retry-after") or "")
    assert third.header("ratelimit") == f'"tenant";r=0;t={wait_s}'
    assert 1 <= wait_s <= 60
    assert "receipt" not in third.json


async def test_a_refused_request_is_never_looked_at(app: App) -> None:
    """Neither a new nor a known idempotency key is: nothing is stored, and nothing is replayed."""
    await app.exchange(invoice(), key="known", api_key="slow-key")
    await app.get("/v1/limits", api_key="slow-key")
    stored = await app.stored()
    for key in ("known", "new"):
        assert (await app.exchange(invoice(), key=key, api_key="slow-key")).code == "rate_limited"
    assert await app.stored() == stored


async def test_both_rates_are_told(app: App) -> None:
    """A key with a rate of its own sees it beside its tenant's."""
    reply = await app.get("/v1/limits", api_key="both-key")
    assert reply.header("ratelimit-policy") == '"key";q=3;w=180, "tenant";q=100;w=10'
    assert reply.header("ratelimit") == '"key";r=2;t=60, "tenant";r=99;t=1'


async def test_who_waits_for_no_look_is_told_what_is_left(app: App) -> None:
    """Of many in a row each sees less left than the one before, however it was let in."""
    told: list[int] = []
    for _ in range(30):
        reply = await app.get("/v1/limits", api_key="busy-key")
        header = reply.header("ratelimit") or ""
        told.append(int(header.removeprefix('"tenant";r=').split(";")[0]))
        assert reply.json["rates"]["tenant"]["left"] <= told[-1]
    assert told[0] == 999
    assert all(after < before for before, after in itertools.pairwise(told))


async def test_strangers_are_not_counted(app: App) -> None:
    """Who has no key takes nothing from anybody."""
    for _ in range(5):
        assert (await app.get("/v1/limits", api_key="slow-key-but-not-quite")).status == 401
    assert (await app.get("/v1/limits", api_key="slow-key")).status == 200


async def test_one_at_a_time(app: App) -> None:
    """While a tenant's one request is in progress, the next is refused; afterwards it is not."""
    body = json.dumps(invoice()).encode()
    entered, go_on = asyncio.Event(), asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        entered.set()
        await go_on.wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v1/exchange",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"x-signet-api-key", b"one-key"),
            (b"idempotency-key", b"slow"),
        ],
    }
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.asgi(scope, receive, send))
        await entered.wait()
        refused = await app.exchange(invoice(), api_key="one-key")
        go_on.set()
    assert (refused.status, refused.code) == (429, "concurrency_limited")
    assert refused.header("retry-after") == "1"
    assert sent[0]["status"] == 200
    assert (await app.exchange(invoice(), api_key="one-key")).status == 200


class Stage:
    """Limits of one tenant, and an endpoint."""

    def __init__(self) -> None:
        self.limits = Limits(
            database=None,  # type: ignore[arg-type]
            defaults=LimitDefaults(),
            metrics=Metrics(),
            log=build_logger("error"),
            monotonic=lambda: 0.0,
        )
        principal = read_keyring({"k": {"tenant": "t", "concurrency": 1}}).find(b"k")
        assert principal is not None
        self.principal = principal

    async def call(self, response: Response | Exception) -> Response:
        """Call an endpoint that answers so."""

        async def endpoint() -> Response:
            if isinstance(response, Exception):
                raise response
            return response

        return await within_limits(self.limits, self.principal, endpoint)

    @property
    def inside(self) -> int:
        """How many are in progress."""
        return self.limits.in_progress(self.principal.tenant.id)


async def test_a_place_is_kept_until_the_last_byte() -> None:
    """A long answer counts as in progress while it is sent, and no longer."""
    stage = Stage()
    seen: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(2):
            seen.append(stage.inside)
            yield b"x"

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError

    async def send(_message: Message) -> None:
        pass

    response = await stage.call(StreamingResponse(chunks()))
    assert stage.inside == 1
    await response({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)
    assert seen == [1, 1]
    assert stage.inside == 0


async def test_a_place_is_never_lost() -> None:
    """An endpoint that fails, an answer that breaks off, and one that nobody sends, all leave."""
    stage = Stage()
    with pytest.raises(RuntimeError):
        await stage.call(RuntimeError())
    assert stage.inside == 0

    async def breaks() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError

    async def send(_message: Message) -> None:
        pass

    response = await stage.call(StreamingResponse(breaks()))
    with pytest.raises(RuntimeError):
        await response({"type": "http", "asgi": {"spec_version": "2.4"}}, None, send)  # type: ignore[arg-type]
    assert stage.inside == 0
    response = await stage.call(StreamingResponse(breaks()))
    assert stage.inside == 1
    del response
    import gc

    gc.collect()
    assert stage.inside == 0
