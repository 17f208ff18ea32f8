"""The keys in force, as every process of a deployment knows them.

What `SP_API_KEYS` says never changes while a process runs. What was made at run time is read from
the database whenever its revision is another than before: about every second, and at once in the
process that changed something. A key that has expired is refused by the clock, without asking.

While the database cannot be asked, the keys last seen go on being served, for `STALE_S` seconds:
until then a fail-over hurts nobody, and afterwards a key that may have been revoked meanwhile is
not let in on a guess. The keys of `SP_API_KEYS` need no database to be known.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, NamedTuple

from signet.core.api_keys import (
    Pepper,
    PublicId,
    key_hash,
    key_id,
    pepper_named,
    public_id,
)
from signet.core.audit import SYSTEM
from signet.core.errors import SignetError
from signet.core.ids import TenantId
from signet.core.tenant import (
    KeyInvalid,
    Keyring,
    Principal,
    Tenant,
    TenantInvalid,
    read_key,
    read_tenant,
)
from signet.gateway.policies import list_faults
from signet.gateway.ports import Clock
from signet.receipts.canonical import Json, parse
from signet.receipts.errors import ReceiptError
from signet.storage import tenants as stored
from signet.storage.database import Database
from signet.storage.errors import StorageUnavailable
from signet.storage.tenants import StoredKey, StoredTenant
from signet.storage.tx import ReadTx

STALE_S: Final = 30.0
_READ_S: Final = 5.0


class KeyringStale(StorageUnavailable):
    """The keys could not be read for too long to let anybody in by what they said then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unusable:
    """A tenant or a key in the database that is not served, and why."""

    subject: str
    detail: str


class _Stored(NamedTuple):
    """What the database holds at a revision."""

    revision: int
    tenants: Sequence[StoredTenant]
    keys: Sequence[StoredKey]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """A key in force; `row` and the tenant are what it was made of."""

    row: StoredKey
    pepper: Pepper | None
    principal: Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ring:
    """Everything at one revision. `described` are the rows that `tenants` were made of."""

    revision: int
    tenants: Mapping[TenantId, Tenant]
    described: Mapping[TenantId, StoredTenant] = field(default_factory=dict[TenantId, StoredTenant])
    keys: Mapping[PublicId, _Key] = field(default_factory=dict[PublicId, _Key])
    unusable: tuple[Unusable, ...] = ()


class LiveKeyring:
    """Every key in force, of the settings and of the database. `refresh` it before it is asked."""

    def __init__(
        self,
        *,
        database: Database,
        configured: Keyring,
        peppers: Sequence[Pepper],
        clock: Clock,
        monotonic: Callable[[], float],
    ) -> None:
        self.configured: Final = configured
        self._database = database
        self._peppers = peppers
        self._clock = clock
        self._monotonic = monotonic
        self._ring = _Ring(revision=-1, tenants=configured.tenants)
        self._confirmed_s = monotonic() - STALE_S
        self._refreshing = asyncio.Lock()

    def find(self, presented: bytes) -> Principal | None:
        """Return whose key this is; None where it is none, or has ended.

        Raises `KeyringStale` where only the database could tell, and it cannot be asked.
        """
        configured = self.configured.find(presented)
        if configured is not None:
            return configured
        public = public_id(presented)
        if public is None:
            return None
        unconfirmed_s = self._monotonic() - self._confirmed_s
        if unconfirmed_s >= STALE_S:
            raise KeyringStale(f"the keys could not be read for {unconfirmed_s:.0f} seconds")
        key = self._ring.keys.get(public)
        if key is None or not hmac.compare_digest(key_hash(presented, key.pepper), key.row.hash):
            return None
        if key.row.expires_us is not None and key.row.expires_us <= self._clock():
            return None
        return key.principal

    @property
    def tenants(self) -> Mapping[TenantId, Tenant]:
        """Every tenant: those that `SP_API_KEYS` describes, and those made at run time."""
        return self._ring.tenants

    @property
    def unusable(self) -> tuple[Unusable, ...]:
        """What the database holds and nobody can use."""
        return self._ring.unusable

    @property
    def count(self) -> int:
        """How many keys there are; some may have expired since they were read."""
        return len(self.configured.principals) + len(self._ring.keys)

    async def refresh(self) -> bool:
        """Read what has changed; return whether anything has.

        Raises a `StorageError`; what was known stays.
        """
        async with self._refreshing:
            asked_s = self._monotonic()
            try:
                async with asyncio.timeout(_READ_S):
                    read = await self._database.read_current(
                        _read, self._ring.revision, self._clock()
                    )
            except TimeoutError as error:
                raise StorageUnavailable(f"no answer about keys in {_READ_S:g} s") from error
            if read is not None:
                self._ring = self._made(read)
            # As of the question, not of the answer: what was revoked in between may be missing.
            self._confirmed_s = asked_s
            return read is not None

    def _made(self, read: _Stored) -> _Ring:
        unusable: list[Unusable] = []
        tenants = dict(self.configured.tenants)
        described: dict[TenantId, StoredTenant] = {}
        for row in read.tenants:
            tenant = TenantId(row.tenant)
            if tenant in self.configured.tenants:
                detail = "SP_API_KEYS describes it too, and counts"
                unusable.append(Unusable(subject=f"tenant {tenant}", detail=detail))
            elif self._ring.described.get(tenant) == row:
                tenants[tenant], described[tenant] = self._ring.tenants[tenant], row
            else:
                try:
                    tenants[tenant], described[tenant] = readable_tenant(row), row
                except SignetError as error:
                    unusable.append(Unusable(subject=f"tenant {tenant}", detail=_told(error)))
        keys: dict[PublicId, _Key] = {}
        for row in read.keys:
            try:
                keys[PublicId(row.public_id)] = self._key(row, tenants)
            except SignetError as error:
                unusable.append(Unusable(subject=key_id(row.public_id), detail=_told(error)))
        return _Ring(
            revision=read.revision,
            tenants=MappingProxyType(tenants),
            described=described,
            keys=keys,
            unusable=tuple(unusable),
        )

    def _key(self, row: StoredKey, tenants: Mapping[TenantId, Tenant]) -> _Key:
        """Return the key that a row describes. Raises `KeyInvalid`."""
        tenant = tenants.get(TenantId(row.tenant))
        if tenant is None and row.tenant == SYSTEM:
            tenant = Tenant(id=SYSTEM)
        if tenant is None:
            raise KeyInvalid(f"its tenant {row.tenant} is described nowhere")
        pepper = None
        if row.pepper is not None:
            pepper = pepper_named(self._peppers, row.pepper)
            if pepper is None:
                raise KeyInvalid(f"its pepper {row.pepper} is not set here (SP_KEY_PEPPER)")
        known = self._ring.keys.get(PublicId(row.public_id))
        if known is not None and known.principal.tenant == tenant:
            if known.row == row:
                return known
            if known.row.document == row.document:
                return replace(known, row=row)
        return _Key(row=row, pepper=pepper, principal=readable_key(row, tenant))


def readable_tenant(row: StoredTenant) -> Tenant:
    """Return the tenant that a row describes. Raises `TenantInvalid`."""
    tenant = read_tenant(TenantId(row.tenant), members_of(row.document))
    faults = tuple(list_faults("allowlist", tenant.allowlist))
    if faults:
        raise TenantInvalid("an entry of its allowlist is no destination", faults=faults)
    return tenant


def readable_key(row: StoredKey, tenant: Tenant) -> Principal:
    """Return what the key of a row may do. Raises `KeyInvalid`."""
    succeeds = None if row.first == row.public_id else key_id(row.first)
    principal = read_key(key_id(row.public_id), tenant, members_of(row.document), succeeds=succeeds)
    faults = tuple(list_faults("key_allowlist", principal.allowlist or ()))
    if faults:
        raise KeyInvalid("an entry of its list is no destination", faults=faults)
    return principal


def members_of(document: bytes) -> dict[str, Json]:
    """Return the members that a stored document has. Raises `TenantInvalid`."""
    try:
        members = parse(document)
    except ReceiptError as error:
        raise TenantInvalid(f"its document cannot be read: {error}") from error
    if not isinstance(members, dict):
        raise TenantInvalid("its document is no object")
    return members


def _told(error: SignetError) -> str:
    return "; ".join((error.detail, *(f"{f.pointer}: {f.detail}" for f in error.faults)))


async def _read(tx: ReadTx, known: int, now_us: int) -> _Stored | None:
    """Read everything, unless the revision is the known one."""
    revision = await stored.revision(tx)
    if revision == known:
        return None
    return _Stored(revision, await stored.all_tenants(tx), await stored.keys_in_force(tx, now_us))
