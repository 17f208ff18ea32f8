"""Observations that wait in memory, so that the hot path pays an append and nothing more.

Processes that share a port keep their values in mapped files, where one observation costs ten
microseconds and an exchange makes half a dozen. What waits is poured into its family ten times a
second, at the end, and whenever this process is asked.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from typing import Final

from prometheus_client import Counter as Family
from prometheus_client import Histogram

_MOST: Final = 1 << 16  # nobody empties it: then the oldest go, and memory does not


class Tally:
    """What `histogram` will be told. Any thread may observe; one at a time may pour."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._waiting: deque[float] = deque(maxlen=_MOST)
        self.observe = self._waiting.append

    def pour(self) -> None:
        """Tell the histogram all that waits, each bucket once."""
        into: Counter[int] = Counter()
        total = 0.0
        # The library has no public way to observe many values at once; a test holds this against
        # its `observe`.
        histogram = self._histogram
        bounds: list[float] = histogram._upper_bounds  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType, reportAttributeAccessIssue]
        for _ in range(len(self._waiting)):
            value = self._waiting.popleft()
            into[bisect_left(bounds, value)] += 1
            total += value
        for bucket, count in into.items():
            histogram._buckets[bucket].inc(count)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        if into:
            histogram._sum.inc(total)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]


class Count:
    """What `counter` will be told. It belongs to one thread, that of the loop."""

    def __init__(self, counter: Family) -> None:
        self._counter = counter
        self._waiting = 0

    def add(self, amount: int = 1) -> None:
        """Note that there are `amount` more."""
        self._waiting += amount

    def pour(self) -> None:
        """Tell the counter all that waits."""
        if self._waiting:
            self._counter.inc(self._waiting)
            self._waiting = 0
