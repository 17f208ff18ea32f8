"""Moving a deployment: everything arrives, an interruption costs nothing, strangers stay whole."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.postgres import Postgres
from tests.storage.ledger import commit, count, pending, receipts_of

from signet.storage import copying
from signet.storage.copying import NOT_COPIED, Copied, CopyRefused, copy_all
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.tx import ReadTx, Tx, Value
from signet.storage.usage import settled, totals

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite-postgres", "postgres-sqlite", "sqlite-sqlite"])
async def both(
    request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres
) -> AsyncIterator[tuple[Database, Database]]:
    """A source and a target, both empty."""
    engines: Iterator[str] = iter(request.param.split("-"))
    async with AsyncExitStack() as opened:
        databases = [
            await opened.enter_async_context(
                open_database(
                    SqliteConfig(path=tmp_path / f"{name}.db")
                    if next(engines) == "sqlite"
                    else PostgresConfig(url=postgres.url(postgres.empty_database()))
                )
            )
            for name in ("source", "target")
        ]
        yield databases[0], databases[1]


async def fill(db: Database, name: str, receipts: int) -> None:
    """Commit receipts into a shared chain and single ones, and leave a row in odd tables."""
    for number in range(receipts):
        trace = "shared" if number % 2 else f"{name}/{number}"
        # Text whose order depends on the collation.
        tenant = "aÜz-B_9"[number % 7 :] + "a"
        await commit(db, pending(f"{name}/{number}", trace=trace, tenant=tenant))
        await commit(db, pending(f"{name}/a/{number}", trace=trace))
    await db.transact(_events, name)


async def _events(tx: Tx, name: str) -> None:
    await tx.execute(
        """
        INSERT INTO tenant_events (tenant, kind, mark, at_us, document)
        VALUES ('acme', 'test', :name, 1, :document)
        """,
        name=name,
        document=secrets.token_bytes(10),
    )


async def passed(source: Database, target: Database, *, page: int = 5) -> int:
    """Make one pass; how many rows it wrote or removed."""
    last: dict[str, Copied] = {}
    async for copied in copy_all(source, target, page=page):
        last[copied.table] = copied
    return sum(copied.written + copied.removed for copied in last.values())


async def test_everything_arrives(both: tuple[Database, Database]) -> None:
    """After one pass nothing is left to do, every chain is whole, and writing goes on behind it."""
    source, target = both
    await fill(source, "one", 12)
    assert await passed(source, target) > 12 * 2 * 4
    assert await passed(source, target) == 0
    assert await target.read_current(count) == await source.read_current(count) == 24
    assert len(await receipts_of(target, "shared")) == 6
    assert await target.read_current(settled) == await source.read_current(settled)
    before = await target.read_current(totals, "acme", "2026-11")
    assert before == await source.read_current(totals, "acme", "2026-11")
    await fill(target, "two", 4)
    assert len(await receipts_of(target, "shared")) == 8


async def test_interrupted(both: tuple[Database, Database]) -> None:
    """A copy that stopped anywhere goes on; what changed at the source meanwhile comes along."""
    source, target = both
    await fill(source, "one", 8)
    for stop_after in (1, 3, 7, 20):
        seen = 0
        async for _ in copy_all(source, target, page=3):
            seen += 1
            if seen == stop_after:
                break
    await fill(source, "two", 4)
    assert await passed(source, target) > 0
    assert await passed(source, target) == 0
    assert await target.read_current(count) == 24


async def test_what_the_source_forgot_goes(both: tuple[Database, Database]) -> None:
    """A row that the source deleted or changed since the last pass is deleted or changed."""
    source, target = both
    await fill(source, "one", 6)
    await passed(source, target)

    async def forget(tx: Tx) -> None:
        await tx.execute("DELETE FROM answers WHERE receipt <= 3")
        await tx.execute("UPDATE payloads SET body = NULL WHERE receipt = 4")

    await source.transact(forget)
    assert await passed(source, target, page=2) == 4
    assert await target.read_current(_answers) == 9


async def _answers(tx: ReadTx) -> int:
    return await tx.one(int, "SELECT count(*) FROM answers") or 0


async def test_foreign_target(both: tuple[Database, Database]) -> None:
    """A target with receipts of another deployment is refused and stays as it is."""
    source, target = both
    await fill(source, "one", 3)
    await fill(target, "other", 5)
    with pytest.raises(CopyRefused):
        await passed(source, target)
    assert await target.read_current(count) == 10
    assert len(await receipts_of(target, "shared")) == 2
    with pytest.raises(CopyRefused):  # the other way round there are more of them than here
        await passed(target, source)
    assert await source.read_current(count) == 6


async def test_empty(both: tuple[Database, Database]) -> None:
    """Nothing at all can be copied too, and a chain can be begun afterwards."""
    source, target = both
    await passed(source, target)
    await fill(target, "one", 2)
    assert await target.read_current(count) == 4


# What PostgreSQL forgets in a crash (an unlogged table) need not be moved.
FORGOTTEN = {"rate_limits": "what each caller asked in the last seconds; SQLite has a side file"}


async def test_no_table_is_forgotten(both: tuple[Database, Database]) -> None:
    """A row of every table arrives as it is; what is not moved is named with a reason."""
    source, target = both
    everything = set(await source.read_current(_names))
    moved = await copying._tables(source, target)
    assert {t.name for t in moved} | NOT_COPIED.keys() | FORGOTTEN.keys() >= everything
    assert not {t.name for t in moved} & (NOT_COPIED.keys() | FORGOTTEN.keys())
    for table in moved:
        row = tuple(_VALUES[kind] for kind in table.kinds)
        await source.transact(copying._write, table, [row], [])
    await passed(source, target)
    for table in moved:
        how = {"after": None, "upto": None, "limit": 9}
        there = await source.read_current(copying._rows, table, **how)
        assert len(there) >= 1
        assert await target.read_current(copying._rows, table, **how) == there
    assert await passed(source, target) == 0


_VALUES: dict[str, Value] = {
    **dict.fromkeys(("bigint", "smallint", "integer"), 1),
    "text": "x",
    **dict.fromkeys(("bytea", "blob"), bytes(32)),
}


async def _names(tx: ReadTx) -> list[str]:
    if tx.engine == "sqlite":
        return await tx.all(
            str,
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'",
        )
    return await tx.all(
        str,
        "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema()",
    )
