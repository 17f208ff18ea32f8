"""A month of usage for the billing tests: receipts, plans and what lies between them and Stripe."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.storage.ledger import commit, pending

from signet.core.billing import period_of
from signet.core.ids import TenantId
from signet.core.pricing import Meter, TenantPlan, Tier, load_reserved, metered_only
from signet.gateway.metering import Metering
from signet.storage.database import Database
from signet.storage.exchanges import Committed

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
START_US = 1_793_491_200_000_000  # 2026-11-01T00:00:00Z
TENANT = TenantId("acme")


def document(**changes: Any) -> dict[str, Any]:
    """A plan with a small reserve and two tiers of VEx, and one of FU."""
    return {
        "tenant": TENANT,
        "vex_reserved": 10,
        "fu_reserved": 100,
        "vex_overage_tiers": [
            {"threshold": 5, "price_per_unit": 0.008, "stripe_item": "si_t1"},
            {"threshold": 9, "price_per_unit": 0.006, "stripe_item": "si_t2"},
        ],
        "fu_overage_tiers": [{"threshold": 1, "price_per_unit": 0.0005, "stripe_item": "si_fu"}],
    } | changes


def plan(**changes: Any) -> TenantPlan:
    """The same, loaded."""
    (loaded,) = load_reserved(json.dumps(document(**changes))).values()
    return loaded


class Told:
    """What an observer heard: units by tenant, meter and band."""

    def __init__(self) -> None:
        self.units: Counter[tuple[str, str, int]] = Counter()

    def allocated(self, tenant: str, meter: Meter, band: Tier, units: int) -> None:
        """Remember it."""
        self.units[tenant, meter, band.number] += units


@dataclass
class Month:
    """One deployment's month: exchanges happen at `now_us`, and are counted when asked."""

    db: Database
    plans: dict[TenantId, TenantPlan]
    now_us: int = START_US
    told: Told = field(default_factory=Told)
    made: int = 0
    limits: dict[TenantId, int] = field(default_factory=dict[TenantId, int])

    @property
    def metering(self) -> Metering:
        """The use case under test, with this month's clock and plans."""
        return Metering(
            database=self.db,
            plan_of=self.plan_of,
            fu_limit_of=self.limits.get,
            observer=self.told,
            clock=lambda: self.now_us,
            settle_us=0,
            send_after_us=0,
        )

    def plan_of(self, tenant: TenantId) -> TenantPlan:
        """The plan in force; a tenant without one is merely metered."""
        return self.plans.get(tenant) or metered_only(tenant, vex_item=None, fu_item=None)

    async def exchange(
        self, count: int = 1, *, fu: int = 0, vex: int = 1, tenant: TenantId = TENANT,
        at_us: int | None = None, outcome: str = "allowed",
    ) -> None:  # fmt: skip
        """Commit exchanges, in one batch."""
        ts_us = self.now_us if at_us is None else at_us
        period = period_of(ts_us, self.plan_of(tenant).zone).name
        batch = [
            pending(
                f"e{self.made + n}", trace=f"trace-{self.made + n}", tenant=tenant, ts_us=ts_us,
                period=period, vex_units=vex, fu_tokens=fu, outcome=outcome,
            )
            for n in range(count)
        ]  # fmt: skip
        self.made += count
        results = await commit(self.db, *batch)
        assert all(isinstance(result, Committed) for result in results)

    async def count(self) -> None:
        """Count all that there is."""
        while await self.metering.count_once():
            pass


def by_item(windows: Mapping[Any, int] | list[Any]) -> dict[str, int]:
    """Add stored windows up by item."""
    totals: Counter[str] = Counter()
    for found in windows:
        totals[found.key.item] += found.window.value
    return dict(totals)
