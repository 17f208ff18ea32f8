"""Billing, as the settings describe it: plans, counting, statements, and Stripe if it is set."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from signet.app.keyring import live_keyring
from signet.app.refused import StartRefused
from signet.core.audit import Origin
from signet.core.billing import (
    Answer,
    DeadLetter,
    LaneStopped,
    Parked,
    Route,
    Unreachable,
    UsageEvent,
    Wanted,
)
from signet.core.errors import Fault
from signet.core.ids import TenantId
from signet.core.pricing import (
    METERS,
    Meter,
    ReservedConfigInvalid,
    TenantPlan,
    Tier,
    load_reserved,
)
from signet.core.tenant import Tenant
from signet.gateway.billing import Biller, BillingRefused, Dispatch, Router
from signet.gateway.metering import Metering, Repriced
from signet.gateway.plans import Plans, Reloaded
from signet.gateway.ports import Clock
from signet.gateway.reconciliation import Drift, Reconciliation
from signet.gateway.signing import KeyFor
from signet.gateway.statements import Statements
from signet.settings import Settings
from signet.storage.database import Database
from signet.storage.landmark import Landmark
from signet.telemetry.metrics import Metrics
from signet.workers.billing import following_worker, metering_workers, stripe_workers
from signet.workers.ownership import is_dead
from signet.workers.runner import Worker

if TYPE_CHECKING:
    from signet.providers.stripe import StripeBiller

_RESERVED: Final = "SP_RESERVED_CONFIG"
_HOUR_US: Final = 3_600_000_000
_SECOND_US: Final = 1_000_000
# On PostgreSQL a receipt may become visible after one with a higher id, until the slower of both
# transactions has ended. SQLite has one writer at a time, so there ids appear in their order.
_SETTLE_US: Final = {"postgres": 15 * _SECOND_US, "sqlite": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Billing:
    """What the routes, the commands and the workers use of it."""

    settings: Settings
    plans: Plans
    metering: Metering
    statements: Statements
    reconciliation: Reconciliation
    metrics: Metrics
    workers: Sequence[Worker]

    async def reload(
        self, actor: str, origin: Origin | None = None, *, reprice: bool = False
    ) -> tuple[Reloaded, Repriced]:
        """Read the reserved-capacity file again; nothing changes unless all of it is in order.

        `actor` is the id of the key that asks, from `origin`. With `reprice` the months that are
        under way are priced anew; returned is by how much each item of theirs changed. Raises
        `ReservedConfigInvalid`, `BillingRefused`, or `StartRefused` without a file.
        """
        document = _reserved_document(self.settings)
        if document is None:
            raise StartRefused("SP_RESERVED_CONFIG is not set, so there is nothing to reload")
        reloaded = await self.plans.reload(document, actor=actor, origin=origin)
        tell_reserved(self.metrics, self.plans)
        if not reprice:
            return reloaded, {}
        return reloaded, await self.metering.reprice_current(actor=actor, origin=origin)


@asynccontextmanager
async def open_billing(
    settings: Settings,
    *,
    database: Database,
    key_for: KeyFor,
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
        settle_us=_SETTLE_US[settings.storage.kind],
        send_after_us=settings.billing.stripe_delay_s * _SECOND_US,
    )
    statements = configured_statements(settings, database=database, key_for=key_for, clock=clock)
    reconciliation = Reconciliation(
        database=database,
        biller=biller or _Nobody(),
        router=router or Router(biller=_Nobody(), clock=clock),
        metering=metering,
        owner=owner,
        clock=clock,
        dice=secrets.token_bytes,
    )
    workers = metering_workers(
        metering, statements, reconciliation, told=lambda drifts: _tell_drift(metrics, drifts)
    )
    if biller is not None and router is not None:
        landmark = stripe_landmark(settings)
        dispatch = _dispatch(database, biller, router, owner, metrics, clock, landmark)
        workers += stripe_workers(plans, dispatch, reconciliation)
    if settings.billing.reserved_config is not None:
        workers.append(following_worker(plans, told=lambda: tell_reserved(metrics, plans)))
    billing = Billing(
        settings=settings,
        plans=plans,
        metering=metering,
        statements=statements,
        reconciliation=reconciliation,
        metrics=metrics,
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
        document = _reserved_document(billing.settings)
        if document is not None:
            await billing.plans.begin(document)
        elif verify:
            await billing.plans.route()
    except (ReservedConfigInvalid, BillingRefused) as error:
        raise _refused(error) from error


async def configured_plans(settings: Settings, *, database: Database, clock: Clock) -> Plans:
    """Return the plans in force for a command that shows them; Stripe is not asked.

    Raises `StartRefused` or a `StorageError`.
    """
    keyring = await live_keyring(settings, database=database, clock=clock)
    plans = Plans(
        database=database,
        tenants=lambda: keyring.tenants,
        router=None,
        clock=clock,
    )
    document = _reserved_document(settings)
    if document is not None:
        try:
            await plans.begin(document)
        except ReservedConfigInvalid as error:
            raise _refused(error) from error
    return plans


def configured_statements(
    settings: Settings, *, database: Database, key_for: KeyFor, clock: Clock
) -> Statements:
    """Return what draws up, signs and keeps the statements of this deployment."""
    return Statements(
        database=database,
        key_for=key_for,
        issuer=settings.identity.issuer,
        clock=clock,
        grace_us=settings.billing.grace_hours * _HOUR_US,
    )


def reserved_plans(settings: Settings) -> Mapping[TenantId, TenantPlan]:
    """Return the plans of the reserved-capacity file; none where none is named.

    Raises `StartRefused` with every fault of it.
    """
    document = _reserved_document(settings)
    if document is None:
        return {}
    try:
        return load_reserved(document)
    except ReservedConfigInvalid as error:
        raise _refused(error) from error


def _reserved_document(settings: Settings) -> bytes | None:
    """Read the reserved-capacity file; None where none is set."""
    path = settings.billing.reserved_config
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        said = f"its file cannot be read: {error.strerror} ({path})"
        fault = Fault(pointer=_RESERVED, code="setting_invalid", detail=said)
        raise StartRefused(f"{_RESERVED}: {said}", faults=(fault,)) from error


def _refused(error: ReservedConfigInvalid | BillingRefused) -> StartRefused:
    faults = [
        Fault(
            pointer=_RESERVED, code=fault.code, detail=f"at {fault.pointer or '/'}: {fault.detail}"
        )
        for fault in error.faults
    ]
    return StartRefused(f"{_RESERVED}: {error.detail}", faults=tuple(faults))


class _Nobody:
    """Stands where Stripe would, so that receipts and counts are compared without it too."""

    deadline_s = 0.0

    async def resolve(self, wanted: Wanted) -> Unreachable:
        """Nothing is known of any item."""
        return Unreachable(detail=f"{wanted.item}: SP_STRIPE_API_KEY is not set")

    async def send(self, event: UsageEvent) -> Parked:
        """Nothing is ever sent, because no item has a route."""
        return Parked(reason=f"nobody takes {event.identifier}")

    async def held(self, route: Route, start_s: int, end_s: int) -> Unreachable:
        """Nobody holds anything."""
        return Unreachable(detail=f"nobody counts {route.item} from {start_s} to {end_s}")

    async def held_by_hour(self, route: Route, start_s: int, end_s: int) -> Unreachable:
        """Nobody holds anything."""
        return await self.held(route, start_s, end_s)


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


def stripe_landmark(settings: Settings) -> Landmark:
    """Return what this host knows of how far sending to Stripe had got."""
    return Landmark(settings.storage.data_dir / "stripe-sends")


def _dispatch(
    database: Database,
    biller: Biller,
    router: Router,
    owner: str,
    metrics: Metrics,
    clock: Clock,
    landmark: Landmark,
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
        landmark=landmark,
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
            self.metrics.overage_charges.labels(
                self.metrics.tenant(tenant), meter, str(band.number)
            ).inc(units)


def tell_reserved(metrics: Metrics, plans: Plans) -> None:
    """Show the reserve of every plan in force; who is metered only has reserved nothing."""
    for plan in plans.in_force():
        tenant = metrics.tenant(plan.tenant)
        for meter in METERS:
            reserve = plan.meter(meter).agreed_reserve or 0
            metrics.reserved_capacity.labels(tenant, meter).set(reserve)


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
