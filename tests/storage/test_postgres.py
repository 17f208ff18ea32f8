"""What only PostgreSQL can do: restart, fail over, wait for a standby, undo a transaction."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.postgres import Postgres, cluster
from tests.storage.ledger import commit, count, hashes, pending, receipts_of, seal

from signet.storage.config import PostgresConfig
from signet.storage.errors import Raced, StorageBusy, StorageError, StorageUnavailable
from signet.storage.exchanges import (
    Committed,
    Head,
    PendingExchange,
    Replay,
    Result,
    Sealed,
    commit_exchanges,
)
from signet.storage.postgres import PostgresDatabase, open_postgres
from signet.storage.tx import ReadTx, Tx
from signet.storage.usage import settled

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(postgres: Postgres) -> PostgresConfig:
    """An empty database."""
    return PostgresConfig(url=postgres.url(postgres.empty_database()), connect_s=30, lock_s=60)


@pytest.fixture
async def db(config: PostgresConfig) -> AsyncIterator[PostgresDatabase]:
    """The same, opened."""
    async with open_postgres(config) as opened:
        yield opened


async def insert(tx: Tx, kid: str) -> None:
    """Any write."""
    await tx.execute(
        "INSERT INTO signing_keys (kid, public, created_us) VALUES (:kid, :public, 0)",
        kid=kid,
        public=b"p" * 32,
    )


async def test_commit_with_a_reservation(postgres: Postgres, db: PostgresDatabase) -> None:
    """A commit that succeeds with SQLSTATE 01000 is not acknowledged, and the retry replays."""
    postgres.sql(
        """
        CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE WARNING 'cancelled the wait'; RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER warn AFTER INSERT ON receipts
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION warn();
        """,
        "test",
    )
    with pytest.raises(StorageUnavailable, match="synchronous standby"):
        await commit(db, pending("a"))
    postgres.sql("DROP TRIGGER warn ON receipts", "test")
    [again] = await commit(db, pending("a"))
    assert isinstance(again, Replay)


async def test_deferred_constraint_fails_the_commit(
    postgres: Postgres, db: PostgresDatabase
) -> None:
    """A COMMIT that the server refuses leaves nothing and says why."""
    postgres.sql(
        """
        CREATE TABLE once (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)
        """,
        "test",
    )

    async def twice(tx: Tx) -> None:
        await tx.execute("INSERT INTO once VALUES (1), (1)")

    with pytest.raises(StorageError) as caught:
        await db.transact(twice)
    assert caught.value.code == "storage_integrity"


async def test_deadlock_is_repeated(db: PostgresDatabase) -> None:
    """Two transactions that lock two rows crosswise both succeed in the end."""
    await db.transact(insert, "a")
    await db.transact(insert, "b")
    runs: list[str] = []

    async def cross(tx: Tx, first: str, second: str) -> None:
        runs.append(first)
        meets = len(runs) <= 2
        await tx.execute("UPDATE signing_keys SET nbf_us = 1 WHERE kid = :kid", kid=first)
        if meets:  # until both have their first row
            await tx.one(str, "SELECT CAST(pg_advisory_xact_lock_shared(77) AS TEXT)")
            while await tx.one(int, "SELECT count(*) FROM pg_locks WHERE objid = 77") != 2:
                await tx.one(str, "SELECT CAST(pg_sleep(0.01) AS TEXT)")
        await tx.execute("UPDATE signing_keys SET nbf_us = 1 WHERE kid = :kid", kid=second)

    await asyncio.gather(db.transact(cross, "a", "b"), db.transact(cross, "b", "a"))
    # Who is repeated may be faster than who was waiting for it, and then they meet again.
    assert len(runs) >= 3


async def test_races_are_repeated_a_bounded_number_of_times(db: PostgresDatabase) -> None:
    """A function that loses every race ends as "busy", with nothing written."""
    runs = 0

    async def loses(tx: Tx) -> None:
        nonlocal runs
        runs += 1
        await insert(tx, "a")
        raise Raced("lost")

    with pytest.raises(StorageBusy):
        await db.transact(loses)
    assert runs == 10
    assert await db.read_current(_keys) == 0


async def _keys(tx: ReadTx) -> int | None:
    return await tx.one(int, "SELECT count(*) FROM signing_keys")


async def test_row_locked_too_long(config: PostgresConfig) -> None:
    """A row that stays locked beyond the limit is "busy", and the connection is usable again."""

    async def hold(tx: Tx, held: asyncio.Event, go_on: asyncio.Event) -> None:
        await tx.execute("UPDATE signing_keys SET nbf_us = 1")
        held.set()
        while not go_on.is_set():
            await tx.one(str, "SELECT CAST(pg_sleep(0.01) AS TEXT)")

    async def touch(tx: Tx) -> None:
        await tx.execute("UPDATE signing_keys SET nbf_us = 2")

    held, go_on = asyncio.Event(), asyncio.Event()
    async with open_postgres(config) as holder, open_postgres(replace(config, lock_s=0.3)) as db:
        await holder.transact(insert, "a")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(holder.transact(hold, held, go_on))
            await held.wait()
            with pytest.raises(StorageBusy):
                await db.transact(touch)
            go_on.set()
        await db.transact(touch)


async def test_concurrent_batches_on_one_trace(db: PostgresDatabase) -> None:
    """Batches of several processes meet on one new trace and with one key: all end well."""
    batches = [
        commit(db, pending("same"), *(pending(f"{n}/{i}") for i in range(5))) for n in range(8)
    ]
    results: list[list[Result]] = await asyncio.gather(*batches)
    assert len({hashes(batch)[0] for batch in results}) == 1
    assert len(await receipts_of(db, "trace-1")) == 41


async def test_batches_queue_for_a_hot_trace(db: PostgresDatabase) -> None:
    """Batches that meet on an existing trace wait for each other instead of doing it again."""
    await commit(db, pending("first"))
    sealed: list[str] = []

    def noting(item: PendingExchange, last: Head | None) -> Sealed:
        result = seal(item, last)
        sealed.append(result.receipt_hash)
        return result

    await asyncio.gather(
        *(db.transact(commit_exchanges, [pending(f"b{n}")], noting) for n in range(20))
    )
    assert len(await receipts_of(db, "trace-1")) == 21
    assert len(sealed) == 20


async def test_followers_never_miss_a_late_commit(db: PostgresDatabase) -> None:
    """While a transaction holds ids that it has not committed, the log is settled below them."""
    await commit(db, pending("a"))
    before = await db.read_current(settled)
    assert before >= 1

    async def slow(tx: Tx, taken: asyncio.Event, go_on: asyncio.Event) -> None:
        await tx.all(int, "SELECT * FROM receipt_ids(3)")
        taken.set()
        while not go_on.is_set():
            await tx.one(str, "SELECT CAST(pg_sleep(0.01) AS TEXT)")

    taken, go_on = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(db.transact(slow, taken, go_on))
        await taken.wait()
        [later] = await commit(db, pending("b"))
        assert isinstance(later, Committed)
        assert await db.read_current(settled) == before
        go_on.set()
    assert await db.read_current(settled) >= before + 4


async def test_database_restart() -> None:
    """After kill -9 and restart of the server the same open database writes again at once."""
    with cluster(options={"fsync": "on"}) as server:
        config = PostgresConfig(url=server.url(server.empty_database()), connect_s=30)
        async with open_postgres(config) as db:
            await asyncio.gather(*(commit(db, pending(f"a{i}", trace=f"t{i}")) for i in range(8)))
            server.kill()
            with pytest.raises(StorageError):
                await commit(db, pending("b"))
            server.start()
            back = time.monotonic()
            while True:
                try:
                    await commit(db, pending("b"))
                    break
                except StorageUnavailable:
                    await asyncio.sleep(0.05)
            assert time.monotonic() - back < 240
            assert await db.read_current(count) == 9


async def test_dead_idle_connections_cost_nothing(db: PostgresDatabase, postgres: Postgres) -> None:
    """Connections that the server closed while idle are replaced without failing a call."""
    await asyncio.gather(*(db.ping() for _ in range(8)))
    postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test' "
        "AND pid <> pg_backend_pid()"
    )
    await db.ping()
    await asyncio.gather(*(db.ping() for _ in range(8)))


async def test_without_prepared_statements(config: PostgresConfig) -> None:
    """With the statement cache off, as behind a pooler in transaction mode, all works."""
    async with open_postgres(replace(config, statement_cache_size=0)) as db:
        for n in range(3):
            await commit(db, *(pending(f"{n}/{i}") for i in range(5)))
        assert len(await receipts_of(db, "trace-1")) == 15


async def test_read_falls_back_to_the_primary(config: PostgresConfig, postgres: Postgres) -> None:
    """A replica that cannot be reached costs a read nothing but time."""
    async with open_postgres(replace(config, replica_url=postgres.url("nowhere"))) as db:
        await commit(db, pending("a"))
        assert await db.read(count) == 1


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/x", "mysql://x", "postgresql://[x"])
async def test_wrong_url(url: str) -> None:
    """A URL that leads nowhere is one clear error at the start."""
    with pytest.raises(StorageUnavailable, match="PostgreSQL"):
        async with open_postgres(PostgresConfig(url=url, connect_s=1)):
            pass


async def test_failover_to_a_standby() -> None:
    """Behind a URL with two hosts, the standby that was promoted is used without a restart."""
    with cluster(options={"wal_level": "replica", "max_wal_senders": "4"}) as primary:
        name = primary.empty_database()
        with cluster(start=False, options={"hot_standby": "on"}) as standby:
            standby.run(
                "pg_basebackup", "-D", str(standby.data), "-R", "-X", "stream", "-c", "fast",
                "-h", str(primary.folder), "-p", str(primary.port), "-U", "signet",
            )  # fmt: skip
            standby.start()
            hosts = f"127.0.0.1:{standby.port},127.0.0.1:{primary.port}"
            config = PostgresConfig(url=f"postgresql://signet@{hosts}/{name}", connect_s=30)
            async with open_postgres(config) as db:
                [before] = hashes(await commit(db, pending("a")))
                _wait_until_received(primary, standby)
                primary.kill()
                standby.run("pg_ctl", "promote", "-D", str(standby.data), "-w")
                deadline = time.monotonic() + 240
                while True:
                    try:
                        await commit(db, pending("b"))
                        break
                    except StorageError:
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.1)
                chain = await receipts_of(db, "trace-1")
                assert [len(chain), chain[0].receipt_hash] == [2, before]


def _wait_until_received(primary: Postgres, standby: Postgres) -> None:
    position = primary.sql("SELECT pg_current_wal_lsn()")
    deadline = time.monotonic() + 240
    while standby.sql(f"SELECT pg_last_wal_replay_lsn() >= '{position}'") != "t":
        assert time.monotonic() < deadline
        time.sleep(0.05)


async def test_newest_version() -> None:
    """The same works on the newest PostgreSQL."""
    with cluster(18) as server:
        async with open_postgres(PostgresConfig(url=server.url(server.empty_database()))) as db:
            await commit(db, *(pending(f"a{i}") for i in range(20)))
            await commit(db, *(pending(f"a{i}") for i in range(20)))
            assert len(await receipts_of(db, "trace-1")) == 20


async def test_no_statement_of_a_batch_is_planned_twice(config: PostgresConfig) -> None:
    """Whatever the server thinks of the arguments: planning costs it more than a small batch."""

    async def plans(tx: ReadTx) -> list[tuple[str, int]]:
        return await tx.all(
            lambda sql, count: (sql, count),
            "SELECT statement, custom_plans FROM pg_prepared_statements",
        )

    async with open_postgres(replace(config, pool_size=1)) as db:
        for number in range(20):
            await commit(db, pending(f"k{number}", trace="one"))
            await commit(db, pending(f"l{number}"))
        planned = await db.transact(plans)
    assert any("INSERT INTO receipts" in sql for sql, _ in planned)
    assert [sql for sql, count in planned if count] == []
