"""`signet audit-chains` beside a gateway that goes on writing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.faults.durability import EngineName, place
from tests.fleet import Heard, gateway, under_load
from tests.inprocess import SEED
from tests.live import run_signet

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
async def test_live_database(engine: EngineName, tmp_path: Path) -> None:
    """While two workers write, audits see whole chains and exact totals, each more than before."""
    heard = Heard()
    with (
        place(engine, tmp_path) as at,
        gateway(tmp_path / "gateway", workers=2, **at.settings) as live,
    ):
        settings = {"SP_PRIVATE_KEY_B64": SEED, "SP_DATA_DIR": str(tmp_path), **at.settings}
        async with under_load([live.port], heard):
            seen = 0
            for _ in range(3):
                before = len(heard.acknowledged)
                done = await asyncio.to_thread(
                    run_signet, "audit-chains", cwd=tmp_path, settings=settings
                )
                assert done.returncode == 0, done.stdout + done.stderr
                assert done.stdout.endswith("audit entries: all hold\n")
                receipts = int(done.stdout.split(" ")[0])
                assert receipts >= max(seen, before)
                seen = receipts
    assert seen > 0
