"""Administering tenants: make, list, look at, change.

A tenant that `SP_API_KEYS` describes is looked at here and changed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from signet.core.audit import Change, Origin
from signet.core.errors import Fault, SignetError
from signet.core.ids import TENANT_ID, TenantId
from signet.core.tenant import (
    TENANT_MEMBERS,
    Tenant,
    TenantInvalid,
    read_tenant,
    tenant_members,
)
from signet.gateway.keyring import LiveKeyring, members_of
from signet.gateway.policies import list_faults
from signet.gateway.ports import Clock
from signet.receipts.canonical import Json, canonicalize
from signet.storage import tenants as stored
from signet.storage.audit import record_change
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.tenants import StoredTenant
from signet.storage.tx import Tx


class TenantExists(SignetError):
    """The id is taken."""

    code = "tenant_exists"


class TenantUnknown(SignetError):
    """There is no such tenant."""

    code = "not_found"


class Configured(SignetError):
    """`SP_API_KEYS` says it, so it is changed there."""

    code = "configured_in_settings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who changes something, as the audit log names it: a key's id, or `_cli` for the command."""

    key_id: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTenant:
    """A tenant with every member in force. Times are None where `SP_API_KEYS` describes it."""

    id: TenantId
    members: Mapping[str, Json]
    created_us: int | None = None
    changed_us: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenants:
    """The use cases. A change is in force in this process when it is answered."""

    database: Database
    keyring: LiveKeyring
    clock: Clock

    async def create(
        self, tenant: str, members: Mapping[str, Json], *, actor: Actor
    ) -> KnownTenant:
        """Make a tenant. Raises `TenantInvalid`, `TenantExists` or `Configured`."""
        if TENANT_ID.fullmatch(tenant) is None:
            fault = Fault(
                pointer="/tenant",
                code="malformed_member",
                detail="expected a tenant id: 1 to 63 letters, digits, '.', '_', '-', of which"
                " the first is a letter or a digit",
            )
            raise TenantInvalid("the tenant has no usable id", faults=(fault,))
        self._refuse_configured(tenant)
        _checked(tenant, members)
        now_us = self.clock()
        row = StoredTenant(tenant, canonicalize(dict(members)), now_us, now_us)
        await self.database.transact(_create, row, actor)
        await refreshed(self.keyring)
        return _known(row)

    async def change(
        self, tenant: str, members: Mapping[str, Json], *, actor: Actor
    ) -> KnownTenant:
        """Replace the members that are given; one that is null is what it is by default again.

        Raises `TenantUnknown`, `TenantInvalid` or `Configured`.
        """
        self._refuse_configured(tenant)
        _refuse_impossible(tenant)
        row = await self.database.transact(_change, tenant, members, self.clock(), actor)
        await refreshed(self.keyring)
        return _known(row)

    async def find(self, tenant: str) -> KnownTenant:
        """Return one tenant. Raises `TenantUnknown`."""
        configured = self.keyring.configured.tenants.get(TenantId(tenant))
        if configured is not None:
            return _configured(configured)
        _refuse_impossible(tenant)
        row = await self.database.read_current(stored.find_tenant, tenant)
        if row is None:
            raise TenantUnknown("no such tenant")
        return _known(row)

    async def page(self, *, after: str, limit: int) -> list[KnownTenant]:
        """Return up to `limit` tenants behind the id `after`, in the order of their ids."""
        configured = self.keyring.configured.tenants
        rows = await self.database.read_current(stored.tenants_page, after=after, limit=limit)
        known = [_configured(tenant) for id, tenant in configured.items() if id > after]
        known += [_known(row) for row in rows if TenantId(row.tenant) not in configured]
        return sorted(known, key=lambda tenant: tenant.id)[:limit]

    def _refuse_configured(self, tenant: str) -> None:
        if TenantId(tenant) in self.keyring.configured.tenants:
            raise Configured(f"SP_API_KEYS describes the tenant {tenant}; change it there")


def _refuse_impossible(tenant: str) -> None:
    """No tenant has this id, and a database may not even be asked for it: PostgreSQL has no text
    with a NUL. Raises `TenantUnknown`."""
    if TENANT_ID.fullmatch(tenant) is None:
        raise TenantUnknown("no such tenant")


async def refreshed(keyring: LiveKeyring) -> None:
    """Put what has just been made durable into force in this process; others see it in a second.

    Where that fails the change still stands, and the next look finds it.
    """
    with suppress(StorageError):
        await keyring.refresh()


async def _create(tx: Tx, row: StoredTenant, actor: Actor) -> None:
    await stored.begin_change(tx)
    if not await stored.add_tenant(tx, row):
        raise TenantExists(f"there is a tenant {row.tenant} already")
    await record_change(
        tx,
        Change(
            actor=actor.key_id,
            origin=actor.origin,
            tenant=TenantId(row.tenant),
            action="tenant.create",
            object=row.tenant,
            after=members_of(row.document),
        ),
    )


async def _change(
    tx: Tx, tenant: str, members: Mapping[str, Json], now_us: int, actor: Actor
) -> StoredTenant:
    await stored.begin_change(tx)
    row = await stored.find_tenant(tx, tenant)
    if row is None:
        raise TenantUnknown("no such tenant")
    before = members_of(row.document)
    # An unknown name is told even where its value is null.
    after = {
        name: value
        for name, value in {**before, **members}.items()
        if value is not None or name not in TENANT_MEMBERS
    }
    _checked(tenant, after)
    changed = row._replace(document=canonicalize(after), changed_us=now_us)
    await stored.change_tenant(tx, tenant, changed.document, changed.changed_us)
    await record_change(
        tx,
        Change(
            actor=actor.key_id,
            origin=actor.origin,
            tenant=TenantId(tenant),
            action="tenant.change",
            object=tenant,
            before=before,
            after=after,
        ),
    )
    return changed


def _checked(tenant: str, members: Mapping[str, Json]) -> Tenant:
    """Return the tenant that `members` describe. Raises `TenantInvalid`."""
    described = read_tenant(TenantId(tenant), members)
    faults = tuple(list_faults("allowlist", described.allowlist))
    if faults:
        raise TenantInvalid("an entry of the allowlist is no destination", faults=faults)
    return described


def _known(row: StoredTenant) -> KnownTenant:
    """Return what a row describes; one that another release wrote, and this one cannot read, as it
    is stored: it is not served, and only who sees it can mend it."""
    id, as_stored = TenantId(row.tenant), dict[str, Json]()
    try:
        as_stored = members_of(row.document)
        members = tenant_members(read_tenant(id, as_stored))
    except TenantInvalid:
        members = {**tenant_members(Tenant(id=id)), **as_stored}
    return KnownTenant(id=id, members=members, created_us=row.created_us, changed_us=row.changed_us)


def _configured(tenant: Tenant) -> KnownTenant:
    return KnownTenant(id=tenant.id, members=tenant_members(tenant))
