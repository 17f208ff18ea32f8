"""Statements: a month's usage as an invoice whose every line lists its receipts.

Preview and close are the same function; only a closed statement is numbered, signed and kept. What
is counted after a month was closed becomes a further revision, which names the one it adjusts.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, cast

from signet.core.billing import period_named, period_of
from signet.core.errors import SignetError
from signet.core.ids import TenantId
from signet.core.pricing import (
    METERS,
    Meter,
    MeterPlan,
    TenantPlan,
    Tier,
    decimal_text,
    difference,
    moved,
    priced,
    settled,
    total_amount,
)
from signet.gateway.metering import PeriodUnknown, read_plan
from signet.gateway.ports import Clock
from signet.gateway.signing import KeyFor
from signet.receipts.canonical import Json, canonicalize, parse
from signet.receipts.keys import KeySet
from signet.receipts.merkle import MerkleTree
from signet.receipts.receipt import timestamp, timestamp_us
from signet.receipts.statement import leaf, seal_statement, statement_hash
from signet.storage import billing
from signet.storage.billing import MeteredReceipt, StoredPeriod, StoredStatement
from signet.storage.database import Database
from signet.storage.tx import ReadTx, Tx

_PAGE: Final = 1000
_BATCH: Final = 100
HOUR_US: Final = 3_600_000_000
# How long after a month's end late units are still looked for.
_LATEST_US: Final = 90 * 24 * HOUR_US


class UsageUnsettled(SignetError):
    """Receipts and counts differ just now; reconciliation mends that, then a statement is made."""

    code = "usage_unsettled"


class StatementUnknown(SignetError):
    """The month has no statement yet."""

    code = "statement_not_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one receipt put into one tier of one meter."""

    meter: Meter
    tier: Tier
    receipt_hash: str
    units: int


@dataclass(slots=True)
class _Gathering:
    """One line while its receipts go by."""

    units: int = 0
    tree: MerkleTree = field(default_factory=MerkleTree)

    def add(self, share: Share) -> None:
        self.units += share.units
        self.tree.add(leaf(share.receipt_hash, share.units))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statements:
    """Draws up statements. `grace_us` is how long after its end a month stays open."""

    database: Database
    key_for: KeyFor
    issuer: str
    clock: Clock
    grace_us: int = 48 * HOUR_US

    async def preview(self, tenant: TenantId, period: str) -> dict[str, Json]:
        """Return what the month's statement would say now; nothing is kept or signed.

        Raises `PeriodUnknown`.
        """
        members, _ = await self._draw(tenant, period)
        return members

    async def close(self, tenant: TenantId, period: str) -> bytes | None:
        """Sign and keep the month's statement, or its next revision.

        None while there is nothing new to say, or units are still on their way to being counted.
        """
        members, upto = await self._draw(tenant, period)
        latest = await self.database.read_current(billing.latest_statement, tenant, period)
        if latest is not None and _members_of(latest)["usage"] == members["usage"]:
            return None
        key = await self.key_for(timestamp_us(str(members["issued_at"])))
        document = seal_statement(members, key, jwks=KeySet.of([key.public]).jwks())
        usage = cast("dict[str, int]", members["usage"])
        kept = await self.database.transact(
            self._keep, tenant, period, cast("int", members["revision"]), upto, usage, document
        )
        return document if kept else None

    async def close_due(self) -> int:
        """Close every month whose grace has passed; return how many statements were made."""
        due = await self.database.read_current(
            billing.open_periods, ended_by_us=self.clock() - self.grace_us, limit=_BATCH
        )
        due += await self.database.read_current(
            billing.adjustable_periods, ended_after_us=self.clock() - _LATEST_US, limit=_BATCH
        )
        made = 0
        for month in due:
            try:
                document = await self.close(TenantId(month.tenant), month.period)
            except UsageUnsettled:
                continue  # the other months need not wait for this one
            made += document is not None
        return made

    async def statement(self, tenant: TenantId, period: str, revision: int | None = None) -> bytes:
        """Return a kept statement, byte for byte; the newest revision unless one is named.

        Raises `StatementUnknown`.
        """
        found = await self.database.read_current(
            billing.find_statement, tenant, period, revision=revision
        )
        if found is None:
            raise StatementUnknown(f"there is no such statement for {period}")
        return found.document

    async def listing(self, tenant: TenantId) -> list[StoredStatement]:
        """Return a tenant's statements, the latest first."""
        return await self.database.read(billing.statements_of, tenant, limit=_PAGE)

    async def shares(
        self, tenant: TenantId, period: str, revision: int | None = None
    ) -> AsyncIterator[Share]:
        """Yield the receipts behind each line of a kept statement, in the order of its trees.

        Raises `StatementUnknown`.
        """
        found = await self.database.read_current(
            billing.find_statement, tenant, period, revision=revision
        )
        if found is None:
            raise StatementUnknown(f"there is no such statement for {period}")
        members = _members_of(found)
        document = await self.database.read_current(billing.plan_document, str(members["plan"]))
        assert document is not None, "a plan that a statement names is never deleted"
        usage = cast("dict[Meter, int]", members["usage"])
        async for share in self._shares(tenant, period, read_plan(document), usage, found.upto):
            yield share

    # One way to draw it up.

    async def _draw(self, tenant: TenantId, period: str) -> tuple[dict[str, Json], int]:
        """Return a statement's members, and the receipt up to which it looked."""
        month, plan, latest, upto = await self.database.read_current(self._read, tenant, period)
        usage: dict[Meter, int] = {"vex": month.vex, "fu": month.fu}
        lines: dict[tuple[Meter, Tier], _Gathering] = {}
        receipts = MerkleTree()
        last = ""
        async for share in self._shares(tenant, period, plan, usage, upto):
            lines.setdefault((share.meter, share.tier), _Gathering()).add(share)
            if share.receipt_hash != last:
                last = share.receipt_hash
                receipts.add(last.encode())
        counted = {m: sum(g.units for (n, _), g in lines.items() if n == m) for m in METERS}
        if counted != usage:
            raise UsageUnsettled(f"the receipts of {period} are not what was counted")
        before = None if latest is None else _members_of(latest)
        span = period_named(period, plan.zone)
        amounts = [priced(tier, line.units, plan.currency) for (_, tier), line in lines.items()]
        total = total_amount(amounts, plan.currency)
        members: dict[str, Json] = {
            "v": 1,
            "kind": "statement",
            "iss": self.issuer,
            "tenant": tenant,
            "period": period,
            "timezone": plan.zone,
            "start": timestamp(span.start_us),
            "end": timestamp(span.end_us),
            "revision": 1 if latest is None else latest.revision + 1,
            "adjusts": None if before is None else statement_hash(before),
            "plan": plan.cid,
            "currency": plan.currency,
            "usage": {**usage},
            "lines": [
                _line(plan, meter, tier, line, usage[meter])
                for (meter, tier), line in sorted(lines.items(), key=_by_meter_and_tier)
            ],
            "total": decimal_text(total),
            "adjustment": decimal_text(
                total if before is None else difference(total, Decimal(str(before["total"])))
            ),
            "receipts": receipts.size,
            "receipts_root": receipts.root_text(),
            "issued_at": timestamp(self.clock()),
        }
        return members, upto

    async def _read(
        self, tx: ReadTx, tenant: TenantId, period: str
    ) -> tuple[StoredPeriod, TenantPlan, StoredStatement | None, int]:
        """Read where a month stands, in one look."""
        month = await billing.find_period(tx, tenant, period)
        if month is None:
            raise PeriodUnknown(f"tenant {tenant} has no unit in {period}")
        document = await billing.plan_document(tx, month.plan)
        assert document is not None, "a month's plan is written with it, and never deleted"
        latest = await billing.latest_statement(tx, tenant, period)
        return month, read_plan(document), latest, await billing.cursor(tx)

    async def _shares(
        self,
        tenant: TenantId,
        period: str,
        plan: TenantPlan,
        usage: Mapping[Meter, int],
        upto: int,
    ) -> AsyncIterator[Share]:
        """Give each receipt's units to tiers, in the order of the log."""
        plans = {meter: settled(plan.meter(meter), usage[meter]) for meter in METERS}
        totals = dict.fromkeys(METERS, 0)
        after = 0
        while True:
            page = await self.database.read_current(
                billing.metered_receipts, tenant, period, after=after, upto=upto, limit=_PAGE
            )
            for receipt in page:
                for meter in METERS:
                    units = receipt.vex if meter == "vex" else receipt.fu
                    for share in _split(plans[meter], meter, totals[meter], units, receipt):
                        yield share
                    totals[meter] += units
            if len(page) < _PAGE:
                return
            after = page[-1].id

    async def _keep(
        self,
        tx: Tx,
        tenant: TenantId,
        period: str,
        revision: int,
        upto: int,
        usage: Mapping[str, int],
        document: bytes,
    ) -> bool:
        """Keep a statement, unless the month moved while it was drawn up."""
        await billing.lock_cursor(tx)
        month = await billing.find_period(tx, tenant, period)
        waiting = await billing.uncounted_units(tx, tenant, period)
        counted = {} if month is None else {"vex": month.vex, "fu": month.fu}
        latest = await billing.latest_statement(tx, tenant, period)
        known = 0 if latest is None else latest.revision
        if counted != usage or any(waiting.values()) or known + 1 != revision:
            return False
        now_us = self.clock()
        await billing.keep_statement(
            tx, tenant, period, revision=revision, upto=upto, now_us=now_us, document=document
        )
        told: dict[str, Json] = {"kind": "billing.statement", "period": period}
        await billing.tell(
            tx,
            tenant,
            "billing.statement",
            f"{period}/{revision}",
            at_us=now_us,
            document=canonicalize({**told, "revision": revision}),
        )
        return True


def as_csv(members: Mapping[str, Json]) -> str:
    """Return a statement's lines and total as CSV (RFC 4180), for a spreadsheet."""
    names = ("meter", "tier", "from", "to", "units", "price", "exact", "amount", "item", "receipts")
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("tenant", "period", "revision", "currency", *names, "root"))
    head = [members[name] for name in ("tenant", "period", "revision", "currency")]
    for line in cast("list[dict[str, Json]]", members["lines"]):
        writer.writerow([*head, *(line[name] for name in (*names, "root"))])
    blank = [""] * (len(names) - 3)
    writer.writerow([*head, "total", *blank[:-1], members["total"], "", members["receipts"], ""])
    return text.getvalue()


def current_period(plan: TenantPlan, now_us: int) -> str:
    """Return the name of the month that `?period=current` means for a tenant."""
    return period_of(now_us, plan.zone).name


def _members_of(stored: StoredStatement) -> dict[str, Json]:
    return cast("dict[str, Json]", parse(stored.document))


def _by_meter_and_tier(entry: tuple[tuple[Meter, Tier], _Gathering]) -> tuple[int, int]:
    (meter, tier), _ = entry
    return METERS.index(meter), tier.number


def _split(
    plan: MeterPlan, meter: Meter, before: int, units: int, receipt: MeteredReceipt
) -> list[Share]:
    parts = zip(plan.bands, moved(plan, before, before + units), strict=True)
    return [
        Share(meter=meter, tier=tier, receipt_hash=receipt.receipt_hash, units=part)
        for tier, part in parts
        if part
    ]


def _line(
    plan: TenantPlan, meter: Meter, tier: Tier, line: _Gathering, total: int
) -> dict[str, Json]:
    cost = priced(tier, line.units, plan.currency)
    first = 1 if tier.number == 0 else plan.meter(meter).reserved + 1
    for below in settled(plan.meter(meter), total).tiers:
        if below.number < tier.number:
            first = plan.meter(meter).reserved + (below.up_to or 0) + 1
    return {
        "meter": meter,
        "tier": tier.number,
        "from": first,
        "to": first + line.units - 1,
        "units": line.units,
        "price": decimal_text(tier.price),
        "exact": decimal_text(cost.exact),
        "amount": decimal_text(cost.amount),
        "item": tier.item,
        "receipts": line.tree.size,
        "root": line.tree.root_text(),
    }
