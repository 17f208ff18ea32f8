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
# While PostgreSQL syncs one batch, another is read, sealed and written. A third gained nothing.
_POSTGRES_LANES = 2
# The second lane costs the server and us a transaction of its own, so it is opened for no fewer,
# nor for fewer than are under way.
_LANE_WORTH = 8

_Name = tuple[str, str | bytes]


@dataclass(frozen=True, slots=True)
class _Waiting:
    pending: PendingExchange
    answer: asyncio.Future[Result]

    @property
    def names(self) -> Sequence[_Name]:
        """What no two transactions should write at once: the chain, and the key."""
        pending = self.pending
        chain = (pending.tenant, pending.trace_id)
        return (chain,) if pending.key_hash is None else (chain, (pending.tenant, pending.key_hash))


class Watch(Protocol):
    """Hears how each batch ended; it must not raise."""

    def committed(self, exchanges: int, seconds: float) -> None:
        """So many exchanges became durable together, in so much time."""
        ...

    def failed(self, code: str) -> None:
        """A batch was not confirmed."""
        ...


class Committer:
    """Takes one exchange at a time from any number of callers.

    Batches are committed in lanes, one after another in each. An exchange of a chain or a key that
    another lane is writing is held back until that has ended, so that a hot chain is written by
    whole batches and no two lanes wait for each other.
    """

    def __init__(
        self, db: Database, seal: Seal, *, max_batch: int, queue_limit: int, watch: Watch | None
    ) -> None:
        self._db = db
        self._seal = seal
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._watch = watch
        # SQLite has one writer. Each lane counts usage in a shard of its own.
        self._shards: Sequence[int] = [0]
        if db.kind == "postgres":
            shards = range(_USAGE_SHARDS)
            self._shards = secrets.SystemRandom().sample(shards, _POSTGRES_LANES)
        self._waiting: deque[_Waiting] = deque()
        self._held: deque[_Waiting] = deque()
        self._written: set[_Name] = set()
        self._lanes_busy = 0
        self._under_way = 0
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
        if self.waiting >= self._queue_limit:
            raise StorageBusy("Too many exchanges wait to be committed; nothing was written.")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(pending, answer))
        if self._is_worth_a_lane():
            self._wake.set()
        return await answer

    @property
    def waiting(self) -> int:
        """How many exchanges wait for the next batch; for a gauge."""
        return len(self._waiting) + len(self._held)

    async def run(self) -> None:
        """Commit what waits, batch after batch, until `stop` was called and nothing waits."""
        try:
            async with asyncio.TaskGroup() as lanes:
                for shard in self._shards:
                    lanes.create_task(self._run_lane(shard))
        finally:
            self._closing = True
            _refuse((*self._held, *self._waiting), StorageUnavailable("The committer was stopped."))

    async def _run_lane(self, shard: int) -> None:
        while not (self._closing and not self.waiting):
            batch = self._take() if self._is_worth_a_lane() else []
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            names = {name for item in batch for name in item.names}
            self._written |= names
            self._lanes_busy += 1
            self._under_way += len(batch)
            await self._commit(batch, shard)
            self._under_way -= len(batch)
            self._lanes_busy -= 1
            self._written -= names
            # What was held back came before what waits now.
            self._waiting.extendleft(reversed(self._held))
            self._held.clear()
            self._wake.set()

    def _is_worth_a_lane(self) -> bool:
        if not self._lanes_busy:
            return True
        free = self._lanes_busy < len(self._shards)
        return free and len(self._waiting) >= max(_LANE_WORTH, self._under_way)

    def _take(self) -> list[_Waiting]:
        """The next batch, without what must be held back."""
        batch: list[_Waiting] = []
        while self._waiting and len(batch) < self._max_batch:
            item = self._waiting.popleft()
            free = not self._written or self._written.isdisjoint(item.names)
            (batch if free else self._held).append(item)
        return batch

    def stop(self) -> None:
        """Take nothing more; `run` returns after the last batch."""
        self._closing = True
        self._wake.set()

    async def _commit(self, batch: Sequence[_Waiting], shard: int) -> None:
        started = perf_counter()
        try:
            results = await self._db.transact(
                commit_exchanges, [item.pending for item in batch], self._seal, shard=shard
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
            await self._commit(batch[:middle], shard)
            await self._commit(batch[middle:], shard)
        except BaseException:
            _refuse(batch, StorageUnavailable("The committer was interrupted."))
            raise
        else:
            if self._watch is not None:
                self._watch.committed(len(batch), perf_counter() - started)
            for item, result in zip(batch, results, strict=True):
                if not item.answer.done():  # its caller may have been cancelled
                    item.answer.set_result(result)


def _refuse(batch: Sequence[_Waiting], error: StorageError) -> None:
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
