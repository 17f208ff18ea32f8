"""What is said of a deprecated version in headers."""

from __future__ import annotations

from signet.api.deprecation import deprecation_headers
from signet.core.registry import Deprecation, Entry, Kind, Origin


def _entry(name: str, since_us: int | None) -> Entry:
    return Entry(
        kind=Kind.TYPE,
        name=name,
        cid="sha256:" + "0" * 64,
        origin=Origin.TENANT,
        document={},
        deprecated=None if since_us is None else Deprecation(since_us=since_us),
    )


def test_the_earliest_time_and_every_name() -> None:
    """RFC 9745 has a date, as a structured field; the names are ours."""
    told = deprecation_headers([_entry("a.v1", 9_500_000), _entry("b.v1", 4_999_999)])
    assert told == {"deprecation": "@4", "x-signet-deprecated": "a.v1, b.v1"}


def test_nothing_is_said_of_what_is_not() -> None:
    """No header at all."""
    assert deprecation_headers([]) == {}
    assert deprecation_headers([_entry("a.v1", None)]) == {}
