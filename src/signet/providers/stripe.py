"""Usage into Stripe, through its own SDK.

Present accounts count usage with Billing Meters; accounts from before 2025 still have subscription
items whose usage records left the SDK in 12.0 and the API in 2025-03-31.basil. One configuration
serves both: every item is resolved to a `Route`, and every answer of Stripe's becomes one value of
a closed union. Nothing here retries: the outbox does, and it alone knows what was sent.

https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from functools import partial
from types import MappingProxyType
from typing import Final, NoReturn, cast

import httpx
import stripe

from signet.core.billing import (
    SECOND_US,
    Answer,
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
)
from signet.core.pricing import decimal_text
from signet.core.units import exponent
from signet.providers.operator_http import OperatorLimits, operator_client
from signet.receipts.canonical import Json

ORIGIN: Final = "https://api.stripe.com"
LEGACY_VERSION: Final = "2025-02-24.acacia"
"""The last API version that still takes usage records."""

LIMITS: Final = OperatorLimits(
    deadline_s=20.0, connect_s=5.0, max_request_bytes=64 * 1024, max_response_bytes=1024 * 1024
)
_MAX_PAGES: Final = 40
_DUPLICATE: Final = "An event already exists with identifier"
# Amounts of these are spelled at Stripe with other decimals than ISO 4217 gives the currency, so a
# difference in price would prove nothing.
_OWN_DECIMALS: Final = frozenset({"HUF", "ISK", "MGA", "TWD", "UGX"})


class StripeBiller:
    """Speaks to one Stripe account. Safe for concurrent use; close it at the end."""

    def __init__(
        self, api_key: str, *, origin: str = ORIGIN, limits: OperatorLimits = LIMITS
    ) -> None:
        self.deadline_s = limits.deadline_s
        # The SDK would otherwise write an id file into the home directory and report the timing of
        # one request with the next.
        stripe.enable_telemetry = False
        self._http = _Transport(origin, limits)
        self._client = stripe.StripeClient(
            api_key,
            base_addresses={"api": origin, "meter_events": origin},
            max_network_retries=0,
            http_client=self._http,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.close_async()

    # What an item stands for.

    async def resolve(self, wanted: Wanted) -> Resolution:
        """Find where an item's units are counted, and compare its price and currency."""
        try:
            return await self._resolve(wanted)
        except _Mismatch as mismatch:
            return Unusable(detail=f"{wanted.item}: {mismatch}")
        except stripe.InvalidRequestError as error:
            if error.http_status == 404 or error.code == "resource_missing":
                return Unusable(detail=f"{wanted.item} does not exist in this Stripe account.")
            return Unreachable(detail=_sentence(error))
        except (_Unreadable, stripe.StripeError) as error:
            return Unreachable(detail=_sentence(error))

    async def _resolve(self, wanted: Wanted) -> Resolved:
        if wanted.item.startswith("si_"):
            item = await self._get(f"/v1/subscription_items/{wanted.item}")
            owner = await self._get(f"/v1/subscriptions/{_text(item, 'subscription')}")
            customer = _text(owner, "customer")
            if wanted.customer not in (None, customer):
                raise _Mismatch(f"it belongs to {customer}, not to {wanted.customer}.")
            return await self._resolve_price(wanted, _object(item, "price"), customer)
        customer = wanted.customer
        if customer is None:
            raise _Mismatch("it needs stripe_customer to say whose usage it counts.")
        if wanted.item.startswith("price_"):
            price = await self._get(f"/v1/prices/{wanted.item}")
            return await self._resolve_price(wanted, price, customer)
        return Resolved(
            route=await self._meter_route(wanted.item, wanted.item, customer),
            remarks=(f"{wanted.item}: a meter has no price to compare.",),
        )

    async def _resolve_price(
        self, wanted: Wanted, price: Mapping[str, Json], customer: str
    ) -> Resolved:
        remarks = _compare(wanted, price)
        recurring = price.get("recurring")
        if not isinstance(recurring, dict) or recurring.get("usage_type") != "metered":
            raise _Mismatch("its price is not metered, so it cannot count usage.")
        meter = recurring.get("meter")
        if isinstance(meter, str):
            route = await self._meter_route(wanted.item, meter, customer)
        elif wanted.item.startswith("si_"):
            await self._require_sum(_text(price, "id"))
            route = Route(item=wanted.item, mode="legacy", customer=customer, meter=wanted.item)
        else:
            raise _Mismatch("its price has no meter; name the subscription item (si_…) instead.")
        return Resolved(route=route, remarks=remarks)

    async def _require_sum(self, price: str) -> None:
        """Refuse a legacy price that does not add up its usage records over the month."""
        found = await self._get(f"/v1/prices/{price}", {"stripe_version": LEGACY_VERSION})
        how = _object(found, "recurring").get("aggregate_usage")
        if how not in (None, "sum"):
            raise _Mismatch(f"its price aggregates usage by {how!r}; only sum adds up to overage.")

    async def _meter_route(self, item: str, meter_id: str, customer: str) -> Route:
        meter = await self._get(f"/v1/billing/meters/{meter_id}")
        if meter.get("status") != "active":
            raise _Mismatch(f"its meter {meter_id} is not active.")
        formula = _object(meter, "default_aggregation").get("formula")
        if formula != "sum":
            raise _Mismatch(f"its meter aggregates by {formula!r}; only sum adds up to overage.")
        window = meter.get("event_time_window")
        if window not in (None, "hour"):
            raise _Mismatch(
                f"its meter keeps one value per {window}, and usage is reported per hour; "
                "make the meter with event_time_window=hour or without."
            )
        return Route(
            item=item,
            mode="sum" if window is None else "window",
            customer=customer,
            meter=meter_id,
            event_name=_text(meter, "event_name"),
            customer_key=_text(_object(meter, "customer_mapping"), "event_payload_key"),
            value_key=_text(_object(meter, "value_settings"), "event_payload_key"),
        )

    # What was used.

    async def send(self, event: UsageEvent) -> Answer:
        """Send one message, once, and say what is known about it afterwards."""
        try:
            if event.route.mode == "legacy":
                taken = await self._record(event)
            else:
                taken = await self._event(event)
        except stripe.StripeError as error:
            return _answer(error)
        # A proxy's page of good news is not Stripe's: the answer must speak of this message.
        return Delivered() if taken else _NO_ANSWER

    async def _event(self, event: UsageEvent) -> bool:
        route = event.route
        document = await self._call(
            "post",
            "/v1/billing/meter_events",
            {
                "event_name": route.event_name,
                "identifier": event.identifier,
                "timestamp": event.timestamp_s,
                "payload": {
                    route.customer_key: route.customer,
                    route.value_key: str(event.value),
                },
                "idempotency_key": _idempotency_key(event),
            },
        )
        return isinstance(document, dict) and document.get("identifier") == event.identifier

    async def _record(self, event: UsageEvent) -> bool:
        document = await self._call(
            "post",
            f"/v1/subscription_items/{event.route.meter}/usage_records",
            {
                "quantity": event.value,
                "timestamp": event.timestamp_s,
                "action": "set",
                "stripe_version": LEGACY_VERSION,
                "idempotency_key": _idempotency_key(event),
            },
        )
        return isinstance(document, dict) and document.get("quantity") == event.value

    # What Stripe holds. Its view is eventually consistent: it adds events up after it took them.

    async def held(self, route: Route, start_s: int, end_s: int) -> Held | Unreachable:
        """Ask how many units Stripe holds for a route between two UTC hours."""
        try:
            if route.mode == "legacy":
                return await self._held_records(route, start_s, end_s)
            page = await self._summaries(route, start_s, end_s)
            return Held(units=sum(_whole(summary, "aggregated_value") for summary in _data(page)))
        except (_Unreadable, stripe.StripeError) as error:
            return Unreachable(detail=_sentence(error))

    async def held_by_hour(
        self, route: Route, start_s: int, end_s: int
    ) -> Mapping[int, int] | Unreachable:
        """Ask the same for each UTC hour; hours without units may be left out.

        A legacy item's records cannot be read back one by one, so its hours are unreachable.
        """
        if route.mode == "legacy":
            return Unreachable(detail="Usage records cannot be read back by the hour.")
        hours: dict[int, int] = {}
        cursor: dict[str, str] = {}
        try:
            # A month has at most 745 hours; the bound ends a list that never does.
            for _ in range(_MAX_PAGES):
                page = await self._summaries(
                    route, start_s, end_s, value_grouping_window="hour", limit=100, **cursor
                )
                for summary in _data(page):
                    hours[_whole(summary, "start_time")] = _whole(summary, "aggregated_value")
                    cursor = {"starting_after": _text(summary, "id")}
                if page.get("has_more") is not True:
                    return hours
        except (_Unreadable, stripe.StripeError) as error:
            return Unreachable(detail=_sentence(error))
        return Unreachable(detail="Stripe's list of hours does not end.")

    async def _summaries(
        self, route: Route, start_s: int, end_s: int, **params: str | int
    ) -> Mapping[str, Json]:
        span = {"customer": route.customer, "start_time": start_s, "end_time": end_s}
        path = f"/v1/billing/meters/{route.meter}/event_summaries"
        return await self._get(path, {**span, **params})

    async def _held_records(self, route: Route, start_s: int, end_s: int) -> Held:
        """Read the summary of the subscription's billing cycle that the hours lie in."""
        found = await self._get(
            f"/v1/subscription_items/{route.meter}/usage_record_summaries",
            {"limit": 100, "stripe_version": LEGACY_VERSION},
        )
        for summary in _data(found):
            cycle = _object(summary, "period")
            first, last = cycle.get("start"), cycle.get("end")
            begun = not isinstance(first, int) or first <= start_s
            if begun and (not isinstance(last, int) or last >= end_s):
                return Held(units=_whole(summary, "total_usage"))
        raise _Unreadable("its billing cycle is not the tenant's calendar month.")

    async def _get(
        self, path: str, params: Mapping[str, str | int] = MappingProxyType({})
    ) -> Mapping[str, Json]:
        document = await self._call("get", path, params)
        if not isinstance(document, dict):
            raise _Unreadable("Stripe answered with something other than an object.")
        return document

    async def _call(self, method: str, path: str, params: Mapping[str, object]) -> Json:
        """Make one request and return the JSON of a 2xx answer; raise a `stripe.StripeError`."""
        response = await self._client.raw_request_async(method, path, **params)  # pyright: ignore[reportUnknownMemberType] - the SDK leaves its **params untyped
        return cast(Json, response.data)


class _Transport(stripe.HTTPClient):
    """Carries the SDK's requests to one origin, under our own limits."""

    name = "signet"

    def __init__(self, origin: str, limits: OperatorLimits) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType] - so does this one's _lib
        trust = httpx.create_ssl_context(trust_env=False)
        self._open = partial(operator_client, origin, limits, trust=trust)
        # httpx looks at each connection of its pool for each request, so a hundred calls at once
        # cost ten thousand looks. A client for each call at once has one connection to look at.
        self._clients = [self._open()]
        self._idle = [*self._clients]

    async def request_async(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        post_data: str | bytes | None = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        content = post_data.encode() if isinstance(post_data, str) else post_data
        try:
            with self._client() as client:
                response = await client.request(method, url, headers=dict(headers), content=content)
        except Exception as error:
            # Whatever went wrong below, all that is known is that no whole answer came.
            raise stripe.APIConnectionError(f"{type(error).__name__}: {error}") from error
        body = response.content
        if response.status_code >= 300:
            body = _error_body(body)
        return body, response.status_code, response.headers

    async def close_async(self) -> None:
        for client in self._clients:
            await client.aclose()

    @contextmanager
    def _client(self) -> Generator[httpx.AsyncClient]:
        """Lend the client that was used last, whose connection is the likeliest to be open."""
        if not self._idle:
            self._clients.append(self._open())
            self._idle.append(self._clients[-1])
        client = self._idle.pop()
        try:
            yield client
        finally:
            self._idle.append(client)


def _error_body(body: bytes) -> bytes:
    """Return an error body that the SDK can read; proxies answer with pages of their own."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(
        cast(dict[str, object], document).get("error"), dict
    ):
        return body
    return b'{"error": {"type": "api_error", "message": "The answer is not one of Stripe\'s."}}'


class _Mismatch(Exception):
    """What Stripe says rules the configuration out."""


class _Unreadable(Exception):
    """The answer is not what Stripe documents, so it says nothing."""


_NO_ANSWER: Final = Retry(reason="no_answer", answered=False)
"""No whole answer came, or one that says nothing: the message may have been taken."""


def _idempotency_key(event: UsageEvent) -> str:
    """Return the key under which Stripe keeps this request's answer for 24 hours.

    An answered failure is kept too and would be replayed, so the next try needs another key; an
    unanswered try keeps its own, and gets the first try's answer.
    """
    return event.identifier if event.attempt == 0 else f"{event.identifier}-{event.attempt}"


def _answer(error: stripe.StripeError) -> Answer:
    """Say what an error of the SDK's means for the message that met it."""
    status, message = error.http_status, _sentence(error)
    reason = error.code or f"http_{status}"
    if status is None or status < 400:
        return _NO_ANSWER
    if status == 400 and (_DUPLICATE in message or error.code == "duplicate_meter_event"):
        return Delivered(duplicate=True)
    if status in (401, 403):
        return LaneStopped(reason=reason, detail=message)
    headers = error.headers or {}
    again = headers.get("stripe-should-retry") == "true"
    if status in (408, 409, 429) or status >= 500 or again or error.code == "rate_limit":
        return Retry(reason=reason, answered=True, after_us=_retry_after_us(headers))
    return DeadLetter(reason=reason, detail=message)


def _retry_after_us(headers: Mapping[str, str]) -> int | None:
    """Read `Retry-After` in its form of seconds (RFC 9110 §10.2.3), bounded to one hour."""
    text = headers.get("retry-after", "")
    return min(int(text), 3_600) * SECOND_US if text.isascii() and text.isdigit() else None


def _sentence(error: Exception) -> str:
    """Return what the error says, short enough for a log line and a row."""
    text = error.user_message if isinstance(error, stripe.StripeError) else str(error)
    return (text or type(error).__name__)[:500]


def _compare(wanted: Wanted, price: Mapping[str, Json]) -> tuple[str, ...]:
    """Raise on a definite difference; return what could not be compared."""
    currency = _text(price, "currency").upper()
    if currency != wanted.currency:
        raise _Mismatch(f"Stripe bills it in {currency}, the configuration in {wanted.currency}.")
    if wanted.price is None:
        return ()
    text = price.get("unit_amount_decimal")
    plain = price.get("billing_scheme") == "per_unit" and not price.get("transform_quantity")
    if not plain or not isinstance(text, str) or currency in _OWN_DECIMALS:
        return (f"{wanted.item}: Stripe's price is not a plain amount per unit; not compared.",)
    try:
        theirs = Decimal(text).scaleb(-exponent(currency))
    except InvalidOperation:
        _unreadable("unit_amount_decimal")
    if theirs != wanted.price:
        raise _Mismatch(
            f"Stripe charges {decimal_text(theirs)} {currency} a unit, the configuration says "
            f"{decimal_text(wanted.price)}."
        )
    return ()


# Stripe's answers are read as what they may be: anything.


def _unreadable(name: str) -> NoReturn:
    raise _Unreadable(f"Stripe's answer has no readable {name}.")


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else _unreadable(name)


def _object(document: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    value = document.get(name)
    return value if isinstance(value, dict) else _unreadable(name)


def _data(document: Mapping[str, Json]) -> list[dict[str, Json]]:
    value = document.get("data")
    if not isinstance(value, list):
        _unreadable("data")
    return [entry for entry in value if isinstance(entry, dict)]


def _whole(document: Mapping[str, Json], name: str) -> int:
    """Read a count; the API writes some of them as doubles, exact up to 2^53."""
    value = document.get(name)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else _unreadable(name)
