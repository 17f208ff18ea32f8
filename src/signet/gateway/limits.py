"""How fast and how much at once a caller may ask.

Rates are shared by every process and node. A look at the shared buckets takes what those wait for
who came since the last one, and borrows ahead what about as many more will need in the next moment:
whoever then finds a borrowed unit in each of its buckets waits for nothing, and before they run out
a look renews them. Who finds none waits for the next look. The first is taken at once; after one
that found several waiting, the next comes after twenty times as long as it took, so that a crowd
shares it.

Who has no limit waits for nothing. How many may be in progress is counted by each process for
itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Literal, NamedTuple

from structlog.typing import FilteringBoundLogger

from signet.core.ids import TenantId
from signet.core.ratelimit import HOLD_US, Rate, Standing, per_minute, standing
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
_HOLD_S: Final = HOLD_US / 1_000_000
# Of that time, how much is borrowed for: so that the last unit is used before all of it is over.
_BORROWED_FOR_S: Final = _HOLD_S * 0.8
# Fewer would come so seldom that most of what is borrowed for them would lapse.
_LEAST_BORROWED: Final = 4
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bounds:
    """The limits of one caller: its rates in the order in which they are taken of.

    There is one for a caller as long as they hold, so that it may be known again by identity.
    """

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


class _Purse:
    """What this process has borrowed of a bucket, and how fast it spends of it."""

    def __init__(self, rate: Rate, now_s: float) -> None:
        self.rate = rate
        # Until when each unit may be spent, the soonest first.
        self.units: deque[float] = deque()
        # Units that are set aside for those who wait for the look that is under way.
        self.aside: list[float] = []
        self.ahead = 0
        self._enough = 0
        # With fewer units than this, more are borrowed.
        self.low = 0
        self._left = Standing(0, 0)
        # How many came in the last `_HOLD_S` before the last look, when that was, and how many of
        # the units that were here have been spent since.
        self._demand = 0.0
        self._asked_s = now_s
        self._spent = 0

    def in_time(self, now_s: float) -> int:
        """Let lapse what has not been spent in time; how many units there are."""
        units = self.units
        while units and units[0] < now_s:
            units.popleft()
        return len(units)

    def spend(self) -> Standing:
        """Spend a unit, which there is; how the bucket stands after it."""
        self.units.popleft()
        self._spent += 1
        return self.standing()

    def standing(self, more: int = 0) -> Standing:
        """Return how the bucket stood after the last look, with what of it is here, and `more`."""
        left = self._left.left + len(self.units) + len(self.aside) + more
        return Standing(min(left, self.rate.burst), self._left.next_us)

    def prepare(self, came: int, now_s: float, borrowed_for_s: float) -> None:
        """Set aside what there is for those who came, and find out how much to borrow."""
        self.in_time(now_s)
        past = (now_s - self._asked_s) / _HOLD_S
        self._demand = came + self._spent / max(past, 1.0) + self._demand * max(1.0 - past, 0.0)
        self._asked_s, self._spent = now_s, 0
        while self.units and len(self.aside) < came:
            self.aside.append(self.units.popleft())
        enough = int(self._demand * borrowed_for_s / _HOLD_S)
        self._enough = enough if enough >= _LEAST_BORROWED else 0
        self.ahead = max(self._enough - len(self.units), 0)

    def fill(self, bucket: Bucket, until_s: float) -> None:
        """Keep what was lent. A bucket that had nothing to lend is not asked again for nobody."""
        self._left = standing(bucket.arrival_us, bucket.now_us, self.rate)
        self.units.extend([until_s] * bucket.lent)
        self.low = 0 if self.ahead and not bucket.lent else (self._enough + 1) // 2

    def put_back(self) -> None:
        """Keep what was set aside for who was refused, or not answered."""
        self.units.extendleft(reversed(self.aside))
        self.aside.clear()


class _Crowd:
    """Callers that wait for the same look, in the order in which they came.

    With them goes what is renewed for nobody who waits; every bucket has a purse.
    """

    def __init__(
        self,
        waiting: Sequence[_Waiter],
        renewed: Sequence[Share],
        purses: Mapping[str, _Purse],
    ) -> None:
        self.waiting = waiting
        self.purses = purses
        self._renewed = renewed

    def first(self) -> list[Want]:
        """Return what is wanted of the keys' buckets, or of all where nobody waits."""
        if not self.waiting:
            return [*self._wants("key", ()), *self._wants("tenant", ())]
        return self._wants(
            "key",
            (
                share.name
                for waiter in self.waiting
                for share in waiter.shares
                if share.policy == "key"
            ),
        )

    def then(self, keys: Sequence[Bucket]) -> list[Want]:
        """Return what is wanted of the tenants' by those whom their keys' buckets let through."""
        if not self.waiting:
            return []
        left = {key.name: key.granted + len(self.purses[key.name].aside) for key in keys}
        return self._wants("tenant", self._let_through(left))

    def _let_through(self, left: dict[str, int]) -> Iterator[str]:
        for shares, _ in self.waiting:
            for policy, name, _ in shares:
                if policy == "tenant":
                    yield name
                elif left[name] > 0:
                    left[name] -= 1
                else:
                    break

    def _wants(self, policy: Policy, names: Iterable[str]) -> list[Want]:
        wanted = Counter({share.name: 0 for share in self._renewed if share.policy == policy})
        wanted.update(names)
        return [self._want(name, units) for name, units in wanted.items()]

    def _want(self, name: str, units: int) -> Want:
        purse = self.purses[name]
        missing = max(units - len(purse.aside), 0)
        return Want(name, missing, purse.rate.interval_us, purse.rate.burst, purse.ahead)


class _Till:
    """Hands out what was set aside of a bucket and what it has granted, one by one."""

    def __init__(self, bucket: Bucket, purse: _Purse) -> None:
        self.purse = purse
        self._granted = bucket.granted

    def next(self) -> tuple[bool, Standing]:
        """Return whether there is one more, and how the bucket stands after it."""
        there_is = True
        if self.purse.aside:
            self.purse.aside.pop()
        elif self._granted:
            self._granted -= 1
        else:
            there_is = False
        return there_is, self.purse.standing(self._granted)


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
        self._purses: dict[str, _Purse] = {}
        self._renewed: dict[str, Share] = {}
        self._wake = asyncio.Event()
        self._alone_after_s = 0.0
        self._renew_after_s = 0.0
        self._took_s = 0.0
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
        """Spend borrowed units, or take one unit of the key's rate, then one of the tenant's.

        In this order a key that asks too much takes nothing away from the others of its tenant.
        """
        if not bounds.shares:
            return Admitted(())
        passage = self._out_of_purses(bounds.shares)
        if passage is not None:
            return passage
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
        """Return how a caller's rates stand, and take nothing. Raises a `StorageError`.

        What this process has borrowed counts as left; what others have does not.
        """
        names = [share.name for share in bounds.shares]
        found = await self._database.transient(limits.look, names)
        known = {bucket.name: bucket for bucket in found}
        now_s = self._monotonic()
        return tuple(
            Gauge(
                share.policy,
                share.rate,
                _standing(known.get(share.name), share.rate, self._borrowed(share, now_s)),
            )
            for share in bounds.shares
        )

    async def take_waiting(self) -> int:
        """Wait until somebody waits or borrows, and take for all by one look. Returns 0."""
        await self._wake.wait()
        pause_s = self._alone_after_s - self._monotonic()
        if pause_s > 0:
            await asyncio.sleep(pause_s)
        self._wake.clear()
        asked_s = self._monotonic()
        crowd = self._gathered(asked_s)
        taken: list[Bucket] = []
        try:
            async with asyncio.timeout(_PATIENCE_S):
                taken = await self._database.transient(
                    limits.take_in_turn, crowd.first(), crowd.then
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
        after_s = asked_s + min(took_s * _PAUSE_PER_LOOK, _MOST_PAUSE_S)
        self._alone_after_s = after_s if len(crowd.waiting) > 1 else asked_s
        self._renew_after_s = after_s
        self._took_s = took_s
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

    def _out_of_purses(self, shares: tuple[Share, ...]) -> Admitted | None:
        """Spend a borrowed unit of each bucket, if there is one of each."""
        now_s = self._monotonic()
        purses: list[_Purse] = []
        for share in shares:
            purse = self._purses.get(share.name)
            if purse is None or not purse.in_time(now_s):
                return None
            if purse.rate is not share.rate and purse.rate != share.rate:
                return None
            purses.append(purse)
        gauges: list[Gauge] = []
        for share, purse in zip(shares, purses, strict=True):
            gauges.append(Gauge(share.policy, share.rate, purse.spend()))
            if len(purse.units) < purse.low and now_s >= self._renew_after_s:
                purse.low = 0
                self._renewed[share.name] = share
                self._wake.set()
        return Admitted(tuple(gauges))

    def _borrowed(self, share: Share, now_s: float) -> int:
        purse = self._purses.get(share.name)
        return purse.in_time(now_s) if purse is not None and purse.rate == share.rate else 0

    def _gathered(self, now_s: float) -> _Crowd:
        """Return all who wait and what is renewed, with what is wanted ahead of each bucket."""
        waiting, self._waiting = self._waiting, []
        renewed, self._renewed = [*self._renewed.values()], {}
        # Who came last knows best which rate is in force.
        rates = {share.name: share.rate for share in renewed}
        rates |= {share.name: share.rate for waiter in waiting for share in waiter.shares}
        came = Counter(share.name for waiter in waiting for share in waiter.shares)
        # What is borrowed by a look that takes long has less time left when it is here.
        borrowed_for_s = _BORROWED_FOR_S - self._took_s
        purses = {name: self._purse(name, rate, now_s) for name, rate in rates.items()}
        for name, purse in purses.items():
            purse.prepare(came[name], now_s, borrowed_for_s)
        return _Crowd(waiting, renewed, purses)

    def _purse(self, name: str, rate: Rate, now_s: float) -> _Purse:
        """Return the purse of a bucket: a new one, with nothing in it, where the rate is new."""
        purse = self._purses.get(name)
        if purse is None or purse.rate != rate:
            if len(self._purses) >= _MOST_REMEMBERED:
                self._purses.clear()
            purse = self._purses[name] = _Purse(rate, now_s)
        return purse

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
        """Tell everybody who waits, in the order in which they came, what there was for them.

        What was lent is counted from before the question was sent, so that it ends here no later
        than there.
        """
        tills: dict[str, _Till] = {}
        for bucket in taken:
            purse = crowd.purses[bucket.name]
            purse.fill(bucket, asked_s + _HOLD_S)
            tills[bucket.name] = _Till(bucket, purse)
        for shares, answer in crowd.waiting:
            passage = self._served(shares, tills, asked_s)
            if not answer.done():  # its caller may have been cancelled
                answer.set_result(passage)
        for purse in crowd.purses.values():
            purse.put_back()

    def _served(
        self, shares: tuple[Share, ...], tills: dict[str, _Till], asked_s: float
    ) -> Passage:
        gauges: tuple[Gauge, ...] = ()
        for policy, name, _ in shares:
            till = tills.get(name)
            if till is None:
                return Unchecked()
            granted, now = till.next()
            rate = till.purse.rate
            gauges = (*gauges, Gauge(policy, rate, now))
            if not granted:
                self._remember(name, rate, asked_s + now.next_us / 1_000_000)
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


def _standing(bucket: Bucket | None, rate: Rate, borrowed: int) -> Standing:
    if bucket is None:
        return Standing(rate.burst, 0)
    left, next_us = standing(bucket.arrival_us, bucket.now_us, rate)
    return Standing(min(left + borrowed, rate.burst), next_us)
