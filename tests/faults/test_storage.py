"""Every write of an exchange fails twice: not persisted, and persisted but reported as failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.test_fallback import BROKEN, CALL, KEYS
from tests.api.test_forward import Forwarding, Receiver, answers_at_once, forwarding
from tests.egress.stage import Authority
from tests.inprocess import App, Reply, invoice, open_app
from tests.llm import open_model
from tests.month import steady_clock  # noqa: F401 - a fixture

from signet.app import gateway as composition
from signet.storage import idempotency
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.errors import StorageUnavailable

pytestmark = pytest.mark.anyio

Persisted = bool


@dataclass(slots=True)
class Faults:
    """Which transactions fail: those of a named function, the first `times` of them, and how."""

    function: str = ""
    times: int = 0
    persisted: Persisted = False
    seen: list[str] = field(default_factory=list)

    def arm(self, function: str, *, persisted: Persisted, times: int = 1) -> None:
        """Let the next transactions of `function` fail."""
        self.function, self.persisted, self.times = function, persisted, times


class Faulty:
    """The real database, with faults in what it reports."""

    def __init__(self, database: Database, faults: Faults) -> None:
        self._database = database
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def transact(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run it, do not run it, or run it and say that it failed."""
        faults = self._faults
        faults.seen.append(f.__name__)
        if f.__name__ != faults.function or faults.times == 0:
            return await self._database.transact(f, *args, **kwargs)
        faults.times -= 1
        if faults.persisted:
            await self._database.transact(f, *args, **kwargs)
        raise StorageUnavailable("the disk said so")


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults that every gateway opened by this test will have."""
    armed = Faults()

    @asynccontextmanager
    async def faulty(config: SqliteConfig) -> AsyncGenerator[Faulty]:
        async with open_database(config) as database:
            yield Faulty(database, armed)

    monkeypatch.setattr(composition, "open_database", faulty)
    return armed


@pytest.fixture(scope="module")
def authority() -> Authority:
    """One certificate authority for the module."""
    return Authority()


@pytest.fixture
async def gateway(
    tmp_path: Path, authority: Authority, faults: Faults
) -> AsyncIterator[Forwarding]:
    """A gateway that forwards, on a faulty database."""
    async with forwarding(tmp_path, authority) as opened:
        yield opened


async def _expire(app: App) -> None:
    """Let every lease end now, and wait until recovery has ended what it left behind."""

    async def expire(tx: Any) -> None:
        await tx.execute("UPDATE claims SET lease_until_us = 0")

    await app.gateway.database.transact(expire)
    async with asyncio.timeout(240):
        while await app.gateway.database.read_current(idempotency.owners):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _refused(reply: Reply) -> None:
    assert (reply.status, reply.code) == (503, "not_acknowledged")
    assert reply.json["retry"] == "same_key"


class TestExchange:
    """Without a forward there is one write."""

    @pytest.mark.parametrize("persisted", [False, True])
    async def test_the_commit_fails(
        self, tmp_path: Path, faults: Faults, persisted: Persisted
    ) -> None:
        """503, and the retry yields the first execution or its stored answer: one receipt."""
        async with open_app(tmp_path) as app:
            faults.arm("commit_exchanges", persisted=persisted)
            _refused(await app.exchange(invoice(trace_id="t"), key="k"))
            assert await app.stored() == int(persisted)
            reply = await app.exchange(invoice(trace_id="t"), key="k")
            assert reply.status == 200
            replayed = reply.header("X-SIGNET-Idempotency-Hit") == "1"
            assert replayed is persisted
            assert len(await app.verified("t")) == 1

    async def test_a_batch_fails_for_all_of_it(self, tmp_path: Path, faults: Faults) -> None:
        """Nobody of a lost batch is told that it is durable; everybody's retry is."""
        async with open_app(tmp_path) as app:
            faults.arm("commit_exchanges", persisted=False)
            async with asyncio.TaskGroup() as tasks:
                calls = [
                    tasks.create_task(app.exchange(invoice(trace_id="t"), key=f"k-{n}"))
                    for n in range(20)
                ]
            refused = [call.result() for call in calls if call.result().status != 200]
            assert refused
            for reply in refused:
                _refused(reply)
            for n in range(20):
                assert (await app.exchange(invoice(trace_id="t"), key=f"k-{n}")).status == 200
            assert len(await app.verified("t")) == 20


class TestForward:
    """A forward has two: the claim before it, the receipt after it."""

    async def test_the_claim_is_not_persisted(self, gateway: Forwarding, faults: Faults) -> None:
        """Nothing is sent, and the retry goes out as if nothing had been."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        faults.arm("_claim", persisted=False)
        _refused(await gateway.post(key="k"))
        assert receiver.requests == []
        assert (await gateway.post(key="k")).status == 200
        assert len(receiver.requests) == 1

    async def test_the_claim_is_persisted_but_reported_failed(
        self, gateway: Forwarding, faults: Faults
    ) -> None:
        """A claim that is not confirmed is never followed by a send, and ends as `unknown`."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        faults.arm("_claim", persisted=True)
        _refused(await gateway.post(key="k"))
        waiting = await gateway.post(key="k")
        assert (waiting.status, waiting.code) == (409, "idempotency_in_flight")
        await _expire(gateway.app)
        reply = await gateway.post(key="k")
        assert (reply.status, reply.code) == (504, "forward_outcome_unknown")
        assert receiver.requests == []
        assert await gateway.app.stored() == 1

    @pytest.mark.parametrize("persisted", [False, True])
    async def test_the_receipt_fails_once(
        self, gateway: Forwarding, faults: Faults, persisted: Persisted
    ) -> None:
        """The sender tries again; there is one receipt, no resolution, and one request."""
        receiver = Receiver()
        await gateway.stage.serve(receiver)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(gateway.post(key="k", members={"trace_id": "t"}))
            await receiver.came.wait()
            faults.arm("commit_exchanges", persisted=persisted)
            receiver.let.set()
        assert call.result().status == 200
        chain = await gateway.app.verified("t")
        assert [receipt["kind"] for receipt in chain] == ["exchange"]
        assert call.result().json["receipt"] == chain[0]
        again = await gateway.post(key="k", members={"trace_id": "t"})
        assert again.body == call.result().body
        assert len(receiver.requests) == 1

    async def test_the_receipt_never_becomes_durable(
        self, gateway: Forwarding, faults: Faults
    ) -> None:
        """503 after the send; then the key is in flight, and at last `unknown`. One request."""
        receiver = Receiver()
        await gateway.stage.serve(receiver)
        async with asyncio.TaskGroup() as tasks:
            call = tasks.create_task(gateway.post(key="k"))
            await receiver.came.wait()
            faults.arm("commit_exchanges", persisted=False, times=4)
            receiver.let.set()
        _refused(call.result())
        assert (await gateway.post(key="k")).code == "idempotency_in_flight"
        await _expire(gateway.app)
        reply = await gateway.post(key="k")
        assert (reply.status, reply.json["receipt"]["reason"]) == (504, "SENDER_DIED")
        assert len(receiver.requests) == 1
        assert await gateway.app.stored() == 1

    async def test_recovery_s_receipt_fails(self, gateway: Forwarding, faults: Faults) -> None:
        """What recovery could not write it writes after its own lease; one receipt in the end."""
        receiver = answers_at_once()
        await gateway.stage.serve(receiver)
        faults.arm("_claim", persisted=True)
        _refused(await gateway.post(key="k"))
        faults.arm("commit_exchanges", persisted=True)

        async def expire(tx: Any) -> None:
            await tx.execute("UPDATE claims SET lease_until_us = 0")

        await gateway.app.gateway.database.transact(expire)
        async with asyncio.timeout(240):
            while faults.times:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await gateway.post(key="k")).status == 504
        assert receiver.requests == []
        assert await gateway.app.stored() == 1


class TestFallback:
    """Around a call of the model there are two writes more: the hold, and what was spent."""

    @pytest.mark.usefixtures("steady_clock")
    @pytest.mark.parametrize("persisted", [False, True])
    async def test_what_was_spent_is_settled_again(
        self, tmp_path: Path, faults: Faults, persisted: Persisted
    ) -> None:
        """A call that is paid for is not lost because its tokens could not be written at once."""
        async with open_model() as model:
            model.say = lambda _call: BROKEN[:-1] + "}"
            environ = {"SP_OPENAI_BASE_URL": model.url, "SP_OPENAI_API_KEY": "sk-loopback"}
            async with open_app(tmp_path, keys=KEYS, **environ) as app:
                faults.arm("_settle", persisted=persisted, times=2)
                reply = await app.exchange(CALL, api_key="k")
                assert (reply.status, faults.times) == (200, 0)
                quota = (await app.get("/v1/usage", api_key="k")).json["fu"]["quota"]
            assert model.calls == 1
            spent = reply.json["receipt"]["fu_tokens"]
            assert (quota["used"], quota["reserved"]) == (spent, 0)
