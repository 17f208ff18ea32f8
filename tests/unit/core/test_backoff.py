"""Waits double up to a cap and are spread over their whole range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from signet.core.backoff import full_jitter_us

BOUNDS = {"base_us": 1_000, "cap_us": 60_000}


@given(st.integers(0, 10**9), st.integers(0, 2**64 - 1))
def test_a_wait_is_within_its_ceiling(tries: int, dice: int) -> None:
    """No wait is negative or over the cap, however many tries there were."""
    wait = full_jitter_us(tries, dice, **BOUNDS)
    assert 0 <= wait <= min(60_000, 1_000 * 2 ** min(max(tries - 1, 0), 30))


def test_the_whole_range_is_used() -> None:
    """The least and the largest dice give the two ends of each range."""
    ends = [
        (full_jitter_us(n, 0, **BOUNDS), full_jitter_us(n, 2**64 - 1, **BOUNDS))
        for n in (1, 2, 3, 9)
    ]
    assert ends == [(0, 999), (0, 1_999), (0, 3_999), (0, 59_999)]
