"""Several processes on one database, and processes that die at any moment."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tests.storage.ledger import TENANT, count, entries_of, receipts_of

from signet.storage.database import Database, PostgresConfig, SqliteConfig, open_database
from signet.storage.receipts import by_hash
from signet.storage.tx import ReadTx
from signet.storage.usage import totals

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


async def child(
    config: SqliteConfig | PostgresConfig, name: str, exchanges: int
) -> asyncio.subprocess.Process:
    """Start a process that commits."""
    kind, where = (
        ("sqlite", str(config.path))
        if isinstance(config, SqliteConfig)
        else ("postgres", config.url)
    )
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.storage.child", kind, where, name, str(exchanges),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=2**24,
    )  # fmt: skip


async def all_chains_hold(db: Database) -> int:
    """Check every chain link by link; how many receipts there are."""

    async def traces(tx: ReadTx) -> list[str]:
        return await tx.all(str, "SELECT trace_id FROM heads")

    lengths = [len(await receipts_of(db, trace)) for trace in await db.read_current(traces)]
    assert sum(lengths) == await db.read_current(count)
    return sum(lengths)


async def test_two_processes_on_one_database(config: SqliteConfig | PostgresConfig) -> None:
    """Two processes share every trace and the audit chain: nothing lost, no error, units exact."""
    async with open_database(config):
        pass
    children = [await child(config, name, 160) for name in ("p", "q")]
    answers = await asyncio.gather(*(one.communicate() for one in children))
    assert [one.returncode for one in children] == [0, 0]
    acknowledged = [line for out, _ in answers for line in out.decode().split()]
    assert len(set(acknowledged)) == 320
    async with open_database(config) as db:
        assert await all_chains_hold(db) == 320
        assert len(await receipts_of(db, "shared")) == 160
        units = {t.meter: t.units for t in await db.read_current(totals, TENANT, "2026-11")}
        assert units == {"vex": 320}
        assert len(await entries_of(db)) == 320


@pytest.mark.parametrize("after", [1, 20, 75])
async def test_killed_under_load(config: SqliteConfig | PostgresConfig, after: int) -> None:
    """kill -9 at any moment loses no acknowledged receipt, breaks no chain, and parts no receipt
    from its audit entry."""
    async with open_database(config):
        pass
    victim = await child(config, "v", 100_000)
    assert victim.stdout is not None
    acknowledged = [(await victim.stdout.readline()).decode().strip() for _ in range(after)]
    os.kill(victim.pid, signal.SIGKILL)
    rest, _ = await victim.communicate()
    lines = rest.decode().split("\n")
    acknowledged += [line for line in lines[:-1] if line]
    async with open_database(config) as db:
        for receipt_hash in acknowledged:
            assert await db.read_current(by_hash, TENANT, receipt_hash)
        there = await all_chains_hold(db)
        assert there >= len(acknowledged)
        [total] = await db.read_current(totals, TENANT, "2026-11")
        assert total.units == there
        assert len(await entries_of(db)) == there
