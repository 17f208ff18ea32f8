"""The plans in force: replaced as a whole or not at all, in all processes of all nodes.

The document in force lies in the database, where every process looks for a newer one each second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from signet.core.audit import SYSTEM, Change, Origin
from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan, items, load_reserved, metered_only
from signet.core.tenant import Tenant
from signet.gateway.billing import BillingRefused, Router
from signet.gateway.metering import read_plan
from signet.gateway.ports import Clock
from signet.receipts.canonical import content_id
from signet.storage import billing, reserved
from signet.storage.audit import record_change
from signet.storage.database import Database
from signet.storage.outbox import Outlet
from signet.storage.tx import Tx

# Months that ended this long ago can send nothing to Stripe any more, which looks 35 days back.
_SETTLED_US: Final = 36 * 24 * 3_600_000_000


# Who puts a file into force that a start found to be new.
_START: Final = "_start"

_Reserved = Mapping[TenantId, TenantPlan]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """What a reload did: the hash of each tenant's plan in force, and who has another than before.

    Months that have begun keep the plan that they pinned.
    """

    plans: Mapping[TenantId, str]
    changed: tuple[TenantId, ...]


@dataclass(slots=True, kw_only=True)
class Plans:
    """Who pays what. `tenants` are the configured tenants, for those that have no reserve.

    `router` is None where nothing goes to Stripe; `verify` is off for starts without a network,
    when items get their routes later.
    """

    database: Database
    tenants: Callable[[], Mapping[TenantId, Tenant]]
    router: Router | None
    clock: Clock
    verify: bool = True
    _reserved: _Reserved = field(default_factory=dict[TenantId, TenantPlan])
    _revision: int = 0
    _unpublished: bytes | None = None

    def plan_of(self, tenant: TenantId) -> TenantPlan:
        """Return the plan in force; a tenant without a reserve is merely metered."""
        return self._plan_of(self._reserved, tenant)

    def zone_of(self, tenant: TenantId) -> str:
        """Return the IANA zone of the tenant's calendar months."""
        plan = self._reserved.get(tenant)
        return "UTC" if plan is None else plan.zone

    def in_force(self) -> list[TenantPlan]:
        """Return the plan of every tenant that is configured anywhere."""
        return self._in_force(self._reserved)

    def _plan_of(self, plans: _Reserved, tenant: TenantId) -> TenantPlan:
        if tenant in plans:
            return plans[tenant]
        known = self.tenants().get(tenant)
        return metered_only(
            tenant,
            vex_item=None if known is None else known.stripe_item_vex,
            fu_item=None if known is None else known.stripe_item_fu,
        )

    def _in_force(self, plans: _Reserved) -> list[TenantPlan]:
        tenants = sorted({*plans, *self.tenants()})
        return [self._plan_of(plans, tenant) for tenant in tenants]

    async def begin(self, document: bytes) -> None:
        """Take on what is in force, or `document` where it never was; write nothing yet.

        So a start with a new file brings it into force, and one with an old file, on a node that
        was forgotten, does not bring it back. Raises as `reload` does.
        """
        now = await self.database.read_current(reserved.in_force)
        if now is None or not await self.database.read_current(reserved.was_in_force, document):
            self._unpublished = document
            await self._take_on(document)
            return
        self._revision = now.revision
        await self._take_on(now.document)

    async def reload(
        self, document: bytes, *, actor: str, origin: Origin | None = None
    ) -> Reloaded:
        """Put a reserved-capacity document into force, here at once and elsewhere by `follow`.

        Raises `ReservedConfigInvalid`, or `BillingRefused` where Stripe definitely disagrees; then
        nothing has changed.
        """
        before = {plan.tenant: plan.cid for plan in self.in_force()}
        taken_on = load_reserved(document)
        if self.verify:
            await self._route(self._in_force(taken_on))
        # What the start has not published yet must not be put into force behind this.
        unpublished, self._unpublished = self._unpublished, None
        try:
            self._revision = await self.database.transact(self._publish, document, actor, origin)
        except BaseException:
            self._unpublished = unpublished
            raise
        self._reserved = taken_on
        after = {plan.tenant: plan.cid for plan in self.in_force()}
        return Reloaded(
            plans=after,
            changed=tuple(t for t in sorted(before | after) if before.get(t) != after.get(t)),
        )

    async def follow(self) -> int:
        """Take on what another process put into force since; return how many documents that was.

        Raises `ReservedConfigInvalid` for a document of a newer release, once, and `BillingRefused`
        where Stripe disagrees by now; then the plans are in force and their items have no routes.
        """
        if self._unpublished is not None:
            document = self._unpublished
            self._revision = await self.database.transact(self._publish, document, _START, None)
            self._unpublished = None
        found = await self.database.read_current(reserved.newer_than, self._revision)
        if found is None:
            return 0
        self._revision = found.revision
        self._reserved = load_reserved(found.document)
        if self.verify:
            await self.route()
        return 1

    async def _take_on(self, document: bytes) -> None:
        taken_on = load_reserved(document)
        if self.verify:
            await self._route(self._in_force(taken_on))
        self._reserved = taken_on

    async def _publish(self, tx: Tx, document: bytes, actor: str, origin: Origin | None) -> int:
        before = await reserved.in_force(tx)
        revision = await reserved.put_into_force(tx, document, self.clock())
        if actor == _START and before is not None and before.revision == revision:
            return revision
        change = Change(
            actor=actor,
            tenant=SYSTEM,
            action="reserved.reload",
            object=f"revision {revision}",
            before=None if before is None else content_id(before.document),
            after=content_id(document),
            origin=origin,
        )
        await record_change(tx, change)
        return revision

    async def route(self) -> int:
        """Resolve every item that may be sent to; return how many could not be asked for.

        Raises `BillingRefused`; the routes that were known stay.
        """
        await self._route(self.in_force())
        return 0 if self.router is None else len(self.router.unreachable)

    async def _route(self, plans: Sequence[TenantPlan]) -> None:
        if self.router is None:
            return
        documents = await self.database.read_current(
            billing.recent_plans, ended_after_us=self.clock() - _SETTLED_US
        )
        await self.router.resolve(plans, pinned=map(read_plan, documents))

    async def route_missing(self) -> int:
        """Resolve again while some item has no route; return how many got one.

        A tenant whose items would bill wrongly keeps nobody else from getting routes; raises
        `BillingRefused` for it afterwards. A tenant made at run time is first looked at here.
        """
        if self.router is None:
            return 0
        known = len(self.router.routes)
        # Whoever has routes comes first: of two that may not share a meter, the newcomer is named.
        plans = sorted(self.in_force(), key=self._lacks_routes)
        if not any(map(self._lacks_routes, plans)) and not self.router.unreachable:
            return 0
        first: BillingRefused | None = None
        while True:
            try:
                await self._route(plans)
                break
            except BillingRefused as error:
                named = {fault.pointer.split("/")[1] for fault in error.faults}
                rest = [plan for plan in plans if plan.tenant not in named]
                if len(rest) == len(plans):
                    raise
                first, plans = first or error, rest
        if first is not None:
            raise first
        return len(self.router.routes) - known

    def _lacks_routes(self, plan: TenantPlan) -> bool:
        assert self.router is not None
        return any(Outlet(plan.tenant, item) not in self.router.routes for item in items(plan))
