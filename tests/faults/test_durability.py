"""Nothing acknowledged is lost, broken or doubled, whatever dies; few times here, often in drills.

Each test prints its counts: `pytest -rP` or `make drills` show them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.faults import durability
from tests.faults.durability import EngineName, place

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_gateway_killed(engine: EngineName, workers: int, tmp_path: Path) -> None:
    """kill -9 of the gateway under load loses, breaks and doubles nothing."""
    with place(engine, tmp_path) as at:
        result = await durability.killed_gateways(at, tmp_path, workers=workers, times=2)
    print(engine, workers, result)
    assert result.holds, result


async def test_database_killed(tmp_path: Path) -> None:
    """kill -9 of PostgreSQL under load loses nothing, and writes are back soon after it is."""
    with place("postgres", tmp_path) as at:
        result = await durability.killed_databases(at, tmp_path, times=2)
    print(result)
    assert result.holds, result
    assert result.slowest_s < 120  # a bound for loaded machines; the drill holds it to 3 s


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_one_key(engine: EngineName, tmp_path: Path) -> None:
    """One call sent many times over two instances has one receipt, one unit, one answer."""
    with place(engine, tmp_path) as at:
        receipts, units, answers = await durability.one_key(at, tmp_path, requests=200)
    assert (receipts, units) == (1, 1)
    assert [answer[:4] for answer in answers] == ["200 "]


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_one_trace(engine: EngineName, tmp_path: Path) -> None:
    """64 writers on one trace over two instances make one chain of consecutive hops, no error."""
    with place(engine, tmp_path) as at:
        result, hops = await durability.one_trace(at, tmp_path, each=3)
    print(result)
    assert result.holds, result
    assert result.conflicts == 0
    assert hops == 64 * 3


async def test_failover(tmp_path: Path) -> None:
    """A primary dies with all its backends: the promoted standby has everything acknowledged."""
    result = await durability.failed_over(tmp_path)
    print(result)
    assert result.holds, result


async def test_standby_lost(tmp_path: Path) -> None:
    """A commit whose wait for the standby was cancelled is 503; its retry is the same exchange."""
    status, result = await durability.standby_lost(tmp_path)
    assert status == 503
    assert result.holds, result


@pytest.mark.skipif(os.geteuid() != 0, reason="a small filesystem needs the right to mount")
async def test_disk_full(tmp_path: Path) -> None:
    """A full disk acknowledges nothing and loses nothing; with room again all goes on."""
    result = await durability.disk_full(tmp_path)
    print(result)
    assert result.holds, result
    assert result.not_acknowledged > 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make fsync fail")
async def test_syncs_fail(tmp_path: Path) -> None:
    """While fsync fails nothing is acknowledged; afterwards all goes on and nothing is lost."""
    meanwhile, result = await durability.syncs_fail(tmp_path)
    print(result)
    assert meanwhile == 0
    assert result.holds, result
    assert result.not_acknowledged > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a small filesystem needs the right to mount")
async def test_disk_full_under_postgres(tmp_path: Path) -> None:
    """On PostgreSQL's full disk nothing is acknowledged; with room again all goes on."""
    meanwhile, result = await durability.postgres_disk_full(tmp_path)
    print(result)
    assert meanwhile == 0
    assert result.holds, result
    assert result.not_acknowledged > 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace to make fsync fail")
@pytest.mark.skipif(os.geteuid() != 0, reason="the server is another user's process")
async def test_syncs_fail_under_postgres(tmp_path: Path) -> None:
    """While PostgreSQL's fsync fails nothing is acknowledged, and nothing is lost afterwards."""
    meanwhile, result = await durability.postgres_syncs_fail(tmp_path)
    print(result)
    assert meanwhile == 0
    assert result.holds, result
    assert result.not_acknowledged > 0
