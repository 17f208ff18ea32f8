"""The bounds of one client: sizes in bytes, times in seconds. Every wait and every size has one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a peer may cost us at most.

    `deadline_s` bounds the whole of a request: names, connection, TLS, writing and reading.
    `max_overhead` bounds what the wire carries beyond the head and body of a response (chunk
    framing, trailers, TLS records), so that a peer cannot spend our CPU on nothing.
    """

    deadline_s: float = 10.0
    resolve_s: float = 5.0
    max_head: int = 64 * 1024
    max_body: int = 1024 * 1024
    max_overhead: int = 512 * 1024
    # Idle connections live shorter than the usual server's five seconds, so that a request is
    # seldom written into a connection that is just being closed: that would be `indeterminate`.
    idle_s: float = 4.0
    max_age_s: float = 60.0
    max_idle: int = 256
    max_idle_per_host: int = 16
    max_per_host: int = 64

    @property
    def max_wire(self) -> int:
        """Bytes that a whole response may take on the wire."""
        return self.max_head + self.max_body + self.max_overhead

    @property
    def max_reads(self) -> int:
        """In how many pieces a response may come: every one costs a turn of the event loop."""
        return 4096 + self.max_body // 256
