"""A process that takes from one bucket as fast as it can, and says when it was granted what.

Run as `python -m tests.storage.taker {sqlite|postgres} WHERE INTERVAL_US BURST`.
"""

from __future__ import annotations

import asyncio
import sys

from tests.storage.config import patient

from signet.storage.database import open_database
from signet.storage.limits import Want, take

TAKES = 400


async def main() -> None:
    """Read the arguments and take."""
    kind, where, interval_us, burst = sys.argv[1:]
    async with open_database(patient(kind, where)) as db:
        for _ in range(TAKES):
            [bucket] = await db.transient(take, [Want("b", 3, int(interval_us), int(burst))])
            print(bucket.now_us, bucket.granted, flush=True)
            await asyncio.sleep(0)


if __name__ == "__main__":
    asyncio.run(main())
