"""One loop for every worker: call, count failures, wait, until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from signet.core.errors import SignetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A use case that is called at once and then every `every_s` seconds.

    `work` returns how much it did; as long as that is something, it is called again at once.
    """

    name: str
    work: Callable[[], Awaitable[int]]
    every_s: float


async def run_worker(worker: Worker, log: FilteringBoundLogger) -> None:
    """Run until cancelled. A failure is logged and waited out; it never ends the loop."""
    while True:
        try:
            done = await worker.work()
        except SignetError as error:
            log.warning("worker_failed", worker=worker.name, code=error.code, error=str(error))
            done = 0
        except Exception:
            log.exception("worker_failed", worker=worker.name)
            done = 0
        if done:
            log.info("worker_did", worker=worker.name, count=done)
        else:
            await asyncio.sleep(worker.every_s)


@asynccontextmanager
async def running(workers: Iterable[Worker], log: FilteringBoundLogger) -> AsyncGenerator[None]:
    """Run `workers` beside the block, and stop them at its end."""
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        started = [
            tasks.create_task(run_worker(worker, log), name=worker.name) for worker in workers
        ]
        try:
            yield
        except (Exception, asyncio.CancelledError) as error:
            failure = error  # raised again below, so that the group does not wrap it
        finally:
            for task in started:
                task.cancel()
    if failure is not None:
        raise failure
