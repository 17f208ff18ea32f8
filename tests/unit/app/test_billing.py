"""Billing as the settings describe it, with and without Stripe."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.billing import TENANT, Month, document
from tests.inprocess import key_for

from signet.app.billing import Billing, configured_plans, open_billing
from signet.app.refused import StartRefused
from signet.core.ids import TenantId
from signet.core.pricing import MAX_UNITS
from signet.receipts.canonical import canonicalize
from signet.settings import Settings, read_settings
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.tx import Tx
from signet.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database."""
    async with open_database(SqliteConfig(path=tmp_path / "signet.db")) as opened:
        yield opened


def now_us() -> int:
    """The real time: months are those of the calendar."""
    return time.time_ns() // 1000


def settings_of(**environ: str) -> Settings:
    """Settings with one tenant."""
    return read_settings({"SP_API_KEYS": '{"k": {"tenant": "globex"}}', **environ}).settings


def opened(settings: Settings, database: Database) -> AbstractAsyncContextManager[Billing]:
    """Billing on a database."""
    return open_billing(
        settings,
        database=database,
        key_for=key_for,
        tenants=lambda: settings.exchange.api_keys.tenants,
        owner="test",
        metrics=Metrics(),
        clock=now_us,
    )


async def test_reserves_are_told_as_they_were_agreed(database: Database, tmp_path: Path) -> None:
    """`/metrics` shows what is reserved, and 0 for a tenant that reserved nothing."""
    reserved = tmp_path / "reserved.json"
    reserved.write_text('{"acme": {"vex_reserved": 77, "fu_reserved": 0}}')
    settings = settings_of(SP_RESERVED_CONFIG=str(reserved))
    async with opened(settings, database) as billing:
        page = billing.metrics.exposition().decode()
    shown = {line for line in page.splitlines() if line.startswith("signet_reserved_capacity{")}
    assert shown == {
        'signet_reserved_capacity{tenant="acme",type="vex"} 77.0',
        'signet_reserved_capacity{tenant="acme",type="fu"} 0.0',
        'signet_reserved_capacity{tenant="globex",type="vex"} 0.0',
        'signet_reserved_capacity{tenant="globex",type="fu"} 0.0',
    }


async def test_without_stripe_counts_are_compared_all_the_same(database: Database) -> None:
    """A wrong count is found and mended where nobody is invoiced through a service."""

    async def spoil(tx: Tx) -> None:
        await tx.execute("UPDATE billing_periods SET vex = vex + 1")

    async with opened(settings_of(), database) as billing:
        names = {worker.name for worker in billing.workers}
        assert names == {"billing-count", "billing-compare", "billing-close"}
        await Month(database, {}, now_us=now_us()).exchange(2)
        assert await billing.metering.count_once() == 2
        await database.transact(spoil)
        (drift,) = await billing.reconciliation.compare()
        assert (drift.between, drift.expected, drift.found) == ("receipts", 2, 3)
        assert await billing.reconciliation.compare() == []
        assert await billing.reconciliation.ask() == 0


async def test_sqlite_counts_at_once(database: Database) -> None:
    """One writer at a time leaves no gaps in the log, so a fresh receipt need not wait."""
    async with opened(settings_of(SP_STRIPE_DELAY_SECONDS="7"), database) as billing:
        assert billing.metering.settle_us == 0
        assert billing.metering.send_after_us == 7_000_000


async def test_configured_plans(database: Database, tmp_path: Path) -> None:
    """The file's plans, and merely metered ones for tenants that it does not name."""
    reserved = tmp_path / "reserved.json"
    reserved.write_bytes(canonicalize(document(fu_overage_tiers=[])))
    settings = settings_of(SP_RESERVED_CONFIG=str(reserved))
    plans = await configured_plans(settings, database=database, clock=now_us)
    assert [plan.tenant for plan in plans.in_force()] == [TENANT, "globex"]
    assert plans.plan_of(TENANT).vex.reserved == 10
    assert plans.plan_of(TenantId("globex")).vex.reserved == MAX_UNITS


@pytest.mark.parametrize("text", ['{"acme": {"vex_reserved": -1}}', "{", None])
async def test_a_file_that_cannot_be_used(
    database: Database, tmp_path: Path, text: str | None
) -> None:
    """It refuses the start, and a command, with a sentence that names the setting."""
    reserved = tmp_path / "reserved.json"
    if text is not None:
        reserved.write_text(text)
    settings = settings_of(SP_RESERVED_CONFIG=str(reserved))
    with pytest.raises(StartRefused, match="SP_RESERVED_CONFIG"):
        await configured_plans(settings, database=database, clock=now_us)
    with pytest.raises(StartRefused, match="SP_RESERVED_CONFIG"):
        async with opened(settings, database):
            pass
