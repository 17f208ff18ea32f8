"""How fast and how much at once a caller may ask.

Rates are shared by every process and node: who has one waits for the next look at the shared
buckets, together with all others that wait. The first look is taken at once; after one that found
several waiting, the next comes after ten times as long as it took, so that a crowd shares it. Who
has no limit waits for nothing. How many may be in progress is counted by each process for itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Literal, NamedTuple

from structlog.typing import FilteringBoundLogger

from signet.core.ids import TenantId
from signet.core.ratelimit import Rate, Standing, per_minute, standing
from signet.core.tenant import Principal
from signet.storage import limits
from signet.storage.database import Database
from signet.storage.errors import StorageError
from signet.storage.limits import Bucket, Want
from signet.telemetry.metrics import Metrics

_MOST_PAUSE_S: Final = 0.01
_PAUSE_PER_LOOK: Final = 10
_PATIENCE_S: Final = 2.0
_MOST_REMEMBERED: Final = 4096
_TOLD_EVERY_S: Final = 10.0

Policy = Literal["tenant", "key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitDefaults:
    """What holds for a tenant or a key that does not say; None is no limit."""

    rate_per_minute: int | None = None
    rate_burst: int | None = None
    key_rate_per_minute: int | None = None
    key_rate_burst: int | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of one caller."""

    tenant: Rate | None
    key: Rate | None
    concurrency: int | None


class Gauge(NamedTuple):
    """One of a caller's rates, and how it stands."""

    policy: Policy
    rate: Rate
    standing: Standing


@dataclass(frozen=True, slots=True)
class Admitted:
    """The request counts, and may go on."""

    gauges: tuple[Gauge, ...]


@dataclass(frozen=True, slots=True)
class Limited:
    """The request is refused by the last of the gauges, which has nothing left."""

    gauges: tuple[Gauge, ...]


@dataclass(frozen=True, slots=True)
class Unchecked:
    """The shared buckets do not answer. A limit that cannot be held lets nobody through."""


class _Answer(NamedTuple):
    granted: bool
    standing: Standing


@dataclass(slots=True)
class _Group:
    """Those who wait for one bucket, in the order in which they came."""

    rate: Rate
    answers: list[asyncio.Future[_Answer | None]] = field(default_factory=list)

    def want(self, name: str) -> Want:
        return Want(name, len(self.answers), self.rate.interval_us, self.rate.burst)


class _Refusal(NamedTuple):
    """Nobody gets anything of a bucket before `until_s`, whoever asks."""

    rate: Rate
    until_s: float


class Limits:
    """The limits of every caller, as one process holds them."""

    def __init__(
        self,
        *,
        database: Database,
        defaults: LimitDefaults,
        metrics: Metrics,
        log: FilteringBoundLogger,
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._defaults = defaults
        self._metrics = metrics
        self._log = log
        self._monotonic = monotonic
        self._nothing_by_default = defaults == LimitDefaults()
        self._waiting: dict[str, _Group] = {}
        self._wake = asyncio.Event()
        self._alone_after_s = 0.0
        self._refusals: dict[str, _Refusal] = {}
        self._untold = 0
        self._tell_after_s = 0.0
        self._in_progress: Counter[TenantId] = Counter()

    def of(self, principal: Principal) -> Bounds | None:
        """Return what holds for a caller; None where nothing does."""
        tenant, default = principal.tenant, self._defaults
        if (
            self._nothing_by_default
            and tenant.rate_per_minute is None
            and tenant.concurrency is None
            and principal.rate_per_minute is None
        ):
            return None
        return Bounds(
            tenant=_rate(
                (tenant.rate_per_minute, tenant.rate_burst),
                (default.rate_per_minute, default.rate_burst),
            ),
            key=_rate(
                (principal.rate_per_minute, principal.rate_burst),
                (default.key_rate_per_minute, default.key_rate_burst),
            ),
            concurrency=default.concurrency if tenant.concurrency is None else tenant.concurrency,
        )

    def in_progress(self, tenant: TenantId) -> int:
        """Return how many requests of a tenant are in progress in this process."""
        return self._in_progress[tenant]

    def enter(self, tenant: TenantId, bounds: Bounds) -> bool:
        """Count a request as in progress until `leave`; False, and not counted, beyond the cap."""
        if bounds.concurrency is not None and self._in_progress[tenant] >= bounds.concurrency:
            self._metrics.limited.labels("concurrency").inc()
            return False
        self._in_progress[tenant] += 1
        return True

    def leave(self, tenant: TenantId) -> None:
        """End what `enter` began."""
        self._in_progress[tenant] -= 1
        if not self._in_progress[tenant]:
            del self._in_progress[tenant]

    async def admit(self, principal: Principal, bounds: Bounds) -> Admitted | Limited | Unchecked:
        """Take one unit of the key's rate, then one of the tenant's.

        In this order a key that asks too much takes nothing away from the others of its tenant.
        """
        gauges: tuple[Gauge, ...] = ()
        for policy, name, rate in _buckets(principal, bounds):
            answer = await self._ask(name, rate)
            if answer is None:
                self._metrics.limited.labels("unchecked").inc()
                return Unchecked()
            gauges = (*gauges, Gauge(policy, rate, answer.standing))
            if not answer.granted:
                self._metrics.limited.labels(policy).inc()
                return Limited(gauges)
        return Admitted(gauges)

    async def look(self, principal: Principal, bounds: Bounds) -> tuple[Gauge, ...]:
        """Return how a caller's rates stand, and take nothing. Raises a `StorageError`."""
        buckets = list(_buckets(principal, bounds))
        found = await self._database.transient(limits.look, [name for _, name, _ in buckets])
        known = {bucket.name: bucket for bucket in found}
        return tuple(
            Gauge(policy, rate, _standing(known.get(name), rate)) for policy, name, rate in buckets
        )

    async def take_waiting(self) -> int:
        """Wait until somebody waits, and take for all who do by one statement. Returns 0."""
        await self._wake.wait()
        pause_s = self._alone_after_s - self._monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._wake.clear()
        waiting, self._waiting = self._waiting, {}
        asked_s = self._monotonic()
        taken: dict[str, Bucket] = {}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                wants = [group.want(name) for name, group in waiting.items()]
                buckets = await self._database.transient(limits.take, wants)
                taken = {bucket.name: bucket for bucket in buckets}
        except StorageError as error:
            self._failed(error.code, error.detail)
        except TimeoutError:
            self._failed("timeout", f"no answer within {_PATIENCE_S:.0f} s")
        finally:
            for name, group in waiting.items():
                self._answer(name, group, taken.get(name), asked_s)
        took_s = self._monotonic() - asked_s
        self._metrics.limiting.observe(took_s)
        crowd = sum(len(group.answers) for group in waiting.values()) > 1
        # So that looks take a small part of the time, whatever one of them takes.
        pause_s = min(took_s * _PAUSE_PER_LOOK, _MOST_PAUSE_S) if crowd else 0.0
        self._alone_after_s = asked_s + pause_s
        return 0

    async def forget(self) -> int:
        """Remove buckets that say nothing any more; how many."""
        return await self._database.transient(limits.forget_full)

    def _failed(self, code: str, detail: str) -> None:
        """Count a look that had no answer, and say why: at once, then every ten seconds."""
        self._metrics.limit_failures.inc()
        self._untold += 1
        now_s = self._monotonic()
        if now_s >= self._tell_after_s:
            self._log.warning("limits_unavailable", code=code, error=detail, looks=self._untold)
            self._untold = 0
            self._tell_after_s = now_s + _TOLD_EVERY_S

    async def _ask(self, name: str, rate: Rate) -> _Answer | None:
        """Take one unit of a bucket, with all others that wait; None when nobody can tell."""
        refusal = self._refusals.get(name)
        if refusal is not None and refusal.rate == rate:
            left_s = refusal.until_s - self._monotonic()
            if left_s > 0:
                return _Answer(False, Standing(0, ceil(left_s * 1_000_000)))
        group = self._waiting.get(name)
        if group is None:
            group = self._waiting[name] = _Group(rate)
        group.rate = rate  # who came last knows best which rate is in force
        answer: asyncio.Future[_Answer | None] = asyncio.get_running_loop().create_future()
        group.answers.append(answer)
        self._wake.set()
        return await answer

    def _answer(self, name: str, group: _Group, bucket: Bucket | None, asked_s: float) -> None:
        """Tell those who wait for a bucket: the first of them got what there was."""
        if bucket is None:
            for answer in group.answers:
                if not answer.done():  # its caller may have been cancelled
                    answer.set_result(None)
            return
        after = standing(bucket.arrival_us, bucket.now_us, group.rate)
        for number, answer in enumerate(group.answers):
            spared = bucket.granted - number - 1
            if not answer.done():
                now = Standing(after.left + max(spared, 0), after.next_us)
                answer.set_result(_Answer(spared >= 0, now))
        if bucket.granted < len(group.answers):
            # Others only take, so that nothing comes earlier. Counted from before the question was
            # sent, the wait ends here no later than there.
            if len(self._refusals) >= _MOST_REMEMBERED:
                self._refusals.clear()
            until_s = asked_s + after.next_us / 1_000_000
            self._refusals[name] = _Refusal(group.rate, until_s)


def _rate(
    own: tuple[int | None, int | None], default: tuple[int | None, int | None]
) -> Rate | None:
    """Return the rate of a caller: its own, else the default, that with its own burst if it has."""
    if own[0] is not None:
        return per_minute(own[0], own[1])
    if default[0] is not None:
        return per_minute(default[0], default[1] if own[1] is None else own[1])
    return None


def _buckets(principal: Principal, bounds: Bounds) -> Iterator[tuple[Policy, str, Rate]]:
    """Yield the buckets that a caller takes from, in that order."""
    tenant = principal.tenant.id
    if bounds.key is not None:
        yield "key", f"key/{tenant}/{principal.key_id}", bounds.key
    if bounds.tenant is not None:
        yield "tenant", f"tenant/{tenant}", bounds.tenant


def _standing(bucket: Bucket | None, rate: Rate) -> Standing:
    return Standing(rate.burst, 0) if bucket is None else standing(*bucket[2:], rate)
