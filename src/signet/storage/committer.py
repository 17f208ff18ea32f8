"""The front of the hot path: exchanges that wait together are committed together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Protocol

from signet.storage.database import Database
from signet.storage.exchanges import PendingExchange, Result, Seal


class Committer(Protocol):
    """Takes one exchange at a time from any number of callers."""

    async def commit(self, pending: PendingExchange) -> Result:
        """Return once the result is durable.

        Raises `StorageBusy` at once when too many wait (nothing was written), and
        `StorageUnavailable` when durability is not confirmed. A cancelled caller does no harm: its
        exchange commits or does not, and its key tells which.
        """
        ...


@asynccontextmanager
async def open_committer(
    db: Database, seal: Seal, *, max_batch: int = 128, queue_limit: int = 4096
) -> AsyncGenerator[Committer, None]:
    """Batch exchanges onto `db` until the block ends; what waits then is still committed."""
    raise NotImplementedError
    yield
