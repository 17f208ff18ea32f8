"""The real SDK against the loopback Stripe: items resolve, and every answer has one meaning."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import get_args

import pytest
import stripe

from signet.cli.demo.stripe_double.ledger import DAY_S, Ledger
from signet.cli.demo.stripe_double.server import Fault, StripeDouble
from signet.core.billing import (
    DeadLetter,
    Delivered,
    Held,
    LaneStopped,
    Resolution,
    Resolved,
    Retry,
    Route,
    Unreachable,
    Unusable,
    UsageEvent,
    Wanted,
    hour_of,
)
from signet.providers.operator_http import OperatorLimits
from signet.providers.stripe import StripeBiller

pytestmark = pytest.mark.anyio

NOW_S = 1_795_000_000
HOUR = hour_of(NOW_S * 10**6)
LIMITS = OperatorLimits(deadline_s=60.0, connect_s=60.0, max_response_bytes=256 * 1024)


@dataclass
class Clock:
    """Seconds that pass when told."""

    now_s: int = NOW_S

    def __call__(self) -> int:
        return self.now_s


@dataclass
class World:
    """A Stripe account and the provider that speaks to it."""

    clock: Clock
    ledger: Ledger
    double: StripeDouble
    biller: StripeBiller

    async def resolve(self, item: str, **changes: object) -> Resolution:
        """Resolve an item that should cost 0.008 USD."""
        wanted = Wanted(item=item, customer=None, price=Decimal("0.008"), currency="USD")
        return await self.biller.resolve(replace(wanted, **changes))  # pyright: ignore[reportArgumentType] - by name

    async def route(self, item: str, **changes: object) -> Route:
        """The item's route, which must resolve."""
        resolution = await self.resolve(item, **changes)
        assert isinstance(resolution, Resolved)
        return resolution.route


@pytest.fixture
async def world() -> AsyncGenerator[World]:
    """An account with one item of each kind: window meter, sum meter and legacy."""
    clock = Clock()
    ledger = Ledger(clock)
    ledger.add_customer("cus_1")
    hourly = ledger.add_meter("hourly", window="hour")
    adding = ledger.add_meter("adding")
    ledger.add_item(
        "window", price=ledger.add_price("w", cents="0.8", meter=hourly), customer="cus_1"
    )
    ledger.add_item("sum", price=ledger.add_price("s", cents="0.8", meter=adding), customer="cus_1")
    ledger.add_item("legacy", price=ledger.add_price("l", cents="0.8"), customer="cus_1")
    async with StripeDouble(ledger).serving() as double:
        biller = StripeBiller("sk_test_double", origin=double.url, limits=LIMITS)
        yield World(clock, ledger, double, biller)
        await biller.aclose()


def event(route: Route, value: int, identifier: str = "id1", **changes: int) -> UsageEvent:
    """A message about the current hour."""
    made = UsageEvent(route=route, identifier=identifier, value=value, timestamp_s=HOUR)
    return replace(made, **changes)


# Items.


async def test_a_window_meter_is_found_behind_its_item(world: World) -> None:
    """An item leads to its price, its meter with event name and keys, and its customer."""
    assert await world.resolve("si_window") == Resolved(
        route=Route(
            item="si_window",
            mode="window",
            customer="cus_1",
            meter="mtr_hourly",
            event_name="hourly",
            customer_key="stripe_customer_id",
            value_key="value",
        )
    )


async def test_a_sum_meter_is_told_apart(world: World) -> None:
    """A meter without a window adds up, so it will get differences."""
    assert (await world.route("si_sum")).mode == "sum"


async def test_an_item_of_the_years_before_meters(world: World) -> None:
    """A metered price without a meter gets usage records, and its item is the lane."""
    route = await world.route("si_legacy")
    assert (route.mode, route.lane) == ("legacy", "cus_1/si_legacy")


async def test_a_price_and_a_meter_are_accepted_too(world: World) -> None:
    """Both lead to the same meter as the item, with the customer that the plan names."""
    by_price = await world.route("price_w", customer="cus_1")
    by_meter = await world.resolve("mtr_hourly", customer="cus_1")
    assert isinstance(by_meter, Resolved)
    assert by_price.lane == by_meter.route.lane == "cus_1/mtr_hourly"
    assert by_meter.remarks


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"price": Decimal("0.009")}, "charges 0.008 USD a unit, the configuration says 0.009"),
        ({"currency": "EUR"}, "bills it in USD, the configuration in EUR"),
        ({"customer": "cus_2"}, "belongs to cus_1, not to cus_2"),
        ({"item": "si_none"}, "does not exist"),
        ({"item": "price_w"}, "needs stripe_customer"),
        ({"item": "mtr_hourly"}, "needs stripe_customer"),
        ({"item": "price_l", "customer": "cus_1"}, "name the subscription item"),
        ({"item": "si_licensed"}, "not metered"),
        ({"item": "si_maximum"}, "aggregates usage by 'max'"),
        ({"item": "si_daily"}, "one value per day"),
        ({"item": "si_count"}, "aggregates by 'count'"),
        ({"item": "si_closed"}, "not active"),
    ],
)
async def test_a_definite_difference_is_refused_in_a_sentence(
    world: World, changes: dict[str, object], sentence: str
) -> None:
    """What would bill wrongly never starts; the sentence says what differs."""
    ledger = world.ledger
    for name, more in {
        "licensed": {"usage_type": "licensed"},
        "maximum": {"aggregate": "max"},
        "daily": {"meter": ledger.add_meter("daily", window="day")},
        "count": {"meter": ledger.add_meter("count", formula="count")},
        "closed": {"meter": ledger.add_meter("closed", status="inactive")},
    }.items():
        price = ledger.add_price(name, cents="0.8", **more)
        ledger.add_item(name, price=price, customer="cus_1")
    item = str(changes.get("item", "si_window"))
    rest = {name: value for name, value in changes.items() if name != "item"}
    resolution = await world.resolve(item, **rest)
    assert isinstance(resolution, Unusable)
    assert sentence in resolution.detail


@pytest.mark.parametrize(
    ("price", "currency"),
    [
        ({"cents": None}, "usd"),
        ({"cents": "5", "transform": {"divide_by": 1000, "round": "up"}}, "usd"),
        ({"cents": "5"}, "isk"),
    ],
)
async def test_what_cannot_be_compared_is_remarked_and_served(
    world: World, price: dict[str, object], currency: str
) -> None:
    """A tiered or divided price proves no difference, so it is used and the log says so."""
    made = world.ledger.add_price("odd", currency=currency, meter="mtr_hourly", **price)  # pyright: ignore[reportArgumentType] - by name
    world.ledger.add_item("odd", price=made, customer="cus_1")
    resolution = await world.resolve("si_odd", currency=currency.upper())
    assert isinstance(resolution, Resolved)
    assert resolution.remarks


async def test_a_reserve_has_no_price_to_compare(world: World) -> None:
    """Only currency matters for the item of a reserve."""
    assert isinstance(await world.resolve("si_window", price=None), Resolved)


async def test_yen_have_no_decimals(world: World) -> None:
    """Stripe's amounts are in the currency's own minor unit."""
    price = world.ledger.add_price("yen", cents="3", currency="jpy", meter="mtr_hourly")
    world.ledger.add_item("yen", price=price, customer="cus_1")
    assert isinstance(await world.resolve("si_yen", currency="JPY", price=Decimal(3)), Resolved)


@pytest.mark.parametrize("fault", ["500", "429", "401", "page", "odd", "reset", "bomb", "stuck"])
async def test_an_unreachable_stripe_proves_nothing(world: World, fault: Fault) -> None:
    """Whatever else comes back, the item is neither good nor bad, and the gateway starts."""
    world.double.faults = lambda _: fault
    resolution = await world.resolve("si_window")
    assert isinstance(resolution, Unreachable)
    assert resolution.detail


# Messages.


@pytest.mark.parametrize("item", ["si_window", "si_legacy"])
async def test_overwriting_counts_the_newest_total(world: World, item: str) -> None:
    """Totals sent again, and then a later one, end in the later total."""
    route = await world.route(item)
    for identifier, value in (("a", 5), ("b", 9), ("c", 7)):
        sent = event(route, value, identifier)
        assert await world.biller.send(sent) == Delivered()
    assert world.ledger.units("cus_1", route.meter) == 7
    assert await world.biller.held(route, HOUR, HOUR + 3600) == Held(units=7)


async def test_adding_counts_the_differences(world: World) -> None:
    """Differences add up, negative ones too."""
    route = await world.route("si_sum")
    for identifier, value in (("a", 5), ("b", 9), ("c", -2)):
        assert await world.biller.send(event(route, value, identifier)) == Delivered()
    assert await world.biller.held(route, HOUR, HOUR + 3600) == Held(units=12)


@pytest.mark.parametrize("item", ["si_window", "si_sum", "si_legacy"])
@pytest.mark.parametrize("fault", ["lost", "cut", "stuck"])
async def test_a_lost_answer_is_unknown_and_the_resend_settles_it(
    world: World, item: str, fault: Fault
) -> None:
    """What was taken without an answer counts once, however often it is sent again."""
    route = await world.route(item)
    world.double.plan.append(fault)
    assert await world.biller.send(event(route, 5)) == Retry(reason="no_answer", answered=False)
    assert isinstance(await world.biller.send(event(route, 5)), Delivered)
    assert world.ledger.units("cus_1", route.meter) == 5


@pytest.mark.parametrize("item", ["si_window", "si_sum"])
async def test_a_known_identifier_means_delivered(world: World, item: str) -> None:
    """Stripe's refusal of a duplicate is the proof that it has the event."""
    route = await world.route(item)
    world.double.plan.append("500_taken")
    first = await world.biller.send(event(route, 5))
    assert isinstance(first, Retry)
    assert first.answered
    assert await world.biller.send(event(route, 5, attempt=1)) == Delivered(duplicate=True)
    assert world.ledger.units("cus_1", route.meter) == 5


@pytest.mark.parametrize("item", ["si_window", "si_sum", "si_legacy"])
async def test_a_kept_failure_is_not_replayed_for_ever(world: World, item: str) -> None:
    """Stripe keeps a failed answer for its idempotency key, so the next try has another key."""
    route = await world.route(item)
    world.double.plan.append("500")
    assert isinstance(await world.biller.send(event(route, 5)), Retry)
    assert isinstance(await world.biller.send(event(route, 5)), Retry)
    assert await world.biller.send(event(route, 5, attempt=1)) == Delivered()
    assert world.ledger.units("cus_1", route.meter) == 5


@pytest.mark.parametrize(
    ("fault", "answered", "after_us"),
    [
        ("429", True, 7_000_000),
        ("409", True, None),
        ("500", True, None),
        ("503", True, None),
        ("reset", False, None),
        ("page", False, None),
        ("odd", False, None),
        ("redirect", False, None),
    ],
)
async def test_passing_trouble_is_tried_again(
    world: World, fault: Fault, answered: bool, after_us: int | None
) -> None:
    """Storms, breakdowns, resets and proxies end in a retry and never in a unit."""
    route = await world.route("si_window")
    world.double.plan.append(fault)
    answer = await world.biller.send(event(route, 5))
    assert isinstance(answer, Retry)
    assert (answer.answered, answer.after_us) == (answered, after_us)
    assert world.ledger.units("cus_1", route.meter) == 0


@pytest.mark.parametrize("fault", ["401", "403"])
async def test_a_refused_key_stops_the_lane(world: World, fault: Fault) -> None:
    """No message can succeed with a key that is refused."""
    route = await world.route("si_window")
    world.double.plan.append(fault)
    assert isinstance(await world.biller.send(event(route, 5)), LaneStopped)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"timestamp_s": NOW_S - 35 * DAY_S - 1}, "timestamp_too_far_in_past"),
        ({"timestamp_s": NOW_S + 301}, "timestamp_in_future"),
    ],
)
async def test_a_message_that_cannot_succeed_is_a_dead_letter(
    world: World, changes: dict[str, int], reason: str
) -> None:
    """Its reason is Stripe's own code."""
    answer = await world.biller.send(event(await world.route("si_window"), 5, **changes))
    assert isinstance(answer, DeadLetter)
    assert answer.reason == reason


async def test_a_vanished_meter_is_a_dead_letter(world: World) -> None:
    """An archived meter refuses every event until an operator acts."""
    route = await world.route("si_window")
    world.ledger.objects["mtr_hourly"]["status"] = "inactive"
    assert isinstance(await world.biller.send(event(route, 5)), DeadLetter)


async def test_nobody_there_is_no_answer(world: World) -> None:
    """A refused connection is an outcome, in bounded time."""
    biller = StripeBiller("sk_test_double", origin="http://127.0.0.1:9", limits=LIMITS)
    answer = await biller.send(event(await world.route("si_window"), 5))
    assert answer == Retry(reason="no_answer", answered=False)
    await biller.aclose()


@pytest.mark.parametrize("fault", ["stuck", "bomb"])
async def test_every_wait_has_a_bound(world: World, fault: Fault) -> None:
    """A service that never finishes its answer costs one deadline and no more."""
    route = await world.route("si_window")
    world.double.plan.append(fault)
    limits = replace(LIMITS, deadline_s=1.0, connect_s=1.0)
    biller = StripeBiller("sk_test_double", origin=world.double.url, limits=limits)
    begun = time.monotonic()
    assert isinstance(await biller.send(event(route, 5)), Retry)
    assert time.monotonic() - begun < 120
    await biller.aclose()


async def test_the_sdk_itself_never_retries(world: World) -> None:
    """One call of ours is one request, because only the outbox knows what was sent."""
    route = await world.route("si_window")
    before = len(world.double.seen)
    world.double.plan.extend(["500", "500", "500"])
    await world.biller.send(event(route, 5))
    assert len(world.double.seen) == before + 1


async def test_what_goes_over_the_wire(world: World) -> None:
    """The identifier is the idempotency key, units are whole numbers, and versions are pinned."""
    window, legacy = await world.route("si_window"), await world.route("si_legacy")
    await world.biller.send(event(window, 5, "a" * 40))
    sent = world.double.seen[-1]
    assert sent.params == {
        "event_name": "hourly",
        "identifier": "a" * 40,
        "timestamp": str(HOUR),
        "payload[stripe_customer_id]": "cus_1",
        "payload[value]": "5",
    }
    assert sent.headers["idempotency-key"] == "a" * 40
    assert sent.headers["stripe-version"] >= "2025-03-31"
    assert "x-stripe-client-telemetry" not in sent.headers
    await world.biller.send(event(legacy, 5, "b" * 40, attempt=2))
    sent = world.double.seen[-1]
    assert sent.path == "/v1/subscription_items/si_legacy/usage_records"
    assert sent.params == {"quantity": "5", "timestamp": str(HOUR), "action": "set"}
    assert sent.headers["idempotency-key"] == "b" * 40 + "-2"
    assert sent.headers["stripe-version"] == "2025-02-24.acacia"


@pytest.mark.parametrize("item", ["si_window", "si_legacy"])
async def test_what_stripe_holds_may_be_unknowable(world: World, item: str) -> None:
    """A failed question proves nothing; a billing cycle that is not the month is said so."""
    route = await world.route(item)
    world.double.faults = lambda _: "500"
    assert isinstance(await world.biller.held(route, HOUR, HOUR + 3600), Unreachable)
    world.double.faults = lambda _: None
    world.ledger.objects["si_legacy"]["current_period_start"] = HOUR + 1
    found = await world.biller.held(route, HOUR, HOUR + 3600)
    assert isinstance(found, Held if item == "si_window" else Unreachable)


@pytest.mark.parametrize("item", ["si_window", "si_sum"])
async def test_a_month_is_read_back_by_the_hour(world: World, item: str) -> None:
    """All pages of a month's hours are read, and each hour's units come back."""
    route = await world.route(item)
    for n in range(250):
        sent = event(route, n + 1, f"id{n}", timestamp_s=HOUR - n * 3600)
        assert await world.biller.send(sent) == Delivered()
    hours = await world.biller.held_by_hour(route, HOUR - 249 * 3600, HOUR + 3600)
    assert hours == {HOUR - n * 3600: n + 1 for n in range(250)}


async def test_usage_records_cannot_be_read_back(world: World) -> None:
    """Nobody can say what a legacy item holds for one hour, and nobody pretends to."""
    route = await world.route("si_legacy")
    assert isinstance(await world.biller.held_by_hour(route, HOUR, HOUR + 3600), Unreachable)


def test_every_fault_of_the_double_is_used() -> None:
    """A fault that no test provokes would be a promise without a proof."""
    source = __import__("pathlib").Path(__file__).read_text()
    assert all(f'"{fault}"' in source for fault in get_args(Fault))


def test_usage_records_have_really_left_the_sdk() -> None:
    """The pinned version exists because the SDK can no longer make these calls itself."""
    assert not hasattr(stripe.SubscriptionItem, "create_usage_record")
