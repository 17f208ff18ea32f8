"""A process whose caller is let in by borrowed units, then asks for all there is, then rests.

Run as `python -m tests.storage.borrower {sqlite|postgres} WHERE INTERVAL_US BURST`. Prints, for
each request that was let in, the time before it asked and after it was told, in microseconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from tests.storage.config import patient

from signet.core.ratelimit import Rate
from signet.gateway.limits import Admitted, Bounds, LimitDefaults, Limits, Share
from signet.storage.database import Database, open_database
from signet.telemetry.logs import build_logger
from signet.telemetry.metrics import Metrics

ROUNDS = 2
BORROWED = 40
PATIENCE_S = 30.0
CROWD = 32


class Counting:
    """The database, with every look counted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.looks = 0

    async def transient(self, *call: Any) -> Any:
        """Look."""
        self.looks += 1
        return await self._database.transient(*call)


class Caller:
    """Asks, and says when it was let in."""

    def __init__(self, database: Database, rate: Rate) -> None:
        self._rate = rate
        self._database = Counting(database)
        self._bounds = Bounds(shares=(Share("tenant", "b", rate),), concurrency=None)
        self.limits = Limits(
            database=self._database,  # type: ignore[arg-type]
            defaults=LimitDefaults(),
            metrics=Metrics(),
            log=build_logger("info"),
            monotonic=time.monotonic,
        )

    async def ask(self) -> bool:
        """Ask once; whether it was let in."""
        since_us = time.monotonic_ns() // 1000
        let_in = isinstance(await self.limits.admit(self._bounds), Admitted)
        if let_in:
            print(since_us, time.monotonic_ns() // 1000 + 1, flush=True)
        return let_in

    async def borrow(self) -> None:
        """Ask below the rate, until enough were let in without a look.

        Where every look takes as long as what it borrows may be kept, none ever are.
        """
        borrowed = 0
        end_s = time.monotonic() + PATIENCE_S
        while borrowed < BORROWED and time.monotonic() < end_s:
            await self._crowd()
            for _ in range(CROWD):
                before = self._database.looks
                borrowed += await self.ask() and self._database.looks == before
            await asyncio.sleep(CROWD * 6 * self._rate.interval_us / 1_000_000)

    async def exceed(self) -> None:
        """Ask with borrowed units in hand until somebody is refused, and rest as long as it takes
        to have all again."""
        await self._crowd()
        while await self._crowd():
            pass
        await asyncio.sleep(1.1 * self._rate.burst * self._rate.interval_us / 1_000_000)

    async def _crowd(self) -> bool:
        return all(await asyncio.gather(*(self.ask() for _ in range(CROWD))))


async def main() -> None:
    """Read the arguments and ask."""
    kind, where, interval_us, burst = sys.argv[1:]
    async with open_database(patient(kind, where)) as db, asyncio.TaskGroup() as tasks:
        caller = Caller(db, Rate(int(interval_us), int(burst)))
        looking = tasks.create_task(look(caller.limits))
        for _ in range(ROUNDS):
            await caller.borrow()
            await caller.exceed()
        looking.cancel()


async def look(limits: Limits) -> None:
    """Take for all who wait, until cancelled."""
    while True:
        await limits.take_waiting()


if __name__ == "__main__":
    asyncio.run(main())
