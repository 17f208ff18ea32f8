"""Migrations: in order, once, never edited, never backwards, however many start at once."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from signet.storage import migrate
from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.errors import MigrationEdited, SchemaNewer
from signet.storage.migrate import Applied, Migration
from signet.storage.tx import Engine, Tx

ONE = Migration(version=1, name="one", sql="CREATE TABLE one (id INTEGER)")
TWO = Migration(version=2, name="two", sql="CREATE TABLE two (id INTEGER)")


def taken(*steps: Migration) -> list[Applied]:
    """What a database that ran `steps` remembers."""
    return [Applied(step.version, step.name, step.checksum) for step in steps]


def test_both_engines_take_the_same_steps() -> None:
    """Every numbered step exists for each engine, under one name."""
    engines: Sequence[Engine] = ("sqlite", "postgres")
    sqlite, postgres = (
        [(step.version, step.name) for step in migrate.migrations(engine)] for engine in engines
    )
    assert sqlite == postgres
    assert sqlite[0] == (1, "log")


def test_only_what_is_missing() -> None:
    """A database takes the steps it has not taken, in order."""
    assert migrate.pending([ONE, TWO], []) == [ONE, TWO]
    assert migrate.pending([ONE, TWO], taken(ONE)) == [TWO]
    assert migrate.pending([ONE, TWO], taken(ONE, TWO)) == []


def test_newer_database_is_left_alone() -> None:
    """An older release does not touch a database that a newer one migrated."""
    with pytest.raises(SchemaNewer, match="schema 2"):
        migrate.pending([ONE], taken(ONE, TWO))


@pytest.mark.parametrize(
    "edited", [replace(ONE, sql="CREATE TABLE one (id TEXT)"), replace(ONE, name="eins")]
)
def test_edited_step_is_found(edited: Migration) -> None:
    """A step whose file changed after it ran stops the start."""
    with pytest.raises(MigrationEdited, match="0001"):
        migrate.pending([edited, TWO], taken(ONE))


@pytest.mark.anyio
async def test_edited_step_stops_the_start(config: SqliteConfig | PostgresConfig) -> None:
    """The same, through the front door, and the database can still be opened by the right one."""

    async def tamper(tx: Tx) -> None:
        await tx.execute(
            "UPDATE schema_migrations SET checksum = :sum WHERE version = 1", sum="0" * 64
        )

    async def mend(tx: Tx) -> None:
        await tx.execute(
            "UPDATE schema_migrations SET checksum = :sum WHERE version = 1", sum=first.checksum
        )

    async with open_database(config) as db:
        first = (await db.read_current(migrate.applied))[0]
        await db.transact(tamper)
        with pytest.raises(MigrationEdited):
            async with open_database(config):
                pass
        await db.transact(mend)
        async with open_database(config) as again:
            assert again.schema_version == db.schema_version


@pytest.mark.anyio
async def test_newer_schema_stops_the_start(config: SqliteConfig | PostgresConfig) -> None:
    """A database that knows more steps than this release is not opened."""

    async def from_the_future(tx: Tx) -> None:
        await migrate.record(tx, Migration(version=9999, name="future", sql=""))

    async with open_database(config) as db:
        await db.transact(from_the_future)
    with pytest.raises(SchemaNewer):
        async with open_database(config):
            pass


@pytest.mark.anyio
async def test_recorded_with_checksum(db: Database) -> None:
    """The database remembers each step with the text's checksum."""
    steps = migrate.migrations(db.kind)
    assert await db.read_current(migrate.applied) == taken(*steps)
    assert db.schema_version == len(steps)


_CHILD = """
import asyncio, sys
from pathlib import Path
from signet.storage.database import PostgresConfig, SqliteConfig, open_database

async def main():
    kind, where = sys.argv[1:]
    config = SqliteConfig(path=Path(where)) if kind == "sqlite" else PostgresConfig(url=where)
    async with open_database(config) as db:
        await db.ping()
        print(db.schema_version)

asyncio.run(main())
"""


@pytest.mark.anyio
async def test_eight_processes_start_at_once(config: SqliteConfig | PostgresConfig) -> None:
    """Eight processes that meet an empty database all come up at the same schema."""
    kind, where = (
        ("sqlite", str(config.path))
        if isinstance(config, SqliteConfig)
        else ("postgres", config.url)
    )
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _CHILD, kind, where, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(8)
    ]
    answers = await asyncio.gather(*(child.communicate() for child in children))
    version = str(len(migrate.migrations("sqlite"))).encode()
    assert [out.strip() for out, _ in answers] == [version] * 8
