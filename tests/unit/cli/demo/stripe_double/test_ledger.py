"""The double answers in the SDK's own shapes and keeps the documented rules."""

from __future__ import annotations

import json
from typing import Any, get_origin

import pytest
import stripe
from stripe.billing import Meter, MeterEvent, MeterEventSummary

from signet.cli.demo.stripe_double.ledger import DAY_S, Ledger, Refused, Request, Response

NOW_S = 1_795_000_000


class Clock:
    """Seconds that pass when told."""

    now_s = NOW_S

    def __call__(self) -> int:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    """A clock that stands."""
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Ledger:
    """An account with a window meter, a sum meter and a legacy item."""
    made = Ledger(clock)
    hourly = made.add_meter("hourly", window="hour")
    made.add_meter("daily", window="day")
    made.add_meter("adding")
    made.add_item("w", price=made.add_price("w", cents="0.8", meter=hourly), customer="cus_1")
    made.add_item("l", price=made.add_price("l", cents="0.8"), customer="cus_1")
    return made


def call(ledger: Ledger, method: str, path: str, key: str | None = None, **params: Any) -> Response:
    """Make a request as the right account, with the last version that had usage records."""
    headers = {"authorization": "Bearer sk_test_double", "stripe-version": "2025-02-24.acacia"}
    if key:
        headers["idempotency-key"] = key
    texts = {name: str(value) for name, value in params.items()}
    return ledger.answer(Request(method=method, path=path, params=texts, headers=headers))


def send(ledger: Ledger, name: str, value: object, identifier: str, at: int = NOW_S) -> Response:
    """Send one meter event."""
    payload = {"payload[stripe_customer_id]": "cus_1", "payload[value]": str(value)}
    return call(
        ledger,
        "POST",
        "/v1/billing/meter_events",
        event_name=name,
        identifier=identifier,
        timestamp=at,
        **payload,
    )


def shape(kind: type) -> tuple[set[str], set[str]]:
    """Return the members that the SDK's type has, and those of them that are never absent."""
    members = {
        name: annotation
        for name, annotation in kind.__annotations__.items()
        if not name.startswith("_") and name != "OBJECT_NAME"
    }
    may_be_absent = {
        name
        for name, annotation in members.items()
        if "Optional" in str(annotation) or "None" in str(get_origin(annotation))
    }
    return set(members), set(members) - may_be_absent


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Meter, "/v1/billing/meters/mtr_hourly"),
        (stripe.Price, "/v1/prices/price_w"),
        (stripe.SubscriptionItem, "/v1/subscription_items/si_w"),
    ],
)
def test_objects_have_the_sdks_shape(ledger: Ledger, kind: type, path: str) -> None:
    """Each object has every member that the SDK's type promises, and none that it does not know."""
    known, promised = shape(kind)
    # The plan is the older twin of the price, and nothing here reads it.
    document = json.loads(call(ledger, "GET", path).body)
    assert set(document) <= known
    assert promised - {"plan"} <= set(document)
    for name, nested in (("recurring", stripe.Price.Recurring),):
        if kind is stripe.Price:
            # aggregate_usage was removed together with usage records.
            assert set(document[name]) - {"aggregate_usage"} == shape(nested)[0]


def test_events_and_summaries_have_the_sdks_shape(ledger: Ledger) -> None:
    """So have a meter event's answer and a summary."""
    assert set(json.loads(send(ledger, "hourly", 1, "a").body)) == shape(MeterEvent)[0]
    path = "/v1/billing/meters/mtr_hourly/event_summaries"
    hour = NOW_S // 3600 * 3600
    found = call(ledger, "GET", path, customer="cus_1", start_time=hour, end_time=hour + 3600)
    (summary,) = json.loads(found.body)["data"]
    assert set(summary) == shape(MeterEventSummary)[0]
    assert summary["aggregated_value"] == 1


def test_a_window_keeps_its_newest_event(ledger: Ledger) -> None:
    """A later event of the same hour or day replaces the earlier; another window adds."""
    hour = NOW_S // 3600 * 3600
    for n, (value, at) in enumerate([(5, hour), (3, hour + 59), (4, hour - 1), (1, hour - 3600)]):
        assert send(ledger, "hourly", value, f"h{n}", at).status == 200
        assert send(ledger, "daily", value, f"d{n}", at).status == 200
        assert send(ledger, "adding", value, f"a{n}", at).status == 200
    assert ledger.units("cus_1", "mtr_hourly") == 3 + 1
    assert ledger.units("cus_1", "mtr_daily") == 1
    assert ledger.units("cus_1", "mtr_adding") == 13


def test_identifiers_are_remembered_for_a_day(ledger: Ledger, clock: Clock) -> None:
    """The same identifier is refused for 24 hours and taken afterwards."""
    assert send(ledger, "adding", 1, "a").status == 200
    clock.now_s += DAY_S - 1
    refused = send(ledger, "adding", 1, "a")
    assert refused.status == 400
    assert b"An event already exists with identifier a" in refused.body
    clock.now_s += 1
    assert send(ledger, "adding", 1, "a").status == 200
    assert ledger.units("cus_1", "mtr_adding") == 2


@pytest.mark.parametrize(
    ("at", "status"),
    [
        (NOW_S - 35 * DAY_S, 200),
        (NOW_S - 35 * DAY_S - 1, 400),
        (NOW_S + 300, 200),
        (NOW_S + 301, 400),
    ],
)
def test_timestamps_have_bounds(ledger: Ledger, at: int, status: int) -> None:
    """Thirty-five days back and five minutes ahead, both included."""
    assert send(ledger, "adding", 1, "a", at).status == status


@pytest.mark.parametrize("value", ["1.5", "", "x", "1e3", "--1"])
def test_values_are_whole_numbers(ledger: Ledger, value: str) -> None:
    """Anything else is refused."""
    assert send(ledger, "adding", value, "a").status == 400


def test_one_call_in_flight_per_customer_and_meter(ledger: Ledger) -> None:
    """A second call is refused with 429 and counted; another meter's is not hindered."""

    def request(name: str) -> Request:
        params = {"event_name": name, "payload[stripe_customer_id]": "cus_1"}
        return Request(method="POST", path="/v1/billing/meter_events", params=params)

    first = ledger.begin(request("hourly"))
    ledger.end(ledger.begin(request("adding")))
    with pytest.raises(Refused) as caught:
        ledger.begin(request("hourly"))
    assert (caught.value.status, ledger.collisions) == (429, 1)
    ledger.end(first)
    ledger.end(ledger.begin(request("hourly")))


def test_answers_are_kept_for_a_key(ledger: Ledger, clock: Clock) -> None:
    """The same key replays its answer for a day, and refuses other parameters."""
    path = "/v1/subscription_items/si_l/usage_records"
    body = {"quantity": 5, "timestamp": NOW_S, "action": "set"}
    first = call(ledger, "POST", path, "k", **body)
    assert first.status == 200
    assert call(ledger, "POST", path, "k", **body) is first
    assert call(ledger, "POST", path, "k", **(body | {"quantity": 6})).status == 400
    clock.now_s += DAY_S
    assert call(ledger, "POST", path, "k", **(body | {"quantity": 6})).status == 200


def test_usage_records_set_and_increment(ledger: Ledger) -> None:
    """`set` overwrites the instant's quantity, anything else adds to it."""
    path = "/v1/subscription_items/si_l/usage_records"
    for action, quantity in (("increment", 5), ("increment", 2), ("set", 3), ("increment", 1)):
        body = {"quantity": quantity, "timestamp": NOW_S, "action": action}
        assert call(ledger, "POST", path, **body).status == 200
    assert ledger.units("cus_1", "si_l") == 4


def test_usage_records_end_with_basil(ledger: Ledger) -> None:
    """From 2025-03-31 on the address is unknown."""
    request = Request(
        method="POST",
        path="/v1/subscription_items/si_l/usage_records",
        headers={"authorization": "Bearer sk_test_double", "stripe-version": "2025-03-31.basil"},
    )
    assert ledger.answer(request).status == 404


def test_strangers_are_refused(ledger: Ledger) -> None:
    """Another key is 401 and changes nothing."""
    request = Request(method="GET", path="/v1/prices/price_w")
    assert ledger.answer(request).status == 401
