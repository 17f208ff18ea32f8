"""The trail of attempts that leave no receipt, on its way into the audit log.

An exchange's own entry is committed with its receipt. Everything else that somebody with a key
did waits here, bounded, until a worker appends it: equal attempts of one second as one entry with
a count, and what there was no room for as a gap that says how much is missing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from typing import Final, NamedTuple

from signet.core.audit import Entry, Origin
from signet.core.ids import TenantId
from signet.core.tenant import Principal
from signet.gateway.ports import Clock
from signet.storage.audit import append
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.telemetry.metrics import Metrics

_BATCH: Final = 256
_MOST_WAITING: Final = 8192
_CLOSING_S: Final = 5.0


class _Alike(NamedTuple):
    """What makes two attempts one entry."""

    tenant: TenantId
    actor: str
    action: str
    object: str | None
    code: str
    address: str | None
    second: int


@dataclass(slots=True)
class _Waiting:
    """An entry about the first of `count` equal attempts."""

    entry: Entry
    count: int = 1


class Trail:
    """Takes attempts at once and appends them later, at least once."""

    def __init__(
        self,
        *,
        database: Database,
        metrics: Metrics,
        clock: Clock,
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._clock = clock
        self._most_waiting = most_waiting
        self._waiting: dict[_Alike, _Waiting] = {}
        self._gaps: Counter[TenantId] = Counter()

    @property
    def waiting(self) -> int:
        """How many entries wait to be appended; for a gauge."""
        return len(self._waiting)

    def attempted(
        self, principal: Principal, *, action: str, object: str | None, code: str, origin: Origin
    ) -> None:
        """Take down what `principal` tried, and how it ended. Never waits and never fails."""
        now_us = self._clock()
        tenant, address = principal.tenant.id, origin.address
        if len(self._waiting) >= self._most_waiting // 2:
            # Somebody is in a hurry. Who, what and how often stays exact; of what, does not.
            object = address = None
        second = now_us // 1_000_000
        alike = _Alike(tenant, principal.key_id, action, object, code, address, second)
        if (waiting := self._waiting.get(alike)) is not None:
            waiting.count += 1
        elif len(self._waiting) >= self._most_waiting:
            self._gaps[tenant] += 1
            self._metrics.audit_gaps.inc()
        else:
            entry = Entry(
                tenant=tenant,
                ts_us=now_us,
                actor=principal.key_id,
                action=action,
                object=object,
                code=code,
                latency_us=max(now_us - origin.received_us, 0),
                request_id=origin.request_id,
                address=address,
            )
            self._waiting[alike] = _Waiting(entry)

    async def flush(self) -> int:
        """Append what waits now; always 0: what comes meanwhile can wait for the next time.

        Raises a `StorageError` when it is not known to be durable. It is then appended again, so
        an attempt may be told twice, but none is lost.
        """
        for _ in range(ceil(len(self._waiting) / _BATCH) or bool(self._gaps)):
            await self._append_some()
        self._metrics.audit_waiting.set(len(self._waiting))
        return 0

    async def close(self) -> None:
        """Append the rest, in a bounded time; what the database does not take is counted lost."""
        try:
            async with asyncio.timeout(_CLOSING_S):
                while self._waiting or self._gaps:
                    await self._append_some()
        except (StorageError, TimeoutError):
            self._metrics.audit_gaps.inc(sum(waiting.count for waiting in self._waiting.values()))
        self._metrics.audit_waiting.set(0)

    async def _append_some(self) -> None:
        batch = dict(islice(self._waiting.items(), _BATCH))
        for alike in batch:
            del self._waiting[alike]
        gaps, self._gaps = self._gaps, Counter()
        entries = [_entry(waiting) for waiting in batch.values()]
        entries += [_gap(tenant, missing, self._clock()) for tenant, missing in gaps.items()]
        try:
            await self._database.transact(append, entries)
        except BaseException:
            self._put_back(batch, gaps)
            raise

    def _put_back(self, batch: Mapping[_Alike, _Waiting], gaps: Counter[TenantId]) -> None:
        self._gaps += gaps
        newer, self._waiting = self._waiting, dict(batch)
        for alike, waiting in newer.items():
            if (older := self._waiting.setdefault(alike, waiting)) is not waiting:
                older.count += waiting.count


def _entry(waiting: _Waiting) -> Entry:
    if waiting.count == 1:
        return waiting.entry
    # Of several, one request's id and duration would be taken for those of all.
    return replace(waiting.entry, count=waiting.count, latency_us=None, request_id=None)


def _gap(tenant: TenantId, missing: int, now_us: int) -> Entry:
    return Entry(
        tenant=tenant,
        ts_us=now_us,
        actor="_audit",
        action="audit.gap",
        code="overflow",
        count=missing,
    )
