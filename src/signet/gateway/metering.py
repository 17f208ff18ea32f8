"""From receipts to billing windows: each receipt is counted once, each unit allocated once.

The log is read by a cursor. The hours, the months, the windows and the cursor itself move in one
transaction, so a crash anywhere leaves either all of a step or none of it, and the exchange's own
transaction carries nothing of this.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import Final, Protocol

from signet.core.audit import Change, Origin
from signet.core.billing import crossed, hour_of, period_named, period_of
from signet.core.errors import SignetError
from signet.core.ids import TenantId
from signet.core.pricing import METERS, Meter, TenantPlan, Tier, allocate, load_reserved, moved
from signet.gateway.ports import Clock
from signet.receipts.canonical import Json, canonicalize
from signet.storage import billing, outbox
from signet.storage.audit import record_change
from signet.storage.billing import HourUnits, StoredPeriod, Uncounted
from signet.storage.database import Database
from signet.storage.outbox import Gain, WindowKey
from signet.storage.tx import Tx

Repriced = Mapping[TenantId, Mapping[str, int]]
"""By how many units each Stripe item of some tenants changed."""

_Slot = tuple[WindowKey, str]
"""A window and its meter."""
_MOST: Final = 100_000


class PeriodClosed(SignetError):
    """The month has its statement; what changes now is an adjustment of that."""

    code = "period_closed"


class PeriodUnknown(SignetError):
    """The tenant has no unit in that month."""

    code = "period_not_found"


class Observer(Protocol):
    """Hears of allocated units once they are durable; for metrics."""

    def allocated(self, tenant: str, meter: Meter, band: Tier, units: int) -> None:
        """`units` more (or fewer) lie in a band of the tenant's plan; band 0 is the reserve."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Units that one step put into one band."""

    tenant: str
    meter: Meter
    band: Tier
    units: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """Counts usage and allocates it to windows.

    `plan_of` is the configuration in force; a month keeps the plan it had at its first unit.
    `fu_limit_of` is a tenant's monthly fallback quota. Receipts younger than `settle_us` are left
    for the next step: where several processes write, a receipt may become visible after one with
    a higher id, and the cursor must not have passed it. A window is due `send_after_us` after it
    first changed, so that a busy hour is told to Stripe a few times and not at every step.
    """

    database: Database
    plan_of: Callable[[TenantId], TenantPlan]
    fu_limit_of: Callable[[TenantId], int | None]
    observer: Observer
    clock: Clock
    settle_us: int = 15_000_000
    send_after_us: int = 60_000_000
    batch: int = 1000

    async def count_once(self) -> int:
        """Count the next receipts of the log; return how many were looked at."""
        seen, allocations = await self.database.transact(self._count)
        for one in allocations:
            self.observer.allocated(one.tenant, one.meter, one.band, one.units)
        return seen

    async def reprice_current(self, *, actor: str, origin: Origin | None = None) -> Repriced:
        """Price every tenant's current month anew whose plan is another than the one in force.

        Returns by how much each Stripe item changed. Closed months stay as they are. Each month is
        a transaction of its own: asked again after a failure, this goes on where it ended.
        """
        changes: dict[TenantId, Mapping[str, int]] = {}
        now_us = self.clock()
        periods = await self.database.read_current(
            billing.periods_ended_after, ended_after_us=now_us, limit=_MOST
        )
        for stored in periods:
            tenant = TenantId(stored.tenant)
            plan = self.plan_of(tenant)
            is_current = stored.period == period_of(now_us, plan.zone).name
            if is_current and stored.closed_us is None and stored.plan != plan.cid:
                changes[tenant] = await self.reprice(
                    tenant, stored.period, actor=actor, origin=origin
                )
        return changes

    async def reprice(
        self, tenant: TenantId, period: str, *, actor: str, origin: Origin | None = None
    ) -> Mapping[str, int]:
        """Allocate a whole open month anew, by the plan that is in force now.

        Returns by how much each Stripe item changed. Raises `PeriodClosed` or `PeriodUnknown`.
        """
        return await self.database.transact(self._reprice, tenant, period, actor, origin)

    async def recount(self, tenant: TenantId, period: str) -> Mapping[str, int]:
        """Count a month again from its receipts, by the plan that it has pinned."""
        return await self.database.transact(self._recount, tenant, period)

    async def _count(self, tx: Tx) -> tuple[int, list[Allocation]]:
        cursor = await billing.lock_cursor(tx)
        settled_us = self.clock() - self.settle_us
        rows = await billing.uncounted(tx, cursor, self.batch)
        rows = list(takewhile(lambda row: row.ts_us <= settled_us, rows))
        if not rows:
            return 0, []
        allocations: list[Allocation] = []
        for (tenant, period), hours in _by_month(rows).items():
            await billing.add_hours(tx, hours)
            stored = await self._month(tx, tenant, period)
            allocations += await self._allocate(tx, stored, hours)
        await billing.move_cursor(tx, rows[-1].id)
        return len(rows), allocations

    async def _month(self, tx: Tx, tenant: str, period: str) -> StoredPeriod:
        """Find the month, or begin it under the plan in force."""
        found = await billing.find_period(tx, tenant, period)
        if found is not None:
            return found
        plan = self.plan_of(TenantId(tenant))
        end_us = period_named(period, plan.zone).end_us
        await billing.pin_period(
            tx, tenant, period, plan=plan.cid, document=plan.document, end_us=end_us
        )
        return StoredPeriod(tenant, period, plan.cid, end_us, 0, 0, None)

    async def _allocate(
        self, tx: Tx, stored: StoredPeriod, hours: Sequence[HourUnits]
    ) -> list[Allocation]:
        """Put new units into the windows of their hours, band by band."""
        plan = await pinned_plan(tx, stored)
        totals = {"vex": stored.vex, "fu": stored.fu}
        gains: Counter[_Slot] = Counter()
        allocations: list[Allocation] = []
        for meter in METERS:
            before = totals[meter]
            for entry in sorted(e for e in hours if e.meter == meter):
                after = totals[meter] + entry.units
                gained = moved(plan.meter(meter), totals[meter], after)
                gains.update(_gains(plan, meter, stored.period, entry.hour, gained))
                totals[meter] = after
            await self._alert(tx, plan, stored.period, meter, before, totals[meter])
            parts = moved(plan.meter(meter), before, totals[meter])
            allocations += [
                Allocation(tenant=stored.tenant, meter=meter, band=band, units=units)
                for band, units in zip(plan.meter(meter).bands, parts, strict=True)
                if units
            ]
        await self._gain(tx, [Gain(key, meter, units) for (key, meter), units in gains.items()])
        await billing.set_counted(
            tx,
            stored.tenant,
            stored.period,
            vex=totals["vex"],
            fu=totals["fu"],
            plan=stored.plan,
        )
        return allocations

    async def _gain(self, tx: Tx, gains: Sequence[Gain]) -> None:
        await outbox.gain(tx, gains, due_us=self.clock() + self.send_after_us)

    async def _alert(
        self, tx: Tx, plan: TenantPlan, period: str, meter: Meter, before: int, after: int
    ) -> None:
        """Tell the tenant of each mark of its reserve and its quota that this step reached."""
        limits = {"reserve": plan.meter(meter).reserved}
        if meter == "fu":
            limits["quota"] = self.fu_limit_of(plan.tenant) or 0
        for name, limit in limits.items():
            for percent in crossed(limit, before, after):
                document: dict[str, Json] = {
                    "kind": f"usage.{name}",
                    "meter": meter,
                    "period": period,
                    "percent": percent,
                    "limit": limit,
                    "used": after,
                }
                await billing.tell(
                    tx,
                    plan.tenant,
                    f"usage.{name}",
                    f"{period}/{meter}/{percent}",
                    at_us=self.clock(),
                    document=canonicalize(document),
                )

    async def _reprice(
        self, tx: Tx, tenant: TenantId, period: str, actor: str, origin: Origin | None
    ) -> Mapping[str, int]:
        await billing.lock_cursor(tx)
        stored = await self._open_month(tx, tenant, period)
        plan = self.plan_of(tenant)
        await billing.keep_plan(tx, plan.cid, plan.document)
        if stored.plan != plan.cid:
            await billing.replace_plan(tx, stored.plan, until_us=stored.end_us)
        hours = await billing.hours(tx, tenant, period)
        changes = await self._rewrite(tx, plan, stored, hours)
        await billing.tell(
            tx,
            tenant,
            "billing.repriced",
            f"{period}/{stored.plan}/{plan.cid}",
            at_us=self.clock(),
            document=canonicalize(
                {
                    "kind": "billing.repriced",
                    "period": period,
                    "plan": plan.cid,
                    "plan_before": stored.plan,
                    "changes": dict(changes),
                }
            ),
        )
        change = Change(
            actor=actor,
            tenant=tenant,
            action="billing.reprice",
            object=period,
            before={"plan": stored.plan},
            after={"plan": plan.cid, "changes": dict(changes)},
            origin=origin,
        )
        await record_change(tx, change)
        return changes

    async def _recount(self, tx: Tx, tenant: TenantId, period: str) -> Mapping[str, int]:
        cursor = await billing.lock_cursor(tx)
        stored = await billing.find_period(tx, tenant, period)
        if stored is None:
            raise PeriodUnknown(f"tenant {tenant} has no unit in {period}")
        hours = await billing.recount_hours(tx, tenant, period, cursor)
        return await self._rewrite(tx, await pinned_plan(tx, stored), stored, hours)

    async def _open_month(self, tx: Tx, tenant: TenantId, period: str) -> StoredPeriod:
        stored = await billing.find_period(tx, tenant, period)
        if stored is None:
            raise PeriodUnknown(f"tenant {tenant} has no unit in {period}")
        if stored.closed_us is not None:
            raise PeriodClosed(f"{period} of tenant {tenant} has its statement")
        return stored

    async def _rewrite(
        self, tx: Tx, plan: TenantPlan, stored: StoredPeriod, hours: Sequence[HourUnits]
    ) -> Mapping[str, int]:
        """Make the month's windows say what `plan` says of these hours, from its first on."""
        wanted: Counter[_Slot] = Counter()
        totals = dict.fromkeys(METERS, 0)
        for meter in METERS:
            for entry in sorted(e for e in hours if e.meter == meter):
                after = totals[meter] + entry.units
                gained = moved(plan.meter(meter), totals[meter], after)
                wanted.update(_gains(plan, meter, stored.period, entry.hour, gained))
                totals[meter] = after
        standing = {
            (found.key, found.meter): found.window.value
            for found in await outbox.windows_of_period(tx, stored.tenant, stored.period)
        }
        gains = [
            Gain(key, meter, difference)
            for key, meter in wanted.keys() | standing.keys()
            if (difference := wanted[key, meter] - standing.get((key, meter), 0))
        ]
        await self._gain(tx, gains)
        await billing.set_counted(
            tx,
            stored.tenant,
            stored.period,
            vex=totals["vex"],
            fu=totals["fu"],
            plan=plan.cid,
        )
        return _by_item(gains)


async def pinned_plan(tx: Tx, stored: StoredPeriod) -> TenantPlan:
    """Return the plan that a month pinned, whatever the configuration says by now."""
    document = await billing.plan_document(tx, stored.plan)
    assert document is not None, "a month's plan is written with it, and never deleted"
    return read_plan(document)


@lru_cache(maxsize=1024)
def read_plan(document: bytes) -> TenantPlan:
    """Return the plan whose own document this is."""
    (plan,) = load_reserved(document).values()
    return plan


def overage_by_item(plan: TenantPlan, meter: Meter, total: int) -> Mapping[str, int]:
    """Return what Stripe should hold for each of a meter's items at a month's total."""
    parts = zip(plan.meter(meter).bands, allocate(plan.meter(meter), total), strict=True)
    return {band.item: units for band, units in parts if band.item is not None}


def _by_month(rows: Iterable[Uncounted]) -> Mapping[tuple[str, str], list[HourUnits]]:
    """Add receipts up by tenant, month, meter and hour."""
    units: Counter[tuple[str, str, Meter, int]] = Counter()
    for row in rows:
        hour = hour_of(row.ts_us)
        units[row.tenant, row.period, "vex", hour] += row.vex
        units[row.tenant, row.period, "fu", hour] += row.fu
    months: dict[tuple[str, str], list[HourUnits]] = defaultdict(list)
    for (tenant, period, meter, hour), count in sorted(units.items()):
        if count:
            months[tenant, period].append(HourUnits(tenant, period, meter, hour, count))
    return months


def _gains(
    plan: TenantPlan, meter: Meter, period: str, hour: int, gained: Sequence[int]
) -> Mapping[_Slot, int]:
    """Return what the windows of one hour gain; bands without an item have no window."""
    first = period_named(period, plan.zone).start_us // 1_000_000
    return {
        (WindowKey(plan.tenant, band.item, max(hour, first), period), meter): units
        for band, units in zip(plan.meter(meter).bands, gained, strict=True)
        if band.item is not None and units
    }


def _by_item(gains: Iterable[Gain]) -> Mapping[str, int]:
    changes: Counter[str] = Counter()
    for gain in gains:
        changes[gain.key.item] += gain.units
    return {item: units for item, units in sorted(changes.items()) if units}
