"""Billing periods, windows, and what a biller answered: pure values and rules.

A *window* is what one band of one tenant's plan used within one UTC hour. What is sent for it is
state, never an increment: the window's absolute total with a version, so that a message that
arrives twice, or after a crash, changes nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal
from zoneinfo import ZoneInfo

from signet.core.errors import SignetError
from signet.receipts.canonical import canonicalize

SECOND_US: Final = 1_000_000
HOUR_US: Final = 3_600 * SECOND_US
UNKNOWN_IS_STALE_US: Final = 23 * HOUR_US
"""Stripe remembers an event's identifier for 24 hours. One hour before that, sending again stops
being harmless for a meter that adds up."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PERIOD: Final = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
# Every zone's offset is a multiple of a quarter of an hour since 1972, so all instants of one
# quarter lie in one month.
_QUARTER_US: Final = 900 * SECOND_US


class PeriodInvalid(SignetError):
    """Not a calendar month spelled YYYY-MM."""

    code = "period_invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """One calendar month of a zone: `name` is "2026-11", `end_us` is the first instant after."""

    name: str
    start_us: int
    end_us: int


def period_of(ts_us: int, zone: str) -> Period:
    """Return the month that contains this instant in the zone."""
    return _period_of_quarter(ts_us // _QUARTER_US, zone)


@lru_cache(maxsize=8192)
def _period_of_quarter(quarter: int, zone: str) -> Period:
    instant = _EPOCH + timedelta(microseconds=quarter * _QUARTER_US)
    local = instant.astimezone(ZoneInfo(zone))
    return period_named(f"{local.year:04}-{local.month:02}", zone)


@lru_cache(maxsize=1024)
def period_named(name: str, zone: str) -> Period:
    """Return the zone's month of that name; raise `PeriodInvalid`."""
    match = _PERIOD.fullmatch(name)
    # Year 1 and year 9999 have neighbours outside the calendar that datetime can hold.
    if match is None or not 1970 <= (year := int(match[1])) < 9999:
        raise PeriodInvalid(f"expected a month such as 2026-11, got {name[:20]!r}")
    month = int(match[2])
    following = (year, month + 1) if month < 12 else (year + 1, 1)
    return Period(
        name=name,
        start_us=_midnight_us(year, month, zone),
        end_us=_midnight_us(*following, zone),
    )


def _midnight_us(year: int, month: int, zone: str) -> int:
    """Return the first instant of a month.

    Where clocks jump over midnight, the earlier fold names the instant of the jump.
    """
    local = datetime(year, month, 1, tzinfo=ZoneInfo(zone))
    return (local.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def hour_of(ts_us: int) -> int:
    """Return the start of the instant's UTC hour, in seconds since the epoch."""
    return ts_us // HOUR_US * 3_600


def begins_on_the_hour(period: Period) -> bool:
    """Tell whether both ends of the month fall on a UTC hour.

    Where they do not (Kolkata is 5:30 ahead), two months share an hour, and a meter that keeps one
    value per hour would let one month overwrite the other.
    """
    return period.start_us % HOUR_US == 0 and period.end_us % HOUR_US == 0


# Where usage goes, and what came back.

RouteMode = Literal["window", "sum", "legacy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where one configured item's units are counted.

    `window`: the meter keeps the newest value of each hour. `sum`: the meter adds up, so it gets
    differences. `legacy`: a subscription item without a meter, whose usage record of one instant
    is overwritten. `meter` is the meter's id or, for legacy, the subscription item's.
    """

    item: str
    mode: RouteMode
    customer: str
    meter: str
    event_name: str = ""
    customer_key: str = ""
    value_key: str = ""

    @property
    def lane(self) -> str:
        """Return what may have one call in flight: Stripe allows one per customer and meter."""
        return f"{self.customer}/{self.meter}"

    @property
    def overwrites(self) -> bool:
        """Tell whether a second message for an hour replaces the first."""
        return self.mode != "sum"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One configured item: what the reserved-capacity document expects Stripe to say.

    `price` is None for a reserve, whose price at Stripe is nobody's business here.
    """

    item: str
    customer: str | None
    price: Decimal | None
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The item's route. `remarks` say what could not be compared."""

    route: Route
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """Stripe definitely says otherwise than the configuration; `detail` is a whole sentence."""

    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """Stripe could not be asked. It proves nothing, so the lane waits and the gateway serves."""

    detail: str


Resolution = Resolved | Unusable | Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How many units Stripe holds."""

    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """One message: `value` units at `timestamp_s`. The same identifier means the same content.

    `attempt` counts the messages with this identifier that were answered, and failed.
    """

    route: Route
    identifier: str
    value: int
    timestamp_s: int
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """Stripe has the event; `duplicate` when it already had it from an earlier try."""

    duplicate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Not now. `answered` is False when nobody knows whether the event was taken."""

    reason: str
    answered: bool
    after_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """Held until something is known that is not known now; nothing is sent meanwhile."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStopped:
    """The key is refused: no message can succeed until an operator mends it."""

    reason: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """Stripe refuses this very message. It is kept, shown, and can be sent again by hand."""

    reason: str
    detail: str


Answer = Delivered | Retry | Parked | LaneStopped | DeadLetter


def event_identifier(*, deployment: str, route: Route, hour: int, version: int, value: int) -> str:
    """Return the identifier of a message: 40 hex digits over everything that it says.

    `deployment` is drawn anew after a restore from a backup: versions may then repeat with other
    values, and must not look like messages that Stripe already has.
    """
    content = [deployment, route.customer, route.meter, route.item, hour, version, value]
    return hashlib.sha256(canonicalize([*content])).hexdigest()[:40]


# One window's life.


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    """A message that was, or is about to be, sent, and whose fate is not known yet."""

    version: int
    value: int
    since_us: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One window as stored: what it should say, what Stripe is known to say, what is in flight.

    `value` is the total that version `version` says. `sent_value` is the total that version
    `sent_version` made true at Stripe. A rejected version is kept in `dead_version`.
    """

    value: int
    version: int
    sent_value: int
    sent_version: int
    dead_version: int
    tries: int
    flight: Flight | None


def next_flight(window: Window, route: Route, now_us: int) -> Flight | Parked | None:
    """Return the one message that may be sent for this window now; None when there is none.

    A message whose fate is unknown goes out again exactly as it was, before anything newer: only
    its identifier tells Stripe that both are one. Once that identifier may be forgotten, a meter
    that adds up must be asked what it holds first.
    """
    flight = window.flight
    if flight is not None:
        stale = now_us - flight.since_us >= UNKNOWN_IS_STALE_US
        return Parked(reason="outcome_unknown") if stale and not route.overwrites else flight
    if window.version <= max(window.sent_version, window.dead_version):
        return None
    value = window.value if route.overwrites else window.value - window.sent_value
    return Flight(version=window.version, value=value, since_us=now_us, attempt=0)


def value_after(window: Window, flight: Flight, route: Route) -> int:
    """Return the total that Stripe holds for the window once the flight is delivered."""
    return flight.value if route.overwrites else window.sent_value + flight.value


def crossed(limit: int, before: int, after: int) -> tuple[int, ...]:
    """Return which of 50, 80 and 100 percent of a limit were reached by this step."""
    if limit <= 0:
        return ()
    return tuple(p for p in (50, 80, 100) if before * 100 < limit * p <= after * 100)
