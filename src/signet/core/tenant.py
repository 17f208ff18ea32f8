"""Who calls: tenants, their API keys, and what each key may do.

`SP_API_KEYS` maps a key to the settings of its *tenant*; members that begin with `key_`, and
`scopes`, narrow the one key. The keys themselves are not kept: a keyring holds their SHA-256.
Tenants and keys made at run time have the same members, read by the same rules.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final, cast

from signet.core.errors import Fault, SignetError
from signet.core.ids import TENANT_ID, TenantId
from signet.core.members import COUNT, FLAG, Rule, member_faults, one_of, text, whole
from signet.core.ratelimit import MOST_AT_ONCE, MOST_BURST, MOST_PER_MINUTE
from signet.receipts.canonical import Json, pointer


class Scope(StrEnum):
    """What a key may be used for."""

    EXCHANGE = "exchange"
    RECEIPTS_READ = "receipts.read"
    BILLING_READ = "billing.read"
    WEBHOOKS = "webhooks"
    PAYLOADS_ERASE = "payloads.erase"
    REGISTRY_WRITE = "registry.write"
    ADMIN = "admin"


TENANT_SCOPES: Final = frozenset(Scope) - {Scope.ADMIN, Scope.PAYLOADS_ERASE, Scope.REGISTRY_WRITE}
"""What a key may do unless its `scopes` say otherwise: nothing that destroys, and nothing that
changes what the calls of others mean.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """One customer, as configured. `None` means that the deployment's own setting holds."""

    id: TenantId
    allowlist: tuple[Json, ...] = ()
    fallback_enabled: bool = False
    fu_monthly_limit: int | None = None
    canon_profile: str | None = None
    sealed: bool = False
    payload_retention_days: int | None = None
    stripe_item_vex: str | None = None
    stripe_item_fu: str | None = None
    rate_per_minute: int | None = None
    rate_burst: int | None = None
    concurrency: int | None = None
    registry_max_documents: int | None = None
    registry_max_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The key that a call came with: its tenant and its own, narrower, limits.

    `succeeds` is the first key of the line that it continues, if it was made by a rotation.
    """

    key_id: str
    tenant: Tenant
    scopes: frozenset[Scope]
    allowlist: tuple[Json, ...] | None = None
    fu_monthly_limit: int | None = None
    rate_per_minute: int | None = None
    rate_burst: int | None = None
    succeeds: str | None = None

    @property
    def account(self) -> str:
        """Under which its tokens are counted: a rotation does not begin the month anew.

        No tenant id has a slash, so the account of a key is nobody else's.
        """
        return f"{self.tenant.id}/{self.succeeds or self.key_id}"


@dataclass(frozen=True, slots=True)
class Keyring:
    """Every key in force, by the SHA-256 of its text."""

    principals: Mapping[bytes, Principal]

    def find(self, presented: bytes) -> Principal | None:
        """Return whose key this is.

        The look-up is by a hash, so its time tells nothing about the keys that exist.
        """
        return self.principals.get(hashlib.sha256(presented).digest())

    @property
    def count(self) -> int:
        """How many keys there are."""
        return len(self.principals)

    @property
    def tenants(self) -> Mapping[TenantId, Tenant]:
        """Every tenant that has a key."""
        return {p.tenant.id: p.tenant for p in self.principals.values()}


class KeyringInvalid(SignetError):
    """`SP_API_KEYS` cannot be used; `faults` name every place."""

    code = "api_keys_invalid"


class TenantInvalid(SignetError):
    """Nothing can be described so; `faults` name every member at fault."""

    code = "tenant_invalid"


class KeyInvalid(SignetError):
    """No key can be made so; `faults` name every member at fault."""

    code = "key_invalid"


_HOSTS: Final = Rule(
    "a list of hosts or destinations",
    lambda v: isinstance(v, list) and all(isinstance(entry, (str, dict)) for entry in v),
    {"type": "array", "items": {"type": ["string", "object"]}},
)
_SCOPES: Final = Rule(
    f"a list of {', '.join(Scope)}",
    lambda v: isinstance(v, list) and all(entry in list(Scope) for entry in v),
    {"type": "array", "items": {"enum": [scope.value for scope in Scope]}},
)
_RATE: Final = whole(1, MOST_PER_MINUTE)
_BURST: Final = whole(1, MOST_BURST)
_DAYS: Final = Rule(
    "a number of days from 0, which is for ever, to 36500",
    lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 36_500,
    {"type": "integer", "minimum": 0, "maximum": 36_500},
)
_ITEM: Final = text(
    "1 to 255 characters, none of them a control character", r"[^\x00-\x1f\x7f]{1,255}"
)
_MEMBERS: Final = {
    "tenant": text("a tenant id", TENANT_ID),
    "allowlist": _HOSTS,
    "fallback_enabled": FLAG,
    "fu_monthly_limit": COUNT,
    "canon_profile": one_of("nfc+jcs", "jcs"),
    "sealed": FLAG,
    "payload_retention_days": _DAYS,
    "stripe_item_vex": _ITEM,
    "stripe_item_fu": _ITEM,
    "rate_per_minute": _RATE,
    "rate_burst": _BURST,
    "concurrency": whole(1, MOST_AT_ONCE),
    "registry_max_documents": whole(0, 10_000),
    "registry_max_bytes": whole(0, 64 << 20),
    "key_allowlist": _HOSTS,
    "key_fu_monthly_limit": COUNT,
    "key_rate_per_minute": _RATE,
    "key_rate_burst": _BURST,
    "scopes": _SCOPES,
}
_OF_TENANT: Final = frozenset(f.name for f in fields(Tenant)) - {"id"}

TENANT_MEMBERS: Final[Mapping[str, Rule]] = MappingProxyType(
    {name: rule for name, rule in _MEMBERS.items() if name in _OF_TENANT}
)
"""What describes a tenant, beside its id."""
KEY_MEMBERS: Final[Mapping[str, Rule]] = MappingProxyType(
    {name: rule for name, rule in _MEMBERS.items() if name not in _OF_TENANT | {"tenant"}}
)
"""What narrows a key, beside its tenant."""


def read_tenant(tenant: TenantId, members: Mapping[str, Json]) -> Tenant:
    """Return the tenant that `members` describe; raise `TenantInvalid` with every fault."""
    faults = member_faults(members, TENANT_MEMBERS)
    if faults:
        raise TenantInvalid("the tenant cannot be described so", faults=tuple(faults))
    return _tenant(tenant, members)


def read_key(
    key_id: str, tenant: Tenant, members: Mapping[str, Json], *, succeeds: str | None = None
) -> Principal:
    """Return what a key with `members` may do; raise `KeyInvalid` with every fault."""
    faults = member_faults(members, KEY_MEMBERS)
    if faults:
        raise KeyInvalid("no key can be made so", faults=tuple(faults))
    return _principal(key_id, tenant, members, succeeds=succeeds)


def tenant_members(tenant: Tenant) -> dict[str, Json]:
    """Return every member of a tenant as it is in force, set or not."""
    return {name: _shown(getattr(tenant, name)) for name in TENANT_MEMBERS}


def key_members(principal: Principal) -> dict[str, Json]:
    """Return the members that begin with `key_` and are set."""
    values = {
        name: _shown(getattr(principal, name.removeprefix("key_")))
        for name in KEY_MEMBERS
        if name.startswith("key_")
    }
    return {name: value for name, value in values.items() if value is not None}


def _shown(value: object) -> Json:
    return cast(Json, list(cast("tuple[Json, ...]", value)) if isinstance(value, tuple) else value)


def read_keyring(document: Json) -> Keyring:
    """Build the keyring from the parsed `SP_API_KEYS`; raise `KeyringInvalid` with every fault.

    Faults never repeat a key: their pointers count the entries instead (`/#1/tenant`).
    """
    if not isinstance(document, dict):
        fault = Fault(pointer="", code="wrong_type", detail="expected an object: key to tenant")
        raise KeyringInvalid("SP_API_KEYS is not an object", faults=(fault,))
    faults: list[Fault] = []
    principals: dict[bytes, Principal] = {}
    tenants: dict[TenantId, Tenant] = {}
    for number, (key, entry) in enumerate(document.items(), start=1):
        place = f"#{number}"
        if not key or not isinstance(entry, dict):
            detail = "expected a key that is not empty, and an object"
            faults.append(Fault(pointer=pointer(place), code="wrong_type", detail=detail))
            continue
        wrong = member_faults(entry, _MEMBERS, required=("tenant",), under=(place,))
        if wrong:
            faults += wrong
            continue
        principal = _configured(key, entry)
        known = tenants.setdefault(principal.tenant.id, principal.tenant)
        if known != principal.tenant:
            detail = f"two keys of tenant {known.id} describe it differently"
            faults.append(Fault(pointer=pointer(place), code="tenant_conflict", detail=detail))
        principals[hashlib.sha256(key.encode()).digest()] = principal
    if faults:
        raise KeyringInvalid("SP_API_KEYS cannot be used", faults=tuple(faults))
    return Keyring(MappingProxyType(principals))


def _configured(key: str, entry: Mapping[str, Json]) -> Principal:
    """Build the principal of an entry of `SP_API_KEYS` whose members have been checked."""
    # Digits of its hash name a key in logs and audit without telling it. 64 bits: policies are
    # found by this name, so no two keys may share one by chance.
    key_id = "env_" + hashlib.sha256(key.encode()).hexdigest()[:16]
    return _principal(key_id, _tenant(TenantId(cast(str, entry["tenant"])), entry), entry)


def _tenant(tenant: TenantId, members: Mapping[str, Json]) -> Tenant:
    """Build a tenant of members that have been checked; what is not its own is passed over."""
    of_tenant = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in members.items()
        if name in _OF_TENANT
    }
    return Tenant(id=tenant, **of_tenant)  # pyright: ignore[reportArgumentType] - checked by _MEMBERS


def _principal(
    key_id: str, tenant: Tenant, members: Mapping[str, Json], *, succeeds: str | None = None
) -> Principal:
    """Build a principal of members that have been checked."""
    scopes = members.get("scopes")
    narrowed = members.get("key_allowlist")
    return Principal(
        key_id=key_id,
        tenant=tenant,
        scopes=TENANT_SCOPES if scopes is None else frozenset(map(Scope, cast(list[str], scopes))),
        allowlist=tuple(narrowed) if isinstance(narrowed, list) else None,
        fu_monthly_limit=cast(int | None, members.get("key_fu_monthly_limit")),
        rate_per_minute=cast(int | None, members.get("key_rate_per_minute")),
        rate_burst=cast(int | None, members.get("key_rate_burst")),
        succeeds=succeeds,
    )
