"""Loops that call one use case, come what may."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from structlog.testing import CapturingLogger
from structlog.typing import FilteringBoundLogger

from signet.storage.errors import StorageBusy
from signet.workers.runner import Worker, run_worker, running

pytestmark = pytest.mark.anyio


class Work:
    """Does what its script says, and tells when the script is over."""

    def __init__(self, *script: int | Exception) -> None:
        self.script = list(script)
        self.over = asyncio.Event()
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if not self.script:
            self.over.set()
            return 0
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def _log() -> tuple[CapturingLogger, FilteringBoundLogger]:
    log = CapturingLogger()
    return log, cast(FilteringBoundLogger, log)


async def test_it_goes_on_at_once_while_there_is_something_to_do() -> None:
    """Work that was done is followed by more, without the pause."""
    work = Work(3, 2, 1)
    _, log = _log()
    async with running([Worker(name="w", work=work, every_s=60)], log), asyncio.timeout(240):
        await work.over.wait()
    assert work.calls == 4


async def test_a_failure_is_logged_and_waited_out() -> None:
    """Neither an error of ours nor a bug ends the loop."""
    work = Work(StorageBusy("full"), ZeroDivisionError("bug"))
    captured, log = _log()
    async with running([Worker(name="w", work=work, every_s=0.01)], log), asyncio.timeout(240):
        await work.over.wait()
    said = [(call.method_name, call.kwargs.get("code")) for call in captured.calls]
    assert said[:2] == [("warning", "storage_busy"), ("exception", None)]


async def test_a_worker_stops_with_its_block() -> None:
    """The end of the block cancels work in progress and waits for it."""
    begun = asyncio.Event()
    ended = asyncio.Event()

    async def forever() -> int:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return 0

    _, log = _log()
    async with asyncio.timeout(240), running([Worker(name="w", work=forever, every_s=1)], log):
        await begun.wait()
    assert ended.is_set()


async def test_what_the_block_raises_comes_out_as_it_is() -> None:
    """No exception group is made of an error that has nothing to do with a worker."""
    _, log = _log()
    with pytest.raises(ZeroDivisionError):
        async with running([Worker(name="w", work=Work(), every_s=1)], log):
            raise ZeroDivisionError


async def test_a_cancelled_block_is_cancelled() -> None:
    """Cancellation is not swallowed."""
    _, log = _log()

    async def block() -> None:
        async with running([Worker(name="w", work=Work(), every_s=1)], log):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await block()


async def test_an_idle_worker_waits() -> None:
    """Nothing to do means a pause, not a busy loop."""
    work = Work()
    _, log = _log()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run_worker(Worker(name="w", work=work, every_s=60), log)
    assert work.calls == 1
