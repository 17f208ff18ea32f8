"""`signet usage`: what each tenant has used this month and before, against reserve and quota."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TextIO

from signet.app.billing import configured_plans
from signet.cli.arguments import new_command
from signet.cli.database import existing_database
from signet.cli.exits import CommandFailed, Exit
from signet.cli.tables import table
from signet.cli.terminal import has_colour, is_terminal
from signet.core.billing import period_of
from signet.core.ids import TENANT_ID, TenantId
from signet.core.pricing import (
    METERS,
    Meter,
    TenantPlan,
    decimal_text,
    lines,
    total_amount,
)
from signet.core.tenant import Tenant
from signet.gateway.metering import read_plan
from signet.gateway.plans import Plans
from signet.gateway.usage import Usage, read_usage
from signet.settings import Settings, read_settings
from signet.storage import billing
from signet.storage.billing import StoredPeriod
from signet.storage.database import Database
from signet.storage.tx import ReadTx

if TYPE_CHECKING:
    from signet.cli.arguments import Subparsers

_MONTHS: Final = 12
_WIDTH: Final = 30
_NAMES: Final[dict[Meter, str]] = {"vex": "exchanges", "fu": "tokens"}
_CALM, _NEAR, _FULL = "32", "33", "31"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One tenant's page. `plan` is the one that this month is priced by; `earlier` descends."""

    plan: TenantPlan
    usage: Usage
    earlier: Sequence[StoredPeriod]

    def units(self, meter: Meter) -> int:
        """This month's units."""
        return self.usage.vex_units if meter == "vex" else self.usage.fu_tokens

    def reserve(self, meter: Meter) -> int | None:
        """What is reserved; None for a tenant that is merely metered."""
        return self.plan.meter(meter).agreed_reserve

    @property
    def amount(self) -> str:
        """What the overage costs so far, in digits."""
        currency = self.plan.currency
        of = [ln for m in METERS for ln in lines(self.plan.meter(m), self.units(m), currency)]
        return decimal_text(total_amount(of, currency))


def add_parser(subparsers: Subparsers) -> None:
    """Add `usage` to the command's sub-commands."""
    parser = new_command(
        subparsers,
        "usage",
        line="what tenants have used, against reserve and quota",
        description="Show what each tenant has used this month and in the months before: units"
        " against the reserve, tokens against the quota. Reads the database of the settings.",
        examples="  signet usage\n  signet usage --tenant acme --json",
    )
    parser.add_argument("--tenant", metavar="TENANT", help="only this tenant")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Print a page for each tenant."""
    only: str | None = args.tenant
    if only is not None and not TENANT_ID.fullmatch(only):
        raise CommandFailed(f"{only[:70]!r} cannot be a tenant's id", Exit.USAGE)
    settings = read_settings(os.environ).settings
    pages = asyncio.run(_read(settings, None if only is None else TenantId(only)))
    if args.json:
        print(json.dumps({"tenants": [_document(page) for page in pages]}))
        return Exit.DONE
    drawn = Drawing(sys.stdout)
    print("\n\n".join(drawn.page(page) for page in pages) or "no tenant is configured")
    return Exit.DONE


async def _read(settings: Settings, only: TenantId | None) -> list[Shown]:
    async with existing_database(settings) as database:
        plans = await configured_plans(settings, database=database, clock=_now_us)
        known = [plan.tenant for plan in plans.in_force()]
        if only is None:
            return [await _shown(database, plans, tenant) for tenant in known]
        page = await _shown(database, plans, only)
    if only not in known and not page.earlier and not any(map(page.units, METERS)):
        raise CommandFailed(f"there is no tenant {only}, and nothing was ever metered for one")
    return [page]


async def _shown(database: Database, plans: Plans, tenant: TenantId) -> Shown:
    configured = plans.tenants().get(tenant) or Tenant(id=tenant)
    period = period_of(_now_us(), plans.zone_of(tenant))
    usage = await read_usage(database, configured, period)
    months = await database.read_current(billing.periods_of, tenant, limit=_MONTHS)
    pinned = await database.read_current(_pinned, tenant, period.name)
    return Shown(
        plan=pinned or plans.plan_of(tenant),
        usage=usage,
        earlier=[month for month in months if month.period != period.name],
    )


async def _pinned(tx: ReadTx, tenant: TenantId, period: str) -> TenantPlan | None:
    """Return the plan of a month that has begun, whatever the configuration says by now."""
    month = await billing.find_period(tx, tenant, period)
    document = None if month is None else await billing.plan_document(tx, month.plan)
    return None if document is None else read_plan(document)


class Drawing:
    """Draws pages: blocks and colour on a terminal, plain ASCII elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        unicode = "utf" in (stream.encoding or "").lower()
        self._full, self._rest = "█░" if is_terminal(stream) and unicode else "#."
        self._colour = has_colour(stream)

    def page(self, shown: Shown) -> str:
        """Return one tenant's page."""
        plan, usage = shown.plan, shown.usage
        parts = [f"{plan.tenant}, {usage.period.name} ({plan.zone})", ""]
        parts += [f"  {line}" for line in self._this_month(shown)]
        if shown.earlier:
            parts += ["", *(f"  {line}" for line in self._earlier(shown.earlier).splitlines())]
        return "\n".join(parts)

    def blocks(self, used: int, limit: int) -> tuple[str, str]:
        """Return a bar's two parts; what was used at all shows, and only all of it fills it."""
        filled = _WIDTH if used >= limit else max(used * _WIDTH // limit, int(used > 0))
        if not used:
            filled = 0
        return self._full * filled, self._rest * (_WIDTH - filled)

    def bar(self, used: int, limit: int) -> str:
        """Return a bar whose colour says how near the limit is."""
        filled, rest = self.blocks(used, limit)
        if not self._colour or not filled:
            return filled + rest
        tone = _FULL if used >= limit else _NEAR if used * 5 >= limit * 4 else _CALM
        return f"\x1b[{tone}m{filled}\x1b[0m{rest}"

    def _this_month(self, shown: Shown) -> Iterator[str]:
        for meter in METERS:
            units, reserve = shown.units(meter), shown.reserve(meter)
            if reserve is None:
                yield f"{_NAMES[meter]:<9}  {units:,}, metered only"
            elif reserve == 0:
                yield f"{_NAMES[meter]:<9}  {units:,}, nothing reserved"
            else:
                yield self._against(_NAMES[meter], units, reserve, "reserved")
        usage = shown.usage
        if usage.fu_limit is not None:
            held = f", {usage.fu_reserved:,} of them held" if usage.fu_reserved else ""
            used = usage.fu_used + usage.fu_reserved
            yield self._against("quota", used, usage.fu_limit, "tokens") + held
        over = [
            f"{units - reserve:,} {_NAMES[meter]}"
            for meter in METERS
            if (units := shown.units(meter)) > (reserve := shown.plan.meter(meter).reserved)
        ]
        if over:
            yield f"over the reserve: {' and '.join(over)}, {shown.amount} {shown.plan.currency}"

    def _against(self, name: str, used: int, limit: int, unit: str) -> str:
        percent = f"{used * 100 // limit} %" if limit else "-"
        return f"{name:<9}  {self.bar(used, limit)}  {percent:>5}  {used:,} of {limit:,} {unit}"

    def _earlier(self, months: Sequence[StoredPeriod]) -> str:
        """Return the months before as a table, each bar against the largest of them."""
        most = max(month.vex for month in months)
        rows = [
            (
                *(month.period, "".join(self.blocks(month.vex, most))),
                *(f"{month.vex:,}", f"{month.fu:,}"),
                "open" if month.closed_us is None else "has its statement",
            )
            for month in months
        ]
        return table(("month", "", ">exchanges", ">tokens", ""), rows)


def _document(shown: Shown) -> dict[str, object]:
    usage = shown.usage
    return {
        "tenant": shown.plan.tenant,
        "period": usage.period.name,
        "timezone": shown.plan.zone,
        "vex": {"units": usage.vex_units, "reserved": shown.reserve("vex")},
        "fu": {"units": usage.fu_tokens, "reserved": shown.reserve("fu")},
        "quota": {
            "limit": usage.fu_limit,
            "used": usage.fu_used,
            "held": usage.fu_reserved,
        },
        "overage": {"amount": shown.amount, "currency": shown.plan.currency},
        "earlier": [
            {
                "period": month.period,
                "vex": month.vex,
                "fu": month.fu,
                "closed": month.closed_us is not None,
            }
            for month in shown.earlier
        ],
    }


def _now_us() -> int:
    return time.time_ns() // 1000
