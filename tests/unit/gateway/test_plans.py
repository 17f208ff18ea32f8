"""Plans are replaced as a whole or not at all, and every item finds its route in time."""

from __future__ import annotations

import json

import pytest
from tests.billing import TENANT, document
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures
from tests.unit.gateway.test_billing import World, items_of, world  # noqa: F401 - fixture

from signet.core.audit import SYSTEM
from signet.core.ids import TenantId
from signet.core.pricing import ReservedConfigInvalid
from signet.core.tenant import Tenant
from signet.gateway.billing import BillingRefused, Router
from signet.gateway.plans import Plans
from signet.storage.tx import ReadTx

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
    first = await plans.reload(text(), actor="env_1")
    assert first.changed == (TENANT,)
    assert first.plans.keys() == {TENANT, BETA}
    assert plans.plan_of(TENANT).vex.reserved == 10
    again = await plans.reload(text(), actor="env_1")
    assert again.changed == ()
    assert (await plans.reload(text(vex_reserved=11), actor="env_1")).changed == (TENANT,)
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
    await plans.reload(text(), actor="env_1")
    assert plans.router is not None
    before, routes = plans.plan_of(TENANT), dict(plans.router.routes)
    with pytest.raises(error):
        await plans.reload(bad, actor="env_1")
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
    await plans.reload(text(), actor="env_1")
    assert plans.router is not None
    assert plans.router.routes == {}
    assert await plans.route_missing() == 0
    world.double.faults = lambda _: None
    assert await plans.route_missing() == 3
    assert await plans.route_missing() == 0


async def test_one_tenant_s_items_keep_nobody_else_waiting(
    plans: Plans,
    world: World,  # noqa: F811
) -> None:
    """Who would bill wrongly is refused by name; the others get their routes, and keep them."""
    newcomers = {
        name: Tenant(id=TenantId(name), stripe_item_vex=item)
        for name, item in (("aaa", "si_beta"), ("bad", "si_nowhere"), ("zzz", "si_zzz"))
    }
    world.ledger.add_item(
        "zzz", price=world.ledger.add_price("zzz", cents="7", meter="mtr_sum_fu"),
        customer="cus_zzz",
    )  # fmt: skip
    assert plans.router is not None
    assert await plans.route_missing() == 1
    before = plans.tenants()
    plans.tenants = lambda: {**before, **{t.id: t for t in newcomers.values()}}
    with pytest.raises(BillingRefused) as caught:
        await plans.route_missing()
    assert "/bad/si_nowhere" in [fault.pointer for fault in caught.value.faults]
    routed = {outlet.tenant for outlet in plans.router.routes}
    assert routed == {"beta", "zzz"}, "who shares another's item is the one without a route"


async def test_an_unverified_start_asks_nobody(plans: Plans, world: World) -> None:  # noqa: F811
    """With verification off no request leaves at the start."""
    world.double.seen.clear()
    plans.verify = False
    await plans.reload(text(currency="EUR"), actor="env_1")
    assert world.double.seen == []
    assert plans.plan_of(TENANT).currency == "EUR"


async def test_without_a_stripe_account_nothing_is_asked(plans: Plans, world: World) -> None:  # noqa: F811
    """A deployment that only draws up statements has no routes."""
    world.double.seen.clear()
    plans.router = None
    assert (await plans.reload(text("nowhere"), actor="env_1")).changed == (TENANT,)
    assert await plans.route() == await plans.route_missing() == 0
    assert world.double.seen == []


async def test_pinned_items_keep_their_routes(plans: Plans, world: World) -> None:  # noqa: F811
    """An item that the new document dropped is still routed while its month can be sent."""
    world.month.plans[TENANT] = items_of("window")
    await world.month.exchange(12)
    await world.month.count()
    await plans.reload(text("sum"), actor="env_1")
    assert plans.router is not None
    items = {outlet.item for outlet in plans.router.routes}
    assert {"si_window_t1", "si_window_t2", "si_sum_t1", "si_sum_t2"} <= items


def node(plans: Plans, world: World) -> Plans:  # noqa: F811
    """Another process on the same database."""
    return Plans(
        database=plans.database,
        tenants=plans.tenants,
        router=Router(biller=world.biller, clock=plans.clock),
        clock=plans.clock,
    )


async def test_a_reload_reaches_other_processes(plans: Plans, world: World) -> None:  # noqa: F811
    """They take it on with its routes when they next look, and once."""
    other = node(plans, world)
    await other.begin(text())
    assert await other.follow() == 0
    await plans.reload(text("sum", vex_reserved=11), actor="env_1")
    assert other.plan_of(TENANT).vex.reserved == 10
    assert await other.follow() == 1
    assert await other.follow() == 0
    assert other.plan_of(TENANT).vex.reserved == 11
    assert other.router is not None
    assert {"si_sum_t1", "si_sum_t2"} <= {outlet.item for outlet in other.router.routes}


async def test_a_start_with_a_new_file_brings_it_into_force(
    plans: Plans,
    world: World,  # noqa: F811
) -> None:
    """Looking at it writes nothing; the first round of the loop tells everybody."""
    await plans.begin(text())
    assert await plans.follow() == 0
    other = node(plans, world)
    await other.begin(text(vex_reserved=12))
    assert other.plan_of(TENANT).vex.reserved == 12
    assert await plans.follow() == 0
    assert await other.follow() == 0
    assert await plans.follow() == 1
    assert plans.plan_of(TENANT).vex.reserved == 12


async def test_a_start_with_an_old_file_brings_nothing_back(
    plans: Plans,
    world: World,  # noqa: F811
) -> None:
    """A node that was forgotten gets what is in force; a reload may go back on purpose."""
    await plans.reload(text(), actor="env_1")
    await plans.reload(text(vex_reserved=12), actor="env_1")
    other = node(plans, world)
    await other.begin(text())
    assert other.plan_of(TENANT).vex.reserved == 12
    assert await other.follow() == await plans.follow() == 0
    assert (await other.reload(text(), actor="env_1")).changed == (TENANT,)
    assert await plans.follow() == 1
    assert plans.plan_of(TENANT).vex.reserved == 10


async def test_what_brought_a_document_into_force_is_on_record(
    plans: Plans,
    world: World,  # noqa: F811
) -> None:
    """Every reload is an entry of the deployment's audit log, and a start with a new file is."""
    await plans.begin(text())
    await plans.follow()
    again = node(plans, world)
    await again.begin(text())
    await again.follow()
    await plans.reload(text(vex_reserved=12), actor="env_1")

    async def entries(tx: ReadTx) -> list[bytes]:
        return await tx.all(
            bytes, "SELECT body FROM audit_entries WHERE tenant = :t ORDER BY seq", t=SYSTEM
        )

    told = [json.loads(body) for body in await plans.database.read_current(entries)]
    assert [(e["actor"], e["action"], e["object"]) for e in told] == [
        ("_start", "reserved.reload", "revision 1"),
        ("env_1", "reserved.reload", "revision 2"),
    ]
    assert told[1]["before"] == told[0]["after"]
