"""What only SQLite can do wrong: a full disk, a failed fsync, another process's lock."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from tests.storage.ledger import TENANT, commit, count, hashes, pending, receipts_of, seal, text

from signet.storage.committer import open_committer
from signet.storage.config import SqliteConfig
from signet.storage.errors import StorageBusy, StorageError, StorageUnavailable
from signet.storage.exchanges import Committed, Replay, commit_exchanges
from signet.storage.limits import look
from signet.storage.receipts import erase_payload
from signet.storage.sqlite import open_sqlite
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


@pytest.fixture
def config(tmp_path: Path) -> SqliteConfig:
    """A file that does not exist yet, in a folder that does not either."""
    return SqliteConfig(path=tmp_path / "data" / "signet.db", busy_s=60)


class FaultyFile(apsw.VFSFile):
    """A file whose syncs fail while `faults` says so."""

    faults: set[str] = set()  # noqa: RUF012

    def xSync(self, flags: int) -> None:
        if "sync" in self.faults:
            raise apsw.IOError("fsync failed")
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if "write" in self.faults:
            raise apsw.FullError("no space left")
        super().xWrite(data, offset)


class FaultyVFS(apsw.VFS):
    """Opens every file as a `FaultyFile`."""

    def __init__(self, name: str, base: str) -> None:
        self._base = base
        super().__init__(name, base, makedefault=True)

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> FaultyFile:
        return FaultyFile(self._base, name, flags)


@pytest.fixture
def faults() -> Iterator[set[str]]:
    """The faults of every file opened in this process: add "sync" or "write"."""
    usual = apsw.vfs_names()[0]
    vfs = FaultyVFS("faulty", usual)
    FaultyFile.faults = set()
    try:
        yield FaultyFile.faults
    finally:
        apsw.set_default_vfs(usual)
        vfs.unregister()


@pytest.mark.parametrize("fault", ["sync", "write"])
async def test_disk_that_fails_at_commit(
    config: SqliteConfig, faults: set[str], fault: str
) -> None:
    """While the disk fails nothing is acknowledged; afterwards the same keys give one receipt."""
    async with open_sqlite(config) as db:
        [first] = hashes(await commit(db, pending("first")))
        async with open_committer(db, seal) as committer:
            items = [pending(f"a{i}") for i in range(20)]
            faults.add(fault)
            refused = await asyncio.gather(
                *(committer.commit(item) for item in items), return_exceptions=True
            )
            assert {type(result) for result in refused} == {StorageUnavailable}
            with pytest.raises(StorageUnavailable):
                await db.ping()
            faults.clear()
            retried = await asyncio.gather(*(committer.commit(item) for item in items))
        assert all(isinstance(result, (Committed, Replay)) for result in retried)
        chain = await receipts_of(db, "trace-1")
        assert len(chain) == 21
        assert chain[0].receipt_hash == first
    async with open_sqlite(config) as db:
        assert await receipts_of(db, "trace-1") == chain


async def test_full_database(config: SqliteConfig) -> None:
    """A file that may not grow refuses writes as "not acknowledged" and recovers with space."""
    async with open_sqlite(config) as db:
        await commit(db, pending("a"))
        db._writer.pragma("max_page_count", 1)  # pyright: ignore
        with pytest.raises(StorageUnavailable):
            await commit(db, *(pending(f"b{i}", payload=b"x" * 9000) for i in range(50)))
        db._writer.pragma("max_page_count", 2**31)  # pyright: ignore
        await commit(db, pending("c"))
        assert len(await receipts_of(db, "trace-1")) == 2


async def test_full_disk_voids_the_whole_group(config: SqliteConfig) -> None:
    """If the disk fails under one unit, its neighbours in the group are not acknowledged."""

    async def small(tx: Tx, kid: str) -> None:
        await tx.execute(
            "INSERT INTO signing_keys (kid, public, created_us) VALUES (:kid, :public, 0)",
            kid=kid,
            public=b"p" * 32,
        )

    async def large(tx: Tx) -> None:
        for i in range(100):
            await small(tx, f"{i}{'x' * 9000}")

    async with open_sqlite(config) as db:
        db._writer.pragma("max_page_count", 1)  # pyright: ignore
        results = await asyncio.gather(
            db.transact(small, "a"), db.transact(large), db.transact(small, "b"),
            return_exceptions=True,
        )  # fmt: skip
        assert {type(result) for result in results} == {StorageUnavailable}
        db._writer.pragma("max_page_count", 2**31)  # pyright: ignore
        await db.transact(small, "a")


async def test_storage_failure_in_one_unit_voids_the_group(config: SqliteConfig) -> None:
    """Once the disk has failed under a unit, no neighbour of its group is acknowledged."""

    async def fails(tx: Tx) -> None:
        await commit_exchanges(tx, [pending("b")], seal)
        raise StorageUnavailable("The disk failed.")

    async with open_sqlite(config) as db:
        results = await asyncio.gather(
            commit(db, pending("a")), db.transact(fails), return_exceptions=True
        )
        assert {type(result) for result in results} == {StorageUnavailable}
        assert await db.read_current(count) == 0
        await commit(db, pending("a"))


@contextlib.contextmanager
def another_writer(path: Path) -> Iterator[None]:
    """Another process's write lock, held for the block."""
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.close(True)


async def test_lock_held_too_long(config: SqliteConfig) -> None:
    """A lock held beyond the limit is "busy": nothing was written, reads go on meanwhile."""
    async with open_sqlite(replace(config, busy_s=0.3)) as db:
        await commit(db, pending("a"))
        with another_writer(config.path):
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(_refused(commit(db, pending("b"))))
                await asyncio.sleep(0.05)
                assert await db.read(count) == 1
            assert isinstance(waiting.result(), StorageBusy)
        [result] = await commit(db, pending("b"))
        assert isinstance(result, Committed)


async def _refused(doing: object) -> StorageError | None:
    try:
        await doing  # type: ignore[misc]
    except StorageError as error:
        return error
    return None


async def test_lock_released_in_time(config: SqliteConfig) -> None:
    """A lock released within the limit only delays."""
    async with open_sqlite(config) as db, asyncio.TaskGroup() as tasks:
        with another_writer(config.path):
            waiting = tasks.create_task(commit(db, pending("a")))
            await asyncio.sleep(0.05)
        assert isinstance((await waiting)[0], Committed)


async def test_a_start_waits_for_another_s_migration(config: SqliteConfig) -> None:
    """Who starts while another process brings the schema up to date waits for it much longer than
    a write would."""
    async with open_sqlite(config):
        pass

    async def starts() -> int:
        async with open_sqlite(replace(config, busy_s=0.1)) as db:
            await db.ping()
            return db.schema_version

    async with asyncio.TaskGroup() as tasks:
        with another_writer(config.path):
            starting = tasks.create_task(starts())
            await asyncio.sleep(1.0)
            assert not starting.done()
    assert starting.result() > 0


async def test_many_open_the_side_file_at_once(tmp_path: Path) -> None:
    """Workers and nodes of one host that start together all get the shared limits."""
    for number in range(60):
        config = SqliteConfig(path=tmp_path / f"{number}.db", busy_s=30)
        async with open_sqlite(config) as one, open_sqlite(config) as other:
            opening = [db.transient(look, []) for db in (one, other, one, other)]
            assert await asyncio.gather(*opening) == [[], [], [], []]


async def test_queue_is_bounded(tmp_path: Path) -> None:
    """Too many waiting units are refused at once."""
    config = SqliteConfig(path=tmp_path / "signet.db", queue_limit=3)
    async with open_sqlite(config) as db:
        results = await asyncio.gather(*(db.ping() for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results].count(StorageBusy) == 2


async def test_durable_settings(config: SqliteConfig) -> None:
    """The log is written ahead and synced at every commit."""
    async with open_sqlite(config) as db:
        writer = db._writer  # pyright: ignore
        assert writer.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        assert writer.execute("PRAGMA synchronous").fetchall() == [(2,)]


async def test_statements_of_a_batch_are_prepared_once(config: SqliteConfig) -> None:
    """No statement of a second batch is prepared again, neither for the batch nor for its rows."""
    prepared: list[str | None] = []

    def note(_action: int, first: str | None, *_rest: object) -> int:
        prepared.append(first)
        return apsw.SQLITE_OK

    async with open_sqlite(config) as db:
        db._writer.authorizer = note  # pyright: ignore
        await commit(db, *(pending(f"a{i}", trace=f"a{i}") for i in range(20)))
        assert "idempotency" in prepared
        prepared.clear()
        await commit(db, *(pending(f"b{i}", trace=f"b{i}") for i in range(20)))
        assert prepared == []


async def test_file_is_private(config: SqliteConfig) -> None:
    """Nobody else on the machine may read payloads."""
    async with open_sqlite(config) as db:
        await db.ping()
        for file in config.path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_erased_content_is_not_in_the_file(config: SqliteConfig) -> None:
    """After erasure and a clean close the file holds no byte of the content."""
    secret = b"the patient's diagnosis" * 300
    async with open_sqlite(config) as db:
        await commit(db, pending("a", payload=secret), pending("b"))
        await db.transact(erase_payload, TENANT, text(secret))
    assert b"diagnosis" not in config.path.read_bytes()
    assert not config.path.with_name("signet.db-wal").exists()


async def test_not_a_database(tmp_path: Path) -> None:
    """A file that is something else is refused with a sentence and left as it is."""
    path = tmp_path / "notes.txt"
    path.write_bytes(b"these are my notes " * 300)
    with pytest.raises(StorageUnavailable, match=r"notes\.txt"):
        async with open_sqlite(SqliteConfig(path=path)):
            pass
    assert path.read_bytes() == b"these are my notes " * 300


async def test_unreachable_folder(tmp_path: Path) -> None:
    """A path that cannot be made is refused with a sentence."""
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable, match="Cannot open"):
        async with open_sqlite(SqliteConfig(path=tmp_path / "file" / "signet.db")):
            pass
