"""A circuit breaker as a value: time is handed in, and every event gives the next state.

After enough failures in a row a service is left alone for a while; then one trial call decides.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """Open after `failures` in a row, stay open for `open_us`, then let one trial through."""

    failures: int = 5
    open_us: int = 30_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Closed while `open_until_us` is None. Every method is pure."""

    failures: int = 0
    open_until_us: int | None = None

    def admits(self, now_us: int) -> bool:
        """Whether a call may start now."""
        return self.open_until_us is None or now_us >= self.open_until_us

    def started(self, now_us: int, rule: BreakerRule) -> Breaker:
        """After a call was admitted.

        A trial keeps the others out for another `open_us`, so that a trial whose outcome is never
        reported (its process died) cannot keep them out for ever.
        """
        if self.open_until_us is None:
            return self
        return Breaker(failures=self.failures, open_until_us=now_us + rule.open_us)

    def succeeded(self) -> Breaker:
        """After the service answered."""
        return Breaker()

    def failed(self, now_us: int, rule: BreakerRule) -> Breaker:
        """After the service did not answer, or only to say that it cannot."""
        failures = self.failures + 1
        if self.open_until_us is None and failures < rule.failures:
            return Breaker(failures=failures)
        return Breaker(failures=failures, open_until_us=now_us + rule.open_us)
