"""The headers of a request."""

from __future__ import annotations

from signet.api.headers import first_headers


def test_the_first_of_a_repeated_header_counts() -> None:
    """What is appended behind the real one changes nothing, and nothing is lost."""
    headers = [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]
    assert first_headers({"type": "http", "headers": headers}) == {b"a": b"1", b"b": b"2"}


def test_they_are_read_once() -> None:
    """Whoever asks again is given the same."""
    scope = {"type": "http", "headers": [(b"a", b"1")]}
    assert first_headers(scope) is first_headers(scope)
