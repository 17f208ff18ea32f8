"""The database of the settings: opened where it is, never made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from signet.cli.database import existing_database
from signet.cli.exits import CommandFailed, Exit
from signet.settings import read_settings
from signet.storage.database import SqliteConfig, open_database

pytestmark = pytest.mark.anyio


async def test_none_is_made(tmp_path: Path) -> None:
    """Where there is no database it says so, with 69, and leaves none."""
    settings = read_settings({"SP_DATA_DIR": str(tmp_path)}).settings
    with pytest.raises(CommandFailed, match="there is no database") as failed:
        async with existing_database(settings):
            pass
    assert failed.value.exit is Exit.UNAVAILABLE
    assert os.listdir(tmp_path) == []


async def test_none_is_migrated(tmp_path: Path) -> None:
    """A database without its schema is told how to be brought up to date, and left alone."""
    (tmp_path / "signet.db").touch()
    settings = read_settings({"SP_DATA_DIR": str(tmp_path)}).settings
    with pytest.raises(CommandFailed, match="signet migrate --apply"):
        async with existing_database(settings):
            pass
    assert (tmp_path / "signet.db").stat().st_size == 0


async def test_opened(tmp_path: Path) -> None:
    """An existing one is opened beside whoever else has it open."""
    config = SqliteConfig(path=tmp_path / "signet.db")
    settings = read_settings({"SP_DATA_DIR": str(tmp_path)}).settings
    async with open_database(config), existing_database(settings) as database:
        await database.ping()
