"""Worker processes share the lanes: Stripe never has two calls of one lane in flight."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from tests.drills.billing import double, places, state_of
from tests.faults.lanes import NOW_US, drain, enqueue, plan, start

LANES = 6
WINDOWS = 8


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_four_workers_in_two_processes_never_collide(engine: str, tmp_path: Path) -> None:
    """Every message arrives once, and never two at once for one customer and meter."""
    plans = [plan(f"tenant{n}", f"si_window_t1_{n}") for n in range(1, LANES + 1)]
    arguments = ("--now", str(NOW_US // 10**6), "--tenants", str(LANES + 1), "--latency", "0.02")
    with places(engine) as place, double(*arguments) as url:
        config = place().config
        sent = anyio.run(enqueue, config, plans, WINDOWS)
        children = [start(lambda: drain(config, tmp_path / "sends", url, plans)) for _ in range(2)]
        assert not any(os.waitpid(child, 0)[1] for child in children)
        told = state_of(url)
    assert told["events"] == sent == LANES * WINDOWS
    assert told["collisions"] == 0
