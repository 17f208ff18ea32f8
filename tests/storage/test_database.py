"""The transaction contract, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from tests.storage.ledger import commit, count, hashes, pending, receipts_of

from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.errors import (
    ForeignAwait,
    IntegrityViolated,
    Raced,
    StorageBusy,
    StorageError,
)
from signet.storage.tx import Ask, PerRow, ReadTx, Tx

pytestmark = pytest.mark.anyio

_INSERT = """
    INSERT INTO signing_keys (kid, public, created_us) VALUES (:kid, :public, 0)
"""


async def put(tx: Tx, kid: str) -> str:
    """A write that fails when `kid` is there already."""
    await tx.execute(_INSERT, kid=kid, public=b"p" * 32)
    return kid


async def kids(tx: ReadTx) -> list[str]:
    """What is there."""
    return await tx.all(str, "SELECT kid FROM signing_keys ORDER BY kid")


async def test_value_is_returned_after_the_commit(db: Database) -> None:
    """What a unit returns reaches its caller, and a read afterwards sees what it wrote."""
    assert await db.transact(put, "a") == "a"
    assert await db.read_current(kids) == ["a"]


async def test_kind_and_version(db: Database, config: SqliteConfig | PostgresConfig) -> None:
    """An open database knows its engine and the schema it is at."""
    assert db.kind == ("sqlite" if isinstance(config, SqliteConfig) else "postgres")
    assert db.schema_version >= 1


async def test_error_rolls_back_alone(db: Database) -> None:
    """Of many waiting units the failing ones are rolled back alone, each with its own error."""
    results = await asyncio.gather(
        *(db.transact(put, f"k{i % 7}") for i in range(14)), return_exceptions=True
    )
    assert [type(result) for result in results].count(str) == 7
    assert [type(result) for result in results].count(IntegrityViolated) == 7
    assert await db.read_current(kids) == [f"k{i}" for i in range(7)]


async def test_all_or_nothing(db: Database) -> None:
    """A unit that fails after its first write leaves no trace of it."""

    async def half(tx: Tx) -> None:
        await put(tx, "half")
        raise LookupError("changed its mind")

    with pytest.raises(LookupError):
        await db.transact(half)
    assert await db.read_current(kids) == []


async def test_half_a_unit_is_undone_among_neighbours(db: Database) -> None:
    """A unit that fails after a write leaves nothing, though its neighbours are committed."""

    async def half(tx: Tx) -> None:
        await put(tx, "half")
        raise LookupError("changed its mind")

    results = await asyncio.gather(
        db.transact(put, "a"), db.transact(half), db.transact(put, "b"), return_exceptions=True
    )
    assert [type(result) for result in results] == [str, LookupError, str]
    assert await db.read_current(kids) == ["a", "b"]


async def test_a_reader_cannot_write(db: Database) -> None:
    """A read transaction refuses to write even where types are ignored."""
    with pytest.raises((StorageError, AttributeError)):
        await db.read(put, "a")  # type: ignore[arg-type]
    assert await db.read_current(kids) == []


async def test_wrong_sql_is_a_storage_error(db: Database) -> None:
    """A driver's exception never leaves the room."""

    async def wrong(tx: Tx) -> None:
        await tx.execute("INSERT INTO nowhere VALUES (1)")

    with pytest.raises(StorageError):
        await db.transact(wrong)
    with pytest.raises(StorageError):
        await db.read(wrong)  # type: ignore[arg-type]
    await db.transact(put, "still alive")


async def test_transaction_is_useless_afterwards(db: Database) -> None:
    """A transaction that leaked out of its unit refuses every use."""
    leaked: list[Tx] = []

    async def leak(tx: Tx) -> None:
        leaked.append(tx)

    await db.transact(leak)
    with pytest.raises(ForeignAwait):
        await leaked[0].execute("DELETE FROM signing_keys")
    with pytest.raises(ForeignAwait):
        await leaked[0].one(int, "SELECT 1")


@pytest.mark.parametrize(
    "foreign",
    [lambda: asyncio.sleep(0), lambda: asyncio.sleep(0.01), lambda: asyncio.Event().wait()],
    ids=["yield", "sleep", "event"],
)
async def test_awaiting_anything_else_fails_at_once(
    db: Database, foreign: Callable[[], Awaitable[object]]
) -> None:
    """A transaction function that awaits something else is rolled back."""

    async def calls_out(tx: Tx) -> None:
        await put(tx, "a")
        await foreign()

    with pytest.raises(ForeignAwait):
        await db.transact(calls_out)
    assert await db.read_current(kids) == []


async def test_cancelled_caller_leaves_the_writer_alone(db: Database) -> None:
    """A cancelled unit either committed or not; the ones around it are untouched."""
    async with asyncio.TaskGroup() as tasks:
        gone = tasks.create_task(db.transact(put, "gone"))
        stays = tasks.create_task(db.transact(put, "stays"))
        await asyncio.sleep(0)
        gone.cancel()
        await stays
    assert "stays" in await db.read_current(kids)


async def test_rows_are_counted(db: Database) -> None:
    """`execute` and `execute_each` say how many rows they touched."""
    statement = PerRow(
        sqlite="INSERT INTO signing_keys (kid, public, created_us) VALUES (?, ?, ?)",
        postgres="""
            INSERT INTO signing_keys (kid, public, created_us)
            SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[])
        """,
    )

    async def counts(tx: Tx) -> list[int]:
        return [
            await tx.execute_each(statement, [(f"k{i}", b"p" * 32, i) for i in range(5)]),
            await tx.execute_each(statement, []),
            await tx.execute("UPDATE signing_keys SET created_us = 9 WHERE created_us < 3"),
            await tx.execute("DELETE FROM signing_keys WHERE kid = :kid", kid="none"),
        ]

    assert await db.transact(counts) == [5, 0, 3, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 200])
async def test_any_number_of_rows(db: Database, count: int) -> None:
    """Each row is written once and found once, those that conflict among themselves too."""
    written = PerRow(
        sqlite="""
            INSERT INTO signing_keys (kid, public, created_us) VALUES (?, ?, ?)
            ON CONFLICT (kid) DO NOTHING
        """,
        postgres="""
            INSERT INTO signing_keys (kid, public, created_us)
            SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[])
            ON CONFLICT (kid) DO NOTHING
        """,
    )
    found = PerRow(
        sqlite="""
            WITH k (kid) AS (VALUES (?))
            SELECT s.created_us FROM k CROSS JOIN signing_keys s ON s.kid = k.kid
        """,
        postgres="""
            SELECT s.created_us FROM unnest($1::text[]) AS k (kid)
            JOIN signing_keys s ON s.kid = k.kid
        """,
    )
    rows = [(f"k{i}", b"p" * 32, i) for i in range(count)]

    async def wrote(tx: Tx) -> int:
        return await tx.execute_each(written, [*rows, *rows])

    async def read(tx: ReadTx) -> list[int]:
        return await tx.each(int, found, [(kid,) for kid, _, _ in rows])

    assert await db.transact(wrote) == count
    assert sorted(await db.read(read)) == list(range(count))


async def test_a_row_that_is_refused_takes_all_with_it(db: Database) -> None:
    """Of a statement that failed in the middle nothing is left, even if somebody caught it."""
    statement = PerRow(
        sqlite="INSERT INTO signing_keys (kid, public, created_us) VALUES (?, ?, ?)",
        postgres="""
            INSERT INTO signing_keys (kid, public, created_us)
            SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[])
        """,
    )
    kids = ("a", "b", "c", "a", "d")

    async def write(tx: Tx) -> None:
        with suppress(IntegrityViolated):
            await tx.execute_each(statement, [(kid, b"p" * 32, 1) for kid in kids])

    async def count(tx: ReadTx) -> int | None:
        return await tx.one(int, "SELECT count(*) FROM signing_keys")

    before = await db.read(count)
    with pytest.raises(IntegrityViolated):
        await db.transact(write)
    assert await db.read(count) == before


async def test_many_statements_in_one_round_trip(db: Database) -> None:
    """`ask` and `execute_all` do what `each` and `execute_each` do, each for its own rows."""
    put = PerRow(
        sqlite="INSERT INTO signing_keys (kid, public, created_us) VALUES (?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        postgres="INSERT INTO signing_keys (kid, public, created_us)"
        " SELECT * FROM unnest($1::text[], $2::bytea[], $3::bigint[]) ON CONFLICT DO NOTHING",
    )
    forget = PerRow(
        sqlite="DELETE FROM tenant_events WHERE tenant = ? AND kind = ?",
        postgres="DELETE FROM tenant_events e USING unnest($1::text[], $2::text[]) AS k (tenant,"
        " kind) WHERE e.tenant = k.tenant AND e.kind = k.kind",
    )
    of_kid = PerRow(
        sqlite="SELECT kid, alias, created_us FROM signing_keys WHERE kid = ?",
        postgres="SELECT kid, alias, created_us FROM signing_keys"
        " WHERE kid = ANY ($1::text[]) ORDER BY kid FOR UPDATE",
    )
    younger = PerRow(
        sqlite="SELECT kid FROM signing_keys WHERE created_us > ? AND kid <> ?",
        postgres="SELECT kid FROM signing_keys, unnest($1::bigint[], $2::text[]) AS k (least, but)"
        " WHERE created_us > k.least AND kid <> k.but",
    )

    async def together(tx: Tx) -> object:
        await tx.execute_all([(put, [("k0", b"p" * 32, 0)])])
        rows = [(f"k{i}", b"p" * 32, i) for i in range(4)]
        touched = await tx.execute_all([(forget, [("a", "b")]), (put, rows), (forget, [])])
        known = Ask(lambda *row: row, of_kid, [("k1",), ("k2",), ("none",)])
        late = Ask(str, younger, [(1, "k3")])
        nothing = Ask(str, younger, [])
        await tx.ask(known, late, nothing)
        await tx.ask()
        last = Ask(str, younger, [(2, "none")])
        touched += await tx.execute_all([(forget, [("a", "b")]), (put, rows[:1])], last, nothing)
        alone = Ask(str, younger, [(1, "k2")])
        touched += await tx.execute_all([(forget, [])], alone)
        asked = (late, nothing, last, alone)
        return touched, sorted(known.found), [one.found for one in asked]

    expected = (
        [0, 3, 0, 0, 0, 0],
        [("k1", None, 1), ("k2", None, 2)],
        [["k2"], [], ["k3"], ["k3"]],
    )
    assert await db.transact(together) == expected


async def test_nothing_is_begun_behind_a_guard(db: Database) -> None:
    """A guard that touches fewer rows than it has ends the unit before any later step."""
    swap = PerRow(
        sqlite="UPDATE signing_keys SET alias = 'new' WHERE kid = ? AND alias = ?",
        postgres="UPDATE signing_keys k SET alias = 'new' FROM unnest($1::text[], $2::text[])"
        " AS g (kid, alias) WHERE k.kid = g.kid AND k.alias = g.alias",
    )
    put = PerRow(
        sqlite="INSERT INTO signing_keys (kid, public, alias, created_us) VALUES (?, ?, ?, ?)",
        postgres="INSERT INTO signing_keys (kid, public, alias, created_us)"
        " SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bigint[])",
    )
    there = [("k1", b"p" * 32, "old", 1), ("k2", b"q" * 32, "old", 1)]

    async def aliases(tx: ReadTx) -> list[str]:
        return await tx.all(str, "SELECT alias FROM signing_keys ORDER BY kid")

    async def write(tx: Tx, *expected: str) -> list[int]:
        guard = (swap, [("k1", "old"), ("k2", expected[0])])
        # What is there already would be refused, were it begun.
        return await tx.execute_all([guard, (put, there if expected[1:] else [])], guards=1)

    await db.transact(lambda tx: tx.execute_all([(put, there)]))
    with pytest.raises((Raced, StorageBusy)):
        await db.transact(write, "other", "begun")
    assert await db.read_current(aliases) == ["old", "old"]
    with pytest.raises(IntegrityViolated):
        await db.transact(write, "old", "begun")
    assert await db.transact(write, "old") == [2, 0]
    assert await db.read_current(aliases) == ["new", "new"]


async def test_values_come_back_as_they_went_in(db: Database) -> None:
    """Texts, bytes, integers of 64 bits and NULL survive unchanged."""

    async def there_and_back(tx: Tx) -> object:
        await tx.execute(
            """
            INSERT INTO signing_keys (kid, public, alias, created_us, nbf_us)
            VALUES (:kid, :public, :alias, :created_us, :nbf_us)
            """,
            kid="ключ 🔑 %(x)s :y",
            public=bytes(range(32)),
            alias=None,
            created_us=2**63 - 1,
            nbf_us=-(2**63),
        )
        return await tx.one(
            lambda *row: row, "SELECT kid, public, alias, created_us, nbf_us FROM signing_keys"
        )

    assert await db.transact(there_and_back) == (
        "ключ 🔑 %(x)s :y", bytes(range(32)), None, 2**63 - 1, -(2**63),
    )  # fmt: skip


async def test_clock(db: Database) -> None:
    """The database's clock gives microseconds since 1970 and does not stand still."""

    async def twice(tx: ReadTx) -> tuple[int, int]:
        return await tx.now_us(), await tx.now_us()

    first, second = await db.read_current(twice)
    assert 1_700_000_000_000_000 < first <= second < 5_000_000_000_000_000


async def test_ping(db: Database) -> None:
    """A healthy database accepts a write."""
    await db.ping()


async def test_reopened_database_has_everything(config: SqliteConfig | PostgresConfig) -> None:
    """What was acknowledged is there after the database was closed and opened again."""
    async with open_database(config) as db:
        first = hashes(await commit(db, pending("a"), pending("b")))
    async with open_database(config) as db:
        assert [r.receipt_hash for r in await receipts_of(db, "trace-1")] == first
        assert await db.read_current(count) == 2


async def test_error_in_the_block_is_not_wrapped(config: SqliteConfig | PostgresConfig) -> None:
    """Whoever uses the database sees their own exception, not a group of one."""
    with pytest.raises(KeyError):
        async with open_database(config):
            raise KeyError


async def test_cancelled_block_closes_the_database(config: SqliteConfig | PostgresConfig) -> None:
    """Cancelling whoever holds the database closes it and stays a cancellation."""
    opened = asyncio.Event()

    async def hold() -> None:
        async with open_database(config) as db:
            await db.transact(put, "a")
            opened.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(hold())
        await opened.wait()
        task.cancel()
    assert task.cancelled()
    async with open_database(config) as db:
        assert await db.read_current(kids) == ["a"]
