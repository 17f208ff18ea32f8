"""Retention: what is too old goes by itself, tenant by tenant, and says that it went."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.storage.ledger import TENANT, commit, entries_of, pending, text

from signet.core.audit import Entry
from signet.core.ids import TenantId
from signet.core.tenant import Tenant
from signet.gateway.privacy import Retention
from signet.storage.audit import append, page
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.exchanges import KeySpent, Replay
from signet.storage.retention import held
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

DAY_US = 86_400_000_000
NOW_US = 100 * DAY_US


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        yield opened


def retention(
    database: Database,
    *tenants: Tenant,
    payload_days: int | None = None,
    audit_days: int | None = None,
    answer_days: int = 365,
) -> Retention:
    """Retention on day 100."""
    return Retention(
        database=database,
        tenants=lambda: {tenant.id: tenant for tenant in tenants},
        payload_days=payload_days,
        audit_days=audit_days,
        answer_s=answer_days * 86_400,
        metrics=Metrics(),
        clock=lambda: NOW_US,
    )


def days(tenant: str, number: int | None) -> Tenant:
    """A tenant with its own number of days."""
    return Tenant(id=TenantId(tenant), payload_retention_days=number)


async def left(database: Database, tenant: str, *names: str) -> list[str]:
    """The exchanges whose payloads are still there."""
    return [
        name
        for name in names
        if (await database.read_current(held, tenant, text(f"payload of {name}".encode()))).live
    ]


async def exchanges(database: Database, tenant: str) -> None:
    """One exchange of 60, one of 20 and one of 1 day ago."""
    made = [("old", 40), ("mid", 80), ("new", 99)]
    await commit(
        database, *(pending(name, tenant=tenant, ts_us=day * DAY_US) for name, day in made)
    )


async def test_without_a_setting_nothing_goes(database: Database) -> None:
    """Payloads and entries are kept for ever unless somebody says otherwise."""
    await exchanges(database, TENANT)
    assert await retention(database, days(TENANT, None)).run_once() == 0
    assert await left(database, TENANT, "old", "mid", "new") == ["old", "mid", "new"]


async def test_each_tenant_has_its_days(database: Database) -> None:
    """A tenant's own number goes before the deployment's, 0 keeps for ever, and a tenant without a
    key is not forgotten."""
    tenants = [days("short", 10), days("usual", None), days("never", 0)]
    for tenant in ("short", "usual", "never", "gone"):
        await exchanges(database, tenant)
    worker = retention(database, *tenants, payload_days=30)
    assert await worker.run_once() == 4
    assert await worker.run_once() == 0
    names = ("old", "mid", "new")
    assert await left(database, "short", *names) == ["new"]
    assert await left(database, "usual", *names) == ["mid", "new"]
    assert await left(database, "never", *names) == ["old", "mid", "new"]
    assert await left(database, "gone", *names) == ["mid", "new"]
    assert b'signet_payloads_erased_total{reason="age"} 4.0' in worker.metrics.exposition()


async def test_what_went_is_in_the_audit_log(database: Database) -> None:
    """How many, and how old: never which content."""
    await exchanges(database, TENANT)
    await retention(database, days(TENANT, 10)).run_once()
    [entry] = await entries_of(database, TENANT)
    assert (entry["action"], entry["actor"]) == ("payload.expire", "_retention")
    assert entry["after"] == {"older_than": "1970-04-01T00:00:00.000000Z", "receipts": 2}


async def test_answers_go_after_their_days(database: Database) -> None:
    """An answer older than its retention is forgotten, and its key is free again."""
    await exchanges(database, TENANT)
    assert await retention(database, answer_days=30).run_once() == 1
    [young] = await commit(database, pending("mid"))
    assert isinstance(young, Replay)
    [old] = await commit(database, pending("old"))
    assert not isinstance(old, Replay | KeySpent)


async def test_audit_entries_go_after_their_days(database: Database) -> None:
    """The beginning of every chain goes, and an entry stands for it."""
    for tenant in ("a", "b"):
        entries = [
            Entry(tenant=TenantId(tenant), ts_us=day * DAY_US, actor="k", action="x")
            for day in (40, 80, 99)
        ]
        await database.transact(append, entries)
    worker = retention(database, audit_days=30)
    assert await worker.run_once() == 2
    assert await worker.run_once() == 0
    for tenant in ("a", "b"):
        found = (await database.read_current(page, tenant)).entries
        assert [seq for seq, _ in found] == [2, 3, 4]
