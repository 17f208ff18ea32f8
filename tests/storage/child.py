"""A process that commits exchanges until it is killed, and says what was acknowledged.

Run as `python -m tests.storage.child {sqlite|postgres} WHERE NAME COUNT`: commits COUNT exchanges
(16 at a time, half of them on one shared trace) and prints each receipt hash once acknowledged.
"""

from __future__ import annotations

import asyncio
import sys

from tests.storage.config import patient
from tests.storage.ledger import TENANT, hashes, pending, seal

from signet.core.audit import Entry
from signet.core.ids import TenantId
from signet.storage.committer import Committer, open_committer
from signet.storage.database import open_database


async def worker(committer: Committer, name: str, number: int, count: int) -> None:
    """Commit one exchange after the other."""
    for i in range(count):
        trace = "shared" if i % 2 else f"{name}-{number}"
        told = Entry(tenant=TenantId(TENANT), ts_us=i, actor=name, action="exchange", object=trace)
        item = pending(f"{name}/{number}/{i}", trace=trace, audit=told)
        print(hashes([await committer.commit(item)])[0], flush=True)


async def main() -> None:
    """Read the arguments and run sixteen workers."""
    kind, where, name, count = sys.argv[1:]
    async with (
        open_database(patient(kind, where)) as db,
        open_committer(db, seal) as committer,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(16):
            tasks.create_task(worker(committer, name, number, int(count) // 16))


if __name__ == "__main__":
    asyncio.run(main())
