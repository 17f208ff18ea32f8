"""What is well formed in the settings and cannot be used all the same, found before anything opens.

Everything at once, each with its variable: who starts a gateway mends the environment once. Behind
this comes what only the registry's files, the database or a service can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv6Network, ip_network

from signet.app.billing import reserved_plans
from signet.app.refused import StartRefused
from signet.core.errors import Fault
from signet.egress import PolicyInvalid
from signet.egress.address import AddressRules
from signet.gateway.policies import list_faults
from signet.receipts.canonical import Json
from signet.settings import Settings


def refuse_faults(settings: Settings) -> None:
    """Raise `StartRefused` with every fault there is."""
    faults = (*egress_faults(settings), *reserve_faults(settings))
    if faults:
        raise StartRefused("the settings cannot be used", faults=faults)


def egress_faults(settings: Settings) -> Iterator[Fault]:
    """Yield each entry of a list that is no destination, and each network that may not be named."""
    egress, keyring = settings.egress, settings.exchange.api_keys
    yield from _entries("SP_HEL_ALLOWLIST", egress.allowlist)
    yield from _entries("SP_DESTINATIONS", egress.destinations)
    for tenant in keyring.tenants.values():
        yield from _entries("SP_API_KEYS", tenant.allowlist, f"allowlist of {tenant.id}: ")
    for principal in keyring.principals.values():
        place = f"key_allowlist of {principal.key_id}: "
        yield from _entries("SP_API_KEYS", principal.allowlist or (), place)
    yield from _networks(
        "SP_EGRESS_PRIVATE_NETWORKS",
        egress.private_networks,
        lambda text: AddressRules(private=(ip_network(text),)),
    )
    yield from _networks(
        "SP_EGRESS_NAT64_PREFIXES",
        egress.nat64_prefixes,
        lambda text: AddressRules(nat64=(IPv6Network(text),)),
    )


def reserve_faults(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with the reserved-capacity file, if one is named."""
    try:
        reserved_plans(settings)
    except StartRefused as error:
        yield from error.faults


def _entries(variable: str, entries: Sequence[Json], place: str = "") -> Iterator[Fault]:
    for fault in list_faults(variable, entries):
        detail = f"{place}{fault.detail}"
        yield Fault(pointer=variable, code="setting_invalid", detail=detail)


def _networks(
    variable: str, texts: Sequence[str], read: Callable[[str], AddressRules]
) -> Iterator[Fault]:
    for text in texts:
        try:
            read(text)
        except (ValueError, PolicyInvalid) as error:
            yield Fault(pointer=variable, code="setting_invalid", detail=str(error))
