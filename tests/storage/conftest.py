"""The suite's database: the same tests run on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.postgres import Postgres, cluster

from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One running cluster for all tests of a process."""
    with cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteConfig | PostgresConfig:
    """Where an empty database of each engine is."""
    if request.param == "sqlite":
        return SqliteConfig(path=tmp_path / "signet.db")
    running: Postgres = request.getfixturevalue("postgres")
    return PostgresConfig(url=running.url(running.empty_database()))


@pytest.fixture
async def db(config: SqliteConfig | PostgresConfig) -> AsyncIterator[Database]:
    """An empty database of each engine."""
    async with open_database(config) as opened:
        yield opened
