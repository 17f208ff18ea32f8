"""Who is behind the proxies in front, and who only says so."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from signet.api.proxies import NO_PROXIES, Proxies, is_forwarded

PROXIES = Proxies(
    networks=(ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("fd00::/8"))
)


def said(*values: str) -> list[tuple[bytes, bytes]]:
    """Headers with these values of X-Forwarded-For."""
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


@pytest.mark.parametrize(
    ("peer", "values", "caller"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("127.0.0.1", ["192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        ("127.0.0.1", ["192.0.2.7", "10.1.1.1"], "192.0.2.7"),
        ("127.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("fd00::1", ["[2001:db8::7]:4711"], "2001:db8::7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.7"], "192.0.2.7"),
        # What stands before the last address that is no proxy's is the caller's own invention.
        ("10.0.0.1", ["203.0.113.1, 192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["127.0.0.1, 192.0.2.7, 10.1.1.1"], "192.0.2.7"),
        # Nothing, or nothing that is an address, was said by the last proxy.
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, "], "10.0.0.1"),
        ("10.0.0.1", ["\xff"], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # Who is no proxy is heard himself, whatever he says.
        ("192.0.2.9", ["192.0.2.7"], "192.0.2.9"),
        ("unix", ["192.0.2.7"], "unix"),
        (None, ["192.0.2.7"], None),
    ],
)
def test_whose_word_is_taken(peer: str | None, values: list[str], caller: str | None) -> None:
    """The named proxies', from the end of the list on, and nobody else's."""
    assert PROXIES.caller(peer, said(*values)) == caller


def test_nobody_s_word_by_default() -> None:
    """Without a named proxy the connection alone says who calls."""
    assert NO_PROXIES.caller("127.0.0.1", said("192.0.2.7")) == "127.0.0.1"


def test_a_long_list_is_read_from_its_end_only() -> None:
    """Whatever a caller writes in front costs nothing, and a list of proxies alone ends."""
    assert PROXIES.caller("10.0.0.1", said("1.1.1.1, " * 5000 + "192.0.2.7")) == "192.0.2.7"
    assert PROXIES.caller("10.0.0.1", said(",".join(["10.0.0.2"] * 5000))) == "10.0.0.2"


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"])
def test_a_proxy_is_recognised(name: bytes) -> None:
    """By any of the fields that proxies add."""
    assert is_forwarded([(b"host", b"h"), (name, b"")])
    assert not is_forwarded([(b"host", b"h"), (b"x-request-id", b"1")])
