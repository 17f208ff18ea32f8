"""Which IP addresses may be reached: a list of what is good, not of what is bad.

Everything that is not ordinary unicast space of the public internet is refused by construction:
for IPv4 that is the IANA special-purpose registry and 224/3, for IPv6 everything outside
2000::/3 and the carve-outs within. Embedded IPv4 (mapped, compatible, 6to4, Teredo, NAT64) needs
no decoding, because the space that could embed it is not in the list.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_network,
)
from typing import Final

from signet.egress.errors import PolicyInvalid
from signet.egress.target import IPAddress
from signet.egress.verdict import Verdict

IPNetwork = IPv4Network | IPv6Network

# https://www.iana.org/assignments/iana-ipv4-special-registry, and what is no unicast address.
_IPV4_REFUSED: Final = (
    ("0.0.0.0/8", Verdict.RESOLVED_RESERVED),
    ("10.0.0.0/8", Verdict.RESOLVED_PRIVATE),
    ("100.64.0.0/10", Verdict.RESOLVED_PRIVATE),
    ("127.0.0.0/8", Verdict.RESOLVED_LOOPBACK),
    ("168.63.129.16/32", Verdict.RESOLVED_RESERVED),  # Azure's host agent, on a public number
    ("169.254.0.0/16", Verdict.RESOLVED_LINKLOCAL),
    ("172.16.0.0/12", Verdict.RESOLVED_PRIVATE),
    ("192.0.0.0/24", Verdict.RESOLVED_RESERVED),
    ("192.0.2.0/24", Verdict.RESOLVED_RESERVED),
    ("192.31.196.0/24", Verdict.RESOLVED_RESERVED),
    ("192.52.193.0/24", Verdict.RESOLVED_RESERVED),
    ("192.88.99.0/24", Verdict.RESOLVED_RESERVED),
    ("192.168.0.0/16", Verdict.RESOLVED_PRIVATE),
    ("192.175.48.0/24", Verdict.RESOLVED_RESERVED),
    ("198.18.0.0/15", Verdict.RESOLVED_RESERVED),
    ("198.51.100.0/24", Verdict.RESOLVED_RESERVED),
    ("203.0.113.0/24", Verdict.RESOLVED_RESERVED),
    ("224.0.0.0/3", Verdict.RESOLVED_RESERVED),
)

_IPV6_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")

# https://www.iana.org/assignments/iana-ipv6-special-registry, the part inside 2000::/3.
_IPV6_CARVED_OUT: Final = tuple(
    map(IPv6Network, ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"))
)

# Outside 2000::/3 all is refused; these only give the refusal a more telling name.
_IPV6_NAMED: Final = (
    (IPv6Network("::1/128"), Verdict.RESOLVED_LOOPBACK),
    (IPv6Network("fc00::/7"), Verdict.RESOLVED_PRIVATE),
    (IPv6Network("fe80::/10"), Verdict.RESOLVED_LINKLOCAL),
)

# Where clouds keep credentials inside ranges that a private network may otherwise open.
_METADATA: Final = tuple(
    map(ip_network, ("100.100.100.200/32", "fd00:ec2::/32", "fd20:ce::254/128"))
)

# RFC 6052 §2.2.
_NAT64_LENGTHS: Final = frozenset({32, 40, 48, 56, 64, 96})


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """What an operator said at start about the network this process lives in.

    `private` opens networks that are private by registry; loopback, link-local, metadata and this
    machine's own addresses stay refused within them. `nat64` names prefixes whose addresses are
    judged by the IPv4 address they embed (RFC 6052). `own` adds addresses that lead back to this
    machine, such as that of its load balancer. Raises `PolicyInvalid` for anything wider.
    """

    private: tuple[IPNetwork, ...] = ()
    nat64: tuple[IPv6Network, ...] = ()
    own: frozenset[IPAddress] = frozenset()

    def __post_init__(self) -> None:
        for network in self.private:
            ends = (network[0], network[-1])
            if any(_classify_plain(end) is not Verdict.RESOLVED_PRIVATE for end in ends):
                raise PolicyInvalid(f"{network} is not a private network")
        for prefix in self.nat64:
            if prefix.prefixlen not in _NAT64_LENGTHS:
                raise PolicyInvalid(f"{prefix} is no NAT64 prefix (RFC 6052 §2.2)")


NO_EXCEPTIONS: Final = AddressRules()


def classify(address: IPAddress, rules: AddressRules = NO_EXCEPTIONS) -> Verdict:
    """Return `Verdict.OK` for an address that may be reached, else the reason it may not."""
    if address in rules.own:
        return Verdict.RESOLVED_LOOPBACK
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return Verdict.RESOLVED_RESERVED
        for prefix in rules.nat64:
            if address in prefix:
                embedded = _embedded_ipv4(address, prefix)
                return Verdict.RESOLVED_RESERVED if embedded is None else classify(embedded, rules)
    verdict = _classify_plain(address)
    if verdict is Verdict.RESOLVED_PRIVATE and _within(address, rules.private):
        return verdict if _within(address, _METADATA) else Verdict.OK
    return verdict


def _classify_plain(address: IPAddress) -> Verdict:
    if isinstance(address, IPv4Address):
        number = int(address)
        index = bisect_right(_IPV4_STARTS, number) - 1
        _, last, verdict = _IPV4_RANGES[index]
        return verdict if number <= last else Verdict.OK
    if address in _IPV6_GLOBAL_UNICAST:
        if _within(address, _IPV6_CARVED_OUT) or _is_isatap(address):
            return Verdict.RESOLVED_RESERVED
        return Verdict.OK
    for network, verdict in _IPV6_NAMED:
        if address in network:
            return verdict
    return Verdict.RESOLVED_RESERVED


def _within(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address in network for network in networks)


def _is_isatap(address: IPv6Address) -> bool:
    # RFC 5214 §6.1: the interface id is 0000:5efe or 0200:5efe before an IPv4 address; the
    # universal and group bits may be set or not.
    return (int(address) >> 32) & 0xFCFF_FFFF == 0x0000_5EFE


def _embedded_ipv4(address: IPv6Address, prefix: IPv6Network) -> IPv4Address | None:
    octets = address.packed
    if prefix.prefixlen == 96:
        return IPv4Address(octets[12:])
    if octets[8] != 0:  # RFC 6052 §2.2: bits 64 to 71 are reserved and zero.
        return None
    start = prefix.prefixlen // 8
    return IPv4Address((octets[:8] + octets[9:])[start : start + 4])


def _ranges(
    table: Iterable[tuple[str, Verdict]],
) -> tuple[tuple[int, int, Verdict], ...]:
    networks = ((IPv4Network(text), verdict) for text, verdict in table)
    return tuple(sorted((int(n[0]), int(n[-1]), verdict) for n, verdict in networks))


_IPV4_RANGES: Final = _ranges(_IPV4_REFUSED)
_IPV4_STARTS: Final = tuple(first for first, _, _ in _IPV4_RANGES)
