"""Asking where a database is, without touching it."""

from __future__ import annotations

from pathlib import Path

import pytest

from signet.storage import migrate
from signet.storage.database import PostgresConfig, SqliteConfig, open_database
from signet.storage.errors import MigrationEdited, StorageUnavailable
from signet.storage.schema import read_schema
from signet.storage.tx import Tx

pytestmark = pytest.mark.anyio


async def test_before_and_after(config: SqliteConfig | PostgresConfig) -> None:
    """An empty database lacks everything, and still does after asking; a migrated one nothing."""
    every = len(migrate.migrations("sqlite" if isinstance(config, SqliteConfig) else "postgres"))
    for _ in range(2):
        schema = await read_schema(config)
        assert schema.version == 0
        assert [step.version for step in schema.pending] == list(range(1, every + 1))
    if isinstance(config, SqliteConfig):
        assert not config.path.exists()
    async with open_database(config) as db:
        schema = await read_schema(config)
        assert schema.version == db.schema_version == every
        assert schema.pending == []


async def test_edited(config: SqliteConfig | PostgresConfig) -> None:
    """A migration that reads differently than when it ran is told as an error."""

    async def edit(tx: Tx) -> None:
        await tx.execute("UPDATE schema_migrations SET checksum = 'x' WHERE version = 1")

    async with open_database(config) as db:
        await db.transact(edit)
    with pytest.raises(MigrationEdited):
        await read_schema(config)


async def test_unreachable(tmp_path: Path) -> None:
    """What cannot be read is unavailable, whatever the driver says about it."""
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(StorageUnavailable):
        await read_schema(SqliteConfig(path=junk))
    for url in ("postgresql://signet@127.0.0.1:1/none", "no url"):
        with pytest.raises(StorageUnavailable):
            await read_schema(PostgresConfig(url=url))
