"""PostgreSQL by asyncpg: a pool, every transaction bounded and repeated where that is safe.

Nothing outlives a transaction on its connection (settings are SET LOCAL, locks are transaction
locks), so that it works through a pooler in transaction mode. A commit counts as durable only if
the server said so without a warning: a cancelled wait for the synchronous standby comes back as
success with SQLSTATE 01000.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
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

import asyncpg

from signet.storage import migrate
from signet.storage.arrays import with_literals
from signet.storage.config import PostgresConfig
from signet.storage.errors import (
    ForeignAwait,
    IntegrityViolated,
    Raced,
    StorageBusy,
    StorageError,
    StorageUnavailable,
)
from signet.storage.together import arrays_of, counts_of
from signet.storage.tx import Ask, Engine, PerRow, ReadTx, Tx, Value

P = ParamSpec("P")
T = TypeVar("T")
Rows = Sequence[tuple[Value, ...]]

# Losing a race takes another process that won it, so many losses in a row mean something else.
_ATTEMPTS: Final = 10
_MIGRATION_LOCK: Final = int.from_bytes(b"signet")
_MIGRATION_LOCK_S: Final = 60.0
_IDLE_S: Final = 60.0

# Everything is looked up by an index, as SQLite does, whatever the planner thinks of a small table.
# It keeps a prepared statement's plan until a table is analyzed again, so a scan that was right for
# a hundred rows would still be carried out, for each batch, over the first hundred thousand. And as
# there is only this one way, it need not plan a statement anew for the arguments of each batch.
_BY_INDEX: Final = "SET LOCAL plan_cache_mode = force_generic_plan;" + "".join(
    f"SET LOCAL {name} = off;"
    for name in ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "enable_material", "jit")
)


class _Message(Protocol):
    @property
    def sqlstate(self) -> str: ...


class _Connection(Protocol):
    """What is used of `asyncpg.Connection`, which carries no types."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def fetch(self, query: str, *args: object) -> Sequence[Sequence[Value]]: ...
    def is_closed(self) -> bool: ...
    def terminate(self) -> None: ...
    def add_log_listener(self, callback: Callable[[object, _Message], None]) -> None: ...
    def remove_log_listener(self, callback: Callable[[object, _Message], None]) -> None: ...


class _Pool(Protocol):
    def acquire(self, *, timeout: float) -> Awaitable[_Connection]: ...
    def release(self, connection: _Connection, *, timeout: float) -> Awaitable[None]: ...
    async def expire_connections(self) -> None: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


class _Driver(Protocol):
    def connect(self, dsn: str, **options: object) -> Awaitable[_Connection]: ...
    def create_pool(self, dsn: str, **options: object) -> Awaitable[_Pool]: ...


_driver: Final = cast(_Driver, asyncpg)


class _Again(StorageError):
    """The server undid the transaction and asks for another try."""


class _Stale(StorageError):
    """The connection was lost, perhaps long ago while it was idle."""


class PostgresTx:
    """Runs statements on a connection that is in a transaction."""

    engine: Engine = "postgres"

    def __init__(self, connection: _Connection) -> None:
        self._connection: _Connection | None = connection
        self.failure: StorageError | None = None
        self.waits = False

    def end(self) -> None:
        """Refuse every later use: the connection will be in somebody else's transaction."""
        self._connection = None

    async def _call(self, doing: Callable[[_Connection], Awaitable[T]]) -> T:
        if self._connection is None:
            raise ForeignAwait("The transaction has ended; nothing may use it any more.")
        if self.failure is not None:
            raise self.failure
        self.waits = True
        try:
            return await doing(self._connection)
        except _DRIVER_ERRORS as error:
            self.failure = _translated(error)
            raise self.failure from error
        finally:
            self.waits = False

    async def _rows(self, sql: str, arguments: Sequence[object]) -> Sequence[Sequence[Value]]:
        return await self._call(lambda connection: connection.fetch(sql, *arguments))

    async def _touched(self, sql: str, arguments: Sequence[object]) -> int:
        status = await self._call(lambda connection: connection.execute(sql, *arguments))
        count = status.rpartition(" ")[2]  # "INSERT 0 5", "UPDATE 5", "CREATE TABLE"
        return int(count) if count.isdigit() else 0

    async def one(self, make: Callable[..., T], sql: LiteralString, /, **params: Value) -> T | None:
        """The first row, or None."""
        rows = await self._rows(*_positional(sql, params))
        return make(*rows[0]) if rows else None

    async def all(self, make: Callable[..., T], sql: LiteralString, /, **params: Value) -> list[T]:
        """Every row."""
        return [make(*row) for row in await self._rows(*_positional(sql, params))]

    async def each(
        self, make: Callable[..., T], statement: PerRow, rows: Sequence[tuple[Value, ...]], /
    ) -> list[T]:
        """All rows found for all of `rows`."""
        if not rows:
            return []
        return [make(*row) for row in await self._rows(*_arrays(statement.postgres, rows))]

    async def ask(self, *asked: Ask[Any]) -> None:
        """Answer all in one statement, which has an array of rows for each."""
        asked = tuple(one for one in asked if one.rows)
        if not asked:
            return
        sql = arrays_of(tuple(one.statement.postgres for one in asked))
        [answers] = await self._rows(*_arrays(sql, *(one.rows for one in asked)))
        _tell(asked, answers)

    async def now_us(self) -> int:
        """The server's clock."""
        now = await self.one(
            int, "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
        )
        assert now is not None
        return now

    async def execute(self, sql: LiteralString, /, **params: Value) -> int:
        """Run one statement; how many rows it touched."""
        return await self._touched(*_positional(sql, params))

    async def execute_each(self, statement: PerRow, rows: Sequence[tuple[Value, ...]], /) -> int:
        """Run one statement for every row; how many rows it touched in all."""
        if not rows:
            return 0
        return await self._touched(*_arrays(statement.postgres, rows))

    async def execute_all(
        self, steps: Sequence[tuple[PerRow, Rows]], /, *asked: Ask[Any], guards: int = 0
    ) -> list[int]:
        """Run all steps as one statement, then answer what is asked; how many rows each touched."""
        wanted = [(statement, rows) for statement, rows in steps if rows]
        guarding = [len(rows) for _, rows in steps[:guards] if rows]
        asked = tuple(one for one in asked if one.rows)
        if not wanted:
            await self.ask(*asked)
            return [0] * len(steps)
        sql = counts_of(
            tuple(statement.postgres for statement, _ in wanted),
            tuple(one.statement.postgres for one in asked),
            len(guarding),
        )
        text, arrays = _arrays(sql, *(rows for _, rows in wanted), *(one.rows for one in asked))
        [told] = await self._rows(text, (*arrays, *guarding))
        _tell(asked, told[len(wanted) :])
        counts = iter(cast("Sequence[int]", told[: len(wanted)]))
        return [next(counts) if rows else 0 for _, rows in steps]


def _arrays(sql: str, *tables: Rows) -> tuple[str, list[object]]:
    """A statement that takes arrays first, and the tables' columns in the form that it takes."""
    text, forms = with_literals(sql)
    columns = [column for rows in tables for column in zip(*rows, strict=True)]
    return text, [form(column) for form, column in zip(forms, columns, strict=False)]


def _tell(asked: Sequence[Ask[Any]], answers: Sequence[object]) -> None:
    """Give each question the array of rows that is its answer."""
    for one, rows in zip(asked, cast("Sequence[Rows]", answers), strict=True):
        one.found = [one.make(*row) for row in rows]


class _Only(Generic[T]):
    """Awaits a transaction function and sees to it that it awaits nothing but its transaction."""

    def __init__(self, coroutine: Coroutine[object, None, T], tx: PostgresTx) -> None:
        self._coroutine = coroutine
        self._tx = tx

    def __await__(self) -> Generator[object, None, T]:
        coroutine = self._coroutine
        try:
            resume: Callable[[], object] = _first_step(coroutine)
            while True:
                waits_for = resume()
                if not self._tx.waits:
                    raise ForeignAwait(
                        "A transaction function awaited something that is not its transaction. "
                        "No network call, sleep or lock belongs inside: it would keep rows locked."
                    )
                try:
                    yield waits_for
                except BaseException as error:
                    resume = _throwing(coroutine, error)
                else:
                    resume = _first_step(coroutine)
        except StopIteration as done:
            return cast(T, done.value)
        finally:
            coroutine.close()


def _first_step(coroutine: Coroutine[object, None, object]) -> Callable[[], object]:
    return lambda: coroutine.send(None)


def _throwing(
    coroutine: Coroutine[object, None, object], error: BaseException
) -> Callable[[], object]:
    return lambda: coroutine.throw(error)


class PostgresDatabase:
    """A PostgreSQL database at the newest schema."""

    kind: Engine = "postgres"

    def __init__(
        self, config: PostgresConfig, schema_version: int, pool: _Pool, replica: _Pool | None
    ) -> None:
        self.schema_version = schema_version
        self._config = config
        self._pool = pool
        self._replica = replica
        limits = (
            f"SET LOCAL lock_timeout = {round(config.lock_s * 1000)};"
            f"SET LOCAL statement_timeout = {round(config.statement_s * 1000)};"
            # Between two statements we only compute; who is silent for longer has died.
            f"SET LOCAL idle_in_transaction_session_timeout = {round(_IDLE_S * 1000)}"
        )
        self._begin = f"BEGIN ISOLATION LEVEL READ COMMITTED;{_BY_INDEX}{limits}"
        self._begin_reading = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;{_BY_INDEX}{limits}"

    async def transact(
        self,
        f: Callable[Concatenate[Tx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a transaction function, again if the server asks for it; see `Database`."""
        return await self._repeat(
            self._pool, self._begin, _committed, lambda tx: f(tx, *args, **kwargs)
        )

    async def read(
        self,
        f: Callable[Concatenate[ReadTx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Read from the replica if there is one and it answers; see `Database`."""
        if self._replica is not None:
            try:
                return await self._repeat(
                    self._replica, self._begin_reading, _ended, lambda tx: f(tx, *args, **kwargs)
                )
            except (StorageUnavailable, StorageBusy):
                pass  # The primary has everything the replica has.
        return await self.read_current(f, *args, **kwargs)

    async def read_current(
        self,
        f: Callable[Concatenate[ReadTx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Read from the primary; see `Database`."""
        return await self._repeat(
            self._pool, self._begin_reading, _ended, lambda tx: f(tx, *args, **kwargs)
        )

    async def transient(
        self,
        f: Callable[Concatenate[Tx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run statements that each commit by themselves: one round trip each; see `Database`."""
        for _ in range(self._config.pool_size):
            try:
                return await self._by_themselves(lambda tx: f(tx, *args, **kwargs))
            except _Stale:
                continue
        raise StorageUnavailable("The server closes every connection.")

    async def _by_themselves(self, f: Callable[[Tx], Coroutine[object, None, T]]) -> T:
        try:
            connection = await self._pool.acquire(timeout=self._config.queue_s)
        except TimeoutError as error:
            raise StorageBusy("No connection became free; nothing was written.") from error
        except _DRIVER_ERRORS as error:
            raise StorageUnavailable(f"Cannot connect: {error}") from error
        tx = PostgresTx(connection)
        try:
            return await _Only(f(tx), tx)
        except StorageUnavailable as error:
            if isinstance(error.__cause__, _LOST) and not isinstance(error.__cause__, TimeoutError):
                raise _Stale(error.detail) from error
            raise
        finally:
            tx.end()
            # No transaction was begun, so none is left open; the pool drops what is closed.
            await self._pool.release(connection, timeout=self._config.connect_s)

    async def ping(self) -> None:
        """Commit a write of one row; see `Database`."""
        await self.transact(_probe)

    async def _repeat(
        self,
        pool: _Pool,
        begin: str,
        finish: Callable[[_Connection], Awaitable[None]],
        f: Callable[[Tx], Coroutine[object, None, T]],
    ) -> T:
        for attempt in range(_ATTEMPTS):
            if attempt:
                # Two that collided must not meet again in step.
                await asyncio.sleep(secrets.randbelow(1000 << min(attempt, 6)) / 1_000_000)
            try:
                return await self._attempt(pool, begin, finish, f)
            except (_Again, Raced):
                continue
        raise StorageBusy("Other writers were first each time; nothing was written.")

    async def _attempt(
        self,
        pool: _Pool,
        begin: str,
        finish: Callable[[_Connection], Awaitable[None]],
        f: Callable[[Tx], Coroutine[object, None, T]],
    ) -> T:
        connection = await self._in_transaction(pool, begin)
        tx = PostgresTx(connection)
        idle = False
        try:
            value = await _Only(f(tx), tx)
            if tx.failure is not None:  # it was caught, but the server has given up
                raise tx.failure
            await finish(connection)
            idle = True
            return value
        except StorageUnavailable as error:
            if isinstance(error.__cause__, asyncpg.ReadOnlySQLTransactionError):
                # The primary became a standby: connect anew, to whoever accepts writes now.
                await pool.expire_connections()
            raise
        finally:
            tx.end()
            await self._give_back(pool, connection, idle=idle)

    async def _in_transaction(self, pool: _Pool, begin: str) -> _Connection:
        """A connection on which a transaction has begun.

        A connection that died while it was idle is noticed here, before anything was asked of it,
        so another one is taken: after a restart of the server each dead one costs one round.
        """
        for _ in range(self._config.pool_size + 1):
            try:
                connection = await pool.acquire(timeout=self._config.queue_s)
            except TimeoutError as error:
                raise StorageBusy("No connection became free; nothing was written.") from error
            except _DRIVER_ERRORS as error:
                raise StorageUnavailable(f"Cannot connect: {error}") from error
            try:
                await connection.execute(begin)
            except BaseException as error:
                await self._give_back(pool, connection, idle=False)
                if isinstance(error, _LOST) and not isinstance(error, TimeoutError):
                    continue
                if isinstance(error, _DRIVER_ERRORS):
                    raise _translated(error) from error
                raise
            return connection
        raise StorageUnavailable("The server closes every connection; nothing was written.")

    async def _give_back(self, pool: _Pool, connection: _Connection, *, idle: bool) -> None:
        """Return a connection with no transaction open on it; close it if that cannot be had."""
        try:
            if not idle:
                await connection.execute("ROLLBACK")
        except BaseException as error:
            with suppress(asyncpg.InterfaceError):  # the pool may have dropped it already
                connection.terminate()
            if not isinstance(error, _DRIVER_ERRORS):
                raise
        finally:
            await pool.release(connection, timeout=self._config.connect_s)


@asynccontextmanager
async def open_postgres(config: PostgresConfig) -> AsyncGenerator[PostgresDatabase, None]:
    """Migrate the database and keep a pool of connections to it until the block ends."""
    version = await _migrate(config)
    pool = await _open_pool(config, config.url, "read-write")
    replica = None
    if config.replica_url is not None:
        replica = await _open_pool(config, config.replica_url, "prefer-standby")
    try:
        yield PostgresDatabase(config, version, pool, replica)
    finally:
        await _close_pool(pool, config.connect_s)
        if replica is not None:
            await _close_pool(replica, config.connect_s)


async def _open_pool(config: PostgresConfig, url: str, attributes: str) -> _Pool:
    """A pool that connects when it must, to the first host of `url` that is as it should be."""
    try:
        return await _driver.create_pool(
            url,
            min_size=0,
            max_size=config.pool_size,
            reset=_leave,
            timeout=config.connect_s,
            command_timeout=config.statement_s + config.connect_s,
            statement_cache_size=config.statement_cache_size,
            target_session_attrs=attributes,
        )
    except (*_DRIVER_ERRORS, ValueError) as error:
        raise StorageUnavailable(f"Cannot use the PostgreSQL URL: {error}") from error


async def _leave(connection: object) -> None:
    """Between two users of a connection there is nothing to reset, hence no round trip."""


async def _close_pool(pool: _Pool, patience_s: float) -> None:
    try:
        async with asyncio.timeout(patience_s):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def _migrate(config: PostgresConfig) -> int:
    """Bring the database to the newest schema under an advisory lock; the version it is at."""
    steps = migrate.migrations("postgres")
    connection = await _connect(config)
    try:
        await connection.execute(
            f"BEGIN; SET LOCAL lock_timeout = {round(_MIGRATION_LOCK_S * 1000)};"
            f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK}); {migrate.TABLE}"
        )
        tx = PostgresTx(connection)
        for step in migrate.pending(steps, await migrate.applied(tx)):
            await connection.execute(step.sql)
            await migrate.record(tx, step)
        await _committed(connection)
    except _DRIVER_ERRORS as error:
        raise StorageUnavailable(f"Cannot migrate the database: {error}") from error
    finally:
        # Whatever is not committed is undone by the server when the connection goes.
        connection.terminate()
    return len(steps)


async def _connect(config: PostgresConfig) -> _Connection:
    try:
        return await _driver.connect(
            config.url,
            timeout=config.connect_s,
            command_timeout=_MIGRATION_LOCK_S + config.connect_s,
            statement_cache_size=config.statement_cache_size,
            target_session_attrs="read-write",
        )
    except (*_DRIVER_ERRORS, ValueError) as error:
        raise StorageUnavailable(f"Cannot connect to PostgreSQL: {error}") from error


async def _probe(tx: Tx) -> None:
    await tx.execute("UPDATE probe SET at_us = :now WHERE id = 1", now=await tx.now_us())


async def _committed(connection: _Connection) -> None:
    """COMMIT, and raise unless the server confirmed without reservation that it is durable."""
    reservations: list[str] = []

    def listen(_: object, message: _Message) -> None:
        reservations.append(message.sqlstate)

    try:
        connection.add_log_listener(listen)
        status = await connection.execute("COMMIT")
    except _DRIVER_ERRORS as error:
        translated = _translated(error)
        if isinstance(translated, (_Again, IntegrityViolated)):
            raise translated from error
        raise StorageUnavailable(f"The commit was not confirmed: {error}") from error
    finally:
        with suppress(asyncpg.InterfaceError):  # the connection was lost, and its listeners too
            connection.remove_log_listener(listen)
    if "01000" in reservations:
        raise StorageUnavailable("The commit did not reach the synchronous standby.")
    if status != "COMMIT":  # ROLLBACK: the transaction had failed before
        raise StorageUnavailable(f"The server answered {status} to COMMIT.")


async def _ended(connection: _Connection) -> None:
    """COMMIT of a transaction that only read."""
    try:
        await connection.execute("COMMIT")
    except _DRIVER_ERRORS as error:
        raise _translated(error) from error


_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")


@lru_cache(maxsize=512)
def _numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """`:name` becomes `$n`, the same number for the same name; the names in that order."""
    names: dict[str, int] = {}
    text = _PARAMETER.sub(lambda found: f"${names.setdefault(found[1], len(names) + 1)}", sql)
    return text, tuple(names)


def _positional(sql: str, params: dict[str, Value]) -> tuple[str, Sequence[Value]]:
    text, names = _numbered(sql)
    return text, [params[name] for name in names]


_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's farewell lay unread on an idle connection
    OSError,
)


def _translated(error: BaseException) -> StorageError:
    """What a driver's error means here, by SQLSTATE where the server spoke."""
    match error:
        case asyncpg.SerializationError() | asyncpg.DeadlockDetectedError():
            return _Again("The server undid the transaction.")
        case asyncpg.IntegrityConstraintViolationError():
            return IntegrityViolated(f"A constraint refused the row: {error}")
        case asyncpg.DivisionByZeroError():  # nothing divides but `counts_of`
            return Raced("Another process was first.")
        case asyncpg.LockNotAvailableError() | asyncpg.QueryCanceledError():
            return StorageBusy("The server was too slow, or a row locked too long.")
        case asyncpg.DuplicatePreparedStatementError() | asyncpg.InvalidSQLStatementNameError():
            return StorageError(
                "A prepared statement was lost between two transactions: behind a pooler in "
                "transaction mode the statement cache must be switched off."
            )
        case asyncpg.ReadOnlySQLTransactionError():
            return StorageUnavailable("The server accepts no writes.")
        case asyncpg.SyntaxOrAccessError() | asyncpg.DataError():
            return StorageError(f"The statement is wrong: {error}")
        case _:
            # Connection lost, no space, shutting down, no answer in time: nothing is certain.
            return StorageUnavailable(f"The database failed: {error or type(error).__name__}")
