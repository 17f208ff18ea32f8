"""Who is behind the proxies in front: told by their word, where the operator has named them.

`X-Forwarded-For` can be written by anybody. Each proxy appends whom it heard, so only what the
named ones have appended is true, and that is at its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from signet.api.headers import RawHeaders

_FORWARDED_FOR: Final = b"x-forwarded-for"
_OF_PROXIES: Final = frozenset({_FORWARDED_FOR, b"forwarded", b"x-real-ip", b"via"})
_MOST_HOPS: Final = 16


def is_forwarded(headers: RawHeaders) -> bool:
    """Whether a proxy says that it passes this on for somebody else (RFC 7239, RFC 9110 §7.6.3)."""
    return any(name in _OF_PROXIES for name, _ in headers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """The networks whose word is taken; none by default."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def caller(self, peer: str | None, headers: RawHeaders) -> str | None:
        """Return the address of whoever called the outermost of the named proxies.

        From the end of what was appended, the first address that is not a named proxy's. What is
        not an address ends the search: the proxy that took it for one is the caller then.
        """
        address = _address(peer) if self.networks and peer else None
        if address is None or not self._is_one(address):
            return peer
        said = b",".join([value for name, value in headers if name == _FORWARDED_FOR])
        for hop in reversed(said.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]):
            before = _address(hop.strip())
            if before is None:
                break
            address = before
            if not self._is_one(address):
                break
        return str(address)

    def _is_one(self, address: IPv4Address | IPv6Address) -> bool:
        return any(address in network for network in self.networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Read an address, also one with a port; an IPv4 address within an IPv6 one is itself."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


NO_PROXIES: Final = Proxies()
