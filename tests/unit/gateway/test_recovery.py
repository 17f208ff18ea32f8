"""Ending what a dead sender began, on a real database with a sender that is told what to answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.inprocess import key_at, signing_key
from tests.unit.gateway.calls import sheet

from signet.api.answers import render
from signet.app import webhook_key
from signet.core.exchange import PolicyVerdict
from signet.core.ids import KeyHash, TenantId
from signet.core.tenant import Tenant
from signet.egress import NotSent, NotSentCode, Outcome, Policy, Responded, Target
from signet.gateway.claims import Claims, Step
from signet.gateway.policies import Policies
from signet.gateway.recovery import Recovery
from signet.gateway.sealing import Sealer
from signet.storage import idempotency, quota
from signet.storage.committer import open_committer
from signet.storage.database import Database, SqliteConfig, open_database
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

URL = "https://api.example.com/hook"
RESPONDED = Responded(
    status=201,
    host="api.example.com",
    pinned_ip="93.184.215.14",
    response_size=2,
    response_hash="sha256:" + "4" * 64,
)
NOT_SENT = NotSent(code=NotSentCode.CONNECT_FAILED, host="api.example.com")
HEADERS = {
    "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    "webhook-id": "msg_1",
    "X-SIGNET-Prev-Receipt": "sha256:" + "3" * 64,
}


@dataclass
class Upstream:
    """A sender that keeps what it was asked to send."""

    outcome: Outcome = RESPONDED
    sent: list[tuple[Target, bytes, dict[str, str]]] = field(default_factory=list)

    async def send(
        self,
        target: Target,
        body: bytes,
        headers: Mapping[str, str],
        policy: Policy | None,
        *,
        deadline_s: float | None = None,
        before_first_byte: Callable[[], bool] | None = None,
        keep_body: bool = False,
    ) -> Outcome:
        """Answer as told."""
        self.sent.append((target, body, dict(headers)))
        return self.outcome


@dataclass
class Scene:
    """A database with claims of a process that is dead."""

    database: Database
    recovery: Recovery
    upstream: Upstream

    async def claimed(
        self, number: int = 0, *, idempotent: bool = False, url: str | None = URL
    ) -> None:
        """Leave a claim behind."""
        made = sheet({"sku": "A"}, key_hash=KeyHash(bytes([number]) * 32))
        made.normalized = b'{"sku":"A"}'
        made.policy = PolicyVerdict(allowed=True, reason="ok", policy_hash="sha256:" + "1" * 64)
        step = Step(spends_key=url is not None, url=url, headers=HEADERS, idempotent=idempotent)
        claims = Claims(owner="dead", lease_us=60_000_000)
        await self.database.transact(claims.take, made, step)

    async def receipts(self) -> list[dict[str, Any]]:
        """All receipts, in order."""

        async def read(tx: Any) -> list[bytes]:
            return await tx.all(bytes, "SELECT canonical FROM receipts ORDER BY id")

        return [json.loads(text) for text in await self.database.read_current(read)]


@asynccontextmanager
async def scene(
    directory: Path, *destinations: str | Mapping[str, object], outcome: Outcome = RESPONDED
) -> AsyncIterator[Scene]:
    """Set a scene whose egress policy allows `destinations`."""
    sealer = Sealer(
        issuer="i",
        key_at=key_at,
        render=render,
        clock=lambda: 1_000_000,
        dice=lambda count: b"\0" * count,
        zone_of=lambda _tenant: "UTC",
    )
    upstream = Upstream(outcome)
    async with (
        open_database(SqliteConfig(path=directory / "signet.db")) as database,
        open_committer(database, sealer) as committer,
    ):
        recovery = Recovery(
            database=database,
            committer=committer,
            sender=upstream,
            policies=Policies(Policy.parse(destinations), dict[TenantId, Tenant]),
            owner="me",
            lease_us=60_000_000,
            metrics=Metrics(),
            clock=lambda: 2_000_000_000_000_000,
            is_dead=lambda owner: owner == "dead",
            deadline_s=1.0,
            webhook_keys_at=lambda _time_us: [webhook_key(signing_key())],
        )
        yield Scene(database, recovery, upstream)


async def test_what_cannot_be_known_is_said(tmp_path: Path) -> None:
    """The one receipt is `unknown`, nothing is sent, and the key is answered from then on."""
    async with scene(tmp_path, "api.example.com") as it:
        await it.claimed()
        assert await it.recovery.run_once() == 1
        (receipt,) = await it.receipts()
        assert (receipt["kind"], receipt["outcome"]) == ("exchange", "unknown")
        assert receipt["reason"] == "SENDER_DIED"
        assert receipt["vex_units"] == 0
        assert receipt["policy"]["allowed"] is True
        assert it.upstream.sent == []
        assert await it.recovery.run_once() == 0


async def test_an_interrupted_fallback_forwarded_nothing(tmp_path: Path) -> None:
    """A claim without a URL was for the model: the receipt says so."""
    async with scene(tmp_path) as it:
        await it.claimed(url=None)
        await it.recovery.run_once()
        (receipt,) = await it.receipts()
        assert (receipt["outcome"], receipt["reason"]) == ("unknown", "fallback_interrupted")


async def test_an_idempotent_destination_is_asked_again(tmp_path: Path) -> None:
    """With the same key and id, a fresh time and signature, and the receipt tells what it said."""
    async with scene(tmp_path, {"host": "api.example.com", "idempotent": True}) as it:
        await it.claimed(idempotent=True)
        await it.recovery.run_once()
        (receipt,) = await it.receipts()
        assert receipt["outcome"] == "allowed"
        assert receipt["vex_units"] == 1
        assert receipt["forwarded"]["attempt"] == 2
        assert receipt["forwarded"]["status_code"] == 201
        ((target, body, headers),) = it.upstream.sent
        assert target.host == "api.example.com"
        assert body == b'{"sku":"A"}'
        assert headers["Idempotency-Key"] == "00" * 32
        assert headers["webhook-id"] == "msg_1"
        assert headers["webhook-timestamp"] == "2000000000"
        assert headers["traceparent"] == HEADERS["traceparent"]
        assert headers["X-SIGNET-Prev-Receipt"] == HEADERS["X-SIGNET-Prev-Receipt"]


@pytest.mark.parametrize(
    "destinations",
    [(), ("api.example.com",), ({"host": "api.example.com", "idempotent": False},)],
    ids=["removed", "plain", "taken back"],
)
async def test_only_what_is_still_promised_is_sent_again(
    tmp_path: Path, destinations: tuple[str | Mapping[str, object], ...]
) -> None:
    """A destination that is gone or no longer idempotent gets nothing more."""
    async with scene(tmp_path, *destinations) as it:
        await it.claimed(idempotent=True)
        await it.recovery.run_once()
        (receipt,) = await it.receipts()
        assert receipt["outcome"] == "unknown"
        assert it.upstream.sent == []


async def test_a_second_try_that_fails_knows_no_more(tmp_path: Path) -> None:
    """That the second did not leave says nothing about the first."""
    destination = {"host": "api.example.com", "idempotent": True}
    async with scene(tmp_path, destination, outcome=NOT_SENT) as it:
        await it.claimed(idempotent=True)
        await it.recovery.run_once()
        (receipt,) = await it.receipts()
        assert (receipt["outcome"], receipt["reason"]) == ("unknown", "SENDER_DIED")


async def test_one_that_cannot_be_ended_does_not_stop_the_others(tmp_path: Path) -> None:
    """A spoiled intent raises in the end; its neighbours have their receipts by then."""
    async with scene(tmp_path, "api.example.com") as it:
        for number in range(3):
            await it.claimed(number)

        async def spoil(tx: Any) -> None:
            await tx.execute(
                "UPDATE claims SET intent = :spoiled WHERE key_hash = :key_hash",
                spoiled=b"{}",
                key_hash=bytes([1]) * 32,
            )

        await it.database.transact(spoil)
        with pytest.raises(KeyError):
            await it.recovery.run_once()
        assert len(await it.receipts()) == 2
        assert await it.database.read_current(idempotency.owners) == ["me"]


async def test_a_living_sender_keeps_its_claim(tmp_path: Path) -> None:
    """Neither a lease in force nor an owner of whom nothing is known is taken."""
    async with scene(tmp_path) as it:
        made = sheet({"sku": "A"})
        claims = Claims(owner="alive", lease_us=60_000_000)
        await it.database.transact(claims.take, made, Step(spends_key=True, url=URL))
        assert await it.recovery.run_once() == 0
        assert await it.receipts() == []


async def test_a_lease_that_ended_is_taken(tmp_path: Path) -> None:
    """Whoever the owner is."""
    async with scene(tmp_path) as it:
        made = sheet({"sku": "A"})
        claims = Claims(owner="alive", lease_us=0)
        await it.database.transact(claims.take, made, Step(spends_key=True, url=URL))
        assert await it.recovery.run_once() == 1


async def test_holds_left_behind_count_in_full(tmp_path: Path) -> None:
    """Tokens of a call that may have been made are spent."""
    async with scene(tmp_path) as it:
        await it.database.transact(
            quota.hold,
            hold_id="h",
            tenant="acme",
            period="2026-11",
            tokens=70,
            limit=100,
            ttl_us=0,
        )
        assert await it.recovery.settle_holds() == 1
        standing = await it.database.read_current(quota.standing, "acme", "2026-11")
        assert (standing.used, standing.reserved) == (70, 0)
        assert await it.recovery.settle_holds() == 0
