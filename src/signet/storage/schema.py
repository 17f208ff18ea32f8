"""Which migrations a database has taken, asked without changing anything."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from signet.storage import migrate
from signet.storage.config import PostgresConfig, SqliteConfig
from signet.storage.errors import StorageUnavailable
from signet.storage.migrate import Applied, Migration

_BUSY_MS: Final = 5_000
_TAKEN: Final = "SELECT version, name, checksum FROM schema_migrations ORDER BY version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """Where a database is, and the steps that it still needs."""

    version: int
    pending: Sequence[Migration]


class _SqliteConnection(Protocol):
    """What is used of `apsw.Connection`, whose stubs leave the values' type unknown on 3.11."""

    def execute(self, statements: str) -> Iterator[Sequence[object]]: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def close(self) -> None: ...


class _PostgresConnection(Protocol):
    async def execute(self, query: str) -> object: ...
    async def fetchval(self, query: str) -> object: ...
    async def fetch(self, query: str) -> Sequence[Sequence[object]]: ...
    async def close(self) -> None: ...


async def read_schema(config: SqliteConfig | PostgresConfig) -> Schema:
    """Ask a database where it is.

    One that does not exist yet, as a SQLite file, needs every step. Raises `StorageUnavailable`,
    `SchemaNewer` or `MigrationEdited`.
    """
    match config:
        case SqliteConfig():
            taken, steps = _sqlite(config.path), migrate.migrations("sqlite")
        case PostgresConfig():
            taken, steps = await _postgres(config), migrate.migrations("postgres")
    return Schema(version=len(taken), pending=migrate.pending(steps, taken))


def _sqlite(path: Path) -> list[Applied]:
    import apsw

    if not path.exists() or not path.stat().st_size:
        return []
    try:
        opened = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        with closing(cast(_SqliteConnection, opened)) as connection:
            connection.set_busy_timeout(_BUSY_MS)
            known = list(
                connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'schema_migrations'")
            )
            return [_applied(row) for row in connection.execute(_TAKEN)] if known else []
    except apsw.Error as error:
        raise StorageUnavailable(f"Cannot read {path}: {error}") from error


async def _postgres(config: PostgresConfig) -> list[Applied]:
    # Only here: a deployment on SQLite needs no PostgreSQL driver.
    import asyncpg

    connect = cast("Callable[..., Awaitable[_PostgresConnection]]", asyncpg.connect)
    try:
        connection = await connect(
            config.url,
            timeout=config.connect_s,
            command_timeout=config.statement_s,
            statement_cache_size=config.statement_cache_size,
        )
        try:
            # Behind a pooler only a transaction is carried out by one server connection.
            await connection.execute("BEGIN READ ONLY")
            known = await connection.fetchval("SELECT to_regclass('schema_migrations') IS NOT NULL")
            return [_applied(row) for row in await connection.fetch(_TAKEN)] if known else []
        finally:
            await connection.close()
    except (
        asyncpg.PostgresError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        OSError,
        TimeoutError,
        ValueError,
    ) as error:
        said = str(error) or "no answer in time"
        raise StorageUnavailable(f"Cannot read the schema: {said}") from error


def _applied(row: Sequence[object]) -> Applied:
    version, name, checksum = row
    return Applied(cast(int, version), cast(str, name), cast(str, checksum))
