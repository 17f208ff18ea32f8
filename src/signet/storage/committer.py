"""The front of the hot path: exchanges that wait together are committed together."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from signet.storage.database import Database
from signet.storage.errors import StorageBusy, StorageError, StorageUnavailable
from signet.storage.exchanges import PendingExchange, Result, Seal, commit_exchanges

# Several processes on one PostgreSQL would wait for each other's commit at a hot tenant's total;
# with this many places to count in they rarely meet.
_USAGE_SHARDS = 64


@dataclass(frozen=True, slots=True)
class _Waiting:
    pending: PendingExchange
    answer: asyncio.Future[Result]


class Watch(Protocol):
    """Hears how each batch ended; it must not raise."""

    def committed(self, exchanges: int, seconds: float) -> None:
        """So many exchanges became durable together, in so much time."""
        ...

    def failed(self, code: str) -> None:
        """A batch was not confirmed."""
        ...


class Committer:
    """Takes one exchange at a time from any number of callers."""

    def __init__(
        self, db: Database, seal: Seal, *, max_batch: int, queue_limit: int, watch: Watch | None
    ) -> None:
        self._db = db
        self._seal = seal
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._watch = watch
        self._shard = secrets.randbelow(_USAGE_SHARDS) if db.kind == "postgres" else 0
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._closing = False

    async def commit(self, pending: PendingExchange) -> Result:
        """Return once the result is durable.

        Raises `StorageBusy` at once when too many wait (nothing was written), `StorageUnavailable`
        when durability is not confirmed, and what `seal` or a constraint raised for this very
        exchange. A cancelled caller does no harm: its exchange commits or does not, and its key
        tells which.
        """
        if self._closing:
            raise StorageUnavailable("The committer is closing; nothing was written.")
        if len(self._waiting) >= self._queue_limit:
            raise StorageBusy("Too many exchanges wait to be committed; nothing was written.")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(pending, answer))
        self._wake.set()
        return await answer

    @property
    def waiting(self) -> int:
        """How many exchanges wait for the next batch; for a gauge."""
        return len(self._waiting)

    async def run(self) -> None:
        """Commit what waits, batch after batch, until `stop` was called and nothing waits."""
        try:
            while True:
                await self._wake.wait()
                while self._waiting:
                    count = min(len(self._waiting), self._max_batch)
                    await self._commit([self._waiting.popleft() for _ in range(count)])
                if self._closing:
                    return
                self._wake.clear()
        finally:
            self._closing = True
            _refuse(self._waiting, StorageUnavailable("The committer was stopped."))

    def stop(self) -> None:
        """Take nothing more; `run` returns after the last batch."""
        self._closing = True
        self._wake.set()

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        started = perf_counter()
        try:
            results = await self._db.transact(
                commit_exchanges, [item.pending for item in batch], self._seal, shard=self._shard
            )
        except (StorageUnavailable, StorageBusy) as error:
            # Nobody's fault in particular, so trying the halves would only repeat it.
            if self._watch is not None:
                self._watch.failed(error.code)
            _refuse(batch, error)
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].answer.done():
                    batch[0].answer.set_exception(error)
                return
            # The transaction was rolled back; the guilty exchange is found by halving.
            middle = len(batch) // 2
            await self._commit(batch[:middle])
            await self._commit(batch[middle:])
        except BaseException:
            _refuse(batch, StorageUnavailable("The committer was interrupted."))
            raise
        else:
            if self._watch is not None:
                self._watch.committed(len(batch), perf_counter() - started)
            for item, result in zip(batch, results, strict=True):
                if not item.answer.done():  # its caller may have been cancelled
                    item.answer.set_result(result)


def _refuse(batch: Sequence[_Waiting] | deque[_Waiting], error: StorageError) -> None:
    for item in batch:
        if not item.answer.done():
            item.answer.set_exception(type(error)(error.detail))


@asynccontextmanager
async def open_committer(
    db: Database,
    seal: Seal,
    *,
    max_batch: int = 128,
    queue_limit: int = 4096,
    watch: Watch | None = None,
) -> AsyncGenerator[Committer, None]:
    """Batch exchanges onto `db` until the block ends; what waits then is still committed."""
    committer = Committer(db, seal, max_batch=max_batch, queue_limit=queue_limit, watch=watch)
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(committer.run())
        try:
            yield committer
        except (Exception, asyncio.CancelledError) as error:
            # Raised again below, so that the group neither wraps it nor cancels the last batch.
            failure = error
        finally:
            committer.stop()
    if failure is not None:
        raise failure
