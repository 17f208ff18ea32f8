"""A URL becomes an opened, migrated database. Nothing above this knows which engine it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from signet.storage.tx import Engine, ReadTx, Tx

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteConfig:
    """Where the file is and how patient its writer may be."""

    path: Path
    busy_s: float = 5.0
    queue_limit: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresConfig:
    """How to reach PostgreSQL.

    `url` may name several hosts; the one that accepts writes is used, also after a failover.
    `replica_url` serves `Database.read` only. `statement_cache_size` must be 0 behind a pooler in
    transaction mode.
    """

    url: str
    replica_url: str | None = None
    pool_size: int = 10
    connect_s: float = 5.0
    statement_s: float = 10.0
    lock_s: float = 5.0
    statement_cache_size: int = 100


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

    async def ping(self) -> None:
        """Prove that the database accepts a write now, or raise a `StorageError`."""
        ...


@asynccontextmanager
async def open_database(config: SqliteConfig | PostgresConfig) -> AsyncGenerator[Database, None]:
    """Open the database, migrate it under a lock, and close it at the end of the block.

    What waits when the block ends is still committed. Raises `StorageUnavailable`, `SchemaNewer`
    or `MigrationEdited`.
    """
    raise NotImplementedError
    yield
