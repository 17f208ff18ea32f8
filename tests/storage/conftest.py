"""The suite's database: the same tests run on every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database


@pytest.fixture(params=["sqlite"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> SqliteConfig | PostgresConfig:
    """Where an empty database of each engine is."""
    return SqliteConfig(path=tmp_path / "signet.db")


@pytest.fixture
async def db(config: SqliteConfig | PostgresConfig) -> AsyncIterator[Database]:
    """An empty database of each engine."""
    async with open_database(config) as opened:
        yield opened
