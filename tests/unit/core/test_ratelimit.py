"""A bucket never admits more than its limit, and says truly what it has left."""

from __future__ import annotations

from collections import Counter
from itertools import cycle, islice

from hypothesis import given, settings
from hypothesis import strategies as st

from signet.core.ratelimit import (
    HOLD_US,
    LENT_PART,
    MOST_PER_MINUTE,
    SETBACK_US,
    Rate,
    Standing,
    lend,
    per_minute,
    standing,
    take,
)

RATES = st.builds(Rate, st.integers(1, 5_000_000), st.integers(1, 200))
TIMES = st.integers(0, SETBACK_US)
CALLS = st.lists(st.tuples(TIMES, st.integers(0, 50)), max_size=60)
# Of these, an eighth of a burst lasts longer than what is lent may be held.
LENDING = st.integers(1, 20_000).flatmap(
    lambda interval_us: st.builds(
        Rate,
        st.just(interval_us),
        st.integers(LENT_PART * (HOLD_US // interval_us + 2), 600_000 // interval_us + 400),
    )
)
# How long after the look before a process looks; how much it waits for, in thousandths of a burst,
# and how much it wants ahead; and how long it holds what it is lent, one unit after another, None
# being for ever.
HELD = st.one_of(st.just(HOLD_US), st.integers(0, HOLD_US), st.none())
LOOKS = st.lists(
    st.tuples(
        st.integers(0, HOLD_US) | st.integers(0, 10_000_000),
        st.integers(0, 30) | st.integers(900, 1_100),
        st.integers(0, 400),
        st.lists(HELD, min_size=1, max_size=3),
    ),
    max_size=8,
)


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


@given(LENDING, LOOKS)
@settings(max_examples=400)
def test_what_is_lent_never_adds_to_the_limit(
    rate: Rate, looks: list[tuple[int, int, int, list[int | None]]]
) -> None:
    """Spent whenever its time allows, by whomever, each unit is one that had been due then."""
    now_us = arrival_us = 0
    used_us: list[int] = []
    for gap_us, thousandths, ahead, held_us in looks:
        now_us += gap_us
        granted, arrival_us = take(arrival_us, now_us, rate.burst * thousandths // 1000, rate)
        lent, arrival_us = lend(arrival_us, now_us, ahead, rate)
        used_us += [now_us] * granted
        used_us += [
            now_us + after_us for after_us in islice(cycle(held_us), lent) if after_us is not None
        ]
    arrival_us = 0
    for time_us, units in sorted(Counter(used_us).items()):
        granted, arrival_us = take(arrival_us, time_us, units, rate)
        assert granted == units


@given(RATES | LENDING, st.lists(st.tuples(TIMES, st.integers(0, 50), st.integers(0, 400))))
def test_an_eighth_at_most_is_missing_for_what_was_lent(
    rate: Rate, calls: list[tuple[int, int, int]]
) -> None:
    """Only what leaves the rest of a burst is lent; nothing changes where nothing is."""
    arrival_us = 0
    for now_us, wanted, ahead in calls:
        granted, taken_us = take(arrival_us, now_us, wanted, rate)
        lent, arrival_us = lend(taken_us, now_us, ahead, rate)
        assert 0 <= lent <= ahead
        if lent:
            assert granted == wanted
            assert rate.burst > LENT_PART
            assert (arrival_us - now_us) * LENT_PART <= rate.burst * rate.interval_us
            assert arrival_us >= now_us + HOLD_US + lent * rate.interval_us
        else:
            assert arrival_us == taken_us


def test_as_much_is_lent_as_the_fullest_eighth_has() -> None:
    """An eighth without the time in which what is lent may be used; what is asked for, if less."""
    rate = Rate(1_000, 800)
    assert lend(0, 10**9, 9, rate) == (9, 10**9 + HOLD_US + 9_000)
    assert lend(0, 10**9, 200, rate) == (50, 10**9 + 100_000)
    assert lend(10**9 + 60_000, 10**9, 200, rate) == (40, 10**9 + 100_000)
    for owed_us in (99_001, 500_000):
        assert lend(10**9 + owed_us, 10**9, 200, rate) == (0, 10**9 + owed_us)


@given(LENDING, st.lists(st.integers(0, 400), max_size=200))
def test_who_keeps_to_the_rate_passes_whatever_was_lent(rate: Rate, ahead: list[int]) -> None:
    """Units that are lent and lost make nobody wait who comes at the rate."""
    arrival_us = 0
    for number, units in enumerate(ahead):
        now_us = number * rate.interval_us
        granted, arrival_us = take(arrival_us, now_us, 1, rate)
        assert granted == 1
        _, arrival_us = lend(arrival_us, now_us, units, rate)


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
