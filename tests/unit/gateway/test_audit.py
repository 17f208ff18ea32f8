"""Attempts on their way into the audit log: bounded, counted, and not lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.storage.ledger import entries_of

from signet.core.audit import Origin
from signet.core.ids import TenantId
from signet.core.tenant import TENANT_SCOPES, Principal, Tenant
from signet.gateway.audit import Trail
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.errors import StorageError
from signet.storage.tx import Tx
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


class Tried:
    """A trail on a database, with a clock that a test sets."""

    def __init__(self, database: Database, most_waiting: int = 64) -> None:
        self.now_us = 5_000_000
        self.database = database
        self.metrics = Metrics()
        self.trail = Trail(
            database=database,
            metrics=self.metrics,
            clock=lambda: self.now_us,
            most_waiting=most_waiting,
        )

    def attempt(self, name: str = "t", *, actor: str = "env_1", **changes: Any) -> None:
        """An attempt on the object called `name`."""
        principal = Principal(
            key_id=actor, tenant=Tenant(id=TenantId("acme")), scopes=TENANT_SCOPES
        )
        origin = Origin(request_id="r", address="192.0.2.1", received_us=self.now_us - 250)
        told = {"action": "get_chain", "object": name, "code": "ok", "origin": origin, **changes}
        self.trail.attempted(principal, **told)

    async def entries(self) -> list[dict[str, Any]]:
        """What is in the chain."""
        return await entries_of(self.database)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        yield opened


@pytest.fixture
def tried(database: Database) -> Tried:
    """A trail that takes 64 different attempts."""
    return Tried(database)


async def test_an_attempt_becomes_an_entry(tried: Tried) -> None:
    """Who, what, of what, how it ended, how long it took and where it came from."""
    tried.attempt(code="not_found")
    assert tried.trail.waiting == 1
    assert await tried.trail.flush() == 0
    assert tried.trail.waiting == 0
    [told] = await tried.entries()
    assert (told["actor"], told["action"], told["object"]) == ("env_1", "get_chain", "t")
    assert (told["code"], told["count"], told["latency_us"]) == ("not_found", 1, 250)
    assert (told["request_id"], told["address"]) == ("r", "192.0.2.1")
    assert told["ts"] == "1970-01-01T00:00:05.000000Z"


async def test_equal_attempts_of_a_second_are_one_entry(tried: Tried) -> None:
    """They share an entry with their number; it tells no one request's id for all."""
    for _ in range(30):
        tried.attempt()
    tried.attempt(code="not_found")
    tried.now_us += 1_000_000
    tried.attempt()
    await tried.trail.flush()
    told = [(e["code"], e["count"], e["request_id"]) for e in await tried.entries()]
    assert told == [("ok", 30, None), ("not_found", 1, "r"), ("ok", 1, "r")]


async def test_a_flood_loses_objects_before_attempts(tried: Tried) -> None:
    """Beyond half of what may wait, attempts on different objects share an entry."""
    for number in range(1000):
        tried.attempt(f"t{number}")
    assert tried.trail.waiting == 33
    await tried.trail.flush()
    entries = await tried.entries()
    assert sum(e["count"] for e in entries) == 1000
    assert entries[-1]["object"] is entries[-1]["address"] is None
    assert entries[-1]["count"] == 968


async def test_an_overflow_is_a_gap_that_says_how_much(tried: Tried) -> None:
    """What there is no room for is counted in an entry of its own."""
    for number in range(100):
        tried.attempt(actor=f"key_{number}")
    assert tried.trail.waiting == 64
    await tried.trail.flush()
    entries = await tried.entries()
    assert (entries[-1]["action"], entries[-1]["code"]) == ("audit.gap", "overflow")
    assert sum(e["count"] for e in entries) == 100
    assert b"signet_audit_gaps_total 36.0" in tried.metrics.exposition()


async def test_what_the_database_does_not_take_waits_on(tried: Tried) -> None:
    """After a failure everything is still there, with the counts of what came meanwhile."""

    async def spoil(tx: Tx) -> None:
        await tx.execute("ALTER TABLE audit_heads RENAME TO gone")

    async def mend(tx: Tx) -> None:
        await tx.execute("ALTER TABLE gone RENAME TO audit_heads")

    tried.attempt()
    await tried.database.transact(spoil)
    with pytest.raises(StorageError):
        await tried.trail.flush()
    tried.attempt()
    tried.attempt("u")
    await tried.database.transact(mend)
    await tried.trail.flush()
    assert [(e["object"], e["count"]) for e in await tried.entries()] == [("t", 2), ("u", 1)]


async def test_closing_appends_the_rest(database: Database) -> None:
    """At a clean stop nothing is left behind, however much it is."""
    tried = Tried(database, most_waiting=2000)
    for number in range(700):
        tried.attempt(f"t{number}")
    await tried.trail.close()
    assert len(await tried.entries()) == 700


async def test_closing_without_a_database_says_what_is_lost(tried: Tried) -> None:
    """What could not be appended at the stop is counted."""

    async def spoil(tx: Tx) -> None:
        await tx.execute("DROP TABLE audit_heads")

    await tried.database.transact(spoil)
    tried.attempt()
    await tried.trail.close()
    assert b"signet_audit_gaps_total 1.0" in tried.metrics.exposition()
