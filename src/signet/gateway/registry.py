"""Which types, tools and mappings a tenant can name now: what is built in and the operator's own,
then the global documents of the API, then the tenant's.

What a call gets is one immutable `Registry`, so an exchange sees one state from beginning to end. A
poll finds what any process has changed; the process that changed it refreshes at once.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, cast

from structlog.typing import FilteringBoundLogger

from signet.core.errors import Fault
from signet.core.ids import TenantId
from signet.core.registry import Deprecation, EntryKey, Hosted, Kind, Origin, Registry
from signet.receipts.canonical import parse
from signet.storage import registry as stored
from signet.storage.database import Database
from signet.storage.registry import EVERYONE, Changed, StoredDocument
from signet.storage.tx import ReadTx
from signet.telemetry.metrics import Metrics

_MOST_TENANTS: Final = 256
"""Whose registries are kept compiled; who was asked for longest ago goes first."""


class Registries:
    """The registry of every tenant. A tenant without documents of its own costs nothing."""

    def __init__(
        self, base: Registry, database: Database, *, metrics: Metrics, log: FilteringBoundLogger
    ) -> None:
        self._base = base
        self._database = database
        self._metrics = metrics
        self._log = log
        self._everyone = base
        self._seen = 0
        self._owners: set[str] = set()
        self._tenants: OrderedDict[str, Registry] = OrderedDict()
        self._turn = asyncio.Lock()

    @property
    def shared(self) -> Registry:
        """What everybody can name."""
        return self._everyone

    @property
    def base(self) -> Registry:
        """What did not come through the API."""
        return self._base

    async def of(self, tenant: TenantId) -> Registry:
        """Return the tenant's registry; raises a `StorageError` where it must be read and cannot.

        Only the first call after a start, or after long, has to read.
        """
        if tenant not in self._owners:
            return self._everyone
        registry = self._tenants.get(tenant)
        if registry is not None:
            self._tenants.move_to_end(tenant)
            return registry
        async with self._turn:
            return self._tenants.get(tenant) or await self._load(tenant)

    async def refresh(self) -> int:
        """Take over what has changed since the last time; return how many owners that were."""
        if await self._database.read_current(stored.revision) == self._seen:
            return 0
        async with self._turn:
            revision, changed = await self._database.read_current(_changes, self._seen)
            owners = {change.tenant for change in changed}
            if EVERYONE in owners:
                self._everyone = await self._compiled(EVERYONE, self._base, Origin.GLOBAL)
                self._tenants.clear()
            self._owners |= owners - {EVERYONE}
            for tenant in owners & self._tenants.keys():
                await self._load(tenant)
            self._seen = revision
        return len(changed)

    async def _load(self, tenant: str) -> Registry:
        registry = await self._compiled(tenant, self._everyone, Origin.TENANT)
        self._tenants[tenant] = registry
        while len(self._tenants) > _MOST_TENANTS:
            self._tenants.popitem(last=False)
        return registry

    async def _compiled(self, owner: str, under: Registry, origin: Origin) -> Registry:
        """Lay an owner's documents over `under`, in a thread: they may be many."""
        documents = await self._database.read_current(stored.documents, owner)
        hosted = [as_hosted(document) for document in documents]
        registry, faults = await asyncio.to_thread(under.with_hosted, hosted, origin)
        self._tell(owner, origin, registry, faults)
        return registry

    def _tell(
        self,
        owner: str,
        origin: Origin,
        registry: Registry,
        faults: Mapping[EntryKey, tuple[Fault, ...]],
    ) -> None:
        """Documents were valid when they were stored; only another version may think otherwise."""
        for (kind, name), found in faults.items():
            self._metrics.registry_unusable.inc()
            detail = found[0].detail
            self._log.error("registry_unusable", tenant=owner, kind=kind, name=name, error=detail)
        for entry in registry.entries.values():
            if entry.shadows is not None and entry.origin is origin:
                told = {"tenant": owner, "kind": entry.kind, "name": entry.name}
                self._log.warning("registry_shadows", hidden=entry.shadows, **told)


def as_hosted(document: StoredDocument) -> Hosted:
    """Return a stored document as the registry takes it."""
    deprecated = None
    if document.deprecated_us is not None:
        said = cast("dict[str, str | None]", json.loads(document.deprecation or "{}"))
        deprecated = Deprecation(
            since_us=document.deprecated_us,
            detail=said.get("detail"),
            successor=said.get("successor"),
        )
    return Hosted(
        kind=Kind(document.kind),
        name=document.name,
        document=parse(document.document),
        created_us=document.created_us,
        deprecated=deprecated,
    )


async def _changes(tx: ReadTx, after: int) -> tuple[int, Sequence[Changed]]:
    return await stored.revision(tx), await stored.changes(tx, after)
