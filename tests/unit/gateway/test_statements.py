"""A statement says what the plan makes of the receipts, lists them, and is never rewritten."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from tests.billing import HOUR_US, START_US, TENANT, Month, plan
from tests.storage.conftest import config, db, postgres  # noqa: F401 - fixtures

from signet.core.ids import TenantId
from signet.core.pricing import decimal_text, lines, total_amount
from signet.gateway.metering import PeriodUnknown
from signet.gateway.statements import (
    Statements,
    StatementUnknown,
    UsageUnsettled,
    as_csv,
    current_period,
)
from signet.receipts.keys import SigningKey
from signet.receipts.statement import check_list, check_members, statement_hash
from signet.storage import billing
from signet.storage.database import Database
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio

KEY = SigningKey.generate()


async def key_for(_time_us: int) -> SigningKey:
    """The key of these tests, whatever the time."""
    return KEY


MONTH = "2026-11"
AFTER_US = START_US + 32 * 24 * HOUR_US


@pytest.fixture
def month(db: Database) -> Month:  # noqa: F811
    """A month under a plan with two tiers."""
    return Month(db, {TENANT: plan()})


def statements(month: Month, **changes: int) -> Statements:
    """The use case under test."""
    return Statements(
        database=month.db,
        key_for=key_for,
        issuer="signet.test",
        clock=lambda: month.now_us,
        **changes,
    )


async def listed(of: Statements, revision: int | None = None) -> list[tuple[str, int, str, int]]:
    """The entries behind a kept statement's lines."""
    return [
        (share.meter, share.tier.number, share.receipt_hash, share.units)
        async for share in of.shares(TENANT, MONTH, revision)
    ]


def shown(document: Any) -> list[tuple[str, int, int, int, int, str, str, int]]:
    """The lines, short."""
    names = ("meter", "tier", "from", "to", "units", "exact", "amount", "receipts")
    return [tuple(line[name] for name in names) for line in document["lines"]]


async def test_a_months_lines(month: Month) -> None:
    """Reserve and tiers follow one another; a receipt that straddles two stands in both."""
    await month.exchange(12)
    await month.exchange(5, fu=30)
    await month.count()
    preview = await statements(month).preview(TENANT, MONTH)
    assert shown(preview) == [
        ("vex", 0, 1, 10, 10, "0", "0.00", 10),
        ("vex", 1, 11, 15, 5, "0.040", "0.04", 5),
        ("vex", 2, 16, 17, 2, "0.012", "0.01", 2),
        ("fu", 0, 1, 100, 100, "0", "0.00", 4),
        ("fu", 1, 101, 150, 50, "0.0250", "0.03", 2),
    ]
    assert preview["total"] == preview["adjustment"] == "0.08"
    assert preview["receipts"] == 17
    check_members(preview)


@pytest.mark.parametrize("counts", [(1,), (10,), (11,), (3, 9, 27), (0, 1)])
async def test_the_total_is_the_plans(month: Month, counts: tuple[int, ...]) -> None:
    """Whatever was used, the statement's amounts are those of the priced totals."""
    for count in counts:
        await month.exchange(count, fu=37)
    await month.count()
    preview = await statements(month).preview(TENANT, MONTH)
    of = [
        *lines(plan().vex, sum(counts), "USD"),
        *lines(plan().fu, 37 * sum(counts), "USD"),
    ]
    assert preview["total"] == decimal_text(total_amount(of, "USD"))
    said = [line["amount"] for line in preview["lines"] if line["tier"]]  # type: ignore[union-attr,index,call-overload]
    assert said == [decimal_text(line.amount) for line in of]


async def test_volume_has_one_line_of_overage(month: Month) -> None:
    """In volume mode all overage stands in the tier that it reached."""
    month.plans[TENANT] = plan(tier_mode="volume")
    await month.exchange(18)
    await month.count()
    preview = await statements(month).preview(TENANT, MONTH)
    assert shown(preview) == [
        ("vex", 0, 1, 10, 10, "0", "0.00", 10),
        ("vex", 2, 11, 18, 8, "0.048", "0.05", 8),
    ]


async def test_a_closed_month_is_signed_and_kept(month: Month) -> None:
    """After the grace the statement is kept byte for byte, and its list makes its roots."""
    await month.exchange(12)
    await month.exchange(5, fu=30)
    await month.count()
    preview = await statements(month).preview(TENANT, MONTH)
    month.now_us = AFTER_US
    of = statements(month)
    assert await of.close_due() == 1
    assert await of.close_due() == 0
    kept = await of.statement(TENANT, MONTH)
    document = json.loads(kept)
    assert document["lines"] == preview["lines"]
    assert document["statement_jws"].count(".") == 2
    assert document["statement_hash"] == statement_hash(document)
    check_members(document)
    check_list(document, await listed(of))
    assert [s.revision for s in await of.listing(TENANT)] == [1]
    stored = await month.db.read_current(billing.find_period, TENANT, MONTH)
    assert stored is not None
    assert stored.closed_us == AFTER_US
    told = await month.db.read_current(billing.events, TENANT, after=0, limit=99)
    assert told[-1].kind == "billing.statement"


async def test_a_month_stays_open_through_its_grace(month: Month) -> None:
    """Until 48 hours after its end a month may still gain units."""
    await month.exchange(12)
    await month.count()
    end_us = START_US + 30 * 24 * HOUR_US
    month.now_us = end_us + 48 * HOUR_US - 1
    assert await statements(month).close_due() == 0
    month.now_us += 1
    assert await statements(month).close_due() == 1


async def test_late_units_make_a_revision(month: Month) -> None:
    """A unit after the close becomes a second statement that names the first, and adjusts it."""
    await month.exchange(12)
    await month.count()
    month.now_us = AFTER_US
    of = statements(month)
    assert await of.close_due() == 1
    first = json.loads(await of.statement(TENANT, MONTH))
    await month.exchange(1, at_us=START_US)
    assert await of.close_due() == 0  # not counted yet
    await month.count()
    assert await of.close_due() == 1
    second = json.loads(await of.statement(TENANT, MONTH))
    assert (second["revision"], second["adjusts"]) == (2, first["statement_hash"])
    assert (first["total"], second["total"], second["adjustment"]) == ("0.02", "0.02", "0.00")
    assert second["usage"]["vex"] == 13
    assert json.loads(await of.statement(TENANT, MONTH, 1)) == first
    check_list(first, await listed(of, 1))
    check_list(second, await listed(of, 2))
    assert await of.close_due() == 0


async def test_a_month_that_moves_meanwhile_is_not_closed(month: Month) -> None:
    """What was drawn up is kept only if nothing was counted, or waits to be, since."""
    await month.exchange(12)
    await month.count()
    month.now_us = AFTER_US
    await month.exchange(1, at_us=START_US)
    of = statements(month)
    assert await of.close(TENANT, MONTH) is None
    with pytest.raises(StatementUnknown):
        await of.statement(TENANT, MONTH)
    await month.count()
    assert await of.close(TENANT, MONTH) is not None


async def test_a_statement_waits_for_the_counts_to_agree(month: Month) -> None:
    """While receipts and counts differ nothing is signed, and other months are not held up."""
    other = TenantId("beta")
    month.plans[other] = plan(tenant="beta", fu_overage_tiers=[], vex_overage_tiers=[])
    await month.exchange(12)
    await month.exchange(3, tenant=other)
    await month.count()

    async def spoil(tx: Tx) -> None:
        await tx.execute("UPDATE billing_periods SET vex = vex + 1 WHERE tenant = 'acme'")

    await month.db.transact(spoil)
    month.now_us = AFTER_US
    of = statements(month)
    with pytest.raises(UsageUnsettled):
        await of.preview(TENANT, MONTH)
    assert await of.close_due() == 1
    assert json.loads(await of.statement(other, MONTH))["tenant"] == "beta"
    await month.metering.recount(TENANT, MONTH)
    assert await of.close_due() == 1


async def test_many_pages_of_receipts(month: Month, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paging through the log neither drops nor repeats a receipt."""
    monkeypatch.setattr("signet.gateway.statements._PAGE", 4)
    await month.exchange(16, fu=9)
    await month.count()
    month.now_us = AFTER_US
    of = statements(month)
    document = await of.close(TENANT, MONTH)
    assert document is not None
    check_list(json.loads(document), await listed(of))
    assert json.loads(document)["receipts"] == 16


async def test_what_is_unknown(month: Month) -> None:
    """A month without units has no preview, and one without a statement none to show."""
    of = statements(month)
    with pytest.raises(PeriodUnknown):
        await of.preview(TENANT, MONTH)
    with pytest.raises(StatementUnknown):
        await of.statement(TENANT, MONTH)
    with pytest.raises(StatementUnknown):
        await listed(of)
    assert await of.listing(TENANT) == []


async def test_one_tenants_statement_is_no_others(month: Month) -> None:
    """Another tenant sees neither the statement nor its receipts."""
    await month.exchange(12)
    await month.count()
    month.now_us = AFTER_US
    of = statements(month)
    assert await of.close_due() == 1
    with pytest.raises(StatementUnknown):
        await of.statement(TenantId("beta"), MONTH)


async def test_csv_for_a_spreadsheet(month: Month) -> None:
    """Each line is a row of its own, and the last row is the total."""
    await month.exchange(17)
    await month.count()
    text = as_csv(await statements(month).preview(TENANT, MONTH))
    head, *rows = csv.reader(io.StringIO(text))
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert [(r["meter"], r["tier"], r["units"], r["amount"]) for r in table] == [
        ("vex", "0", "10", "0.00"),
        ("vex", "1", "5", "0.04"),
        ("vex", "2", "2", "0.01"),
        ("total", "", "", "0.05"),
    ]


def test_the_current_period_is_the_tenants_own() -> None:
    """Just before midnight in London, Berlin is in the next month."""
    instant = START_US - HOUR_US
    assert current_period(plan(timezone="Europe/Berlin"), instant) == "2026-11"
    assert current_period(plan(), instant) == "2026-10"
