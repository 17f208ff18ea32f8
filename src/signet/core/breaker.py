"""A circuit breaker as a value: time is handed in, each answer gives the next state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRule:
    """Open after `failures` in a row, stay open for `open_us`, then let one trial through."""

    failures: int = 5
    open_us: int = 30_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Closed while `open_until_us` is None. All methods are pure and return the next state."""

    failures: int = 0
    open_until_us: int | None = None
    trial_since_us: int | None = None

    def admits(self, now_us: int, rule: BreakerRule) -> bool:
        """Whether a call may start now."""
        raise NotImplementedError

    def started(self, now_us: int, rule: BreakerRule) -> Breaker:
        """After a call was admitted."""
        raise NotImplementedError

    def succeeded(self) -> Breaker:
        """After the service answered."""
        raise NotImplementedError

    def failed(self, now_us: int, rule: BreakerRule) -> Breaker:
        """After the service did not answer."""
        raise NotImplementedError
