"""What is measured around the parts: nothing changes for them, and each outcome is counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.inprocess import App, invoice, open_app

from signet.app import measuring
from signet.app.measuring import BatchWatch, exposition, measured, self_watch
from signet.core.exchange import Outcome
from signet.egress import Outcome as Sent
from signet.telemetry.metrics import Metrics
from signet.workers.runner import Worker

pytestmark = pytest.mark.anyio


async def values(app: App) -> dict[str, float]:
    """What `/metrics` says, by sample."""
    page = (await app.get("/metrics", api_key=None)).body.decode()
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {sample: float(value) for sample, _, value in lines}


async def test_an_exchange_shows_in_every_part(tmp_path: Path) -> None:
    """One exchange is one of each phase it went through, one seal, one batch, one receipt."""
    async with open_app(tmp_path) as app:
        await app.exchange(invoice())
        found = await values(app)
    for phase in ("understand", "map", "decide", "commit"):
        assert found[f'signet_exchange_phase_seconds_count{{phase="{phase}"}}'] == 1
    for phase in ("fallback", "forward"):
        assert found[f'signet_exchange_phase_seconds_count{{phase="{phase}"}}'] == 0
    assert found["signet_exchange_total_latency_seconds_count"] == 1
    assert found["signet_seal_seconds_count"] == 1
    assert found["signet_commit_batch_exchanges_sum"] == 1
    assert found["signet_commit_seconds_count"] == 1
    assert found["signet_receipts_last_number"] == 1
    assert found["signet_signing_keys_active"] == 1
    assert found["signet_database_up"] == 1


async def test_what_has_not_happened_is_told_as_none(tmp_path: Path) -> None:
    """Each series whose labels are known is 0 from the start: one that appears at 1 is no increase
    to Prometheus."""
    async with open_app(tmp_path) as app:
        found = await values(app)
    for series in (
        *(f'signet_exchanges_total{{outcome="{one}"}}' for one in Outcome),
        *(f'signet_recovered_exchanges_total{{outcome="{one}"}}' for one in Outcome),
        *(f'signet_forward_total{{result="{one.outcome}"}}' for one in get_args(Sent)),
        *(f'signet_billing_enqueued_total{{type="{one}"}}' for one in ("vex", "fu")),
        *(f'signet_limited_total{{limit="{one}"}}' for one in ("tenant", "key", "unchecked")),
        *(f'signet_chain_flaws_total{{kind="{one}"}}' for one in ("chain_link", "audit_entry")),
        *(f'signet_payloads_erased_total{{reason="{one}"}}' for one in ("request", "age")),
        'signet_limited_total{limit="concurrency"}',
        'signet_forward_blocked_total{reason="HEL_RESOLVED_LOOPBACK"}',
        'signet_denied_total{reason="HEL_HOST_NOT_ALLOWED"}',
    ):
        assert found[series] == 0, series


async def test_without_its_database_the_page_is_still_there(tmp_path: Path) -> None:
    """What the database knows is absent, the rest is told: an operator looks here in trouble."""
    async with open_app(tmp_path) as app:
        await app.exchange(invoice())
    found = await values(app)
    assert found["signet_database_up"] == 0
    assert found["signet_vitals_failures_total"] == 1
    assert "signet_schema_version" not in found
    assert found['signet_exchanges_total{outcome="allowed"}'] == 1


async def test_a_database_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape ends in bounded time."""

    class Hanging:
        schema_version = 1

        async def read_current(self, *_: Any) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr("signet.app.measuring._VITALS_S", 0.01)
    metrics = Metrics()
    page = await exposition(metrics, Hanging())  # pyright: ignore[reportArgumentType]
    assert b"signet_database_up 0.0" in page


async def test_each_run_of_a_worker_is_counted() -> None:
    """A failure still reaches the loop, which logs it; a success is stamped."""
    metrics, failing = Metrics(), False

    async def work() -> int:
        if failing:
            raise ValueError
        return 7

    (worker,) = measured([Worker(name="recovery", work=work, every_s=1.0)], metrics)
    assert await worker.work() == 7
    failing = True
    with pytest.raises(ValueError):  # noqa: PT011
        await worker.work()

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"worker": "recovery", **labels})

    assert value("signet_worker_runs_total", result="ok") == 1
    assert value("signet_worker_runs_total", result="failed") == 1
    assert (value("signet_worker_success_timestamp_seconds") or 0) > 1_500_000_000


def test_a_failed_batch_is_counted_by_code() -> None:
    """Batches that were not confirmed are not among those that were."""
    metrics = Metrics()
    BatchWatch(metrics).failed("storage_unavailable")
    value = metrics.registry.get_sample_value
    assert value("signet_commit_failures_total", {"code": "storage_unavailable"}) == 1
    assert value("signet_commit_seconds_count") == 0


async def test_a_process_looks_at_itself(tmp_path: Path) -> None:
    """Timer, memory, files and disk have values, also while the data directory is not there."""

    class Idle:
        waiting = 3

    metrics = Metrics()
    for worker in self_watch(metrics, Idle(), [tmp_path / "not" / "yet"]):  # pyright: ignore[reportArgumentType]
        assert await worker.work() == 0
    value = metrics.registry.get_sample_value
    assert value("signet_processes") == 1
    assert value("signet_commit_waiting_exchanges") == 3
    assert value("signet_event_loop_lag_seconds_count") == 1
    for name in ("resident_memory_bytes", "open_files", "disk_free_bytes"):
        assert (value(f"signet_{name}") or 0) > 0


async def test_the_fullest_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database on a disk of its own is watched too: that is the one that fills."""
    free = {tmp_path / "data": 7e12, tmp_path / "database": 5e6}
    monkeypatch.setattr(measuring, "_free_bytes", free.__getitem__)
    settings = {"SP_DB_PATH": str(tmp_path / "database" / "signet.db")}
    async with open_app(tmp_path / "data", **settings) as app:
        async with asyncio.timeout(240):
            while (found := await values(app))["signet_disk_free_bytes"] == 0:  # noqa: ASYNC110 - a loop of its own
                await asyncio.sleep(0.05)
    assert found["signet_disk_free_bytes"] == 5e6
