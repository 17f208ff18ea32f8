"""The rules: what Stripe takes, refuses and adds up. No socket, no clock of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DAY_S = 86_400
PAST_S = 35 * DAY_S
FUTURE_S = 300
USAGE_RECORDS_END = "2025-03-31"

Params = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request, its form decoded: `payload[value]` stands under that very name."""

    method: str
    path: str
    params: Params = field(default_factory=dict[str, str])
    headers: Params = field(default_factory=dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Response:
    """One answer. Only what was executed is kept for its idempotency key."""

    status: int
    body: bytes
    headers: Params = field(default_factory=dict[str, str])
    executed: bool = True


class Refused(Exception):
    """An error answer, made where the rule is broken."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        kind: str = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"type": kind, "message": message} | ({"code": code} if code else {})


@dataclass(frozen=True, kw_only=True)
class Event:
    """A meter event that was taken, in the order of arrival."""

    meter: str
    customer: str
    value: int
    timestamp: int
    identifier: str
    received: int


class Ledger:
    """One Stripe account."""

    def __init__(self, now_s: Callable[[], int], *, key: str = "sk_test_double") -> None:
        self.now_s = now_s
        self.key = key
        self.objects: dict[str, dict[str, Any]] = {}
        self.events: list[Event] = []
        self.records: dict[tuple[str, int], int] = {}
        self.requests = 0
        self.collisions = 0
        """How often two calls for one customer and meter were in flight together."""
        self._kept: dict[str, tuple[int, str, Response]] = {}
        self._in_flight: set[tuple[str, str]] = set()

    # What an operator sets up in the dashboard.

    def add_meter(
        self, event_name: str, *, window: str | None = None, formula: str = "sum",
        status: str = "active",
    ) -> str:  # fmt: skip
        """Add a meter; `window` makes it keep the newest value of each hour or day."""
        return self._add(
            f"mtr_{event_name}",
            object="billing.meter", created=1, updated=1, livemode=False, status=status,
            display_name=event_name, event_name=event_name, event_time_window=window,
            default_aggregation={"formula": formula},
            customer_mapping={"event_payload_key": "stripe_customer_id", "type": "by_id"},
            value_settings={"event_payload_key": "value"},
            status_transitions={"deactivated_at": None},
        )  # fmt: skip

    def add_price(
        self, name: str, *, cents: str | None, meter: str | None = None, currency: str = "usd",
        usage_type: str = "metered", aggregate: str = "sum",
        transform: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """Add a recurring price; without a meter it is one of the years before meters."""
        return self._add(
            f"price_{name}",
            object="price", active=True, billing_scheme="per_unit" if cents else "tiered",
            created=1, currency=currency, custom_unit_amount=None, livemode=False,
            lookup_key=None, metadata={}, nickname=None, product="prod_1",
            recurring={
                "interval": "month", "interval_count": 1, "meter": meter,
                "trial_period_days": None, "usage_type": usage_type,
            },
            tax_behavior=None, tiers_mode=None if cents else "graduated",
            transform_quantity=transform, type="recurring",
            unit_amount=int(cents) if cents and cents.isdigit() else None,
            unit_amount_decimal=cents, aggregate_usage=aggregate,
        )  # fmt: skip

    def add_item(self, name: str, *, price: str, customer: str) -> str:
        """Add a subscription of the customer with this one item."""
        self.add_customer(customer)
        subscription = self._add(f"sub_{name}", object="subscription", customer=customer)
        return self._add(
            f"si_{name}",
            object="subscription_item", created=1, subscription=subscription, price=price,
            metadata={}, discounts=[], tax_rates=[], billing_thresholds=None,
            current_period_start=self.now_s() - 40 * DAY_S,
            current_period_end=self.now_s() + 40 * DAY_S,
        )  # fmt: skip

    def add_customer(self, customer: str) -> None:
        """Add a customer."""
        self._add(customer, object="customer")

    def _add(self, id: str, **members: Any) -> str:
        self.objects[id] = {"id": id} | members
        return id

    # What Stripe would bill.

    def units(self, customer: str, meter: str, start: int = 0, end: int = 2**60) -> int:
        """Return what a meter holds for a customer, or a legacy item under its own id."""
        if meter.startswith("si_"):
            return sum(
                n for (item, at), n in self.records.items() if item == meter and start <= at < end
            )
        events = [
            e for e in self.events
            if e.meter == meter and e.customer == customer and start <= e.timestamp < end
        ]  # fmt: skip
        window = {"hour": 3600, "day": DAY_S}.get(self.objects[meter]["event_time_window"] or "")
        if window is None:
            return sum(e.value for e in events)
        newest = {e.timestamp // window: e.value for e in events}
        return sum(newest.values())

    # The API.

    def begin(self, request: Request) -> tuple[str, str] | None:
        """Mark a usage call as in flight; raise `Refused` when one already is.

        Returns what `end` must be given.
        """
        lane = self._lane(request)
        if lane is None:
            return None
        if lane in self._in_flight:
            self.collisions += 1
            raise Refused(429, "Too many concurrent calls for this customer.", code="lock_timeout")
        self._in_flight.add(lane)
        return lane

    def end(self, lane: tuple[str, str] | None) -> None:
        """The call that `begin` marked is over."""
        if lane is not None:
            self._in_flight.discard(lane)

    def _lane(self, request: Request) -> tuple[str, str] | None:
        if request.method != "POST":
            return None
        if request.path == "/v1/billing/meter_events":
            customer = request.params.get("payload[stripe_customer_id]", "")
            return customer, request.params.get("event_name", "")
        return "", request.path

    def answer(self, request: Request) -> Response:
        """Carry a request out, or replay what its idempotency key was answered."""
        self.requests += 1
        try:
            self._authenticate(request)
            key = request.headers.get("idempotency-key") if request.method == "POST" else None
            if key is None:
                return self._execute(request)
            return self._keep(key, request)
        except Refused as refused:
            return error_response(refused)

    def _keep(self, key: str, request: Request) -> Response:
        content = json.dumps([request.path, sorted(request.params.items())])
        at, known, response = self._kept.get(key, (-DAY_S, content, None))
        if response is not None and self.now_s() - at < DAY_S:
            if known != content:
                raise Refused(
                    400, "Keys for idempotent requests can only be used with the same parameters "
                    "they were first used with.", kind="idempotency_error",
                )  # fmt: skip
            return response
        response = self._execute(request)
        self.keep(key, request, response)
        return response

    def keep(self, key: str, request: Request, response: Response) -> None:
        """Keep an executed answer, failures included, for 24 hours."""
        if response.executed:
            content = json.dumps([request.path, sorted(request.params.items())])
            self._kept[key] = (self.now_s(), content, response)

    def _authenticate(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Bearer {self.key}":
            raise Refused(401, "Invalid API Key provided.")

    def _execute(self, request: Request) -> Response:
        try:
            return _json(self._route(request))
        except Refused as refused:
            return error_response(refused)

    def _route(self, request: Request) -> dict[str, Any]:
        match request.method, request.path.strip("/").split("/")[1:]:
            case "POST", ["billing", "meter_events"]:
                return self._create_event(request.params)
            case "GET", ["billing", "meters", id]:
                return self._find(id, "billing.meter")
            case "GET", ["billing", "meters", id, "event_summaries"]:
                return self._summaries(self._find(id, "billing.meter"), request.params)
            case "GET", ["prices", id]:
                return self._price(self._find(id, "price"), request)
            case "GET", ["subscriptions", id]:
                return self._find(id, "subscription")
            case "GET", ["subscription_items", id]:
                item = self._find(id, "subscription_item")
                price = self._price(self._find(item["price"], "price"), request)
                return item | {"price": price}
            case "POST", ["subscription_items", id, "usage_records"] if self._legacy(request):
                return self._create_record(self._find(id, "subscription_item"), request.params)
            case "GET", ["subscription_items", id, "usage_record_summaries"] if self._legacy(
                request
            ):
                return self._record_summaries(self._find(id, "subscription_item"))
            case _:
                raise Refused(404, f"Unrecognized request URL ({request.method}: {request.path}).")

    def _legacy(self, request: Request) -> bool:
        return request.headers.get("stripe-version", "9999") < USAGE_RECORDS_END

    def _find(self, id: str, kind: str) -> dict[str, Any]:
        found = self.objects.get(id)
        if found is None or found["object"] != kind:
            raise Refused(404, f"No such {kind}: '{id}'", code="resource_missing")
        return found

    def _price(self, price: dict[str, Any], request: Request) -> dict[str, Any]:
        """`recurring.aggregate_usage` is only shown to versions that had it."""
        shown = {name: value for name, value in price.items() if name != "aggregate_usage"}
        if self._legacy(request):
            aggregate = {"aggregate_usage": price["aggregate_usage"]}
            shown["recurring"] = price["recurring"] | aggregate
        return shown

    def _create_event(self, params: Params) -> dict[str, Any]:
        name = params.get("event_name", "")
        meters = [
            m for m in self.objects.values()
            if m["object"] == "billing.meter" and m["event_name"] == name
        ]  # fmt: skip
        if not meters:
            raise Refused(400, f"No meter found with event name {name}.", code="resource_missing")
        (meter,) = meters
        if meter["status"] != "active":
            raise Refused(400, "The meter is archived.", code="archived_meter")
        payload = {
            key.removeprefix("payload[").removesuffix("]"): value
            for key, value in params.items()
            if key.startswith("payload[")
        }
        customer = payload.get(meter["customer_mapping"]["event_payload_key"], "")
        value = payload.get(meter["value_settings"]["event_payload_key"], "")
        if customer not in self.objects:
            raise Refused(400, f"No such customer: '{customer}'", code="resource_missing")
        if not value.removeprefix("-").isdigit():
            raise Refused(400, "value must be a whole number.", code="meter_event_invalid_value")
        timestamp = self._timestamp(params)
        identifier = params.get("identifier", f"made_{len(self.events)}")
        self._refuse_duplicate(identifier)
        self.events.append(
            Event(
                meter=meter["id"], customer=customer, value=int(value), timestamp=timestamp,
                identifier=identifier, received=self.now_s(),
            )
        )  # fmt: skip
        return {
            "object": "billing.meter_event", "created": self.now_s(), "event_name": name,
            "identifier": identifier, "livemode": False, "payload": payload,
            "timestamp": timestamp,
        }  # fmt: skip

    def _timestamp(self, params: Params) -> int:
        timestamp = int(params.get("timestamp", self.now_s()))
        if timestamp < self.now_s() - PAST_S:
            raise Refused(400, "timestamp too far in past", code="timestamp_too_far_in_past")
        if timestamp > self.now_s() + FUTURE_S:
            raise Refused(400, "timestamp in future", code="timestamp_in_future")
        return timestamp

    def _refuse_duplicate(self, identifier: str) -> None:
        if not 1 <= len(identifier) <= 100:
            raise Refused(400, "identifier must be 1 to 100 characters.")
        for event in reversed(self.events):
            if self.now_s() - event.received >= DAY_S:
                return
            if event.identifier == identifier:
                raise Refused(400, f"An event already exists with identifier {identifier}.")

    def _summaries(self, meter: dict[str, Any], params: Params) -> dict[str, Any]:
        start, end = int(params["start_time"]), int(params["end_time"])
        if start % 60 or end % 60:
            raise Refused(400, "start_time and end_time must be aligned with minute boundaries.")
        step = {"hour": 3600, "day": DAY_S}.get(params.get("value_grouping_window", ""))
        if step is None:
            spans = [(start, end)]
        elif start % step or end % step:
            raise Refused(400, "start_time and end_time must be aligned with the window.")
        else:
            spans = [(at, at + step) for at in range(start, end, step)]
        summaries = [
            {
                "id": f"mtrusg_{first}", "object": "billing.meter_event_summary",
                "livemode": False, "meter": meter["id"], "start_time": first, "end_time": last,
                "aggregated_value": float(
                    self.units(params["customer"], meter["id"], first, last)
                ),
            }
            for first, last in reversed(spans)
        ]  # fmt: skip
        return self._page("/v1/billing/meters/event_summaries", summaries, params)

    def _page(self, url: str, entries: list[dict[str, Any]], params: Params) -> dict[str, Any]:
        """Return one page of a list, the newest entries first, after the given one."""
        after = params.get("starting_after")
        ids = [entry["id"] for entry in entries]
        begin = ids.index(after) + 1 if after else 0
        limit = int(params.get("limit", "10"))
        rest = entries[begin:]
        return _list(url, *rest[:limit]) | {"has_more": len(rest) > limit}

    def _create_record(self, item: dict[str, Any], params: Params) -> dict[str, Any]:
        quantity, timestamp = params.get("quantity", ""), self._record_time(item, params)
        if not quantity.isdigit():
            raise Refused(400, "Invalid integer: quantity must be 0 or more.")
        slot = (item["id"], timestamp)
        before = 0 if params.get("action") == "set" else self.records.get(slot, 0)
        self.records[slot] = before + int(quantity)
        return {
            "id": "mbur_1", "object": "usage_record", "livemode": False,
            "quantity": self.records[slot], "subscription_item": item["id"],
            "timestamp": timestamp,
        }  # fmt: skip

    def _record_time(self, item: dict[str, Any], params: Params) -> int:
        timestamp = int(params.get("timestamp", self.now_s()))
        if not item["current_period_start"] <= timestamp <= self.now_s() + FUTURE_S:
            raise Refused(400, "Cannot create the usage record with this timestamp.")
        return timestamp

    def _record_summaries(self, item: dict[str, Any]) -> dict[str, Any]:
        start, end = item["current_period_start"], item["current_period_end"]
        summary = {
            "id": "sis_1", "object": "usage_record_summary", "invoice": None, "livemode": False,
            "period": {"start": start, "end": end}, "subscription_item": item["id"],
            "total_usage": self.units("", item["id"], start, end),
        }  # fmt: skip
        return _list("/v1/subscription_items/usage_record_summaries", summary)


def error_response(refused: Refused, **headers: str) -> Response:
    """Return an error the way Stripe spells it; refusals at the door are not kept."""
    body = json.dumps({"error": refused.error}).encode()
    executed = refused.status not in (401, 403, 409, 429)
    return Response(status=refused.status, body=body, headers=headers, executed=executed)


def _list(url: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"object": "list", "data": [*entries], "has_more": False, "url": url}


def _json(document: dict[str, Any]) -> Response:
    return Response(status=200, body=json.dumps(document).encode())
