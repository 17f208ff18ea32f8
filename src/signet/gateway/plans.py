"""The plans in force: replaced as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from signet.core.ids import TenantId
from signet.core.pricing import TenantPlan, items, load_reserved, metered_only
from signet.core.tenant import Tenant
from signet.gateway.billing import Router
from signet.gateway.metering import read_plan
from signet.gateway.ports import Clock
from signet.storage import billing
from signet.storage.database import Database
from signet.storage.outbox import Outlet

# Months that ended this long ago can send nothing to Stripe any more, which looks 35 days back.
_SETTLED_US: Final = 36 * 24 * 3_600_000_000


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

    def _plan_of(self, reserved: _Reserved, tenant: TenantId) -> TenantPlan:
        if tenant in reserved:
            return reserved[tenant]
        known = self.tenants().get(tenant)
        return metered_only(
            tenant,
            vex_item=None if known is None else known.stripe_item_vex,
            fu_item=None if known is None else known.stripe_item_fu,
        )

    def _in_force(self, reserved: _Reserved) -> list[TenantPlan]:
        tenants = sorted({*reserved, *self.tenants()})
        return [self._plan_of(reserved, tenant) for tenant in tenants]

    async def reload(self, document: bytes) -> Reloaded:
        """Put a reserved-capacity document into force.

        Raises `ReservedConfigInvalid`, or `BillingRefused` where Stripe definitely disagrees; then
        nothing has changed.
        """
        reserved = load_reserved(document)
        before = {plan.tenant: plan.cid for plan in self.in_force()}
        if self.verify:
            await self._route(self._in_force(reserved))
        self._reserved = reserved
        after = {plan.tenant: plan.cid for plan in self.in_force()}
        return Reloaded(
            plans=after,
            changed=tuple(t for t in sorted(before | after) if before.get(t) != after.get(t)),
        )

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
        """Resolve again while some item has no route; return how many got one."""
        if self.router is None:
            return 0
        known = len(self.router.routes)
        wanted = {Outlet(plan.tenant, item) for plan in self.in_force() for item in items(plan)}
        if wanted <= self.router.routes.keys() and not self.router.unreachable:
            return 0
        await self.route()
        return len(self.router.routes) - known
