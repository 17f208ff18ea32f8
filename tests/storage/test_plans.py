"""Every statement finds its rows by an index, on tables of real size."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, LiteralString

import pytest
from tests.postgres import Postgres
from tests.storage.ledger import TENANT, key, pending, seal, text

from signet.core.audit import Entry
from signet.core.billing import Flight
from signet.core.ids import TenantId
from signet.storage import (
    audit,
    billing,
    chains,
    limits,
    outbox,
    quota,
    registry,
    retention,
    tenants,
)
from signet.storage.arrays import with_literals
from signet.storage.billing import HourUnits
from signet.storage.chains import Month
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.exchanges import commit_exchanges, read_known
from signet.storage.idempotency import (
    Claim,
    Claimed,
    claim,
    purge_answers,
    release,
    renew,
    take_expired,
)
from signet.storage.limits import Want
from signet.storage.outbox import Gain, Outlet, WindowKey
from signet.storage.receipts import by_hash, chain, erase_payload, head, payload
from signet.storage.tx import Ask, Engine, PerRow, Tx, Value
from signet.storage.usage import billed_receipts, settled, totals
from signet.storage.vitals import read_vitals

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("plans")]

ROWS = 100_000

# Numbers with a hash each, as bytes and spelled out.
_NUMBERS: dict[Engine, str] = {
    "sqlite": """
        CREATE TEMP TABLE n AS WITH RECURSIVE n (i) AS (
            SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows
        ), hashed AS MATERIALIZED (SELECT i, randomblob(32) AS h FROM n)
        SELECT i, h, hex(h) AS x FROM hashed
        """,
    "postgres": """
        CREATE TEMP TABLE n AS SELECT i, h, encode(h, 'hex') AS x FROM (
            SELECT i, sha256(i::text::bytea) AS h FROM generate_series(1::bigint, :rows) AS i
        ) AS hashed
        """,
}
# One row in each large table per number, in random places of every index but the chain's.
_ROWS = [
    """
    INSERT INTO receipts SELECT i, i, 1, 't' || (i % 50), 'exchange', 'allowed', i, '2026-11',
        1, 0, h, 'h..s', h FROM n
    """,
    "INSERT INTO heads SELECT 't' || (i % 50), x, i, 1, h FROM n",
    "INSERT INTO idempotency SELECT 't' || (i % 50), h, h, i, 0 FROM n",
    """
    INSERT INTO answers SELECT i, 't' || (i % 50), h, x, i, 200, 'application/json', h, NULL FROM n
    """,
    "INSERT INTO payloads SELECT i, 't' || (i % 50), h, i, h, NULL FROM n",
    "INSERT INTO claims SELECT 't' || (i % 50), h, x, 'o' || i, 1, i, 9e17, h FROM n",
    "INSERT INTO fu_holds SELECT x, 't', '2026-11', 1, i, i, 1, 0 FROM n",
    "INSERT INTO audit_entries SELECT 't' || (i % 50), i, i, 'exchange', h FROM n",
    "INSERT INTO audit_heads SELECT 't' || (i % 50), i, h, i FROM n WHERE i > :rows - 50",
    "INSERT INTO billing_hours SELECT 't' || (i % 50), '2026-11', 'vex', i * 3600, 1 FROM n",
    """
    INSERT INTO billing_windows (tenant, item, hour, period, meter, value, version, sent_value,
        sent_version, dead_version, tries, settled_us, due_us)
    SELECT 't' || (i % 50), 'si', i * 3600, '2026-11', 'vex', 1, 1, 1, 1, 0, 0, 0,
        CASE WHEN i % 1000 = 0 THEN i END FROM n
    """,
    "INSERT INTO billing_periods SELECT 't' || i, '2026-11', 'plan', i, 1, 0, i FROM n",
    "INSERT INTO billing_statements SELECT 't' || i, '2026-11', 1, i, i, h FROM n",
    "INSERT INTO billing_lanes SELECT 'l' || i, 'o' || i, 1, 0, NULL FROM n",
    """
    INSERT INTO tenant_events (tenant, kind, mark, at_us, document)
    SELECT 't' || (i % 50), 'k', 'm' || i, i, h FROM n
    """,
    "INSERT INTO fu_quota SELECT 't' || i, '2026-11', 0, 0 FROM n",
    "INSERT INTO tenants SELECT 't' || i, h, i, i FROM n",
    """
    INSERT INTO api_keys SELECT 'p' || i, 't' || (i % 50), h, NULL, '', h, 'p' || i, NULL, i,
        NULL, NULL FROM n
    """,
    """
    INSERT INTO registry_documents (tenant, kind, name, document, cid, created_us, revision)
    SELECT 't' || (i % 50), 'types', 'n' || i, h, h, i, i FROM n
    """,
]
_OWN: dict[Engine, list[str]] = {
    "sqlite": [],  # rates are in a file of their own, and receipts are numbered by their rows
    "postgres": [
        "INSERT INTO rate_limits SELECT 'b' || i, i, i, 1, i, 1, 1 FROM n",
        "SELECT setval('receipt_id', :rows)",
    ],
}


class Explaining:
    """A transaction that explains each statement before it runs it, and keeps the plans."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.plans: list[str] = []

    @property
    def engine(self) -> Engine:
        return self._tx.engine

    async def now_us(self) -> int:
        return await self._tx.now_us()

    async def _explain(self, sql: str, params: dict[str, Value]) -> None:
        word = "EXPLAIN QUERY PLAN" if self.engine == "sqlite" else "EXPLAIN"
        rows: Sequence[tuple[Any, ...]] = await self._tx.all(
            lambda *row: row,
            f"{word} {sql}",
            **params,  # type: ignore[arg-type]
        )
        self.plans.append(sql + "\n->\n" + "\n".join(str(row[-1]) for row in rows))

    async def _explain_each(self, statement: PerRow, rows: Sequence[tuple[Value, ...]]) -> None:
        if not rows:
            return
        explained = PerRow(
            sqlite=f"EXPLAIN QUERY PLAN {statement.sqlite}",  # type: ignore[arg-type]
            postgres=f"EXPLAIN {statement.postgres}",  # type: ignore[arg-type]
        )
        few = rows[:1] if self.engine == "sqlite" else rows
        plan: list[tuple[Any, ...]] = await self._tx.each(lambda *row: row, explained, few)
        sql = statement.sqlite if self.engine == "sqlite" else statement.postgres
        self.plans.append(sql + "\n->\n" + "\n".join(str(row[-1]) for row in plan))

    async def one(self, make: Callable[..., Any], sql: LiteralString, /, **params: Value) -> Any:
        await self._explain(sql, params)
        return await self._tx.one(make, sql, **params)

    async def all(self, make: Callable[..., Any], sql: LiteralString, /, **params: Value) -> Any:
        await self._explain(sql, params)
        return await self._tx.all(make, sql, **params)

    async def each(
        self, make: Callable[..., Any], statement: PerRow, rows: Sequence[tuple[Value, ...]], /
    ) -> Any:
        await self._explain_each(statement, rows)
        return await self._tx.each(make, statement, rows)

    async def ask(self, *asked: Ask[Any]) -> None:
        for one in asked:  # a sub-select of its own in the one statement, planned as alone
            await self._explain_each(one.statement, one.rows)
        await self._tx.ask(*asked)

    async def execute_all(
        self,
        steps: Sequence[tuple[PerRow, Sequence[tuple[Value, ...]]]],
        /,
        *asked: Ask[Any],
        guards: int = 0,
    ) -> list[int]:
        for statement, rows in (*steps, *((one.statement, one.rows) for one in asked)):
            await self._explain_each(statement, rows)
        return await self._tx.execute_all(steps, *asked, guards=guards)

    async def execute(self, sql: LiteralString, /, **params: Value) -> int:
        await self._explain(sql, params)
        return await self._tx.execute(sql, **params)

    async def execute_each(self, statement: PerRow, rows: Sequence[tuple[Value, ...]], /) -> int:
        await self._explain_each(statement, rows)
        return await self._tx.execute_each(statement, rows)


class Keeping(Explaining):
    """Explains on PostgreSQL the plan that a prepared statement keeps, whatever it is asked for."""

    async def _explain(self, sql: str, params: dict[str, Value]) -> None:
        names = list(dict.fromkeys(_NAME.findall(sql)))
        await self._keep(_NAME.sub(lambda found: f"${names.index(found[1]) + 1}", sql), len(params))

    async def _explain_each(self, statement: PerRow, rows: Sequence[tuple[Value, ...]]) -> None:
        if rows:
            await self._keep(statement.postgres, len(rows[0]))

    async def _keep(self, sql: str, count: int) -> None:
        given = f"({', '.join(['NULL'] * count)})" if count else ""
        sent, _ = with_literals(sql) if count else (sql, None)
        steps = ("SET LOCAL plan_cache_mode = force_generic_plan", f"PREPARE kept AS {sent}")
        for step in steps:
            await self._tx.execute(step)  # type: ignore[arg-type]
        plan = await self._tx.all(str, f"EXPLAIN EXECUTE kept{given}")  # type: ignore[arg-type]
        await self._tx.execute("DEALLOCATE kept")
        self.plans.append(sql + "\n->\n" + "\n".join(plan))


_NAME = re.compile(r"(?<![:\w]):([a-z_]+)")


async def fill(tx: Tx, rows: int = ROWS) -> None:
    """Rows enough that a scan would be the wrong choice."""
    for statement in (_NUMBERS[tx.engine], *_ROWS, *_OWN[tx.engine]):
        bound = {"rows": rows} if ":rows" in statement else {}
        await tx.execute(statement, **bound)  # type: ignore[arg-type]


async def statistics(tx: Tx) -> None:
    """What autovacuum does on PostgreSQL sooner or later."""
    await tx.execute("ANALYZE")


async def everything(tx: Tx) -> list[str]:
    """Every statement of the hot path and of the indexed reads, once; their plans."""
    explaining = Explaining(tx)
    await exchanging(explaining)
    await looking(explaining)
    await billing_and_limits(explaining)
    return explaining.plans


async def exchanging(explaining: Explaining) -> None:
    """What an exchange asks for and writes."""
    batch = [pending(f"a{i}", trace=f"c{i % 40}", fu_tokens=1) for i in range(64)]
    await commit_exchanges(explaining, batch, seal)
    await commit_exchanges(explaining, batch, seal)
    more = [pending(f"b{i}", trace=f"c{i % 40}") for i in range(64)]
    await commit_exchanges(explaining, more, seal)
    a = key(f"{TENANT}/claimed")
    wish = Claim(
        tenant=TENANT, trace_id="c1", key_hash=a, fingerprint=a, owner="o", lease_us=10**9,
        intent=b"", spends_key=True,
    )  # fmt: skip
    claimed = await claim(explaining, wish)
    assert isinstance(claimed, Claimed)
    await renew(explaining, TENANT, a, claimed.fence, 10**9)
    await release(explaining, TENANT, a, claimed.fence)
    await read_known(explaining, TENANT, a, a)


async def looking(explaining: Explaining) -> None:
    """What is read now and then, and what runs every few seconds."""
    found = await chain(explaining, TENANT, "c1", from_hop=2, limit=5)
    await by_hash(explaining, TENANT, found[0].receipt_hash)
    await head(explaining, TENANT, "c1")
    await payload(explaining, TENANT, text(b"payload of a1"))
    await erase_payload(explaining, TENANT, text(b"payload of a1"))
    await purge_answers(explaining, 10, 100)
    await totals(explaining, TENANT, "2026-11")
    await billed_receipts(explaining, "t1", "2026-11", after=5000, limit=10)
    await settled(explaining)
    await take_expired(explaining, owner="o", lease_us=1, limit=10, dead=["dead"])
    # What an audit walks through, and the audit log.
    page = await chains.log_page(explaining, (500, 1), 10)
    assert page
    await chains.heads_of(explaining, [("t1", "x"), (TENANT, "c1")])
    await chains.heads_page(explaining, ("t1", ""), 10)
    month = await chains.next_month(explaining, Month("t1", ""))
    assert month is not None
    await chains.metered_page(explaining, month, after=7, upto=5000, limit=100)
    await chains.entries_page(explaining, ("t1", 50), 10)
    await chains.empty_audit_chains(explaining)
    await audit.append(explaining, [Entry(tenant=TenantId("t1"), ts_us=1, actor="a", action="x")])
    await audit.head(explaining, "t1")
    await audit.page(explaining, "t1", after=50, from_us=1, to_us=5000, limit=10)
    await audit.page(explaining, "t1", after=50, action="exchange", limit=10)
    await audit.first_since(explaining, "t1", 500)
    await audit.with_older(explaining, 500, 10)


async def billing_and_limits(explaining: Explaining) -> None:
    """What a request with limits or a fallback asks for, and what workers repeat every second."""
    month = ("t1", "2026-11")
    # Counting.
    await billing.lock_cursor(explaining)
    await billing.uncounted(explaining, 50, 10)
    await billing.add_hours(explaining, [HourUnits(*month, "vex", 3600, 1)])
    await billing.hours(explaining, *month)
    await billing.month_total(explaining, *month)
    await billing.uncounted_units(explaining, *month)
    await billing.find_period(explaining, *month)
    await billing.periods_of(explaining, "t1", 10)
    await billing.periods_ended_after(explaining, ended_after_us=_LATE, limit=10)
    await billing.open_periods(explaining, ended_by_us=_LATE, limit=10)
    await billing.adjustable_periods(explaining, ended_after_us=_LATE, limit=10)
    await billing.pin_period(explaining, "new", "2026-11", plan="p", document=b"{}", end_us=1)
    await billing.set_counted(explaining, *month, vex=1, fu=0, plan="p")
    await billing.move_cursor(explaining, 7)
    await billing.metered_receipts(explaining, *month, after=5, upto=5000, limit=10)
    await billing.latest_statement(explaining, *month)
    await billing.statements_of(explaining, "t1", 10)
    await billing.tell(explaining, "t1", "k", "new", at_us=1, document=b"{}")
    await billing.events(explaining, "t1", after=50, limit=10)
    # Sending.
    key_of = WindowKey("t1", "si", 3600, "2026-11")
    outlet, flight = Outlet("t1", "si"), Flight(version=1, value=1, since_us=1, attempt=1)
    await outbox.gain(explaining, [Gain(key_of, "vex", 1)], due_us=1)
    await outbox.due_outlets(explaining, _LATE, 10)
    fence = await outbox.claim_lane(explaining, "l", owner="o", lease_us=10)
    assert fence is not None
    await outbox.keep_lane(explaining, "l", fence, lease_us=10)
    await outbox.due_windows(explaining, outlet, _LATE, 10)
    await outbox.put_in_flight(explaining, key_of, flight)
    await outbox.settle_delivered(explaining, key_of, flight, value=1, now_us=1)
    await outbox.windows_of_period(explaining, *month)
    await outbox.windows_of_outlet(explaining, outlet, 0, 36_000)
    await outbox.stuck_windows(explaining, 10)
    await outbox.lane_owners(explaining)
    await outbox.free_lanes(explaining, "o")
    await outbox.release_lane(explaining, "l", fence)
    # Fallback units.
    await quota.hold(
        explaining, hold_id="h", tenant="t1", period="2026-11", tokens=1, limit=9, ttl_us=1
    )
    await quota.settle(explaining, "h", used=1)
    await quota.expired(explaining, 10)
    await quota.held_under(explaining, "h", 10)
    await quota.purge_settled(explaining, 10, 10)
    await quota.standing(explaining, *month)
    # Who calls, and what is registered.
    await tenants.revision(explaining)
    await tenants.find_tenant(explaining, "t1")
    await tenants.tenants_page(explaining, after="t1", limit=10)
    await tenants.find_key(explaining, "p1")
    await tenants.keys_page(explaining, tenant="t1", after="p1", limit=10)
    await tenants.keys_page(explaining, tenant=None, after="p1", limit=10)
    await registry.revision(explaining)
    await registry.changes(explaining, _LATE)
    await registry.one(explaining, "t1", "types", "n1")
    await retention.held(explaining, "t1", text(b"payload of a1"))
    await retention.next_tenant(explaining, "t1")
    await retention.expire(explaining, "t1", before_us=50, limit=10)
    if explaining.engine == "postgres":  # SQLite has a file of its own for them
        await limits.take(explaining, [Want("b1", 1, 1000, 10), Want("b2", 1, 1000, 10)])
        await limits.look(explaining, ["b1", "b2"])
    await read_vitals(explaining)


_LATE = 10**15
LARGE = (
    "receipts",
    "heads",
    "idempotency",
    "answers",
    "payloads",
    "claims",
    "fu_holds",
    "audit_entries",
    "billing_hours",
    "billing_windows",
    "billing_periods",
    "billing_statements",
    "billing_lanes",
    "tenant_events",
    "fu_quota",
    "tenants",
    "api_keys",
    "registry_documents",
    "rate_limits",
)


# To read one of these from end to end is to read what is still open, and nothing else.
OF_WHAT_IS_OPEN = (
    "billing_windows_due",
    "billing_windows_stuck",
    "billing_periods_open",
    "billing_lanes_held",
    "billing_lanes_stopped",
    "fu_holds_open",
)


def scans(plan: str) -> list[str]:
    """The lines of a plan that read a large table from end to end, or sort what an index has."""
    sql, _, found = plan.partition("->\n")
    names = {*LARGE}
    if "count(*) FROM claims)" in sql:  # a gauge counts them all: each is an exchange under way
        names.remove("claims")
    for table in LARGE:  # a plan says the alias
        names |= set(re.findall(rf"\b{table} (?:AS )?([a-z])\b", sql))
    scanned = re.compile(rf"^SCAN ({'|'.join(names)})\b|Seq Scan on (?:\w+ )?({'|'.join(names)})\b")
    return [
        line
        for line in found.splitlines()
        if ("TEMP B-TREE FOR ORDER BY" in line or scanned.search(line.strip()))
        and line.rpartition(" INDEX ")[2] not in OF_WHAT_IS_OPEN
    ]


@pytest.fixture
async def large(config: SqliteConfig | PostgresConfig) -> AsyncIterator[Database]:
    """A database with 10^5 rows in each large table."""
    async with open_database(config) as db:
        await db.transact(fill)
        yield db


async def test_no_statement_scans(large: Database) -> None:
    """With and without statistics, no statement reads a large table from end to end."""
    for analyzed in (False, True):
        if analyzed:
            await large.transact(statistics)
        plans = await explained(large)
        assert len(plans) > 110
        bad = [plan for plan in plans if scans(plan)]
        assert not bad, f"statistics: {analyzed}\n\n" + "\n\n".join(bad)


@pytest.mark.parametrize("rows", [1, 60, 1000])
async def test_a_plan_made_while_tables_were_small_stays_good(
    postgres: Postgres, rows: int
) -> None:
    """What PostgreSQL prepares for an exchange on a young database looks up each row by its key, so
    that it may keep the plan while the tables grow."""
    config = PostgresConfig(url=postgres.url(postgres.empty_database()))
    async with open_database(config) as db:
        await db.transact(fill, rows)
        if rows > 1:
            await db.transact(statistics)
        plans = await explained(db, kept)
    assert len(plans) > 20
    bad = [plan for plan in plans if not by_key(plan)]
    assert not bad, "\n\n".join(bad)


async def kept(tx: Tx) -> list[str]:
    """The plans that stay with the statements of an exchange."""
    keeping = Keeping(tx)
    await exchanging(keeping)
    return keeping.plans


def by_key(plan: str) -> bool:
    """Whether a plan reads large tables only where a row's key says."""
    lines = [line.strip() for line in plan.partition("->\n")[2].splitlines()]
    large = re.compile(rf"-> +(?:Seq|Index(?: Only)?) Scan.* on ({'|'.join(LARGE)})\b")
    reads = [n for n, line in enumerate(lines) if large.search(line)]
    return all(lines[n + 1].startswith("Index Cond") for n in reads)


async def explained(
    db: Database, plans_of: Callable[[Tx], Awaitable[list[str]]] = everything
) -> list[str]:
    """The plans of everything; what was written to get them is rolled back."""

    async def explain(tx: Tx) -> None:
        raise Explained(await plans_of(tx))

    with pytest.raises(Explained) as caught:
        await db.transact(explain)
    return caught.value.plans


class Explained(Exception):
    """Carries the plans out and rolls back what was written to get them."""

    def __init__(self, plans: list[str]) -> None:
        super().__init__()
        self.plans = plans
