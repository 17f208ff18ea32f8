"""A URL becomes an opened, migrated database. Nothing above this knows which engine it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from signet.storage.config import PostgresConfig, SqliteConfig
from signet.storage.sqlite import open_sqlite
from signet.storage.tx import Engine, ReadTx, Tx

__all__ = ["Database", "PostgresConfig", "SqliteConfig", "open_database"]

P = ParamSpec("P")
T = TypeVar("T")


class Database(Protocol):
    """An open database at the newest schema."""

    @property
    def kind(self) -> Engine:
        """Which engine it is, for `/healthz` and metrics."""
        ...

    @property
    def schema_version(self) -> int:
        """The number of the newest migration that has been applied."""
        ...

    async def transact(
        self,
        f: Callable[Concatenate[Tx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a transaction function; return what it returned once that is durable.

        Raises `StorageUnavailable` when durability is not confirmed, `StorageBusy` when nothing was
        written because the queue was full or the lock was held too long, and whatever `f` raised
        after rolling it back.
        """
        ...

    async def read(
        self,
        f: Callable[Concatenate[ReadTx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run reads in one snapshot, which may be a replica's: never let it decide a write."""
        ...

    async def read_current(
        self,
        f: Callable[Concatenate[ReadTx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run reads in one snapshot that holds everything acknowledged before the call."""
        ...

    async def transient(
        self,
        f: Callable[Concatenate[Tx, P], Coroutine[object, None, T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a transaction function on what may be forgotten (`rate_limits`), waiting for no disk.

        Each statement takes effect by itself, at once, for every process; a crash of the host may
        undo it. Raises `StorageBusy` and `StorageUnavailable`.
        """
        ...

    async def ping(self) -> None:
        """Prove that the database accepts a write now, or raise a `StorageError`."""
        ...


@asynccontextmanager
async def open_database(config: SqliteConfig | PostgresConfig) -> AsyncGenerator[Database, None]:
    """Open the database, migrate it under a lock, and close it at the end of the block.

    What waits when the block ends is still committed. Raises `StorageUnavailable`, `SchemaNewer`
    or `MigrationEdited`.
    """
    match config:
        case SqliteConfig():
            async with open_sqlite(config) as db:
                yield db
        case PostgresConfig():
            # Only here: a deployment on SQLite needs no PostgreSQL driver.
            from signet.storage.postgres import open_postgres

            async with open_postgres(config) as db:
                yield db
