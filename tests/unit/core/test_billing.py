"""Months have exact bounds in every zone, and a window's next message is always the safe one."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.core.billing import (
    HOUR_US,
    UNKNOWN_IS_STALE_US,
    Flight,
    Parked,
    PeriodInvalid,
    Route,
    RouteMode,
    Window,
    begins_on_the_hour,
    crossed,
    event_identifier,
    hour_of,
    next_flight,
    period_named,
    period_of,
    value_after,
)

ZONES = sorted(available_timezones() - {"localtime"})
instants = st.integers(
    int(datetime(1972, 2, 1, tzinfo=UTC).timestamp()) * 10**6,
    int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 10**6,
)


def at(text: str) -> int:
    """Microseconds of an ISO instant."""
    return int(datetime.fromisoformat(text).timestamp()) * 10**6


@pytest.mark.parametrize(
    ("instant", "zone", "name"),
    [
        ("2026-11-30T23:59:59+00:00", "UTC", "2026-11"),
        ("2026-12-01T00:00:00+00:00", "UTC", "2026-12"),
        ("2026-11-30T22:59:59+00:00", "Europe/Berlin", "2026-11"),
        ("2026-11-30T23:00:00+00:00", "Europe/Berlin", "2026-12"),
        ("2026-06-30T21:59:59+00:00", "Europe/Berlin", "2026-06"),
        ("2026-06-30T22:00:00+00:00", "Europe/Berlin", "2026-07"),
        ("2026-12-01T07:59:59+00:00", "America/Los_Angeles", "2026-11"),
        ("2026-12-01T08:00:00+00:00", "America/Los_Angeles", "2026-12"),
        ("2026-11-30T18:29:59+00:00", "Asia/Kolkata", "2026-11"),
        ("2026-11-30T18:30:00+00:00", "Asia/Kolkata", "2026-12"),
        ("2026-12-31T23:59:59+00:00", "UTC", "2026-12"),
    ],
)
def test_a_month_is_the_tenants_own(instant: str, zone: str, name: str) -> None:
    """Both neighbours of a month's end lie in the month that the zone's calendar says."""
    assert period_of(at(instant), zone).name == name


@given(instants, st.sampled_from(ZONES))
def test_every_instant_lies_in_its_month(ts_us: int, zone: str) -> None:
    """The month of an instant contains it, and its name is what the zone's clock shows."""
    period = period_of(ts_us, zone)
    assert period.start_us <= ts_us < period.end_us
    local = datetime.fromtimestamp(ts_us // 10**6, ZoneInfo(zone))
    assert period.name == f"{local.year}-{local.month:02}"


@given(instants, st.sampled_from(ZONES))
def test_months_leave_no_gap(ts_us: int, zone: str) -> None:
    """Where one month ends, the next begins; no instant is in two or in none."""
    period = period_of(ts_us, zone)
    following = period_of(period.end_us, zone)
    assert following.start_us == period.end_us
    assert period_of(period.end_us - 1, zone) == period
    assert period_named(period.name, zone) == period


@pytest.mark.parametrize(
    "name",
    ["", "2026", "2026-13", "2026-00", "2026-1", "0000-01", "9999-12", "2026-11-01", "２０２６-11"],
)
def test_what_is_no_month_is_refused(name: str) -> None:
    """A hostile period in a path is an error of ours, never one of the calendar's."""
    with pytest.raises(PeriodInvalid):
        period_named(name, "UTC")


def test_hours_are_utc_hours() -> None:
    """An instant's hour is its UTC hour, in seconds."""
    assert hour_of(at("2026-11-23T13:59:59+00:00") + 999_999) * 10**6 == at(
        "2026-11-23T13:00:00+00:00"
    )


def test_half_hour_zones_are_told_apart() -> None:
    """A month that begins inside a UTC hour shares that hour with its neighbour."""
    assert begins_on_the_hour(period_named("2026-11", "Europe/Berlin"))
    assert not begins_on_the_hour(period_named("2026-11", "Asia/Kolkata"))
    assert not begins_on_the_hour(period_named("2026-11", "Asia/Kathmandu"))


# Windows.


def route(mode: RouteMode) -> Route:
    """A route of that mode."""
    return Route(item="si_1", mode=mode, customer="cus_1", meter="mtr_1")


def window(**changes: int | Flight | None) -> Window:
    """A window of 70 units, of which Stripe holds 50, with changes."""
    members: dict[str, int | Flight | None] = {
        "value": 70, "version": 3, "sent_value": 50, "sent_version": 2, "dead_version": 0,
        "tries": 0, "flight": None,
    }  # fmt: skip
    return Window(**(members | changes))  # pyright: ignore[reportArgumentType] - by name


@pytest.mark.parametrize(("mode", "value"), [("window", 70), ("legacy", 70), ("sum", 20)])
def test_state_where_it_overwrites_and_difference_where_it_adds(
    mode: RouteMode, value: int
) -> None:
    """A meter that overwrites gets the total; one that adds gets what it lacks."""
    flight = next_flight(window(), route(mode), 9)
    assert flight == Flight(version=3, value=value, since_us=9, attempt=0)
    assert value_after(window(), flight, route(mode)) == 70


@pytest.mark.parametrize("mode", ["window", "sum", "legacy"])
def test_an_unknown_message_goes_first_and_unchanged(mode: RouteMode) -> None:
    """What may have arrived is sent again as it was, although the window has moved on."""
    unknown = Flight(version=2, value=5, since_us=7, attempt=1)
    assert next_flight(window(version=9, flight=unknown), route(mode), 8) == unknown


@pytest.mark.parametrize("mode", ["window", "legacy"])
def test_overwriting_stays_harmless_after_a_day(mode: RouteMode) -> None:
    """Where the newest value counts, an old unknown message may simply be sent again."""
    unknown = Flight(version=3, value=70, since_us=0, attempt=0)
    assert next_flight(window(flight=unknown), route(mode), 99 * HOUR_US) == unknown


def test_adding_is_parked_before_the_identifier_is_forgotten() -> None:
    """A meter that adds up is asked first, once Stripe may no longer know the identifier."""
    unknown = Flight(version=3, value=20, since_us=0, attempt=0)
    stale = window(flight=unknown)
    assert next_flight(stale, route("sum"), UNKNOWN_IS_STALE_US - 1) == unknown
    assert next_flight(stale, route("sum"), UNKNOWN_IS_STALE_US) == Parked(reason="outcome_unknown")


@pytest.mark.parametrize("changes", [{"sent_version": 3}, {"dead_version": 3}])
def test_nothing_is_sent_twice_or_after_a_refusal(changes: dict[str, int]) -> None:
    """A version that is known delivered, or known refused, is done with."""
    assert next_flight(window(**changes), route("window"), 9) is None


def test_new_units_wake_a_refused_window() -> None:
    """A later version carries the refused one's units, so it is tried."""
    flight = next_flight(window(version=4, dead_version=3), route("sum"), 9)
    assert isinstance(flight, Flight)
    assert flight.value == 20


def identify(**changes: str | int) -> str:
    """The identifier of one message, with changes."""
    of: dict[str, str | int] = {
        "deployment": "d", "customer": "cus_1", "meter": "mtr_1", "item": "si_1",
        "hour": 3600, "version": 1, "value": 7,
    }  # fmt: skip
    of |= changes
    where = Route(
        item=str(of["item"]), mode="sum", customer=str(of["customer"]), meter=str(of["meter"])
    )
    return event_identifier(
        deployment=str(of["deployment"]),
        route=where,
        hour=int(of["hour"]),
        version=int(of["version"]),
        value=int(of["value"]),
    )


def test_an_identifier_says_everything_the_message_says() -> None:
    """Forty hex digits that are equal for equal content and differ with each part of it."""
    variants = [
        identify(),
        identify(deployment="e"),
        identify(customer="cus_2"),
        identify(meter="mtr_2"),
        identify(item="si_2"),
        identify(hour=7200),
        identify(version=2),
        identify(value=8),
        identify(value=-7),
    ]
    assert len(set(variants)) == len(variants)
    assert identify() == identify()
    assert all(len(text) == 40 and int(text, 16) >= 0 for text in variants)


@pytest.mark.parametrize(
    ("limit", "before", "after", "marks"),
    [
        (100, 0, 49, ()),
        (100, 49, 50, (50,)),
        (100, 50, 50, ()),
        (100, 0, 100, (50, 80, 100)),
        (100, 100, 500, ()),
        (3, 0, 1, ()),
        (3, 1, 2, (50,)),
        (0, 0, 5, ()),
    ],
)
def test_marks_are_crossed_once(
    limit: int, before: int, after: int, marks: tuple[int, ...]
) -> None:
    """Each mark is told by the step that reaches it and by no other."""
    assert crossed(limit, before, after) == marks
