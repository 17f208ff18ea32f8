"""A bucket never admits more than its limit, and says truly what it has left."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from signet.core.ratelimit import (
    MOST_PER_MINUTE,
    SETBACK_US,
    Rate,
    Standing,
    per_minute,
    standing,
    take,
)

RATES = st.builds(Rate, st.integers(1, 5_000_000), st.integers(1, 200))
TIMES = st.integers(0, SETBACK_US)
CALLS = st.lists(st.tuples(TIMES, st.integers(0, 50)), max_size=60)


@given(RATES, CALLS)
def test_never_more_than_burst_and_rate_over_any_interval(
    rate: Rate, calls: list[tuple[int, int]]
) -> None:
    """In any order of calls, their times in order or not, no stretch of time admits too much."""
    arrival_us = 0
    admitted: list[tuple[int, int]] = []
    for now_us, wanted in calls:
        granted, arrival_us = take(arrival_us, now_us, wanted, rate)
        assert 0 <= granted <= wanted
        admitted.append((now_us, granted))
    ends = sorted({now_us for now_us, _ in admitted})
    for first in ends:
        for last in (end for end in ends if end >= first):
            passed = sum(n for now_us, n in admitted if first <= now_us <= last)
            assert passed * rate.interval_us <= rate.burst * rate.interval_us + (last - first)


@given(RATES, st.integers(0, 10**12), st.integers(1, 200))
def test_who_comes_at_the_rate_always_passes(rate: Rate, start_us: int, count: int) -> None:
    """The limit takes nothing away from a caller who keeps to it."""
    arrival_us = 0
    for number in range(count):
        granted, arrival_us = take(arrival_us, start_us + number * rate.interval_us, 1, rate)
        assert granted == 1


@given(RATES, st.integers(0, 10**9), st.integers(0, 10**9))
def test_what_stands_is_what_can_be_taken(rate: Rate, arrival_us: int, now_us: int) -> None:
    """Exactly what is said to be left is granted, and one more exactly when it was said to come."""
    seen = standing(arrival_us, now_us, rate)
    assert take(arrival_us, now_us, rate.burst + 1, rate).granted == seen.left
    if seen.left < rate.burst and arrival_us <= now_us + rate.burst * rate.interval_us:
        then_us = now_us + seen.next_us
        assert seen.next_us > 0
        assert take(arrival_us, then_us - 1, rate.burst, rate).granted == seen.left
        assert take(arrival_us, then_us, rate.burst, rate).granted == seen.left + 1


def test_a_clock_set_back_costs_one_burst_at_most() -> None:
    """A bucket from the future does not shut its caller out until that future comes."""
    rate = Rate(1_000, 10)
    hour_us = 3_600_000_000
    assert standing(hour_us, 0, rate) == Standing(0, 1_000)
    granted, arrival_us = take(hour_us, 0, 1, rate)
    assert granted == 0
    assert take(arrival_us, 1_000, 5, rate).granted == 1


def test_a_rate_is_never_rounded_up() -> None:
    """Where a minute cannot be divided, the interval is the longer one."""
    for count in (1, 7, 59, 60, 61, 70_000, MOST_PER_MINUTE):
        rate = per_minute(count)
        assert rate.interval_us * count >= 60_000_000
        assert rate.interval_us * count - count < 60_000_000
    assert per_minute(600) == Rate(100_000, 100)
    assert per_minute(5) == Rate(12_000_000, 1)
    assert per_minute(60, 5).refill_s == 5
    assert per_minute(7, 1).refill_s == 9
