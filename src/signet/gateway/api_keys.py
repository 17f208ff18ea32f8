"""Administering API keys: make, list, rotate, let expire, revoke.

A key's text is told once, to whoever made it. A rotation makes the next key of a line and lets the
one before go on for a while, so that its holder can change over without a refused call. Nothing
makes a key live longer than it was told, and nothing brings back one that has ended.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from signet.core.api_keys import (
    DICE_BYTES,
    KEY_ID,
    NewKey,
    Pepper,
    key_hash,
    key_id,
    new_key,
)
from signet.core.audit import SYSTEM, Change
from signet.core.errors import Fault, SignetError
from signet.core.ids import TenantId
from signet.core.tenant import (
    TENANT_SCOPES,
    KeyInvalid,
    Principal,
    Scope,
    Tenant,
    key_members,
    read_key,
)
from signet.gateway.keyring import LiveKeyring, members_of
from signet.gateway.policies import list_faults
from signet.gateway.ports import Clock, Dice
from signet.gateway.tenants import Actor, Configured, refreshed
from signet.receipts.canonical import Json, canonicalize
from signet.storage import tenants as stored
from signet.storage.audit import record_change
from signet.storage.database import Database
from signet.storage.tenants import StoredKey
from signet.storage.tx import Tx

State = Literal["active", "expired", "revoked"]

OVERLAP_S: Final = 86_400
"""How long a key goes on beside its successor, unless it is said otherwise."""
MOST_OVERLAP_S: Final = 90 * 86_400
MOST_LIFE_S: Final = 3_660 * 86_400

_LABEL: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{0,100}")
_SECOND_US: Final = 1_000_000


class KeyUnknown(SignetError):
    """There is no such key."""

    code = "not_found"


class KeyEnded(SignetError):
    """The key has been revoked or has expired."""

    code = "key_ended"


class KeyRotated(SignetError):
    """The key has a successor that is in force."""

    code = "key_rotated"


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key as an administrator sees it. Times are None where there is none.

    `members` are its scopes and what else narrows it. `succeeds` is the first key of its line, and
    `rotated_to` the next one. `pepper` names the secret that its hash was made with.
    """

    key_id: str
    tenant: TenantId
    state: State
    label: str = ""
    members: Mapping[str, Json]
    created_us: int | None = None
    expires_us: int | None = None
    revoked_us: int | None = None
    succeeds: str | None = None
    rotated_to: str | None = None
    pepper: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new key, with the text that is never told again."""

    key: KnownKey
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class APIKeys:
    """The use cases. A change is in force in this process when it is answered."""

    database: Database
    keyring: LiveKeyring
    pepper: Pepper | None
    clock: Clock
    dice: Dice

    async def create(
        self,
        tenant: str,
        members: Mapping[str, Json],
        *,
        label: str = "",
        expires_in_s: int | None = None,
        actor: Actor,
    ) -> Issued:
        """Make a key of a tenant, or one of `_system` that may administer and nothing else.

        Raises `KeyInvalid`.
        """
        _checked(tenant, members, label)
        made = new_key(self.dice(DICE_BYTES))
        now_us = self.clock()
        row = StoredKey(
            public_id=made.public_id,
            tenant=tenant,
            hash=self._hash(made),
            pepper=self._pepper_id,
            label=label,
            document=canonicalize(dict(members)),
            first=made.public_id,
            rotated_to=None,
            created_us=now_us,
            expires_us=_life_end(now_us, expires_in_s),
            revoked_us=None,
        )
        known = tenant == SYSTEM or TenantId(tenant) in self.keyring.configured.tenants
        await self.database.transact(_create, row, actor, tenant_known=known)
        await refreshed(self.keyring)
        return Issued(key=self._known(row), text=made.text)

    async def rotate(
        self,
        name: str,
        *,
        overlap_s: int = OVERLAP_S,
        expires_in_s: int | None = None,
        actor: Actor,
    ) -> Issued:
        """Make the key's successor, and let the key itself end after `overlap_s` at the latest.

        The successor may do the same; it lives as long as the key was made for, unless
        `expires_in_s` says otherwise. Raises `KeyUnknown`, `KeyEnded`, `KeyRotated` or
        `Configured`.
        """
        public = self._public(name)
        made = new_key(self.dice(DICE_BYTES))
        successor = await self.database.transact(
            _rotate,
            public,
            lambda row, now_us: row._replace(
                public_id=made.public_id,
                hash=self._hash(made),
                pepper=self._pepper_id,
                created_us=now_us,
                expires_us=_life_end(now_us, expires_in_s) or _same_life(row, now_us),
                rotated_to=None,
            ),
            self.clock(),
            overlap_s,
            actor,
        )
        await refreshed(self.keyring)
        return Issued(key=self._known(successor), text=made.text)

    async def expire(self, name: str, *, in_s: int, actor: Actor) -> KnownKey:
        """Let the key end in `in_s` seconds, or when it was to end anyway if that is sooner.

        Raises `KeyUnknown`, `KeyEnded` or `Configured`.
        """
        public = self._public(name)
        row = await self.database.transact(_expire, public, self.clock(), in_s, actor)
        await refreshed(self.keyring)
        return self._known(row)

    async def revoke(self, name: str, *, actor: Actor) -> KnownKey:
        """End the key now, for good; one that was revoked before stays as it is.

        Raises `KeyUnknown` or `Configured`.
        """
        row = await self.database.transact(_revoke, self._public(name), self.clock(), actor)
        await refreshed(self.keyring)
        return self._known(row)

    async def find(self, name: str) -> KnownKey:
        """Return one key. Raises `KeyUnknown`."""
        for principal in self.keyring.configured.principals.values():
            if principal.key_id == name:
                return _configured(principal)
        row = await self.database.read_current(stored.find_key, self._public(name))
        if row is None:
            raise KeyUnknown("no such key")
        return self._known(row)

    async def page(self, *, tenant: str | None, after: str, limit: int) -> list[KnownKey]:
        """Return up to `limit` keys behind the id `after`, those of `SP_API_KEYS` included."""
        public = after.removeprefix("key_") if after.startswith("key_") else ""
        rows = await self.database.read_current(
            stored.keys_page, tenant=tenant, after=public, limit=limit
        )
        known = [
            _configured(principal)
            for principal in self.keyring.configured.principals.values()
            if principal.key_id > after and tenant in (None, principal.tenant.id)
        ]
        known += [self._known(row) for row in rows]
        return sorted(known, key=lambda key: key.key_id)[:limit]

    def _public(self, name: str) -> str:
        """Return the public id in a key's name. Raises `KeyUnknown` or `Configured`."""
        if any(p.key_id == name for p in self.keyring.configured.principals.values()):
            raise Configured(f"SP_API_KEYS holds the key {name}; change it there")
        if KEY_ID.fullmatch(name) is None:
            raise KeyUnknown("no such key")
        return name.removeprefix("key_")

    def _hash(self, made: NewKey) -> bytes:
        return key_hash(made.text.encode("ascii"), self.pepper)

    @property
    def _pepper_id(self) -> str | None:
        return None if self.pepper is None else self.pepper.id

    def _known(self, row: StoredKey) -> KnownKey:
        return KnownKey(
            key_id=key_id(row.public_id),
            tenant=TenantId(row.tenant),
            state=_state(row, self.clock()),
            label=row.label,
            members=_shown(members_of(row.document)),
            created_us=row.created_us,
            expires_us=row.expires_us,
            revoked_us=row.revoked_us,
            succeeds=None if row.first == row.public_id else key_id(row.first),
            rotated_to=None if row.rotated_to is None else key_id(row.rotated_to),
            pepper=row.pepper,
        )


async def _create(tx: Tx, row: StoredKey, actor: Actor, *, tenant_known: bool) -> None:
    await stored.begin_change(tx)
    if not tenant_known and await stored.find_tenant(tx, row.tenant) is None:
        fault = Fault(pointer="/tenant", code="unknown_tenant", detail="there is no such tenant")
        raise KeyInvalid("a key belongs to a tenant", faults=(fault,))
    await stored.add_key(tx, row)
    await _record(tx, actor, "key.create", None, row)


async def _rotate(
    tx: Tx,
    public: str,
    succeed: Callable[[StoredKey, int], StoredKey],
    now_us: int,
    overlap_s: int,
    actor: Actor,
) -> StoredKey:
    await stored.begin_change(tx)
    row = await _in_force(tx, public, now_us)
    after = None if row.rotated_to is None else await _there(tx, row.rotated_to)
    if after is not None and _state(after, now_us) == "active":
        raise KeyRotated(f"its successor is {key_id(after.public_id)}; rotate or revoke that")
    successor = succeed(row, now_us)
    await stored.add_key(tx, successor)
    end_us = _sooner(row.expires_us, now_us + overlap_s * _SECOND_US)
    ending = row._replace(expires_us=end_us, rotated_to=successor.public_id)
    await _end(tx, actor, "key.rotate", row, ending)
    return successor


async def _expire(tx: Tx, public: str, now_us: int, in_s: int, actor: Actor) -> StoredKey:
    await stored.begin_change(tx)
    row = await _in_force(tx, public, now_us)
    end_us = _sooner(row.expires_us, now_us + in_s * _SECOND_US)
    return await _end(tx, actor, "key.expire", row, row._replace(expires_us=end_us))


async def _revoke(tx: Tx, public: str, now_us: int, actor: Actor) -> StoredKey:
    await stored.begin_change(tx)
    row = await _there(tx, public)
    if row.revoked_us is not None:
        return row
    return await _end(tx, actor, "key.revoke", row, row._replace(revoked_us=now_us))


async def _there(tx: Tx, public: str) -> StoredKey:
    row = await stored.find_key(tx, public)
    if row is None:
        raise KeyUnknown("no such key")
    return row


async def _in_force(tx: Tx, public: str, now_us: int) -> StoredKey:
    row = await _there(tx, public)
    state = _state(row, now_us)
    if state != "active":
        raise KeyEnded(f"the key is {state}; make a new one")
    return row


async def _end(tx: Tx, actor: Actor, action: str, before: StoredKey, after: StoredKey) -> StoredKey:
    await stored.end_key(
        tx,
        after.public_id,
        expires_us=after.expires_us,
        revoked_us=after.revoked_us,
        rotated_to=after.rotated_to,
    )
    await _record(tx, actor, action, before, after)
    return after


async def _record(
    tx: Tx, actor: Actor, action: str, before: StoredKey | None, after: StoredKey
) -> None:
    change = Change(
        actor=actor.key_id,
        origin=actor.origin,
        tenant=TenantId(after.tenant),
        action=action,
        object=key_id(after.public_id),
        before=None if before is None else _told(before),
        after=_told(after),
    )
    await record_change(tx, change)


def _told(row: StoredKey) -> dict[str, Json]:
    """Return what the audit log says of a key: never its hash."""
    return {
        **_shown(members_of(row.document)),
        "label": row.label,
        "expires_us": row.expires_us,
        "revoked_us": row.revoked_us,
        "rotated_to": None if row.rotated_to is None else key_id(row.rotated_to),
    }


def _state(row: StoredKey, now_us: int) -> State:
    if row.revoked_us is not None:
        return "revoked"
    return "expired" if row.expires_us is not None and row.expires_us <= now_us else "active"


def _life_end(now_us: int, in_s: int | None) -> int | None:
    return None if in_s is None else now_us + in_s * _SECOND_US


def _same_life(row: StoredKey, now_us: int) -> int | None:
    return None if row.expires_us is None else now_us + row.expires_us - row.created_us


def _sooner(one_us: int | None, other_us: int) -> int:
    return other_us if one_us is None else min(one_us, other_us)


def _checked(tenant: str, members: Mapping[str, Json], label: str) -> None:
    """Raise `KeyInvalid` with everything that is wrong."""
    principal = read_key("key_new", Tenant(id=TenantId(tenant)), members)
    faults = list(list_faults("key_allowlist", principal.allowlist or ()))
    if tenant == SYSTEM and principal.scopes != frozenset((Scope.ADMIN,)):
        detail = f"a key of {SYSTEM} has the scope {Scope.ADMIN} and no other"
        faults.append(Fault(pointer="/scopes", code="malformed_member", detail=detail))
    if _LABEL.fullmatch(label) is None:
        detail = "expected at most 100 characters, none of them a control character"
        faults.append(Fault(pointer="/label", code="malformed_member", detail=detail))
    if faults:
        raise KeyInvalid("no key can be made so", faults=tuple(faults))


def _shown(members: Mapping[str, Json]) -> dict[str, Json]:
    """Return a key's members with the scopes that it has where it says none."""
    return {"scopes": _names(TENANT_SCOPES), **members}


def _configured(principal: Principal) -> KnownKey:
    members: dict[str, Json] = {"scopes": _names(principal.scopes)}
    members |= key_members(principal)
    return KnownKey(
        key_id=principal.key_id, tenant=principal.tenant.id, state="active", members=members
    )


def _names(scopes: frozenset[Scope]) -> list[Json]:
    return [scope.value for scope in Scope if scope in scopes]
