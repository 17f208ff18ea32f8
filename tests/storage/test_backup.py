"""A backup is a whole database of one moment, private, and never half a file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.storage.ledger import commit, count, pending, receipts_of

from signet.storage.backup import back_up
from signet.storage.database import SqliteConfig, open_database
from signet.storage.errors import StorageUnavailable

pytestmark = pytest.mark.anyio


async def test_while_writing(tmp_path: Path) -> None:
    """A backup beside a writer holds a moment of it: every chain whole, nothing from later."""
    config = SqliteConfig(path=tmp_path / "signet.db")
    target = tmp_path / "backup.db"
    async with open_database(config) as db:
        await commit(db, *(pending(f"a{i}") for i in range(50)))

        async def write() -> None:
            for number in range(50):
                await commit(db, pending(f"b{number}"))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            size = await asyncio.to_thread(back_up, config, target)
    assert size == target.stat().st_size
    assert target.stat().st_mode & 0o077 == 0
    async with open_database(SqliteConfig(path=target)) as copy:
        found = await copy.read_current(count)
        assert 50 <= found <= 100
        assert len(await receipts_of(copy, "trace-1")) == found
    assert not any(name.endswith(".partial") for name in os.listdir(tmp_path))


async def test_never_overwrites(tmp_path: Path) -> None:
    """What is there stays as it is."""
    config = SqliteConfig(path=tmp_path / "signet.db")
    async with open_database(config):
        pass
    target = tmp_path / "backup.db"
    target.write_bytes(b"yesterday")
    with pytest.raises(FileExistsError):
        back_up(config, target)
    assert target.read_bytes() == b"yesterday"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    """Without a source, or without a folder to write to, no file is left."""
    config = SqliteConfig(path=tmp_path / "none.db")
    for target in (tmp_path / "backup.db", tmp_path / "no folder" / "backup.db"):
        with pytest.raises(StorageUnavailable):
            back_up(config, target)
    assert list(tmp_path.iterdir()) == []
