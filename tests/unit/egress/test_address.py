"""Which addresses may be reached, with both neighbours of every range."""

import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signet.egress.address import AddressRules, classify
from signet.egress.errors import PolicyInvalid
from signet.egress.verdict import Verdict

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "egress" / "addresses.json").read_text("utf-8")
)


@pytest.mark.parametrize(
    ("address", "verdict"),
    [(row["address"], row["verdict"]) for row in VECTORS],
    ids=[f"{row['address']} {row['note']}" for row in VECTORS],
)
def test_each_address_gets_its_verdict(address: str, verdict: str) -> None:
    """Every address of the corpus is judged as the corpus states."""
    assert classify(ip_address(address)) == verdict


@given(st.ip_addresses(v=4))
def test_ipv4_agrees_with_the_standard_library_where_that_is_right(address: IPv4Address) -> None:
    """Nothing is allowed that `ipaddress` itself calls special."""
    if classify(address) is Verdict.OK:
        assert address.is_global
        assert not (address.is_multicast)
        assert not (address.is_reserved)
        assert not (address.is_unspecified)


@given(st.ip_addresses(v=6))
def test_ipv6_outside_global_unicast_is_never_allowed(address: IPv6Address) -> None:
    """Whatever else an address is, it is in 2000::/3 or it is refused."""
    if classify(address) is Verdict.OK:
        assert address in IPv6Network("2000::/3")
        assert address.ipv4_mapped is None
        assert address.sixtofour is None
        assert address.teredo is None


@given(st.ip_addresses(v=4))
def test_ipv4_inside_ipv6_is_refused_without_decoding(address: IPv4Address) -> None:
    """Mapped, compatible, NAT64, 6to4 and ISATAP forms of any IPv4 address are refused."""
    number = int(address)
    for form in (
        number,
        0xFFFF_0000_0000 | number,
        (0x64_FF9B << 96) | number,
        (0x2002 << 112) | (number << 80),
        (0x2606_4700 << 96) | (0x5EFE << 32) | number,
    ):
        assert classify(IPv6Address(form)) is not Verdict.OK


def test_a_scope_id_is_refused_even_on_a_public_address() -> None:
    """A zone chooses an interface, which no destination of ours may."""
    assert classify(IPv6Address("2606:4700::1%2")) is Verdict.RESOLVED_RESERVED


OPENED = (IPv4Network("10.1.0.0/16"), IPv4Network("100.64.0.0/10"), IPv6Network("fd00::/8"))


@pytest.mark.parametrize(
    ("address", "verdict"),
    [
        ("10.1.0.0", Verdict.OK),
        ("10.1.255.255", Verdict.OK),
        ("10.0.255.255", Verdict.RESOLVED_PRIVATE),
        ("10.2.0.0", Verdict.RESOLVED_PRIVATE),
        ("100.100.100.199", Verdict.OK),
        ("100.100.100.200", Verdict.RESOLVED_PRIVATE),
        ("100.100.100.201", Verdict.OK),
        ("fd00::1", Verdict.OK),
        ("fd00:ec1:ffff::1", Verdict.OK),
        ("fd00:ec2::254", Verdict.RESOLVED_PRIVATE),
        ("fd00:ec3::1", Verdict.OK),
        ("fd20:ce::254", Verdict.RESOLVED_PRIVATE),
        ("fd20:ce::253", Verdict.OK),
        ("fc00::1", Verdict.RESOLVED_PRIVATE),
        ("127.0.0.1", Verdict.RESOLVED_LOOPBACK),
        ("169.254.169.254", Verdict.RESOLVED_LINKLOCAL),
        ("168.63.129.16", Verdict.RESOLVED_RESERVED),
        ("::ffff:10.1.0.1", Verdict.RESOLVED_RESERVED),
    ],
)
def test_private_networks_open_what_they_name_and_no_metadata(
    address: str, verdict: Verdict
) -> None:
    """An operator's private network opens exactly itself, never a cloud's metadata within."""
    assert classify(ip_address(address), AddressRules(private=OPENED)) is verdict


@pytest.mark.parametrize(
    "network",
    [
        "127.0.0.0/8",
        "169.254.0.0/16",
        "0.0.0.0/0",
        "8.8.8.0/24",
        "10.0.0.0/7",
        "192.168.0.0/15",
        "::1/128",
        "fe80::/10",
        "::/0",
        "2000::/3",
        "f000::/4",
        "64:ff9b::/96",
    ],
)
def test_only_private_networks_can_be_opened(network: str) -> None:
    """Loopback, link-local and anything wider than a private range is a mistake at start."""
    kind = IPv6Network if ":" in network else IPv4Network
    with pytest.raises(PolicyInvalid):
        AddressRules(private=(kind(network, strict=False),))


@pytest.mark.parametrize(
    ("prefix", "good", "bad"),
    [
        ("64:ff9b::/96", "64:ff9b::808:808", "64:ff9b::7f00:1"),
        ("2606:4700::/32", "2606:4700:808:808::", "2606:4700:7f00:1::"),
        ("2606:4700::/40", "2606:4700:8:808:8::", "2606:4700:a:0:1::"),
        ("2606:4700::/48", "2606:4700:0:808:8:800::", "2606:4700:0:a00:0:100::"),
        ("2606:4700::/56", "2606:4700:0:8:8:808::", "2606:4700:0:a:0:1::"),
        ("2606:4700::/64", "2606:4700::8:808:800:0", "2606:4700:0:0:7f:0:100:0"),
    ],
)
def test_nat64_addresses_are_judged_by_what_they_embed(prefix: str, good: str, bad: str) -> None:
    """With a NAT64 prefix named, RFC 6052's six layouts are decoded and the IPv4 rule holds."""
    rules = AddressRules(nat64=(IPv6Network(prefix),))
    assert classify(IPv6Address(good), rules) is Verdict.OK
    assert classify(IPv6Address(bad), rules) is not Verdict.OK


def test_nat64_reserved_octet_must_be_zero() -> None:
    """RFC 6052 §2.2: an address with other bits at 64 to 71 is no translation of anything."""
    rules = AddressRules(nat64=(IPv6Network("2606:4700::/32"),))
    assert classify(IPv6Address("2606:4700:808:808:100::"), rules) is Verdict.RESOLVED_RESERVED


def test_nat64_does_not_reach_this_machine() -> None:
    """An own address stays refused in its translated form."""
    rules = AddressRules(
        nat64=(IPv6Network("64:ff9b::/96"),), own=frozenset({ip_address("8.8.8.8")})
    )
    assert classify(IPv6Address("64:ff9b::808:808"), rules) is Verdict.RESOLVED_LOOPBACK


def test_nat64_prefix_lengths_are_those_of_the_rfc() -> None:
    """A prefix of another length cannot embed an address."""
    with pytest.raises(PolicyInvalid):
        AddressRules(nat64=(IPv6Network("64:ff9b::/95"),))


def test_own_addresses_count_as_loopback() -> None:
    """What leads back to this machine is refused, public or not."""
    rules = AddressRules(own=frozenset({ip_address("8.8.8.8")}))
    assert classify(ip_address("8.8.8.8"), rules) is Verdict.RESOLVED_LOOPBACK
    assert classify(ip_address("8.8.4.4"), rules) is Verdict.OK
