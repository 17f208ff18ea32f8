"""How many requests may pass: the generic cell rate algorithm (ITU-T I.371, annex A), by integers.

A bucket is one number, its *theoretical arrival time*: when it would be full again if nothing more
came. Whatever the order of the calls and of their times, a bucket never admits more than
`burst + time / interval_us` units over any stretch of time.

Units may be *lent*: granted now, and used at any time up to `HOLD_US` later without asking again.
They are charged as if all were used at the very end. What is lent and not used is lost.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

MOST_PER_MINUTE: Final = 600_000
MOST_BURST: Final = 1_000_000
MOST_AT_ONCE: Final = 100_000
_MINUTE_US: Final = 60_000_000

SETBACK_US: Final = 60_000_000
"""A bucket that is owed more than a whole burst and this on top is no debt of its caller: the clock
was set back, or the rate was changed. It is then owed a whole burst."""

HOLD_US: Final = 50_000
"""How long lent units may be used. Several times a look's round trip, so that new ones are there
before the old ones end; and short, because a bucket that lends has that much time's worth less."""

LENT_PART: Final = 8
"""What is lent leaves no more than this part of a burst missing: an eighth."""


class Rate(NamedTuple):
    """One unit every `interval_us`, and up to `burst` of them at once after a rest."""

    interval_us: int
    burst: int

    @property
    def refill_s(self) -> int:
        """Seconds in which an empty bucket is full again, rounded up."""
        return -(-self.burst * self.interval_us // 1_000_000)


@lru_cache(maxsize=4096)
def per_minute(count: int, burst: int | None = None) -> Rate:
    """Return the rate of `count` a minute; without a `burst` it is ten seconds' worth, at least 1.

    The interval is rounded up, so that the rate is never more than what was asked for.
    """
    return Rate(-(-_MINUTE_US // count), max(1, count // 6) if burst is None else burst)


class Taken(NamedTuple):
    """How many units were granted, and the bucket's theoretical arrival time after it."""

    granted: int
    arrival_us: int


class Standing(NamedTuple):
    """What a bucket has left, and the wait until it has one more (0 when it is full)."""

    left: int
    next_us: int


def take(arrival_us: int, now_us: int, wanted: int, rate: Rate) -> Taken:
    """Grant as much of `wanted` as the bucket has."""
    full_us = now_us + rate.burst * rate.interval_us
    start_us = full_us if arrival_us > full_us + SETBACK_US else max(arrival_us, now_us)
    granted = max(0, min(wanted, (full_us - start_us) // rate.interval_us))
    return Taken(granted, start_us + granted * rate.interval_us)


def lend(arrival_us: int, now_us: int, ahead: int, rate: Rate) -> Taken:
    """Lend up to `ahead` units of a bucket that `take` has just left so: from its fullest eighth.

    Never too many: take the units used in any stretch from `s` to `u`, n of them, and of these the
    one granted first. It was charged at the end of its time, at `s` or later, and the n - 1 others
    after it, so the last one left an arrival time of `s + n * interval_us` or more. But no grant
    leaves one beyond its own time, which is `u` at most, and a whole burst.

    Who empties the bucket is lent nothing, for then all of a burst is missing; and a burst of
    `LENT_PART` or fewer never lends, for an eighth of it is one unit at most.
    """
    most_us = now_us + rate.burst * rate.interval_us // LENT_PART
    start_us = max(arrival_us, now_us + HOLD_US)
    lent = max(0, min(ahead, (most_us - start_us) // rate.interval_us))
    return Taken(lent, start_us + lent * rate.interval_us if lent else arrival_us)


def standing(arrival_us: int, now_us: int, rate: Rate) -> Standing:
    """Return what is left in a bucket that nothing is taken from."""
    full_us = now_us + rate.burst * rate.interval_us
    start_us = full_us if arrival_us > full_us + SETBACK_US else max(arrival_us, now_us)
    left = max(0, (full_us - start_us) // rate.interval_us)
    if left >= rate.burst:
        return Standing(rate.burst, 0)
    return Standing(left, start_us - now_us - (rate.burst - left - 1) * rate.interval_us)
