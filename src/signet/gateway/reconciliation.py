"""Holding four counts against each other: receipts, months, windows, and Stripe.

    Σ over receipts = what was counted
    Σ windows of an item = what its tier says of that count
    Σ Stripe of an item = Σ its windows, once nothing of it is under way

A difference in the first two is mended from the receipts, which are the truth. A difference at
Stripe is reported; it is mended only where Stripe can say what it holds hour by hour.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from signet.core.billing import SECOND_US, Held, Route, Unreachable, period_of
from signet.core.ids import TenantId
from signet.core.pricing import METERS, TenantPlan
from signet.gateway.billing import Biller, LaneLost, Router
from signet.gateway.metering import Metering, overage_by_item, read_plan
from signet.gateway.ports import Clock, Dice
from signet.storage import billing, outbox
from signet.storage.billing import StoredPeriod
from signet.storage.database import Database
from signet.storage.outbox import Outlet, StoredWindow, WindowKey
from signet.storage.tx import ReadTx, Tx

_MOST: Final = 10_000
_HOUR_S: Final = 3_600
# Stripe takes events for 35 days back; the margin keeps the first hour from falling out on the way.
_REACH_US: Final = 34 * 24 * _HOUR_S * SECOND_US


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Two counts that should be equal and are not.

    `receipts`: the receipts say `expected`, the month counted `found`. `windows`: the plan says
    `expected` for the item, its windows say `found`. `stripe`: the windows say `expected`, Stripe
    holds `found`.
    """

    between: Literal["receipts", "windows", "stripe"]
    tenant: str
    period: str
    subject: str
    expected: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """Compares, asks and mends. `lag_us` is how long Stripe may take to add up what it took."""

    database: Database
    biller: Biller
    router: Router
    metering: Metering
    owner: str
    clock: Clock
    dice: Dice
    lag_us: int = 600 * SECOND_US
    lease_s: float = 600.0

    async def compare(self) -> list[Drift]:
        """Compare the counts of every month that is under way or ended within Stripe's reach."""
        drifts: list[Drift] = []
        periods = await self.database.read_current(
            billing.periods_ended_after, ended_after_us=self.clock() - _REACH_US, limit=_MOST
        )
        for stored in periods:
            drifts += await self.compare_month(stored)
        return drifts

    async def compare_month(self, stored: StoredPeriod) -> list[Drift]:
        """Compare one month's counts; what the receipts can mend is mended first."""
        within = await self.database.read_current(self._within, stored)
        if within:
            await self.metering.recount(TenantId(stored.tenant), stored.period)
        return within + await self._compare_stripe(stored)

    async def _within(self, tx: ReadTx, stored: StoredPeriod) -> list[Drift]:
        """Compare receipts, month and windows in one look at the database."""
        month = await billing.find_period(tx, stored.tenant, stored.period)
        document = month and await billing.plan_document(tx, month.plan)
        if month is None or document is None:
            return []
        plan = read_plan(document)
        waiting = await billing.uncounted_units(tx, stored.tenant, stored.period)
        kept = await billing.month_total(tx, stored.tenant, stored.period)
        totals = {total.meter: total.units for total in kept}
        windows: Counter[str] = Counter()
        for found in await outbox.windows_of_period(tx, stored.tenant, stored.period):
            windows[found.key.item] += found.window.value
        expected: dict[str, int] = {}
        drifts: list[Drift] = []
        for meter in METERS:
            counted = month.vex if meter == "vex" else month.fu
            expected |= overage_by_item(plan, meter, counted)
            said = totals.get(meter, 0) - waiting.get(meter, 0)
            if said != counted:
                drifts.append(_drift("receipts", stored, meter, said, counted))
        drifts += [
            _drift("windows", stored, item, expected.get(item, 0), windows[item])
            for item in sorted(expected.keys() | windows.keys())
            if expected.get(item, 0) != windows[item]
        ]
        return drifts

    async def _compare_stripe(self, stored: StoredPeriod) -> list[Drift]:
        """Compare each item with what Stripe holds, unless something of it is under way."""
        by_outlet: dict[Outlet, list[StoredWindow]] = defaultdict(list)
        for found in await self.database.read_current(
            outbox.windows_of_period, stored.tenant, stored.period
        ):
            by_outlet[Outlet(found.key.tenant, found.key.item)].append(found)
        drifts: list[Drift] = []
        for outlet, windows in by_outlet.items():
            route = self.router.routes.get(outlet)
            if route is None or not all(map(self._is_quiet, windows)):
                continue
            expected = sum(found.window.value for found in windows)
            held = await self._held(route, stored, windows)
            if isinstance(held, Held) and held.units != expected:
                drifts.append(_drift("stripe", stored, outlet.item, expected, held.units))
        return drifts

    def _is_quiet(self, found: StoredWindow) -> bool:
        """Whether Stripe has all that the window says, and has had the time to add it up."""
        window = found.window
        sent = window.sent_version == window.version and window.flight is None
        return sent and found.held is None and found.settled_us + self.lag_us <= self.clock()

    async def _held(
        self, route: Route, stored: StoredPeriod, windows: Sequence[StoredWindow]
    ) -> Held | Unreachable:
        start_s = min(found.key.hour for found in windows)
        end_s = min(stored.end_us // SECOND_US, self.clock() // SECOND_US // _HOUR_S * _HOUR_S)
        return await self.biller.held(route, start_s, max(end_s, start_s) + _HOUR_S)

    # What nobody here knows, and Stripe does.

    async def ask(self) -> int:
        """Settle windows that are held back by what Stripe holds; return how many were."""
        by_outlet: dict[Outlet, list[StoredWindow]] = defaultdict(list)
        for found in await self.database.read_current(outbox.stuck_windows, _MOST):
            if found.held is not None:
                by_outlet[Outlet(found.key.tenant, found.key.item)].append(found)
        settled = 0
        for outlet, windows in by_outlet.items():
            route = self.router.routes.get(outlet)
            if route is not None:
                hours = [found.key.hour for found in windows]
                found = await self._adopt(route, outlet, min(hours), max(hours), all_of=False)
                settled += max(0, found)
        return settled

    async def after_restore(self, plans: Sequence[TenantPlan]) -> bool:
        """Bring a restored database and Stripe together; True once sending may go on.

        Everything within Stripe's reach is asked, also hours that the backup does not know, and
        what differs is sent as new versions under the deployment's new name.
        """
        us = await self.database.transact(outbox.deployment, self.dice(16).hex())
        if us.restored_us is None:
            return True
        if self.clock() < us.restored_us + self.lag_us:
            return False
        first = (self.clock() - _REACH_US) // SECOND_US // _HOUR_S * _HOUR_S
        last = self.clock() // SECOND_US // _HOUR_S * _HOUR_S
        zones = {plan.tenant: plan for plan in plans}
        for outlet, route in self.router.routes.items():
            plan = zones.get(TenantId(outlet.tenant))
            if await self._adopt(route, outlet, first, last, all_of=True, plan=plan) < 0:
                return False
        if self.router.unreachable:
            return False
        await self.database.transact(outbox.reconciled, us.name)
        return True

    async def _adopt(
        self,
        route: Route,
        outlet: Outlet,
        first: int,
        last: int,
        *,
        all_of: bool,
        plan: TenantPlan | None = None,
    ) -> int:
        """Take Stripe's word for an item's hours while nobody sends for it.

        Returns how many windows were settled, and -1 when Stripe or the lane could not be had.
        """
        lease_us = int(self.lease_s * SECOND_US)
        fence = await self.database.transact(
            outbox.claim_lane, route.lane, owner=self.owner, lease_us=lease_us
        )
        if fence is None:
            return -1
        try:
            begin, end = first // _HOUR_S * _HOUR_S, last // _HOUR_S * _HOUR_S + _HOUR_S
            held = await self.biller.held_by_hour(route, begin, end)
            if isinstance(held, Unreachable):
                if route.mode != "legacy":
                    return -1
                # Usage records are overwritten, so saying every total once more settles them.
                held = None
            return await self.database.transact(
                self._write, route, outlet, fence, (begin, end), held, all_of, plan
            )
        finally:
            await self.database.transact(outbox.release_lane, route.lane, fence)

    async def _write(
        self,
        tx: Tx,
        route: Route,
        outlet: Outlet,
        fence: int,
        span: tuple[int, int],
        held: Mapping[int, int] | None,
        all_of: bool,
        plan: TenantPlan | None,
    ) -> int:
        lease_us = int(self.lease_s * SECOND_US)
        if not await outbox.keep_lane(tx, route.lane, fence, lease_us=lease_us):
            raise LaneLost(f"the lane {route.lane} has another holder")
        by_hour: dict[int, list[StoredWindow]] = defaultdict(list)
        for found in await outbox.windows_of_outlet(tx, outlet, span[0], span[1] - 1):
            by_hour[found.key.hour // _HOUR_S * _HOUR_S].append(found)
        now_us = self.clock()
        settled = 0
        for hour, windows in by_hour.items():
            for found in windows:
                if all_of or found.held is not None:
                    units = 0 if held is None else _share(held.get(hour, 0), found, windows)
                    await outbox.adopt(tx, found.key, held=units, now_us=now_us)
                    settled += 1
        if all_of and plan is not None:
            for hour, units in (held or {}).items():
                if units and hour not in by_hour:
                    period = period_of(hour * SECOND_US, plan.zone)
                    key = WindowKey(*outlet, max(hour, period.start_us // SECOND_US), period.name)
                    meter = _meter_of(plan, outlet.item)
                    await outbox.find_at_stripe(tx, key, meter, held=units, now_us=now_us)
                    settled += 1
        return settled


def _share(held: int, found: StoredWindow, windows: Sequence[StoredWindow]) -> int:
    """Return this window's part of an hour that two months may share."""
    return held - sum(other.window.sent_value for other in windows if other is not found)


def _meter_of(plan: TenantPlan, item: str) -> str:
    for meter in METERS:
        if any(band.item == item for band in plan.meter(meter).bands):
            return meter
    return METERS[0]


def _drift(
    between: Literal["receipts", "windows", "stripe"],
    stored: StoredPeriod,
    subject: str,
    expected: int,
    found: int,
) -> Drift:
    return Drift(
        between=between,
        tenant=stored.tenant,
        period=stored.period,
        subject=subject,
        expected=expected,
        found=found,
    )
