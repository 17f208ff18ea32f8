"""Billing, as the settings describe it: plans, counting, statements, and Stripe if it is set."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from signet.app.refused import StartRefused
from signet.core.billing import Answer, DeadLetter, LaneStopped
from signet.core.ids import TenantId
from signet.core.pricing import Meter, ReservedConfigInvalid, Tier
from signet.core.tenant import Tenant
from signet.gateway.billing import Biller, BillingRefused, Dispatch, Router
from signet.gateway.metering import Metering
from signet.gateway.plans import Plans, Reloaded
from signet.gateway.ports import Clock
from signet.gateway.reconciliation import Drift, Reconciliation
from signet.gateway.statements import Statements
from signet.receipts.keys import SigningKey
from signet.settings import Settings
from signet.storage.database import Database
from signet.telemetry.metrics import Metrics
from signet.workers.billing import metering_workers, stripe_workers
from signet.workers.ownership import is_dead
from signet.workers.runner import Worker

if TYPE_CHECKING:
    from signet.providers.stripe import StripeBiller

_HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """What the routes, the commands and the workers use of it."""

    settings: Settings
    plans: Plans
    metering: Metering
    statements: Statements
    reconciliation: Reconciliation | None
    workers: Sequence[Worker]

    async def reload(self) -> Reloaded:
        """Read the reserved-capacity file again; nothing changes unless all of it is in order.

        Raises `ReservedConfigInvalid`, `BillingRefused`, or `StartRefused` without a file.
        """
        path = self.settings.billing.reserved_config
        if path is None:
            raise StartRefused("SP_RESERVED_CONFIG is not set, so there is nothing to reload")
        try:
            document = path.read_bytes()
        except OSError as error:
            raise StartRefused(f"SP_RESERVED_CONFIG: {error.strerror} ({path})") from error
        return await self.plans.reload(document)


@asynccontextmanager
async def open_billing(
    settings: Settings,
    *,
    database: Database,
    key: SigningKey,
    tenants: Callable[[], Mapping[TenantId, Tenant]],
    owner: str,
    metrics: Metrics,
    clock: Clock,
) -> AsyncGenerator[Billing]:
    """Build billing and put the configured plans into force. Raises `StartRefused`."""
    biller = stripe_biller(settings)
    router = None if biller is None else Router(biller=biller, clock=clock)
    verify = settings.billing.stripe_verify == "on"
    plans = Plans(database=database, tenants=tenants, router=router, clock=clock, verify=verify)
    metering = Metering(
        database=database,
        plan_of=plans.plan_of,
        fu_limit_of=lambda tenant: _fu_limit(tenants(), tenant),
        observer=_Observer(metrics, plans),
        clock=clock,
    )
    statements = Statements(
        database=database,
        key=key,
        issuer=settings.identity.issuer,
        clock=clock,
        grace_us=settings.billing.grace_hours * _HOUR_US,
    )
    workers = metering_workers(metering, statements)
    reconciliation: Reconciliation | None = None
    if biller is not None and router is not None:
        reconciliation = Reconciliation(
            database=database,
            biller=biller,
            router=router,
            metering=metering,
            owner=owner,
            clock=clock,
            dice=secrets.token_bytes,
        )
        workers += stripe_workers(
            plans,
            _dispatch(database, biller, router, owner, metrics, clock),
            reconciliation,
            told=lambda drifts: _tell_drift(metrics, drifts),
        )
    billing = Billing(
        settings=settings,
        plans=plans,
        metering=metering,
        statements=statements,
        reconciliation=reconciliation,
        workers=workers,
    )
    try:
        await _put_into_force(billing, verify=verify)
        tell_reserved(metrics, plans)
        yield billing
    finally:
        if biller is not None:
            await biller.aclose()


async def _put_into_force(billing: Billing, *, verify: bool) -> None:
    try:
        if billing.settings.billing.reserved_config is not None:
            await billing.reload()
        elif verify:
            await billing.plans.route()
    except (ReservedConfigInvalid, BillingRefused) as error:
        places = "; ".join(f"{fault.pointer}: {fault.detail}" for fault in error.faults)
        raise StartRefused(f"SP_RESERVED_CONFIG: {error.detail} ({places})") from error


def stripe_biller(settings: Settings) -> StripeBiller | None:
    """Return the Stripe account that is invoiced through; None where none is set."""
    if settings.billing.stripe_api_key is None:
        return None
    try:
        from signet.providers.stripe import StripeBiller
    except ModuleNotFoundError as error:
        detail = "Stripe needs the extra `stripe`: pip install 'signet-protocol[stripe]'"
        raise StartRefused(detail) from error
    try:
        return StripeBiller(
            settings.billing.stripe_api_key, origin=settings.billing.stripe_base_url
        )
    except ValueError as error:
        raise StartRefused(f"SP_STRIPE_BASE_URL: {error}") from error


def _dispatch(
    database: Database, biller: Biller, router: Router, owner: str, metrics: Metrics, clock: Clock
) -> Dispatch:
    return Dispatch(
        database=database,
        biller=biller,
        router=router,
        owner=f"{owner}/billing",
        is_dead=lambda name: is_dead(name.removesuffix("/billing")),
        clock=clock,
        monotonic=time.monotonic,
        dice=secrets.token_bytes,
        heard=lambda answer: _tell_answer(metrics, answer),
    )


@dataclass(frozen=True, slots=True)
class _Observer:
    """Counts what was allocated."""

    metrics: Metrics
    plans: Plans

    def allocated(self, tenant: str, meter: Meter, band: Tier, units: int) -> None:
        """Count units into their band; a correction downwards is no counter's business."""
        if units <= 0:
            return
        if band.item is not None:
            self.metrics.billing_enqueued.labels(meter).inc(units)
        if band.number > 0:
            self.metrics.overage_charges.labels(tenant, meter, str(band.number)).inc(units)


def tell_reserved(metrics: Metrics, plans: Plans) -> None:
    """Show the reserve of every plan in force."""
    for plan in plans.in_force():
        metrics.reserved_capacity.labels(plan.tenant, "vex").set(plan.vex.reserved)
        metrics.reserved_capacity.labels(plan.tenant, "fu").set(plan.fu.reserved)


def _tell_answer(metrics: Metrics, answer: Answer) -> None:
    metrics.billing_answers.labels(type(answer).__name__.lower()).inc()
    if isinstance(answer, DeadLetter | LaneStopped):
        metrics.billing_stuck.inc()


def _tell_drift(metrics: Metrics, drifts: Sequence[Drift]) -> None:
    for between in ("receipts", "windows", "stripe"):
        found = sum(abs(d.expected - d.found) for d in drifts if d.between == between)
        metrics.billing_drift.labels(between).set(found)


def _fu_limit(tenants: Mapping[TenantId, Tenant], tenant: TenantId) -> int | None:
    known = tenants.get(tenant)
    return None if known is None else known.fu_monthly_limit
