"""Registering and deprecating types, tools and mappings while the gateway runs.

A version never changes and is never removed: receipts name it. What is wrong with a document is
found before it is stored, together with everything else its owner keeps, as every process will
compile it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from signet.core.audit import SYSTEM, Change
from signet.core.errors import Fault
from signet.core.ids import TenantId
from signet.core.registry import Entry, Hosted, Kind, Registry, name_faults
from signet.gateway.ports import Busy, CheckStopped, Clock, RegistryChecker
from signet.gateway.registry import Registries, as_hosted
from signet.gateway.tenants import Actor
from signet.receipts.canonical import Json, canonicalize, content_id, parse
from signet.receipts.errors import ReceiptError
from signet.storage import registry as stored
from signet.storage.audit import record_change
from signet.storage.database import Database
from signet.storage.registry import EVERYONE, Bounds, Kept, StoredDocument
from signet.storage.tx import Tx

_ATTEMPTS: Final = 3

Owner = TenantId | None
"""Whose document it is: a tenant's, or (None) everybody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The document is in force; `new` where this call stored it."""

    entry: Entry
    new: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRegistered:
    """Nothing was stored. `code` has a row in the table of problems."""

    code: Literal["registry_invalid", "registry_conflict", "registry_full", "not_found"]
    detail: str
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registrations:
    """The use cases that change the registry."""

    registries: Registries
    database: Database
    check: RegistryChecker
    bounds_of: Callable[[Owner], Bounds]
    max_depth: int
    clock: Clock

    async def register(
        self, actor: Actor, owner: Owner, kind: Kind, name: str, body: bytes
    ) -> Registered | NotRegistered:
        """Store a document under its name, or find that this very one is there.

        Raises `Busy` when too many documents wait to be checked, or a `StorageError`.
        """
        faults = name_faults(kind, name)
        if faults:
            return NotRegistered(code="registry_invalid", detail=faults[0].detail, faults=faults)
        try:
            document = parse(body, max_depth=self.max_depth)
            canonical = canonicalize(document)
        except ReceiptError as error:
            fault = Fault(pointer=error.pointer, code=error.code, detail=error.detail)
            return NotRegistered(
                code="registry_invalid", detail="the document is not I-JSON", faults=(fault,)
            )
        new = Hosted(kind=kind, name=name, document=document, created_us=self.clock())
        wanted = _stored(owner, new, canonical)
        for _ in range(_ATTEMPTS):
            put = await self._try(actor, owner, new, wanted)
            if put is not None:
                return put
        raise Busy("others register for the same owner; nothing was done")

    async def kept(self, owner: Owner) -> tuple[Kept, Bounds]:
        """Return how much an owner keeps, and may. Raises a `StorageError`."""
        kept = await self.database.read_current(stored.kept, owner or EVERYONE)
        return kept, self.bounds_of(owner)

    async def _try(
        self, actor: Actor, owner: Owner, new: Hosted, wanted: StoredDocument
    ) -> Registered | NotRegistered | None:
        """Check and store once; None when another document came between."""
        bounds = self.bounds_of(owner)
        await self.registries.refresh()
        taken = await self._taken(owner, new, wanted.cid)
        if taken is not None:
            return taken
        kept = await self.database.read_current(stored.documents, wanted.tenant)
        if len(kept) >= bounds.documents:
            return _full(bounds)
        refused = await self._refused(owner, kept, new)
        if refused is not None:
            return refused
        put = await self.database.transact(_put, actor, owner, wanted, bounds, beside=len(kept))
        match put:
            case "stored" | "same":
                await self.registries.refresh()
                entry = (await self._registry(owner)).entries[new.kind, new.name]
                return Registered(entry=entry, new=put == "stored")
            case "conflict":
                return _conflict(new.name)
            case "full":
                return _full(bounds)
            case "moved":
                return None

    async def deprecate(
        self,
        actor: Actor,
        owner: Owner,
        kind: Kind,
        name: str,
        *,
        detail: str | None,
        successor: str | None,
    ) -> Registered | NotRegistered:
        """Say that a version should not be used any more; it serves as before."""
        said = canonicalize({"detail": detail, "successor": successor}).decode()
        return await self._deprecate(actor, owner, kind, name, self.clock(), said)

    async def restore(
        self, actor: Actor, owner: Owner, kind: Kind, name: str
    ) -> Registered | NotRegistered:
        """Take back that a version is deprecated."""
        return await self._deprecate(actor, owner, kind, name, None, None)

    async def _deprecate(
        self,
        actor: Actor,
        owner: Owner,
        kind: Kind,
        name: str,
        since_us: int | None,
        said: str | None,
    ) -> Registered | NotRegistered:
        found = await self.database.transact(_deprecate, actor, owner, kind, name, since_us, said)
        if not found:
            return NotRegistered(code="not_found", detail=f"there is no {kind} {name} to change")
        await self.registries.refresh()
        entry = (await self._registry(owner)).entries.get((kind, name))
        if entry is None:
            detail = f"this version of the gateway cannot use the {kind} {name}"
            return NotRegistered(code="not_found", detail=detail)
        return Registered(entry=entry, new=False)

    async def _taken(
        self, owner: Owner, new: Hosted, cid: str
    ) -> Registered | NotRegistered | None:
        """What the name means already: to the owner, or to everybody, whom nobody may hide."""
        there = (await self._registry(owner)).entries.get((new.kind, new.name))
        if there is not None:
            return Registered(entry=there, new=False) if there.cid == cid else _conflict(new.name)
        hidden = self._under(owner).named(new.kind, new.name)
        if hidden is not None:
            detail = f"{hidden.name} is there for everybody ({hidden.origin}); take another name"
            return NotRegistered(code="registry_conflict", detail=detail)
        return None

    async def _refused(
        self, owner: Owner, kept: Sequence[StoredDocument], new: Hosted
    ) -> NotRegistered | None:
        """What compiling says of the new document, beside what its owner keeps."""
        documents = [*map(as_hosted, kept), new]
        found = await self.check(documents, list(self._under(owner).schemas))
        if isinstance(found, CheckStopped):
            return NotRegistered(code="registry_invalid", detail=found.detail)
        faults = found.get((new.kind, new.name))
        if faults:
            return NotRegistered(code="registry_invalid", detail=faults[0].detail, faults=faults)
        return None

    async def _registry(self, owner: Owner) -> Registry:
        return self.registries.shared if owner is None else await self.registries.of(owner)

    def _under(self, owner: Owner) -> Registry:
        return self.registries.base if owner is None else self.registries.shared


def _full(bounds: Bounds) -> NotRegistered:
    detail = f"{bounds.documents} documents of {bounds.size_bytes} bytes in all may be kept"
    return NotRegistered(code="registry_full", detail=detail)


def _conflict(name: str) -> NotRegistered:
    detail = f"{name} has other content, and a version never changes; take a new name"
    return NotRegistered(code="registry_conflict", detail=detail)


def _stored(owner: Owner, new: Hosted, canonical: bytes) -> StoredDocument:
    return StoredDocument(
        tenant=owner or EVERYONE,
        kind=new.kind,
        name=new.name,
        document=canonical,
        cid=content_id(canonical),
        created_us=new.created_us,
    )


async def _put(
    tx: Tx,
    actor: Actor,
    owner: Owner,
    document: StoredDocument,
    bounds: Bounds,
    *,
    beside: int,
) -> Literal["stored", "same", "conflict", "full", "moved"]:
    put = await stored.put(tx, document, bounds, beside=beside)
    if put == "stored":
        await record_change(
            tx,
            Change(
                actor=actor.key_id,
                origin=actor.origin,
                tenant=owner or SYSTEM,
                action="registry.register",
                object=f"{document.kind}/{document.name}",
                after={"cid": document.cid, "size_bytes": len(document.document)},
            ),
        )
    return put


async def _deprecate(
    tx: Tx,
    actor: Actor,
    owner: Owner,
    kind: Kind,
    name: str,
    since_us: int | None,
    said: str | None,
) -> bool:
    before = await stored.deprecate(
        tx, owner or EVERYONE, kind, name, deprecated_us=since_us, deprecation=said
    )
    if before is None:
        return False
    after = await stored.one(tx, owner or EVERYONE, kind, name)
    assert after is not None, "it was there"
    if after != before:
        await record_change(
            tx,
            Change(
                actor=actor.key_id,
                origin=actor.origin,
                tenant=owner or SYSTEM,
                action="registry.restore" if since_us is None else "registry.deprecate",
                object=f"{kind}/{name}",
                before=_state(before),
                after=_state(after),
            ),
        )
    return True


def _state(document: StoredDocument) -> dict[str, Json]:
    said: Json = None if document.deprecation is None else json.loads(document.deprecation)
    return {"cid": document.cid, "deprecated_us": document.deprecated_us, "deprecation": said}
