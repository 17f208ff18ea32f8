"""SQLite by apsw: one writer that commits waiting units together, and a reader beside it.

Statements run on the event loop, because handing whole transactions to a thread costs more than
they do; only what can wait for the disk or for another process runs in a thread: BEGIN under
contention, and COMMIT. WAL with `synchronous=FULL`: an acknowledged commit has been fsynced.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import (
    Any,
    Concatenate,
    Final,
    Generic,
    LiteralString,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
)

import apsw

from signet.storage import migrate
from signet.storage.config import SqliteConfig
from signet.storage.errors import (
    ForeignAwait,
    IntegrityViolated,
    Raced,
    StorageBusy,
    StorageError,
    StorageUnavailable,
)
from signet.storage.limits import SIDE_SCHEMA
from signet.storage.tx import Ask, Engine, PerRow, ReadTx, Tx, Value

P = ParamSpec("P")
T = TypeVar("T")

# Pages of 4 KiB in the write-ahead log before a commit also copies them into the database file.
# A page changed by many commits is then copied once; a restart replays at most this much.
_CHECKPOINT_PAGES: Final = 4000
# For each connection; the kernel caches the file too, so that more would only be kept twice, and a
# commit that moved pages looks at all that are kept (160 us for 64 MiB).
_CACHE_KIB: Final = 16384
# Each text for several rows has a handful of sizes.
_STATEMENTS: Final = 512
_MIGRATION_LOCK_S: Final = 60.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


Rows = Sequence[tuple[Value, ...]]


class _Cursor(Protocol):
    def fetchall(self) -> Rows: ...


class _Connection(Protocol):
    """What is used of `apsw.Connection`, whose own stubs leave the values' type unknown on 3.11."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(
        self, statements: str, bindings: Mapping[str, Value] | tuple[Value, ...] | None = None
    ) -> _Cursor: ...
    def executemany(self, statements: str, sequenceofbindings: Rows) -> _Cursor: ...
    def total_changes(self) -> int: ...
    def pragma(self, name: str, value: str | int) -> Value: ...
    def config(self, op: int, value: int) -> int: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def close(self, force: bool = False) -> None: ...


class SqliteTx:
    """Runs statements at once on its connection; the awaits of its methods never suspend."""

    engine: Engine = "sqlite"

    def __init__(self, connection: _Connection) -> None:
        self._connection: _Connection | None = connection
        self.failure: StorageError | None = None

    def end(self) -> None:
        """Refuse every later use: it would fall into somebody else's transaction."""
        self._connection = None

    def _open(self) -> _Connection:
        if self._connection is None:
            raise ForeignAwait("The transaction has ended; nothing may use it any more.")
        if self.failure is not None:
            raise self.failure
        return self._connection

    def _failed(self, error: apsw.Error) -> StorageError:
        self.failure = _translated(error)
        return self.failure

    def _rows(self, sql: str, params: dict[str, Value]) -> Rows:
        connection = self._open()
        try:
            return connection.execute(sql, params).fetchall()
        except apsw.Error as error:
            raise self._failed(error) from error

    async def one(self, make: Callable[..., T], sql: LiteralString, /, **params: Value) -> T | None:
        """The first row, or None."""
        rows = self._rows(sql, params)
        return make(*rows[0]) if rows else None

    async def all(self, make: Callable[..., T], sql: LiteralString, /, **params: Value) -> list[T]:
        """Every row."""
        return [make(*row) for row in self._rows(sql, params)]

    async def each(self, make: Callable[..., T], statement: PerRow, rows: Rows, /) -> list[T]:
        """All rows found for all of `rows`."""
        connection = self._open()
        try:
            if _takes_several(statement.sqlite):
                found = [
                    row
                    for sql, values in _parts(statement.sqlite, rows)
                    for row in connection.execute(sql, values).fetchall()
                ]
            else:
                found = connection.executemany(statement.sqlite, rows).fetchall()
        except apsw.Error as error:
            raise self._failed(error) from error
        return [make(*row) for row in found]

    async def ask(self, *asked: Ask[Any]) -> None:
        """Answer one after another."""
        for one in asked:
            one.found = await self.each(one.make, one.statement, one.rows)

    async def now_us(self) -> int:
        """The clock of the host, which all processes that share the file share too."""
        return time.time_ns() // 1000

    async def execute(self, sql: LiteralString, /, **params: Value) -> int:
        """Run one statement; how many rows it touched."""
        connection = self._open()
        before = connection.total_changes()
        self._rows(sql, params)
        return connection.total_changes() - before

    async def execute_each(self, statement: PerRow, rows: Rows, /) -> int:
        """Run one statement for every row; how many rows it touched in all."""
        connection = self._open()
        before = connection.total_changes()
        try:
            if _takes_several(statement.sqlite):
                for sql, values in _parts(statement.sqlite, rows):
                    connection.execute(sql, values)
            else:
                connection.executemany(statement.sqlite, rows)
        except apsw.Error as error:
            raise self._failed(error) from error
        return connection.total_changes() - before

    async def execute_all(
        self, steps: Sequence[tuple[PerRow, Rows]], /, *asked: Ask[Any], guards: int = 0
    ) -> list[int]:
        """Run one step after another, then answer what is asked; how many rows each touched."""
        touched: list[int] = []
        for number, (step, rows) in enumerate(steps):
            touched.append(await self.execute_each(step, rows) if rows else 0)
            if number < guards and touched[number] != len(rows):
                raise Raced("Another process was first.")
        await self.ask(*asked)
        return touched


# A statement for several rows is prepared, bound and stepped once: half the time of as many for one
# row each. Sizes are powers of two, so that few texts are ever prepared.
_VALUES: Final = re.compile(r"VALUES \((\?(?:, \?)*)\)")
_INSERT: Final = re.compile(r"\bINSERT\b")
_MOST_ROWS: Final = 64


@lru_cache
def _takes_several(sql: str) -> bool:
    """Whether the statement takes its row from a list of values, which may hold several."""
    return _VALUES.search(sql) is not None


@lru_cache(maxsize=512)
def _for_rows(sql: str, count: int) -> str:
    """The statement for so many rows.

    One that fails is left half done, as many for one row each would be, because the unit is void:
    otherwise SQLite copies every page before it changes it, to be able to undo the statement.
    """
    several = _VALUES.sub(lambda found: "VALUES " + ", ".join([f"({found[1]})"] * count), sql)
    return _INSERT.sub("INSERT OR FAIL", several, count=1)


def _parts(sql: str, rows: Rows) -> Iterator[tuple[str, tuple[Value, ...]]]:
    """Texts and their bindings that together carry out the statement for all rows, in order."""
    at = 0
    while at < len(rows):
        count = min(1 << (len(rows) - at).bit_length() - 1, _MOST_ROWS)
        yield _for_rows(sql, count), tuple(chain.from_iterable(rows[at : at + count]))
        at += count


class _Unit(Protocol):
    """A transaction function that waits for its turn, and its caller's future."""

    def run(self, connection: _Connection) -> Exception | None:
        """Run it and keep what comes of it; the error, if one did."""
        ...

    def settle(self) -> None:
        """The group is durable: give the caller its value, or the unit's own error."""
        ...

    def refuse(self, error: StorageError) -> None:
        """The group is not durable: whatever the unit did is void."""
        ...


class _Call(Generic[T]):
    """The one kind of unit."""

    def __init__(
        self, f: Callable[[Tx], Coroutine[object, None, T]], answer: asyncio.Future[T]
    ) -> None:
        self._f = f
        self._answer = answer
        self._value: T | None = None
        self._error: Exception | None = None

    def run(self, connection: _Connection) -> Exception | None:
        try:
            self._value = _in_transaction(self._f, connection)
        except Exception as error:
            self._error = error
        return self._error

    def settle(self) -> None:
        if self._answer.done():  # its caller was cancelled
            return
        if self._error is not None:
            self._answer.set_exception(self._error)
        else:
            self._answer.set_result(self._value)  # pyright: ignore[reportArgumentType]

    def refuse(self, error: StorageError) -> None:
        if not self._answer.done():
            self._answer.set_exception(type(error)(error.detail))


class _Thread:
    """A thread that carries out one call after another, for whoever waits on the loop.

    As an executor of one worker, at two thirds of its cost: nobody else waits for its futures.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, f: Callable[[], object]) -> None:
        """Return when `f` has, or raise what it raised. It goes on if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def carry_out() -> None:
            error: BaseException | None = None
            try:
                f()
            except BaseException as raised:
                error = raised
            loop.call_soon_threadsafe(_settle, done, error)

        self._calls.put(carry_out)
        await done

    def close(self) -> None:
        """Return when every call has ended."""
        self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (carry_out := self._calls.get()) is not None:
            carry_out()


def _settle(done: asyncio.Future[None], error: BaseException | None) -> None:
    if done.done():  # its caller was cancelled
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


class SqliteDatabase:
    """An open SQLite file at the newest schema."""

    kind: Engine = "sqlite"

    def __init__(
        self, config: SqliteConfig, schema_version: int, writer: _Connection, reader: _Connection
    ) -> None:
        self.schema_version = schema_version
        self._config = config
        self._writer = writer
        self._reader = reader
        self._side: _Connection | None = None
        self._opening = asyncio.Lock()
        self._thread = _Thread("signet-sqlite")
        self._waiting: deque[_Unit] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    async def transact(
        self,
        f: Callable[Concatenate[Tx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Queue a unit for the writer; see `Database`."""
        if self._closing:
            raise StorageUnavailable("The database is closing; nothing was written.")
        if len(self._waiting) >= self._config.queue_limit:
            raise StorageBusy("Too many transactions wait for the disk; nothing was written.")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def call(tx: Tx) -> Coroutine[object, None, T]:
            return f(tx, *args, **kwargs)

        self._waiting.append(_Call(call, answer))
        self._wake.set()
        return await answer

    async def read(
        self,
        f: Callable[Concatenate[ReadTx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Read the newest committed state; see `Database`."""

        def call(tx: ReadTx) -> Coroutine[object, None, T]:
            return f(tx, *args, **kwargs)

        try:
            return _snapshot(self._reader, call)
        except StorageBusy:
            # Another process recovers or closes the log: wait for it off the loop.
            return await asyncio.to_thread(self._read_patiently, call)

    async def read_current(
        self,
        f: Callable[Concatenate[ReadTx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """The same: there are no replicas of a file."""
        return await self.read(f, *args, **kwargs)

    def _read_patiently(self, f: Callable[[ReadTx], Coroutine[object, None, T]]) -> T:
        connection = _connect(self._config)
        connection.pragma("query_only", 1)
        try:
            return _snapshot(connection, f)
        finally:
            connection.close()

    async def transient(
        self,
        f: Callable[Concatenate[Tx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Commit to the side file without a sync, on the loop where nobody is in the way."""

        def call(tx: Tx) -> Coroutine[object, None, T]:
            return f(tx, *args, **kwargs)

        side = self._side or await self._first_side()
        try:
            return _unsynced(side, call)
        except StorageBusy:
            # Another process is in the middle of its own: wait for it off the loop.
            return await asyncio.to_thread(self._transient_patiently, call)

    async def _first_side(self) -> _Connection:
        async with self._opening:
            if self._side is None:
                self._side = await asyncio.to_thread(_open_side, self._config)
            return self._side

    def _transient_patiently(self, f: Callable[[Tx], Coroutine[object, None, T]]) -> T:
        connection = _open_side(self._config)
        connection.set_busy_timeout(round(self._config.busy_s * 1000))
        try:
            return _unsynced(connection, f)
        finally:
            connection.close()

    async def ping(self) -> None:
        """Commit a write of one row; see `Database`."""
        await self.transact(_probe)

    async def run(self) -> None:
        """Commit what waits, group after group, until `stop` was called and nothing waits."""
        try:
            while True:
                await self._wake.wait()
                while self._waiting:
                    count = min(len(self._waiting), self._config.max_group)
                    await self._commit([self._waiting.popleft() for _ in range(count)])
                if self._closing:
                    return
                self._wake.clear()
        finally:
            self._closing = True
            self._thread.close()
            for unit in self._waiting:
                unit.refuse(StorageUnavailable("The database was closed; nothing was written."))
            self._writer.close()
            self._reader.close()
            if self._side is not None:
                self._side.close()

    def stop(self) -> None:
        """Take nothing more; `run` returns after the last group."""
        self._closing = True
        self._wake.set()

    async def _commit(self, units: Sequence[_Unit]) -> None:
        """One transaction for all units. Whatever happens, every caller is told."""
        try:
            await self._begin()
            if self._run_all(units):
                await self._thread.call(self._commit_group)
            else:
                self._writer.execute("ROLLBACK")
        except BaseException as error:
            # A COMMIT that failed may still have reached the disk, hence "not acknowledged".
            refused = error if isinstance(error, StorageError) else None
            if isinstance(error, apsw.Error):
                refused = StorageUnavailable(f"The commit failed: {error}")
            elif refused is None:
                refused = StorageUnavailable("The writer was interrupted.")
            self._abandon()
            for unit in units:
                unit.refuse(refused)
            if not isinstance(error, (StorageError, apsw.Error)):
                raise
        else:
            for unit in units:
                unit.settle()

    async def _begin(self) -> None:
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            await self._thread.call(self._begin_patiently)
        except apsw.Error as error:
            raise _translated(error) from error

    def _begin_patiently(self) -> None:
        self._writer.set_busy_timeout(round(self._config.busy_s * 1000))
        try:
            self._writer.execute("BEGIN IMMEDIATE")
        except apsw.BusyError as error:
            raise StorageBusy("Another process held the write lock for too long.") from error
        finally:
            self._writer.set_busy_timeout(0)

    def _commit_group(self) -> None:
        self._writer.execute("COMMIT")

    def _run_all(self, units: Sequence[_Unit]) -> bool:
        """Run each unit; one that fails is rolled back alone. Whether anything is left to commit.

        Raises `StorageUnavailable` when the disk failed under a unit: SQLite may have rolled back
        the neighbours as well, so the group is void.
        """
        if len(units) == 1:
            return self._checked(units[0].run(self._writer)) is None
        kept = False
        for unit in units:
            self._writer.execute("SAVEPOINT unit")
            if self._checked(unit.run(self._writer)) is None:
                kept = True
            else:
                self._writer.execute("ROLLBACK TO unit")
            self._writer.execute("RELEASE unit")
        return kept

    def _checked(self, error: Exception | None) -> Exception | None:
        if isinstance(error, StorageUnavailable):
            raise error
        if not self._writer.in_transaction:
            raise StorageUnavailable("SQLite gave the transaction up.") from error
        return error

    def _abandon(self) -> None:
        try:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        except apsw.Error:
            # The connection is no longer to be trusted with half a transaction; a new one is.
            self._writer.close(True)
            self._writer = _connect(self._config)
            self._writer.set_busy_timeout(0)


@asynccontextmanager
async def open_sqlite(config: SqliteConfig) -> AsyncGenerator[SqliteDatabase, None]:
    """Open, migrate and run a database until the block ends; what waits then is committed."""
    db = SqliteDatabase(config, *await asyncio.to_thread(_open, config))
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(db.run())
        try:
            yield db
        except (Exception, asyncio.CancelledError) as error:
            # Raised again below, so that the group neither wraps it nor cancels the last commit.
            failure = error
        finally:
            db.stop()
    if failure is not None:
        raise failure


async def _probe(tx: Tx) -> None:
    await tx.execute("UPDATE probe SET at_us = :now WHERE id = 1", now=await tx.now_us())


def _in_transaction(f: Callable[[Tx], Coroutine[object, None, T]], connection: _Connection) -> T:
    """Drive a transaction function to its end without an event loop."""
    tx = SqliteTx(connection)
    coroutine = f(tx)
    try:
        coroutine.send(None)
    except StopIteration as done:
        if tx.failure is not None:  # it was caught; PostgreSQL would have given up as well
            raise tx.failure from None
        return done.value
    finally:
        tx.end()
        coroutine.close()
    raise ForeignAwait(
        "A transaction function awaited something that is not its transaction. No network call, "
        "sleep or lock belongs inside: it would keep the one writer from everybody else."
    )


def _snapshot(connection: _Connection, f: Callable[[ReadTx], Coroutine[object, None, T]]) -> T:
    connection.execute("BEGIN")
    try:
        return _in_transaction(f, connection)
    finally:
        connection.execute("ROLLBACK")


def _unsynced(connection: _Connection, f: Callable[[Tx], Coroutine[object, None, T]]) -> T:
    """Run `f` in one transaction of the side file."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            value = _in_transaction(f, connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except apsw.Error as error:
        raise _translated(error) from error
    return value


def _open_side(config: SqliteConfig) -> _Connection:
    """Open the file of what may be forgotten; its connection waits for no lock.

    Nothing of it is synced, so a power cut may leave it in pieces: it is named for this run of the
    host, and those of earlier runs are removed unread.
    """
    boot = _BOOT_ID.read_text("ascii").strip() if _BOOT_ID.exists() else "0"
    path = config.path.with_name(f"{config.path.name}-limits-{boot}")
    try:
        for earlier in config.path.parent.glob(f"{config.path.name}-limits-*"):
            if not earlier.name.startswith(path.name):
                earlier.unlink(missing_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = cast(_Connection, apsw.Connection(str(path)))
        # First of all: every pragma reads the file, which another process may be setting up.
        connection.set_busy_timeout(round(config.busy_s * 1000))
        connection.pragma("synchronous", "OFF")
        _switch_to_wal(connection, config.busy_s)
        connection.execute(SIDE_SCHEMA)
        connection.set_busy_timeout(0)
    except apsw.Error as error:
        raise StorageUnavailable(f"Cannot open {path}: {error}") from error
    except OSError as error:
        raise StorageUnavailable(f"Cannot open {path}: {error.strerror}") from error
    return connection


def _open(config: SqliteConfig) -> tuple[int, _Connection, _Connection]:
    """The schema's version, a writer and a reader; neither waits for locks from now on."""
    version = _migrate(config)
    writer, reader = _connect(config), _connect(config)
    writer.set_busy_timeout(0)
    reader.set_busy_timeout(0)
    reader.pragma("query_only", 1)
    return version, writer, reader


def _connect(config: SqliteConfig) -> _Connection:
    """A connection that waits for locks as long as the configuration says."""
    try:
        connection = cast(
            _Connection, apsw.Connection(str(config.path), statementcachesize=_STATEMENTS)
        )
        connection.set_busy_timeout(round(config.busy_s * 1000))
        connection.pragma("synchronous", "FULL")
        connection.pragma("wal_autocheckpoint", _CHECKPOINT_PAGES)
        connection.pragma("cache_size", -_CACHE_KIB)
        connection.pragma("temp_store", "MEMORY")
        connection.pragma("trusted_schema", 0)
        # What is erased must not live on in the file's free pages.
        connection.pragma("secure_delete", 1)
        # Plans follow from the text alone. Otherwise SQLite prepares a statement anew whenever a
        # parameter changes that its planner had looked at: the keys' once for each row (11 us).
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    except apsw.Error as error:
        raise StorageUnavailable(f"Cannot open {config.path}: {error}") from error
    return connection


def _migrate(config: SqliteConfig) -> int:
    """Bring the file to the newest schema under SQLite's own write lock; the version it is at."""
    try:
        config.path.parent.mkdir(parents=True, exist_ok=True)
        # Payloads are nobody else's business; SQLite gives its side files the same mode.
        os.close(os.open(config.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StorageUnavailable(f"Cannot open {config.path}: {error.strerror}") from error
    steps = migrate.migrations("sqlite")
    connection = _connect(config)
    # Another process may be about the same steps, on a disk that others use too.
    patience_s = max(config.busy_s, _MIGRATION_LOCK_S)
    try:
        connection.set_busy_timeout(round(patience_s * 1000))
        _switch_to_wal(connection, patience_s)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(migrate.TABLE)
        for step in migrate.pending(steps, _in_transaction(migrate.applied, connection)):
            connection.execute(step.sql)
            _in_transaction(partial(migrate.record, step=step), connection)
        connection.execute("COMMIT")
    except apsw.Error as error:
        raise StorageUnavailable(f"Cannot migrate {config.path}: {error}") from error
    finally:
        connection.close(True)
    return len(steps)


def _switch_to_wal(connection: _Connection, busy_s: float) -> None:
    """Write-ahead logging; SQLite does not wait by itself when several processes start at once."""
    deadline = time.monotonic() + busy_s
    while True:
        try:
            if connection.pragma("journal_mode", "WAL") == "wal":
                return
            raise StorageUnavailable("This filesystem cannot carry SQLite's write-ahead log.")
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _translated(error: apsw.Error) -> StorageError:
    match error:
        case apsw.ConstraintError():
            return IntegrityViolated(f"A constraint refused the row: {error}")
        case apsw.BusyError() | apsw.LockedError():
            return StorageBusy("Another process holds the database.")
        case apsw.SQLError() | apsw.BindingsError() | apsw.MismatchError() | apsw.RangeError():
            return StorageError(f"The statement is wrong: {error}")
        case _:
            # Disk full, input/output error, corruption, no memory: nothing here is certain.
            return StorageUnavailable(f"The database failed: {error}")
