"""Drift is found between any two counts, mended from the receipts, and settled with Stripe."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from tests.billing import HOUR_US, START_US, TENANT
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures
from tests.unit.gateway.test_billing import KINDS, World, items_of, use, world  # noqa: F401

from signet.core.billing import UNKNOWN_IS_STALE_US
from signet.gateway.billing import DatabaseRestored
from signet.gateway.reconciliation import Drift, Reconciliation
from signet.storage import billing, outbox
from signet.storage.database import PostgresConfig, SqliteConfig, open_database
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


def reconciliation(world: World, **changes: int) -> Reconciliation:  # noqa: F811
    """The use case under test, for a Stripe that adds up at once."""
    return Reconciliation(
        database=world.month.db,
        biller=world.biller,
        router=world.router,
        metering=world.month.metering,
        owner="reconciler",
        clock=lambda: world.month.now_us,
        dice=lambda count: b"\x01" * count,
        **({"lag_us": 0} | changes),
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_equal_counts_are_no_drift(world: World, kind: str) -> None:  # noqa: F811
    """Before, while and after usage is sent, a healthy month has no drift."""
    check = reconciliation(world)
    for count in (4, 9, 6):
        await use(world, kind, count)
        assert await check.compare() == []
        await world.month.count()
        assert await check.compare() == []
        await world.settle()
        assert await check.compare() == []
    assert await world.agrees(kind, 19)


@pytest.mark.parametrize(
    ("damage", "between", "subject"),
    [
        ("UPDATE billing_periods SET vex = vex - 1", "receipts", "vex"),
        ("UPDATE billing_periods SET fu = fu + 5", "receipts", "fu"),
        (
            "UPDATE billing_windows SET value = value + 1 WHERE item = 'si_window_t1'",
            "windows",
            "si_window_t1",
        ),
        ("DELETE FROM billing_windows WHERE item = 'si_window_t2'", "windows", "si_window_t2"),
    ],
)
async def test_what_the_receipts_know_is_mended(
    world: World,  # noqa: F811
    damage: str,
    between: str,
    subject: str,
) -> None:
    """A wrong count is told once and made right from the receipts."""
    await use(world, "window", 12, 5)
    await world.month.count()

    async def spoil(tx: Tx) -> None:
        await tx.execute(damage)  # pyright: ignore[reportArgumentType] - the test's own text

    await world.month.db.transact(spoil)
    check = reconciliation(world)
    drifts = await check.compare()
    assert (between, subject) in {(d.between, d.subject) for d in drifts}
    assert await check.compare() == []
    await world.settle()
    assert await world.agrees("window", 17)


async def test_a_receipt_that_the_cursor_passed_is_found(world: World) -> None:  # noqa: F811
    """A receipt that became visible late, under a lower id, is counted after all."""
    await use(world, "window", 12, 5)

    async def pass_by(tx: Tx) -> None:
        await billing.move_cursor(tx, await billing.lock_cursor(tx) + 2)

    await world.month.db.transact(pass_by)
    await world.month.count()
    check = reconciliation(world)
    assert next((d.between, d.expected, d.found) for d in await check.compare()) == (
        "receipts",
        17,
        15,
    )
    await world.settle()
    assert await world.agrees("window", 17)
    assert await check.compare() == []


@pytest.mark.parametrize("kind", KINDS)
async def test_what_stripe_lost_is_reported(world: World, kind: str) -> None:  # noqa: F811
    """When Stripe holds less than it took, an operator hears of it."""
    await use(world, kind, 12)
    await world.settle()
    world.ledger.events.clear()
    world.ledger.records.clear()
    assert await reconciliation(world).compare() == [
        Drift(
            between="stripe", tenant=TENANT, period="2026-11", subject=f"si_{kind}_t1",
            expected=2, found=0,
        )
    ]  # fmt: skip


async def test_stripe_has_time_to_add_up(world: World) -> None:  # noqa: F811
    """Stripe's view lags behind, so what was sent just now is not compared."""
    await use(world, "window", 12)
    await world.settle()
    world.ledger.events.clear()
    assert await reconciliation(world, lag_us=60_000_000).compare() == []


async def test_an_unreachable_stripe_is_no_drift(world: World) -> None:  # noqa: F811
    """A question without an answer proves nothing."""
    await use(world, "window", 12)
    await world.settle()
    world.double.faults = lambda _: "503"
    assert await reconciliation(world).compare() == []


@pytest.mark.parametrize("fault", ["lost", "reset"])
async def test_an_old_unknown_difference_is_settled_by_asking(
    world: World,  # noqa: F811
    fault: str,
) -> None:
    """Whether Stripe had taken it or not, the total is exact in the end."""
    await use(world, "sum", 12)
    await world.month.count()
    world.double.plan.append(fault)  # pyright: ignore[reportArgumentType] - a fault's name
    await world.worker().send_once()
    world.month.now_us += UNKNOWN_IS_STALE_US
    await world.worker().send_once()
    check = reconciliation(world)
    world.double.faults = lambda _: "503"
    assert await check.ask() == 0
    world.double.faults = lambda _: None
    assert await check.ask() == 1
    await world.settle()
    assert await world.agrees("sum", 12)
    assert await check.ask() == 0


# After a restore.


@pytest.fixture(params=["window", "sum"])
async def backup(
    request: pytest.FixtureRequest,
    world: World,  # noqa: F811
    config: SqliteConfig | PostgresConfig,  # noqa: F811
    tmp_path: Path,
) -> AsyncGenerator[World]:
    """The same world on a database restored from an old backup, as `kind` items."""
    if not isinstance(config, SqliteConfig):
        pytest.skip("the backup is a copied file; the rules after it are the same")
    world.kind = request.param
    await use(world, world.kind, 12)
    await world.settle()
    copied = tmp_path / "backup.db"
    for suffix in ("", "-wal"):
        shutil.copy(f"{config.path}{suffix}", f"{copied}{suffix}")
    # What happens now is lost with the old database; Stripe has seen it.
    await use(world, world.kind, 9, 6)
    await world.settle()
    async with open_database(SqliteConfig(path=copied)) as restored:
        world.month.db = restored
        yield world


async def say_restored(backup: World) -> None:
    """What `signet storage restored` does."""
    sends = backup.landmark.read()
    await backup.month.db.transact(outbox.restored, "new-name", backup.month.now_us, sends=sends)


async def test_nothing_is_sent_before_stripe_was_asked(backup: World) -> None:
    """A restored database speaks under a new name, and first asks what Stripe holds."""
    await say_restored(backup)
    await use(backup, backup.kind, 3)
    await backup.month.count()
    plans = [items_of(backup.kind)]
    before = len(backup.ledger.events)
    assert await backup.worker().send_once() == 0
    assert not await reconciliation(backup, lag_us=10 * HOUR_US).after_restore(plans)
    backup.double.faults = lambda _: "503"
    assert not await reconciliation(backup).after_restore(plans)
    backup.double.faults = lambda _: None
    assert await backup.worker().send_once() == 0
    assert len(backup.ledger.events) == before


@pytest.mark.parametrize("later", [0, 3])
async def test_after_a_restore_stripe_holds_what_the_receipts_say(
    backup: World, later: int
) -> None:
    """Totals that only the lost database knew are taken back, and later ones arrive."""
    await say_restored(backup)
    if later:
        await use(backup, backup.kind, later)
    assert not await backup.agrees(backup.kind, 12 + later)
    assert await reconciliation(backup).after_restore([items_of(backup.kind)])
    await backup.settle()
    assert await backup.agrees(backup.kind, 12 + later)
    assert await reconciliation(backup).compare() == []


async def test_a_restored_database_is_found_out(backup: World) -> None:
    """Nobody need say so: the host knows of more sends than the database, and nothing leaves."""
    await use(backup, backup.kind, 3)
    await backup.month.count()
    before = len(backup.ledger.events)
    with pytest.raises(DatabaseRestored, match="comes from a backup"):
        await backup.worker().send_once()
    assert await backup.worker().send_once() == 0
    assert len(backup.ledger.events) == before
    assert await reconciliation(backup).after_restore([items_of(backup.kind)])
    await backup.settle()
    assert await backup.agrees(backup.kind, 15)


async def test_an_hour_that_two_months_share_is_told_apart(world: World) -> None:  # noqa: F811
    """Of one hour at Stripe, each month's window takes its own part."""
    plan = items_of("sum", timezone="Asia/Kolkata", vex_reserved=0)
    world.month.plans[TENANT] = plan
    begin = START_US - 5 * HOUR_US - HOUR_US // 2
    world.month.now_us = begin + HOUR_US
    await world.month.exchange(1, at_us=begin - 1)
    await world.month.exchange(2, at_us=begin)
    await world.settle()
    route = world.router.routes[outbox.Outlet(TENANT, "si_sum_t1")]
    assert world.ledger.units(route.customer, route.meter) == 3

    async def hold(tx: Tx) -> None:
        for period in ("2026-10", "2026-11"):
            for stored in await outbox.windows_of_period(tx, TENANT, period):
                await outbox.hold_back(tx, stored.key, "outcome_unknown")

    await world.month.db.transact(hold)
    assert await reconciliation(world).ask() == 2
    await world.settle()
    assert world.ledger.units(route.customer, route.meter) == 3
