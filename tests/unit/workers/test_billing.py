"""The loops of billing carry a unit from its receipt to Stripe and to its statement."""

from __future__ import annotations

import pytest
from tests.billing import HOUR_US, START_US, TENANT
from tests.inprocess import key_for
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures
from tests.unit.gateway.test_billing import World, items_of, use, world  # noqa: F401 - fixture
from tests.unit.gateway.test_reconciliation import reconciliation

from signet.core.pricing import TenantPlan
from signet.gateway.plans import Plans
from signet.gateway.reconciliation import Drift
from signet.gateway.statements import Statements
from signet.storage import outbox
from signet.workers.billing import metering_workers, stripe_workers
from signet.workers.runner import Worker

pytestmark = pytest.mark.anyio


class FixedPlans(Plans):
    """Plans that stand."""

    def in_force(self) -> list[TenantPlan]:
        """Return the one plan."""
        return [items_of("window")]


def workers(world: World, told: list[Drift]) -> dict[str, Worker]:  # noqa: F811
    """Every loop, by name."""
    plans = FixedPlans(
        database=world.month.db,
        tenants=dict,
        router=world.router,
        clock=lambda: world.month.now_us,
    )
    statements = Statements(
        database=world.month.db,
        key_for=key_for,
        issuer="signet.test",
        clock=lambda: world.month.now_us,
    )
    comparing = reconciliation(world)
    all_of = [
        *metering_workers(world.month.metering, statements, comparing, told=told.extend),
        *stripe_workers(plans, world.worker(), comparing),
    ]
    return {worker.name: worker for worker in all_of}


async def test_a_month_through_the_loops(world: World) -> None:  # noqa: F811
    """Counted, sent, compared and closed: the loops leave nothing to do."""
    told: list[Drift] = []
    loops = workers(world, told)
    await use(world, "window", 12, 5)
    assert await loops["billing-count"].work() == 0  # caught up, so the loop may rest
    assert await loops["billing-route"].work() == 0
    assert await loops["billing-send"].work() == 3
    assert await loops["billing-send"].work() == 0
    assert await world.agrees("window", 17)
    assert await loops["billing-ask"].work() == 0
    assert await loops["billing-compare"].work() == 0
    assert told == []
    assert await loops["billing-close"].work() == 0
    world.month.now_us = START_US + 32 * 24 * HOUR_US
    assert await loops["billing-close"].work() == 1
    assert all(worker.every_s >= 1.0 for worker in loops.values())


async def test_a_full_batch_is_followed_at_once(world: World) -> None:  # noqa: F811
    """While the log has more than a batch, counting does not rest."""
    loops = workers(world, [])
    await world.month.exchange(1000)
    assert await loops["billing-count"].work() == 1000
    assert await loops["billing-count"].work() == 0


async def test_after_a_restore_sending_waits(world: World) -> None:  # noqa: F811
    """The loop that sends asks Stripe first, and goes on by itself when that worked."""
    loops = workers(world, [])
    await use(world, "window", 12)
    await world.month.count()
    await world.month.db.transact(outbox.restored, "new-name", world.month.now_us, sends=0)
    world.double.faults = lambda _: "503"
    assert await loops["billing-send"].work() == 0
    assert world.ledger.events == []
    world.double.faults = lambda _: None
    assert await loops["billing-send"].work() == 1
    assert await world.agrees("window", 12)


async def test_drift_is_told(world: World) -> None:  # noqa: F811
    """Whoever keeps the metrics hears of a difference."""
    told: list[Drift] = []
    loops = workers(world, told)
    await use(world, "window", 12)
    await world.settle()
    world.ledger.events.clear()
    await loops["billing-compare"].work()
    assert [(drift.tenant, drift.between) for drift in told] == [(TENANT, "stripe")]
