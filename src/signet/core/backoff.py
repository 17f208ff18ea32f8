"""How long to wait before trying again: exponential, capped, with full jitter."""

from __future__ import annotations


def full_jitter_us(tries: int, dice: int, *, base_us: int, cap_us: int) -> int:
    """Return a wait between nothing and the doubled base, capped.

    `tries` counts the failures so far, from 1. `dice` is 64 random bits: many senders that failed
    together then come back spread out, not together.
    """
    # Past 63 doublings every base is over every cap.
    ceiling = min(cap_us, base_us << min(max(tries - 1, 0), 63))
    return ceiling * (dice % 2**64) >> 64
