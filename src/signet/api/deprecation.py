"""Telling a caller that what it names should not be used any more, in headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from signet.core.registry import Entry


def deprecation_headers(entries: Sequence[Entry]) -> Mapping[str, str]:
    """Return `Deprecation` (RFC 9745 §2), the earliest time, and which names it is about."""
    since_us = [entry.deprecated.since_us for entry in entries if entry.deprecated is not None]
    if not since_us:
        return {}
    return {
        "deprecation": f"@{min(since_us) // 1_000_000}",
        "x-signet-deprecated": ", ".join(entry.name for entry in entries),
    }
