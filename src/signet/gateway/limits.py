"""How fast and how much at once a caller may ask.

Rates are shared by every process and node: who has one waits for the next look at the shared
buckets, together with all others that wait. The first look is taken at once; after one that found
several waiting, the next comes after twenty times as long as it took, so that a crowd shares it.
Who has no limit waits for nothing. How many may be in progress is counted by each process for
itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
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
_PAUSE_PER_LOOK: Final = 20
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


class Share(NamedTuple):
    """A bucket that a caller takes one unit of."""

    policy: Policy
    name: str
    rate: Rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The limits of one caller: its rates in the order in which they are taken of."""

    shares: tuple[Share, ...]
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


Passage = Admitted | Limited | Unchecked


class _Waiter(NamedTuple):
    """A caller that waits for a look; its shares are in the order in which they are taken."""

    shares: tuple[Share, ...]
    answer: asyncio.Future[Passage]


class _Crowd:
    """Callers that wait for the same look, in the order in which they came."""

    def __init__(self, waiting: Sequence[_Waiter]) -> None:
        self.waiting = waiting
        # Who came last knows best which rate is in force.
        self.rates = {share.name: share.rate for waiter in waiting for share in waiter.shares}

    def of_keys(self) -> list[Want]:
        """Return what is wanted of the keys' buckets."""
        return self._wants(
            share.name
            for waiter in self.waiting
            for share in waiter.shares
            if share.policy == "key"
        )

    def of_tenants(self, keys: Sequence[Bucket]) -> list[Want]:
        """Return what is wanted of the tenants' by those whom their keys' buckets let through."""
        left = {bucket.name: bucket.granted for bucket in keys}
        return self._wants(self._let_through(left))

    def _let_through(self, left: dict[str, int]) -> Iterator[str]:
        for shares, _ in self.waiting:
            for policy, name, _ in shares:
                if policy == "tenant":
                    yield name
                elif left[name] > 0:
                    left[name] -= 1
                else:
                    break

    def _wants(self, names: Iterable[str]) -> list[Want]:
        return [
            Want(name, units, self.rates[name].interval_us, self.rates[name].burst)
            for name, units in Counter(names).items()
        ]


class _Till:
    """Hands out what a bucket has granted, one by one."""

    def __init__(self, bucket: Bucket, rate: Rate) -> None:
        self.rate = rate
        self._left = bucket.granted
        self._after = standing(bucket.arrival_us, bucket.now_us, rate)

    def next(self) -> tuple[bool, Standing]:
        """Return whether there is one more, and how the bucket stands after it."""
        self._left -= 1
        spared = max(self._left, 0)
        return self._left >= 0, Standing(self._after.left + spared, self._after.next_us)


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
        self._known: dict[str, tuple[Principal, Bounds]] = {}
        self._waiting: list[_Waiter] = []
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
        known = self._known.get(principal.key_id)
        if known is not None and known[0] is principal:
            return known[1]
        bounds = Bounds(
            shares=tuple(_shares(principal, default)),
            concurrency=default.concurrency if tenant.concurrency is None else tenant.concurrency,
        )
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[principal.key_id] = principal, bounds
        return bounds

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

    async def admit(self, bounds: Bounds) -> Passage:
        """Take one unit of the key's rate, then one of the tenant's, with all others that wait.

        In this order a key that asks too much takes nothing away from the others of its tenant.
        """
        if not bounds.shares:
            return Admitted(())
        passage = self._remembered(bounds.shares)
        if passage is None:
            answer: asyncio.Future[Passage] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiter(bounds.shares, answer))
            self._wake.set()
            passage = await answer
        match passage:
            case Admitted():
                pass
            case Limited(gauges):
                self._metrics.limited.labels(gauges[-1].policy).inc()
            case Unchecked():
                self._metrics.limited.labels("unchecked").inc()
        return passage

    async def look(self, bounds: Bounds) -> tuple[Gauge, ...]:
        """Return how a caller's rates stand, and take nothing. Raises a `StorageError`."""
        names = [share.name for share in bounds.shares]
        found = await self._database.transient(limits.look, names)
        known = {bucket.name: bucket for bucket in found}
        return tuple(
            Gauge(policy, rate, _standing(known.get(name), rate))
            for policy, name, rate in bounds.shares
        )

    async def take_waiting(self) -> int:
        """Wait until somebody waits, and take for all who do by one look. Returns 0."""
        await self._wake.wait()
        pause_s = self._alone_after_s - self._monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._wake.clear()
        waiting, self._waiting = self._waiting, []
        asked_s = self._monotonic()
        crowd = _Crowd(waiting)
        taken: list[Bucket] = []
        try:
            async with asyncio.timeout(_PATIENCE_S):
                taken = await self._database.transient(
                    limits.take_in_turn, crowd.of_keys(), crowd.of_tenants
                )
        except StorageError as error:
            self._failed(error.code, error.detail)
        except TimeoutError:
            self._failed("timeout", f"no answer within {_PATIENCE_S:.0f} s")
        finally:
            self._answer(crowd, taken, asked_s)
        took_s = self._monotonic() - asked_s
        self._metrics.limiting.observe(took_s)
        # So that looks take a small part of the time, whatever one of them takes.
        pause_s = min(took_s * _PAUSE_PER_LOOK, _MOST_PAUSE_S) if len(waiting) > 1 else 0.0
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

    def _remembered(self, shares: tuple[Share, ...]) -> Limited | None:
        """Refuse who asks for what a bucket is known not to have yet."""
        for policy, name, rate in shares:
            refusal = self._refusals.get(name)
            if refusal is not None and refusal.rate == rate:
                left_s = refusal.until_s - self._monotonic()
                if left_s > 0:
                    return Limited((Gauge(policy, rate, Standing(0, ceil(left_s * 1_000_000))),))
        return None

    def _answer(self, crowd: _Crowd, taken: Sequence[Bucket], asked_s: float) -> None:
        """Tell everybody who waits, in the order in which they came, what there was for them."""
        tills = {bucket.name: _Till(bucket, crowd.rates[bucket.name]) for bucket in taken}
        for shares, answer in crowd.waiting:
            passage = self._served(shares, tills, asked_s)
            if not answer.done():  # its caller may have been cancelled
                answer.set_result(passage)

    def _served(
        self, shares: tuple[Share, ...], tills: dict[str, _Till], asked_s: float
    ) -> Passage:
        gauges: tuple[Gauge, ...] = ()
        for policy, name, _ in shares:
            till = tills.get(name)
            if till is None:
                return Unchecked()
            granted, now = till.next()
            gauges = (*gauges, Gauge(policy, till.rate, now))
            if not granted:
                self._remember(name, till.rate, asked_s + now.next_us / 1_000_000)
                return Limited(gauges)
        return Admitted(gauges)

    def _remember(self, name: str, rate: Rate, until_s: float) -> None:
        """Note that a bucket has nothing before `until_s`.

        Others only take, so that nothing comes earlier. Counted from before the question was sent,
        the wait ends here no later than there.
        """
        if len(self._refusals) >= _MOST_REMEMBERED:
            self._refusals.clear()
        self._refusals[name] = _Refusal(rate, until_s)


def _rate(
    own: tuple[int | None, int | None], default: tuple[int | None, int | None]
) -> Rate | None:
    """Return the rate of a caller: its own, else the default, that with its own burst if it has."""
    if own[0] is not None:
        return per_minute(own[0], own[1])
    if default[0] is not None:
        return per_minute(default[0], default[1] if own[1] is None else own[1])
    return None


def _shares(principal: Principal, default: LimitDefaults) -> Iterator[Share]:
    """Yield what a caller takes, in that order."""
    tenant = principal.tenant
    of_key = _rate(
        (principal.rate_per_minute, principal.rate_burst),
        (default.key_rate_per_minute, default.key_rate_burst),
    )
    if of_key is not None:
        yield Share("key", f"key/{tenant.id}/{principal.key_id}", of_key)
    of_tenant = _rate(
        (tenant.rate_per_minute, tenant.rate_burst), (default.rate_per_minute, default.rate_burst)
    )
    if of_tenant is not None:
        yield Share("tenant", f"tenant/{tenant.id}", of_tenant)


def _standing(bucket: Bucket | None, rate: Rate) -> Standing:
    return Standing(rate.burst, 0) if bucket is None else standing(*bucket[2:], rate)
