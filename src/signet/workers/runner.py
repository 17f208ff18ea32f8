"""One loop for every worker: call, count failures, wait, until told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
