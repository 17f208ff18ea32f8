"""What is measured around the gateway's parts, and what `/metrics` answers."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Collection, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

from structlog.typing import FilteringBoundLogger

from signet import __version__
from signet.app.refused import StartRefused
from signet.core.exchange import Outcome
from signet.core.pricing import METERS
from signet.egress import Verdict
from signet.gateway.chains import FLAW_KINDS
from signet.gateway.limits import Policy
from signet.settings import Settings
from signet.storage.committer import Committer
from signet.storage.database import Database
from signet.storage.exchanges import Head, PendingExchange, Seal, Sealed
from signet.storage.vitals import read_vitals
from signet.telemetry.metrics import Metrics
from signet.telemetry.traces import Traces, open_traces
from signet.workers.runner import Worker

_VITALS_S: Final = 2.0
_TIMER_S: Final = 0.1
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def begin_at_zero(metrics: Metrics) -> None:
    """Tell 0 of what has not happened yet, where the labels are known beforehand.

    A series that begins at 1 is no increase to Prometheus, so it would miss the first of each.
    """
    verdicts = [verdict.value for verdict in Verdict if verdict is not Verdict.OK]
    for family, labels in (
        (metrics.exchanges, tuple(Outcome)),
        (metrics.denied, verdicts),
        (metrics.recovered, tuple(Outcome)),
        (metrics.forwards, ("refused", "not_sent", "indeterminate", "responded")),
        (metrics.forward_blocked, verdicts),
        (metrics.billing_enqueued, METERS),
        (metrics.limited, (*get_args(Policy), "concurrency", "unchecked")),
        (metrics.chain_flaws, FLAW_KINDS),
        (metrics.payloads_erased, ("request", "age")),
    ):
        for label in labels:
            family.labels(label)


async def exposition(metrics: Metrics, database: Database) -> bytes:
    """Return the page of `/metrics`; a database that does not answer in time is missing on it."""
    try:
        async with asyncio.timeout(_VITALS_S):
            vitals = await database.read_current(read_vitals)
    except Exception:  # whatever is wrong with the database, this page helps to find it
        metrics.scrape_failures.inc()
        vitals = None
    return metrics.exposition(vitals)


@asynccontextmanager
async def configured_traces(
    settings: Settings, log: FilteringBoundLogger
) -> AsyncGenerator[Traces | None]:
    """Export traces until the block ends, where the settings say to whom. Raises `StartRefused`."""
    wanted = settings.telemetry
    if wanted.otlp_endpoint is None:
        yield None
        return
    opened = open_traces(
        endpoint=wanted.otlp_endpoint,
        headers=dict(wanted.otlp_headers),
        ratio=wanted.trace_ratio,
        version=__version__,
        random=secrets.token_bytes,
        log=log,
    )
    async with AsyncExitStack() as stack:
        try:
            traces = await stack.enter_async_context(opened)
        except ModuleNotFoundError as error:
            detail = "traces need the extra `otel`: pip install 'signet-protocol[otel]'"
            raise StartRefused(detail) from error
        yield traces


def timed_seal(seal: Seal, metrics: Metrics) -> Seal:
    """Return `seal`, observed."""
    observe = metrics.sealing.observe

    def timed(pending: PendingExchange, head: Head | None) -> Sealed:
        started = time.perf_counter()
        sealed = seal(pending, head)
        observe(time.perf_counter() - started)
        return sealed

    return timed


@dataclass(frozen=True, slots=True)
class BatchWatch:
    """Counts batches as the committer ends them."""

    metrics: Metrics

    def committed(self, exchanges: int, seconds: float) -> None:
        """Observe a batch that is durable."""
        self.metrics.commit_exchanges.observe(exchanges)
        self.metrics.commit_seconds.observe(seconds)

    def failed(self, code: str) -> None:
        """Count a batch that was not confirmed."""
        self.metrics.commit_failures.labels(code).inc()


def measured(workers: Iterable[Worker], metrics: Metrics) -> list[Worker]:
    """Return `workers`, each with its runs counted."""
    return [_measured(worker, metrics) for worker in workers]


def _measured(worker: Worker, metrics: Metrics) -> Worker:
    done = metrics.worker_runs.labels(worker.name, "ok")
    failed = metrics.worker_runs.labels(worker.name, "failed")
    succeeded = metrics.worker_succeeded.labels(worker.name)

    async def work() -> int:
        try:
            count = await worker.work()
        except Exception:
            failed.inc()
            raise
        done.inc()
        succeeded.set(time.time())
        return count

    return replace(worker, work=work)


def self_watch(
    metrics: Metrics, committer: Committer, places: Collection[Path]
) -> tuple[Worker, Worker]:
    """Return the workers that look at this process itself, and at the disks of `places`."""
    metrics.processes.set(1)

    async def timer() -> int:
        started = time.monotonic()
        await asyncio.sleep(_TIMER_S)
        metrics.loop_lag_seconds.observe(max(time.monotonic() - started - _TIMER_S, 0.0))
        metrics.pour()
        return 0

    async def process() -> int:
        metrics.commit_waiting.set(committer.waiting)
        # Not a file of a disk: the kernel answers at once, so the loop is not held up.
        statm = Path("/proc/self/statm").read_text("ascii")  # noqa: ASYNC240
        metrics.resident_bytes.set(int(statm.split()[1]) * _PAGE_BYTES)
        metrics.open_files.set(len(os.listdir("/proc/self/fd")))
        free = [await asyncio.to_thread(_free_bytes, place) for place in places]
        metrics.disk_free_bytes.set(min(free))
        return 0

    return (
        Worker(name="timer", work=timer, every_s=0.0),
        Worker(name="process", work=process, every_s=5.0),
    )


def _free_bytes(place: Path) -> int:
    """What is left where `place` is, or, until it exists, where it would be."""
    there = next(path for path in (place, *place.absolute().parents) if path.exists())
    status = os.statvfs(there)
    return status.f_bavail * status.f_frsize
