"""The database of the settings, for commands that work on one and neither make nor migrate it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from signet.app import storage_config
from signet.cli.exits import CommandFailed, Exit
from signet.settings import Settings
from signet.storage.database import Database, SqliteConfig, open_database
from signet.storage.schema import read_schema


@asynccontextmanager
async def existing_database(settings: Settings) -> AsyncGenerator[Database]:
    """Open the database, beside gateways that may be running.

    Raises `CommandFailed` where there is none or its schema is older than this program.
    """
    config = storage_config(settings)
    if isinstance(config, SqliteConfig) and not config.path.exists():
        detail = f"there is no database {config.path}; signet migrate --apply makes it"
        raise CommandFailed(detail, Exit.UNAVAILABLE)
    schema = await read_schema(config)
    if schema.pending:
        detail = f"the database is at schema {schema.version}; run signet migrate --apply first"
        raise CommandFailed(detail, Exit.UNAVAILABLE)
    async with open_database(config) as database:
        yield database
