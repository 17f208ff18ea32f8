"""Plans are replaced as a whole or not at all, and every item finds its route in time."""

from __future__ import annotations

import json

import pytest
from tests.billing import TENANT, document
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures
from tests.unit.gateway.test_billing import World, items_of, world  # noqa: F401 - fixture

from signet.core.ids import TenantId
from signet.core.pricing import ReservedConfigInvalid
from signet.core.tenant import Tenant
from signet.gateway.billing import BillingRefused, Router
from signet.gateway.plans import Plans

pytestmark = pytest.mark.anyio

BETA = TenantId("beta")


@pytest.fixture
def plans(world: World) -> Plans:  # noqa: F811
    """Plans of a deployment with one tenant that has no reserve."""
    world.ledger.add_item(
        "beta", price=world.ledger.add_price("beta", cents="7", meter="mtr_sum_fu"),
        customer="cus_beta",
    )  # fmt: skip
    return Plans(
        database=world.month.db,
        tenants=lambda: {BETA: Tenant(id=BETA, stripe_item_vex="si_beta")},
        router=Router(biller=world.biller, clock=lambda: world.month.now_us),
        clock=lambda: world.month.now_us,
    )


def text(kind: str = "window", **changes: object) -> bytes:
    """A reserved-capacity document for items of one kind."""
    tiers = [
        {"threshold": 5, "price_per_unit": 0.008, "stripe_item": f"si_{kind}_t1"},
        {"threshold": 9, "price_per_unit": 0.006, "stripe_item": f"si_{kind}_t2"},
    ]
    return json.dumps(document(vex_overage_tiers=tiers, fu_overage_tiers=[], **changes)).encode()


async def test_a_reload_says_what_changed(plans: Plans) -> None:
    """The new plans are in force at once, and the answer names whose plan is another now."""
    first = await plans.reload(text())
    assert first.changed == (TENANT,)
    assert first.plans.keys() == {TENANT, BETA}
    assert plans.plan_of(TENANT).vex.reserved == 10
    again = await plans.reload(text())
    assert again.changed == ()
    assert (await plans.reload(text(vex_reserved=11))).changed == (TENANT,)
    assert plans.plan_of(TENANT).vex.reserved == 11


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"{", ReservedConfigInvalid),
        (text(vex_reserved=-1), ReservedConfigInvalid),
        (text(currency="EUR"), BillingRefused),
        (text("nowhere"), BillingRefused),
    ],
)
async def test_a_bad_document_changes_nothing(
    plans: Plans, bad: bytes, error: type[Exception]
) -> None:
    """Plans and routes are what they were, and the error says why."""
    await plans.reload(text())
    assert plans.router is not None
    before, routes = plans.plan_of(TENANT), dict(plans.router.routes)
    with pytest.raises(error):
        await plans.reload(bad)
    assert plans.plan_of(TENANT) is before
    assert plans.router.routes == routes


async def test_a_tenant_without_a_reserve_is_metered(plans: Plans) -> None:
    """Its configured item counts all its units; an unknown tenant is counted without one."""
    assert plans.plan_of(BETA).vex.reserved_item == "si_beta"
    assert plans.plan_of(TenantId("nobody")).vex.reserved_item is None
    assert await plans.route() == 0
    assert plans.router is not None
    assert [outlet.item for outlet in plans.router.routes] == ["si_beta"]


async def test_without_a_network_items_get_their_routes_later(
    plans: Plans,
    world: World,  # noqa: F811
) -> None:
    """An unreachable Stripe stops neither start nor reload; the routes come when it answers."""
    world.double.faults = lambda _: "503"
    await plans.reload(text())
    assert plans.router is not None
    assert plans.router.routes == {}
    assert await plans.route_missing() == 0
    world.double.faults = lambda _: None
    assert await plans.route_missing() == 3
    assert await plans.route_missing() == 0


async def test_an_unverified_start_asks_nobody(plans: Plans, world: World) -> None:  # noqa: F811
    """With verification off no request leaves at the start."""
    world.double.seen.clear()
    plans.verify = False
    await plans.reload(text(currency="EUR"))
    assert world.double.seen == []
    assert plans.plan_of(TENANT).currency == "EUR"


async def test_without_a_stripe_account_nothing_is_asked(plans: Plans, world: World) -> None:  # noqa: F811
    """A deployment that only draws up statements has no routes."""
    world.double.seen.clear()
    plans.router = None
    assert (await plans.reload(text("nowhere"))).changed == (TENANT,)
    assert await plans.route() == await plans.route_missing() == 0
    assert world.double.seen == []


async def test_pinned_items_keep_their_routes(plans: Plans, world: World) -> None:  # noqa: F811
    """An item that the new document dropped is still routed while its month can be sent."""
    world.month.plans[TENANT] = items_of("window")
    await world.month.exchange(12)
    await world.month.count()
    await plans.reload(text("sum"))
    assert plans.router is not None
    items = {outlet.item for outlet in plans.router.routes}
    assert {"si_window_t1", "si_window_t2", "si_sum_t1", "si_sum_t2"} <= items
