"""The background check: slow, counted, logged, and never at an end."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.filled import filled

from signet.storage.tx import Tx
from signet.telemetry.logs import build_logger
from signet.workers.chains import ChainCheck

pytestmark = pytest.mark.anyio


async def test_background_check(tmp_path: Path) -> None:
    """The slow check rests first, then sees everything, counts what does not hold, rests again."""
    now = [0.0]
    async with filled(tmp_path, {}) as app:

        async def damage(tx: Tx) -> None:
            await tx.execute("UPDATE heads SET hop = 2 WHERE tenant = 'acme'")

        await app.gateway.database.transact(damage)
        metrics = app.gateway.metrics
        check = ChainCheck(
            database=app.gateway.database,
            metrics=metrics,
            log=build_logger("error"),
            monotonic=lambda: now[0],
        )
        for _ in range(5):
            assert await check.run_once() == 0
        assert metrics.registry.get_sample_value("signet_chain_receipts_checked_total") == 0
        for now[0] in (60.0, 61.0, 62.0, 63.0, 64.0, 65.0, 66.0, 67.0, 68.0, 69.0, 70.0):
            assert await check.run_once() == 0
        value = metrics.registry.get_sample_value
        assert value("signet_chain_checks_completed_total") == 1
        assert value("signet_chain_receipts_checked_total") == 6
        assert value("signet_chain_flaws_total", {"kind": "head_wrong"}) == 1
        now[0] = 10_000.0
        await check.run_once()
        assert value("signet_chain_receipts_checked_total") == 12
